"""Every use of a recovery strategy, from the events of an execution.

One fold for the table of recovery attempts and for the sums over it. A recovery goes from the
failure of a step to its verdict; each scheduled re-try, each alternative and each question in it is
an attempt. What the answer to a question leads to belongs to the question's attempt.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import Struct, structs

from application.views import milliseconds_between
from domain import events as ev
from domain.execution import ExecutionState
from domain.lane_paths import is_inside
from domain.lifecycle import AWAITING_ANSWER, CANCELLED, COMPLETED, SKIPPED
from domain.recovery_stages import ALTERNATIVE, ASK, RETRY

SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CUT_OFF: Final = "cancelled"
NOTHING_TRIED: Final = "none"
"""Strategy of the one attempt of a recovery that ended before anything could be tried."""

_MAY_END_OTHERS: Final = frozenset(
    {
        ev.StepFailed,
        ev.StepSkipped,
        ev.StepSettled,
        ev.IterationFinished,
        ev.BranchFinished,
        ev.Joined,
        ev.CompensationStarted,
        ev.Cancelled,
        ev.Failed,
    }
)
_DEAD: Final = frozenset({CANCELLED, SKIPPED})


class RecoveryAttempt(Struct, frozen=True, gc=False):
    """One use of a strategy. Times in milliseconds; versions are those of events.

    `error_class` and `code` are of the failure it answers; `outcome` is succeeded, failed or
    cancelled, None while it is under way. `worked_ms` is how long the execution had run when the
    step failed. Only the attempt that ends a recovery has `recovery_ms`, which leaves out the time
    a person was waited for, and, when the failure stands, a `reason`. `saved_ms`, of one that
    succeeded, is `worked_ms` less the whole time since the failure.
    """

    path: str
    attempt: int
    started_version: int
    recovery_version: int
    number: int
    strategy: str
    alternative: str | None
    question_id: str | None
    error_class: str
    code: str
    delay_ms: int
    started_at: datetime
    worked_ms: int
    ended_at: datetime | None = None
    outcome: str | None = None
    reason: str | None = None
    recovery_ms: int | None = None
    saved_ms: int | None = None

    @property
    def duration_ms(self) -> int | None:
        """From its start to its end, the wait before a re-try or for an answer included."""
        return milliseconds_between(self.started_at, self.ended_at)


class Recovery(Struct, frozen=True, gc=False):
    """A recovery under way: since when, how many attempts it has had, and the present one."""

    version: int
    failed_at: datetime
    error_class: str
    code: str
    worked_ms: int
    number: int = 0
    present: RecoveryAttempt | None = None


class AttemptMove(NamedTuple):
    """What one event did to one attempt; `before` is None when it began."""

    before: RecoveryAttempt | None
    after: RecoveryAttempt


Recoveries = dict[str, Recovery]
"""Those under way in one execution, by path of the step."""


def attempt_moves(
    under_way: Recoveries, before: ExecutionState, event: ev.Event, after: ExecutionState
) -> Iterator[AttemptMove]:
    """The attempts that an event began, changed or ended; `under_way` moves on.

    The event leads from `before` to `after`.
    """
    data = event.data
    match data:
        case ev.RecoveryStarted():
            under_way[data.path] = _begun(before, event, data)
        case ev.RetryScheduled() | ev.AlternativeSelected() | ev.QuestionAsked():
            if data.path in under_way:
                yield from _next(under_way, before, event, data)
        case ev.RecoverySucceeded() | ev.RecoveryExhausted():
            if data.path in under_way:
                yield _verdict(under_way.pop(data.path), event, data)
        case _ if type(data) in _MAY_END_OTHERS and under_way:
            yield from _cut_off(under_way, event, after)


def _begun(before: ExecutionState, event: ev.Event, data: ev.RecoveryStarted) -> Recovery:
    worked = _since(before.started_at, event.meta.at)
    return Recovery(event.version, event.meta.at, data.error_class, data.code, worked)


def _next(
    under_way: Recoveries,
    before: ExecutionState,
    event: ev.Event,
    data: ev.RetryScheduled | ev.AlternativeSelected | ev.QuestionAsked,
) -> Iterator[AttemptMove]:
    recovery = under_way[data.path]
    present, step = recovery.present, before.steps[data.path]
    chosen = data.id if isinstance(data, ev.AlternativeSelected) else None
    if present is not None and step.state == AWAITING_ANSWER:
        # The answer has led here: the question's attempt goes on.
        going_on = structs.replace(present, alternative=chosen)
        under_way[data.path] = structs.replace(recovery, present=going_on)
        yield AttemptMove(present, going_on)
        return
    if present is not None:
        yield _ended(present, FAILED, event.meta.at)
    number = recovery.number + 1
    error = step.error
    begun = RecoveryAttempt(
        path=data.path,
        attempt=data.attempt,
        started_version=event.version,
        recovery_version=recovery.version,
        number=number,
        strategy=_strategy(data),
        alternative=chosen,
        question_id=data.question_id if isinstance(data, ev.QuestionAsked) else None,
        error_class=error.error_class if error else recovery.error_class,
        code=error.code if error else recovery.code,
        delay_ms=data.delay_ms if isinstance(data, ev.RetryScheduled) else 0,
        started_at=event.meta.at,
        worked_ms=recovery.worked_ms,
    )
    under_way[data.path] = structs.replace(recovery, number=number, present=begun)
    yield AttemptMove(None, begun)


def _strategy(data: ev.RetryScheduled | ev.AlternativeSelected | ev.QuestionAsked) -> str:
    match data:
        case ev.RetryScheduled():
            return RETRY
        case ev.AlternativeSelected():
            return ALTERNATIVE
    return ASK


def _verdict(
    recovery: Recovery, event: ev.Event, data: ev.RecoverySucceeded | ev.RecoveryExhausted
) -> AttemptMove:
    at = event.meta.at
    verdict: dict[str, object] = {"recovery_ms": data.recovery_ms}
    if isinstance(data, ev.RecoverySucceeded):
        outcome = SUCCEEDED
        verdict["saved_ms"] = recovery.worked_ms - _since(recovery.failed_at, at)
    else:
        outcome = FAILED
        verdict["reason"] = data.reason
    if recovery.present is not None:
        return _ended(recovery.present, outcome, at, **verdict)
    untried = _untried(recovery, event, data)
    return _ended(untried, outcome, at, **verdict)._replace(before=None)


def _since(start: datetime | None, end: datetime) -> int:
    return milliseconds_between(start, end) or 0


def _untried(
    recovery: Recovery, event: ev.Event, data: ev.RecoverySucceeded | ev.RecoveryExhausted
) -> RecoveryAttempt:
    return RecoveryAttempt(
        path=data.path,
        attempt=data.attempt,
        started_version=event.version,
        recovery_version=recovery.version,
        number=0,
        strategy=NOTHING_TRIED,
        alternative=None,
        question_id=None,
        error_class=recovery.error_class,
        code=recovery.code,
        delay_ms=0,
        started_at=event.meta.at,
        worked_ms=recovery.worked_ms,
    )


def _cut_off(
    under_way: Recoveries, event: ev.Event, after: ExecutionState
) -> Iterator[AttemptMove]:
    """A recovery ends without a verdict when the step is not wanted any more, or settled."""
    over = _over(event.data)
    for path in sorted(under_way):
        if over and path != over and not is_inside(path, over):
            continue
        step = after.steps.get(path)
        dead = _DEAD | {COMPLETED} if isinstance(event.data, ev.StepSettled) else _DEAD
        if after.terminal or step is None or step.state in dead:
            present = under_way.pop(path).present
            if present is not None:
                yield _ended(present, CUT_OFF, event.meta.at)


def _over(data: ev.Payload) -> str:
    """Path of the composite or step that the event ended; "" is the whole execution."""
    if isinstance(data, ev.Failed | ev.CompensationStarted):
        return ""
    return str(getattr(data, "path", ""))


def _ended(attempt: RecoveryAttempt, outcome: str, at: datetime, **more: object) -> AttemptMove:
    return AttemptMove(attempt, structs.replace(attempt, ended_at=at, outcome=outcome, **more))
