"""What may follow what: the two state machines, declared once.

`transitions` holds the declaration and serves diagrams, docs and tests; decisions use the flat
tables compiled from it at import (a look-up costs 0.14 us, a machine per execution 100 us).
`decide` asks the table, `evolve` never does. Source of the design:
docs/explanation/architecture.md, "Two state machines".
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from transitions.extensions import HierarchicalMachine
from transitions.extensions.nesting import NestedState

PENDING: Final = "PENDING"
EXECUTING: Final = "RUNNING.executing"
PAUSED: Final = "RUNNING.paused"
CANCELLING: Final = "RUNNING.cancelling"
COMPENSATING: Final = "RUNNING.compensating"
COMPLETED: Final = "COMPLETED"
FAILED: Final = "FAILED"
CANCELLED: Final = "CANCELLED"
SKIPPED: Final = "SKIPPED"
RUNNING: Final = "RUNNING"
RETRYING: Final = "RECOVERING.retrying"
REROUTED: Final = "RECOVERING.rerouted"
AWAITING_ANSWER: Final = "RECOVERING.awaiting_answer"

STATUSES: Final = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
STEP_STATUSES: Final = (
    "PENDING",
    "RUNNING",
    "RECOVERING",
    "COMPLETED",
    "FAILED",
    "SKIPPED",
    "CANCELLED",
)
TERMINAL: Final = frozenset({COMPLETED, FAILED, CANCELLED})
STEP_ENDED: Final = frozenset({COMPLETED, FAILED, SKIPPED, CANCELLED})


class DottedState(NestedState):
    """Our names hold underscores, so nesting needs another separator than the library's."""

    separator = "."


class LifecycleMachine(HierarchicalMachine):
    """The library's machine with dotted state names."""

    state_cls = DottedState


_Declaration = list[Any]  # as loosely typed as the library takes it: names and dicts

_EXECUTION_STATES: Final[_Declaration] = [
    PENDING,
    {
        "name": "RUNNING",
        "initial": "executing",
        "children": ["executing", "paused", "cancelling", "compensating"],
    },
    COMPLETED,
    FAILED,
    CANCELLED,
]
_EXECUTION_TRANSITIONS: Final[_Declaration] = [
    {"trigger": "start", "source": PENDING, "dest": "RUNNING"},
    {"trigger": "pause", "source": [PENDING, EXECUTING], "dest": PAUSED},
    {"trigger": "resume", "source": PAUSED, "dest": EXECUTING, "conditions": "has_begun"},
    {"trigger": "resume", "source": PAUSED, "dest": PENDING},
    {"trigger": "complete", "source": EXECUTING, "dest": COMPLETED},
    {
        "trigger": "fail",
        "source": [EXECUTING, PAUSED],
        "dest": COMPENSATING,
        "conditions": "compensations_due",
    },
    {"trigger": "fail", "source": [PENDING, EXECUTING, PAUSED], "dest": FAILED},
    # A compensation that fails for good ends it, whatever it was to become.
    {"trigger": "fail", "source": [COMPENSATING, CANCELLING], "dest": FAILED},
    {"trigger": "compensated", "source": COMPENSATING, "dest": FAILED},
    {"trigger": "compensated", "source": CANCELLING, "dest": CANCELLED},
    {
        # PENDING: a retry has kept what the attempt before it could not undo.
        "trigger": "cancel",
        "source": [PENDING, EXECUTING, PAUSED],
        "dest": CANCELLING,
        "conditions": "compensations_due",
    },
    {"trigger": "cancel", "source": [PENDING, EXECUTING, PAUSED], "dest": CANCELLED},
    {"trigger": "retry", "source": [FAILED, CANCELLED], "dest": PENDING},
]
_STEP_STATES: Final[_Declaration] = [
    PENDING,
    RUNNING,
    {
        "name": "RECOVERING",
        "initial": "retrying",
        "children": ["retrying", "rerouted", "awaiting_answer"],
    },
    COMPLETED,
    FAILED,
    SKIPPED,
    CANCELLED,
]
_STEP_TRANSITIONS: Final[_Declaration] = [
    {"trigger": "start", "source": [PENDING, "RECOVERING"], "dest": RUNNING},
    {"trigger": "skip", "source": [PENDING, RUNNING], "dest": SKIPPED},
    {"trigger": "complete", "source": RUNNING, "dest": COMPLETED},
    {"trigger": "fail", "source": RUNNING, "dest": FAILED},
    {"trigger": "complete", "source": REROUTED, "dest": COMPLETED},
    {"trigger": "schedule_retry", "source": [FAILED, REROUTED, AWAITING_ANSWER], "dest": RETRYING},
    {
        "trigger": "reroute",
        "source": [FAILED, REROUTED, AWAITING_ANSWER],
        "dest": REROUTED,
    },
    {"trigger": "ask", "source": [FAILED, REROUTED], "dest": AWAITING_ANSWER},
    {"trigger": "exhaust", "source": [FAILED, "RECOVERING"], "dest": FAILED},
    {"trigger": "complete_by_hand", "source": [RUNNING, "RECOVERING"], "dest": COMPLETED},
    {"trigger": "skip_by_hand", "source": [RUNNING, "RECOVERING"], "dest": SKIPPED},
    {"trigger": "cancel", "source": [PENDING, RUNNING, "RECOVERING"], "dest": CANCELLED},
    {
        "trigger": "reset",
        "source": [RUNNING, "RECOVERING", COMPLETED, FAILED, SKIPPED, CANCELLED],
        "dest": PENDING,
    },
]


