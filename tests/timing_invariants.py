"""I19, told from the events of one execution alone: nothing that is timed happens before its time.

`tests/invariants.py` runs it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from domain import events as ev
from domain.events import Event
from domain.lane_paths import is_inside
from tests.recovery_invariants import Finding


@dataclass(slots=True)
class _Times:
    """What is due when, by path, question or branch."""

    start: datetime | None = None
    end: datetime | None = None
    due: dict[str, datetime | None] = field(default_factory=dict)
    deadlines: dict[str, datetime | None] = field(default_factory=dict)
    retries: dict[str, datetime] = field(default_factory=dict)
    questions: dict[str, datetime] = field(default_factory=dict)
    branches: dict[tuple[str, str], datetime | None] = field(default_factory=dict)

    def see(self, data: ev.Payload) -> datetime | None:
        """The time before which this fact must not be; None when there is none."""
        match data:
            case ev.Requested() | ev.Retried():
                self.start, self.end = data.start_at, None
                self.retries.clear()
            case ev.Started(deadline_at=deadline):
                self.end = deadline
                return self.start
            case ev.BranchStarted(path=path, branch=branch, deadline_at=deadline):
                self.branches[path, branch] = deadline
            case ev.BranchFinished(path=path, branch=branch, code="branch_timeout"):
                return self.branches.get((path, branch))
            case ev.Failed(code="execution_timeout"):
                # What was undone first took longer than that.
                return self.end
            case ev.CompensationStarted(code="execution_timeout"):
                return self.end
        return self._of_step(data)

    def _of_step(self, data: ev.Payload) -> datetime | None:
        match data:
            case ev.StepStarted(path=path):
                self.due[path] = data.due_at
                # A conditional that fails with its branch takes over the time-out of a step in it.
                self.deadlines[path] = None if data.action == "conditional" else data.deadline_at
                return self.retries.pop(path, None)
            case ev.StepRedelivered(path=path, deadline_at=deadline):
                self.deadlines[path] = deadline
            case ev.StepCompleted(path=path):
                return self.due.get(path)
            case ev.StepFailed(path=path):
                # Its next try begins anew what is inside, whenever that would have been tried.
                self.retries = {
                    each: due for each, due in self.retries.items() if not is_inside(each, path)
                }
                # Of a child that timed out the step takes over the code; only the engine itself,
                # which has no epoch, tells that the time of the step is over.
                own = data.code == "step_timeout" and not data.epoch
                return self.deadlines.get(path) if own else None
            case ev.RetryScheduled(path=path, due_at=due):
                self.retries[path] = due
            case ev.RecoveryExhausted(path=path):
                self.retries.pop(path, None)
            case ev.QuestionAsked(question_id=question, due_at=due):
                self.questions[question] = due
            case ev.QuestionAnswered(question_id=question, read_as="timeout"):
                return self.questions.get(question)
        return None


def too_early(events: Iterable[Event]) -> Iterator[Finding]:
    """I19: waits, re-tries, starts, time-outs and unanswered questions keep to their times."""
    times = _Times()
    for event in events:
        due = times.see(event.data)
        if due is not None and event.meta.at < due:
            yield "I19", event, f"happened at {event.meta.at}, before {due}"
