"""I15 and I16, told from the events of one execution alone.

Each finding is (number of the invariant, event, what is wrong). `tests/invariants.py` runs them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from domain import events as ev
from domain.events import Event

Finding = tuple[str, Event, str]
_ENDS = (ev.Cancelled, ev.Completed, ev.Failed)


@dataclass(slots=True)
class _Budget:
    """One recovery: when its time is over, since when it goes on, and a person is asked."""

    ends: datetime | None
    since: datetime
    asked: datetime | None = None


@dataclass(slots=True)
class _Budgets:
    """The recoveries that go on, and what those that ended have used of the total."""

    total: object = None
    spent: int = 0
    going: dict[str, _Budget] = field(default_factory=dict)
    paused: datetime | None = None

    def see(self, event: Event) -> Iterator[str]:
        match event.data:
            case ev.Requested(recovery=recovery):
                self.total = None if recovery is None else recovery["total_budget_ms"]
            case ev.Retried():
                self.spent, self.paused = 0, None
            case ev.RecoveryStarted() as started:
                yield from self._begin(event, started)
            case ev.RecoverySucceeded() | ev.RecoveryExhausted() as ended:
                self.going.pop(ended.path, None)
                self.spent += 0 if self.going else ended.recovery_ms
            case ev.Cancelled() | ev.Completed() | ev.Failed() | ev.CompensationStarted():
                self.going.clear()
            case ev.Paused():
                self.paused = event.meta.at
            case ev.Resumed() if self.paused is not None:
                self._later(self.paused, event.meta.at)
                self.paused = None
            case ev.StepSettled(path=path) | ev.StepFailed(path=path):
                self._cut_off(path, own=isinstance(event.data, ev.StepSettled))
        yield from self._beyond(event)

    def _later(self, paused: datetime, resumed: datetime) -> None:
        for budget in self.going.values():
            stood = resumed - max(paused, budget.since)
            budget.ends = None if budget.ends is None else budget.ends + stood

    def _cut_off(self, path: str, *, own: bool) -> None:
        within = tuple(path + mark for mark in "/[~")
        for each in list(self.going):
            if each.startswith(within) or (own and each == path):
                del self.going[each]

    def _begin(self, event: Event, started: ev.RecoveryStarted) -> Iterator[str]:
        granted = started.budget_ms
        ends = None if granted is None else event.meta.at + timedelta(milliseconds=granted)
        if isinstance(self.total, int) and not self.going:
            left = max(0, self.total - self.spent)
            if granted is None or granted > left:
                yield f"{started.path} is granted {granted} ms where {left} are left"
        self.going[started.path] = _Budget(ends, event.meta.at)

    def _beyond(self, event: Event) -> Iterator[str]:
        data, at = event.data, event.meta.at
        path = str(getattr(data, "path", ""))
        budget = self.going.get(path.partition("~alt.")[0])
        if budget is None:
            if isinstance(data, ev.RetryScheduled):
                yield f"{path} is tried again outside of a recovery"
            return
        if isinstance(data, ev.QuestionAsked):
            budget.asked = at
        elif isinstance(data, ev.QuestionAnswered) and budget.asked is not None:
            budget.ends = None if budget.ends is None else budget.ends + (at - budget.asked)
        if budget.ends is None:
            return
        if isinstance(data, ev.RetryScheduled) and data.due_at > budget.ends:
            yield f"{path} waits beyond its budget"
        if isinstance(data, ev.StepStarted | ev.StepRedelivered) and (
            data.deadline_at is None or data.deadline_at > budget.ends
        ):
            yield f"{path} may run beyond its budget"


def beyond_budgets(events: Iterable[Event]) -> Iterator[Finding]:
    """I15: no wait and no try of a recovery reaches past its budget, nor any past the total."""
    budgets = _Budgets()
    for event in events:
        for what in budgets.see(event):
            yield "I15", event, what


@dataclass(slots=True)
class _Undoing:
    """What has finished and can be undone, in order; whether it is aborted, and being undone."""

    mode: str = ""
    undoable: set[str] = field(default_factory=set)
    finished: list[str] = field(default_factory=list)
    aborting: bool = False
    undoing: bool = False

    def see(self, event: Event) -> Iterator[str]:
        match event.data:
            case ev.Requested(atomic_mode=mode):
                self.mode = mode
            case ev.StepStarted() as started:
                yield from self._start(started)
            case (
                ev.StepCompleted(path=path)
                | ev.RecoverySucceeded(path=path)
                | ev.StepSettled(path=path, state="COMPLETED")
            ):
                if path in self.undoable and path not in self.finished:
                    self.finished.append(path)
            case ev.CancelRequested():
                self.aborting = True
            case ev.CompensationStarted() | ev.CompensationFinished():
                yield from self._undo(event.data)
            case ev.Retried(reset=reset):
                self.aborting = self.undoing = False
                self.finished = [each for each in self.finished if each not in reset]
            case ev.Cancelled() | ev.Failed() | ev.Completed():
                yield from self._end(event.data)

    def _start(self, started: ev.StepStarted) -> Iterator[str]:
        undoes = started.path.endswith("~undo")
        if self.aborting and not undoes:
            yield f"{started.path} starts after the abort"
        if undoes and not self.undoing:
            yield f"{started.path} undoes what nobody has aborted"
        if started.compensate_with is not None:
            self.undoable.add(started.path)

    def _undo(self, data: ev.Payload) -> Iterator[str]:
        if isinstance(data, ev.CompensationStarted):
            self.aborting = self.undoing = True
            if self.mode != "strict" or list(data.paths) != self.finished[::-1]:
                yield f"undoes {data.paths} of {self.finished} in mode {self.mode}"
        elif isinstance(data, ev.CompensationFinished):
            if self.finished[-1:] != [data.path]:
                yield f"{data.path} is undone before {self.finished[-1:]}"
            self.finished = [each for each in self.finished if each != data.path]

    def _end(self, data: ev.Payload) -> Iterator[str]:
        if isinstance(data, ev.Completed):
            if self.aborting:
                yield "completes although it was aborted"
            return
        reason = data.reason if isinstance(data, ev.Failed) else "cancelled"
        if self.finished and reason != "compensation_failed":
            yield f"ends with {self.finished} not undone"
        if self.mode == "lenient" and reason == "critical_step":
            yield "fails with a step although it is lenient"


def against_the_mode(events: Iterable[Event]) -> Iterator[Finding]:
    """I16: strict undoes what has finished, last first, and starts nothing else then."""
    undoing = _Undoing()
    for event in events:
        for what in undoing.see(event):
            yield "I16", event, what
