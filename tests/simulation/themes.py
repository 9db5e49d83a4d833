"""What a seed is about: which definitions, verbs, faults and moods of the actions it is rich in.

A bug shows where the things that it needs come together; where all is drawn from everything, they
hardly ever do. A new theme is one line of `THEMES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tests.properties import choices as st
from tests.properties.random_definitions import MODES, RECOVERIES, Taste

_TIMEOUTS: Final = (1, 4)
"""Nothing times out before it begins."""
_NEVER: Final = st.just(False)
_RARELY: Final = st.sampled_from([True, False, False, False, False])
_MOSTLY: Final = st.sampled_from([True, True, True, False])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """How actions and agents are while there are faults: shares of calls and tasks."""

    sick: float = 0.25
    """Share of the steps that fail nearly always."""
    fails: float = 0.2
    slow: float = 0.3
    hangs: float = 0.02
    stops_its_process: float = 0.05
    vanishes: float = 0.1
    """An agent that nobody hears of again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """`verbs` and `blows` weigh those that they name anew; `steps`, `executions` and `strikes` are
    the fewest and the most of the main line, of requests, and of blows.
    """

    name: str
    taste: Taste
    modes: st.Choice = MODES
    recoveries: st.Choice = RECOVERIES
    steps: tuple[int, int] = (1, 4)
    executions: tuple[int, int] = (2, 4)
    meddling: tuple[int, int] = (3, 14)
    strikes: tuple[int, int] = (1, 5)
    verbs: Mapping[str, int] = field(default_factory=dict)
    blows: Mapping[str, int] = field(default_factory=dict)
    mood: Mood = Mood()
    workers_min: int = 1
    agents: bool = False
    """There are agents, and whoever runs another workflow gets one that names some, too."""