class Facts(Protocol):
    """What guards may look at."""

    @property
    def compensations_due(self) -> bool:
        """Whether finished steps have compensations to run."""

    @property
    def has_begun(self) -> bool:
        """Whether the present attempt was started, also when it is paused by now."""


class Edge(NamedTuple):
    """One way out of a state.

    Its destination and the guards (name, wanted value) that must hold.
    """

    dest: str
    guards: tuple[tuple[str, bool], ...]


Table = Mapping[tuple[str, str], tuple[Edge, ...]]


def execution_machine() -> LifecycleMachine:
    """The declaration of an execution's life, for diagrams, docs and tests."""
    return _machine(_EXECUTION_STATES, _EXECUTION_TRANSITIONS)


def step_machine() -> LifecycleMachine:
    """The declaration of a step's life."""
    return _machine(_STEP_STATES, _STEP_TRANSITIONS)


def _machine(states: _Declaration, transitions: _Declaration) -> LifecycleMachine:
    return LifecycleMachine(
        model=None,
        states=states,
        transitions=transitions,
        initial=PENDING,
        auto_transitions=False,
    )


def compile_table(machine: LifecycleMachine) -> Table:
    """Flatten a machine to (leaf state, trigger) -> edges.

    A child's edges come before its parent's, as the machine searches.
    """
    names = machine.get_nested_state_names()
    leaves = [name for name in names if not machine.get_state(name).states]
    table: dict[tuple[str, str], tuple[Edge, ...]] = {}
    for leaf in leaves:
        for trigger, event in machine.events.items():
            edges: list[Edge] = []
            path = leaf.split(".")
            while path:
                for found in event.transitions.get(".".join(path), ()):
                    guards = tuple((str(c.func), c.target) for c in found.conditions)
                    edges.append(Edge(_entry(machine, str(found.dest)), guards))
                path.pop()
            if edges:
                table[leaf, trigger] = tuple(edges)
    return MappingProxyType(table)


def _entry(machine: LifecycleMachine, name: str) -> str:
    state = machine.get_state(name)
    while state.initial:
        name = f"{name}.{state.initial}"
        state = machine.get_state(name)
    return name


EXECUTION_TABLE: Final = compile_table(execution_machine())
STEP_TABLE: Final = compile_table(step_machine())


def follow(table: Table, state: str, trigger: str, facts: Facts | None = None) -> str | None:
    """The state that `trigger` leads to from `state`, or None where the machine forbids it."""
    for dest, guards in table.get((state, trigger), ()):
        if all(facts is not None and getattr(facts, name) is wanted for name, wanted in guards):
            return dest
    return None


def status_of(state: str) -> str:
    """The status people see: the part before the dot."""
    return state.partition(".")[0]


@cache
def verbs_from(state: str, verbs: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `verbs` that the execution machine allows from `state`, whatever guards say."""
    return tuple(verb for verb in verbs if (state, verb) in EXECUTION_TABLE)
