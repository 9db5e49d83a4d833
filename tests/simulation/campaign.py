"""Many seeds: progress, rate, and for each that fails what it takes to repeat and understand it."""

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from tests.builders import told
from tests.simulation.bugs import Bug
from tests.simulation.judgement import slice_of, violations
from tests.simulation.scenario import Flaws, Story, simulate
from tests.simulation.store import Checks

PROGRESS_SECONDS: Final = 10.0
SHOWN_MAX: Final = 5
CHUNK: Final = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that broke an invariant: the first one, and the events that tell it."""

    seed: int
    invariant: str
    where: str
    what: str
    events: list[str]


@dataclass(frozen=True, slots=True)
class Lived:
    """What is kept of a seed."""

    seed: int
    digest: str
    events: int
    seconds: float
    faults: dict[str, int]
    failure: Failure | None


@dataclass(slots=True)
class Figures:
    """What came of all seeds; `seconds` is wall-clock time."""

    commit: str
    bug: str | None = None
    seeds: int = 0
    events: int = 0
    virtual_seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    def add(self, lived: Lived) -> None:
        """One more seed."""
        self.seeds += 1
        self.events += lived.events
        self.virtual_seconds += lived.seconds
        for name, count in lived.faults.items():
            self.faults[name] = self.faults.get(name, 0) + count
        if lived.failure is not None:
            self.failures.append(lived.failure)

    @property
    def rate(self) -> float:
        """Seeds a second."""
        return self.seeds / self.seconds if self.seconds else 0.0


def flaws_of(bug: Bug | None) -> Flaws:
    """What the simulated parts do wrong for a bug."""
    names = frozenset[str]() if bug is None else bug.flaws
    checks = Checks(
        lease="unchecked_lease" not in names,
        version_at_hand_back="unchecked_hand_back" not in names,
    )
    return Flaws(checks=checks, checkpoint_first="checkpoint_first" in names)


def live(seed: int, bug: Bug | None = None) -> Lived:
    """One seed, judged."""
    return _lived(simulate(seed, flaws_of(bug)), bug)


def _lived(story: Story, bug: Bug | None) -> Lived:
    broken = violations(story)
    if bug is not None:
        broken = [each for each in broken if each.invariant in bug.invariants]
    failure = None
    if broken:
        failure = Failure(story.seed, *broken[0], slice_of(story, broken[0]))
    events = len(story.store.log)
    return Lived(story.seed, story.digest, events, story.seconds, story.faults, failure)


# --- from the command line ---


def repeat(seed: int, bug: Bug | None) -> int:
    """One seed with its whole log; 1 when an invariant is broken."""
    story = simulate(seed, flaws_of(bug))
    for recorded in story.store.log:
        event = recorded.event
        print(
            f"{recorded.position:5} {str(event.execution_id)[:8]} v{event.version:<3} "
            f"{event.meta.at:%M:%S.%f} {event.meta.cmd[:8]:8} {told(event.data)}"
        )
    lived = _lived(story, bug)
    print(f"faults: {lived.faults}\nsha256 of the log: {lived.digest}")
    if lived.failure is None:
        return 0
    _show(lived.failure, _commit())
    return 1


def run(seeds: Sequence[int], bug: Bug | None, *, processes: int, as_json: bool) -> int:
    """Many seeds; with a bug until it is found. 1 when one fails, or the bug is not found."""
    figures = Figures(_commit(), None if bug is None else bug.name)
    began = told_at = time.monotonic()
    for lived in _all(seeds, bug, processes):
        figures.add(lived)
        now = time.monotonic()
        figures.seconds = now - began
        if lived.failure is not None and len(figures.failures) <= SHOWN_MAX:
            _show(lived.failure, figures.commit)
        if now - told_at > PROGRESS_SECONDS:
            told_at = now
            _say(f"{figures.seeds} of {len(seeds)} seeds, {figures.rate:.1f}/s")
        if bug is not None and lived.failure is not None:
            break
    if as_json:
        print(json.dumps({**asdict(figures), "seeds_per_second": round(figures.rate, 1)}))
    else:
        faults = sum(figures.faults.values()) / max(1, figures.seeds)
        _say(
            f"{figures.seeds} seeds, {figures.events} events, {faults:.1f} faults each, "
            f"{figures.rate:.1f} seeds/s: {len(figures.failures)} failed"
        )
    return int(bool(figures.failures) is (bug is None))


def _all(seeds: Iterable[int], bug: Bug | None, processes: int) -> Iterator[Lived]:
    if processes <= 1 or bug is not None:
        yield from (live(seed, bug) for seed in seeds)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(live, seeds, chunksize=CHUNK)


def _show(failure: Failure, commit: str) -> None:
    _say(f"seed {failure.seed} at {commit} breaks {failure.invariant}: {failure.what}")
    _say(f"  {failure.where}")
    for line in failure.events:
        _say(f"    {line}")
    _say(f"  repeat: python -m tests.simulation --seed {failure.seed}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"