ANYTHING: Final = Theme(
    name="anything", taste=Taste(timeouts=_TIMEOUTS, called=("inner", "inmost", "missing"))
)
UNDOING: Final = Theme(
    name="undoing",
    taste=Taste(
        alone=("action", "action", "action", "action", "task"),
        around=("parallel", "conditional"),
        critical=_MOSTLY,
        gated=_RARELY,
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        whole_timed=_RARELY,
        retried=_RARELY,
        undone=_MOSTLY,
        other_ways=_RARELY,
    ),
    modes=st.sampled_from(["strict", "strict", "strict", "conditional"]),
    recoveries=st.just(None),
    steps=(3, 5),
    verbs={"cancel": 10, "retry": 6},
    mood=Mood(sick=0.1, fails=0.15, slow=0.4),
)
BUDGETS: Final = Theme(
    name="budgets",
    taste=Taste(
        alone=("action", "action", "action", "wait"),
        around=("loop", "parallel"),
        gated=_RARELY,
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        whole_timed=_RARELY,
        retried=_MOSTLY,
        retries=st.integers(1, 3),
        retry_delays_ms=st.sampled_from([300, 800, 2_000]),
    ),
    recoveries=st.fixed_dictionaries(
        {"max_recovery_time_ms": st.sampled_from([900, 2_000, 30_000])},
        optional={
            "base_retry_delay_ms": st.sampled_from([300, 700]),
            "retry_attempts": st.integers(1, 3),
            "jitter": st.booleans(),
            "answer_timeout_ms": st.sampled_from([1_000, 60_000]),
            "total_budget_ms": st.sampled_from([1_500, 4_000, 60_000]),
        },
    ),
    verbs={"answer": 12, "pause": 4, "resume": 4},
    mood=Mood(sick=0.5, fails=0.4),
)
TAKEOVER: Final = Theme(
    name="takeover",
    taste=Taste(
        alone=("action", "action", "action", "action", "wait"),
        around=("parallel",),
        gated=_RARELY,
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        whole_timed=_NEVER,
    ),
    steps=(2, 4),
    executions=(3, 5),
    meddling=(0, 4),
    strikes=(3, 7),
    blows={"pause": 8, "crash": 4, "cut": 4, "clock step": 1, "restart": 1},
    mood=Mood(sick=0.05, fails=0.1, slow=0.9, stops_its_process=0.2),
    workers_min=2,
)
RETRIES: Final = Theme(
    name="retries",
    taste=Taste(
        alone=("action", "action", "action", "wait"),
        around=("loop", "fork", "parallel", "conditional"),
        critical=_MOSTLY,
        gated=_RARELY,
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        retried=_RARELY,
        undone=_RARELY,
        other_ways=_NEVER,
    ),
    modes=st.sampled_from(["conditional", "conditional", "strict", "lenient"]),
    recoveries=st.just(None),
    steps=(3, 5),
    meddling=(8, 16),
    verbs={"retry": 14, "cancel": 5},
    mood=Mood(sick=0.2, fails=0.15),
)
COMPOSITES: Final = Theme(
    name="composites",
    taste=Taste(
        alone=("action", "action", "wait", "task", "call"),
        around=("fork", "fork", "fork", "loop", "loop", "parallel", "conditional"),
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        whole_timed=_RARELY,
        called=("inner", "inmost"),
    ),
    steps=(1, 2),
    mood=Mood(slow=0.5),
)
RACES: Final = Theme(
    name="races",
    taste=Taste(
        alone=("action", "action", "wait", "task", "event", "event", "call"),
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        whole_timed=_RARELY,
        called=("inner", "inmost"),
    ),
    meddling=(12, 24),
    verbs={"cancel": 5, "pause": 8, "resume": 8, "skip": 6, "complete": 6, "signal": 12},
    mood=Mood(fails=0.1, slow=0.5),
)
CHILDREN: Final = Theme(
    name="children",
    taste=Taste(
        alone=("call", "call", "call", "action", "event"),
        around=("fork", "parallel", "loop"),
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        whole_timed=_RARELY,
        called=("inner", "inner", "inmost"),
    ),
    steps=(1, 3),
    executions=(1, 3),
    verbs={"cancel": 6, "signal": 8, "pause": 4, "resume": 4},
)
THEMES: Final[Sequence[Theme]] = (
    ANYTHING,
    UNDOING,
    BUDGETS,
    TAKEOVER,
    RETRIES,
    COMPOSITES,
    RACES,
    CHILDREN,
)
DELEGATED: Final = Theme(
    name="delegated",
    taste=Taste(
        alone=("agent", "agent", "agent", "action", "wait"),
        around=("parallel", "fork", "loop"),
        gated=_RARELY,
        timed=_RARELY,
        timeouts=_TIMEOUTS,
        whole_timed=_RARELY,
        retried=_RARELY,
    ),
    steps=(2, 5),
    executions=(3, 6),
    strikes=(2, 6),
    verbs={"cancel": 4, "retry": 8, "pause": 4, "resume": 5, "skip": 5, "complete": 5},
    mood=Mood(slow=0.5),
    agents=True,
)

LAPSES: Final = replace(
    DELEGATED,
    name="lapses",
    taste=replace(DELEGATED.taste, alone=("agent", "agent", "agent", "agent", "action")),
    steps=(1, 4),
    verbs={},
    blows={"pause": 6, "store away": 4},
    mood=Mood(sick=0.1, fails=0.1, slow=0.6, vanishes=0.4),
)


def with_agents(taste: Taste) -> Taste:
    """The same, and two of three steps that stand alone are done by agents."""
    return replace(taste, alone=(*taste.alone, *(("agent",) * 2 * len(taste.alone))))


AGENT_THEMES: Final[Sequence[Theme]] = (
    DELEGATED,
    DELEGATED,
    DELEGATED,
    LAPSES,
    LAPSES,
    *(replace(each, taste=with_agents(each.taste), agents=True) for each in THEMES),
)
INNER: Final = Taste(
    alone=("action", "action", "wait", "event", "call"),
    around=("parallel",),
    timed=_RARELY,
    timeouts=_TIMEOUTS,
    whole_timed=_RARELY,
    called=("inmost",),
)
"""Of the workflow `inner`, which other workflows run."""
INMOST: Final = Taste(
    alone=("action", "action", "wait"),
    around=("conditional",),
    timed=_RARELY,
    timeouts=_TIMEOUTS,
    whole_timed=_RARELY,
)
"""Of the workflow `inmost`, which runs none."""
