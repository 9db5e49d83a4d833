"""Every try of every step, from the events of an execution.

One fold for the steps of one execution and for their table.

A try's row is final once the try has ended. A re-try that is scheduled is a row of its own from
then on (RECOVERING, no start yet), so the newest row of a path always shows what the step does now.
Other work in a failed step's place, and a question about it, show in the row of its last try, which
therefore ends when they lead to a next one.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import structs

from application.views import StepView, step_view
from domain import events as ev
from domain.definition import step_id_of
from domain.execution import ExecutionState, StepState, evolve
from domain.lanes import cancelled
from domain.lifecycle import FAILED, RETRYING, STEP_ENDED

_CHANGE_THEIR_STEP: Final = frozenset(
    {
        ev.StepStarted,
        ev.StepRedelivered,
        ev.StepProgressed,
        ev.StepCompleted,
        ev.StepSkipped,
        ev.BranchTaken,
        ev.IterationStarted,
        ev.IterationFinished,
        ev.BranchStarted,
        ev.RetryScheduled,
        ev.AlternativeSelected,
        ev.QuestionAsked,
        ev.RecoverySucceeded,
        ev.RecoveryExhausted,
        ev.HumanTaskCreated,
        ev.StepKept,
        ev.ChildStarted,
        ev.TaskDispatched,
    }
)
_END_OTHERS: Final = frozenset(
    {
        ev.StepFailed,
        ev.BranchFinished,
        ev.Joined,
        ev.Cancelled,
        ev.Failed,
        ev.CompensationStarted,
        ev.StepSettled,
    }
)


class StepMove(NamedTuple):
    """What one event did to one step; `before` is None at its first try in an attempt."""

    path: str
    before: StepState | None
    after: StepState


TryKey = tuple[int, str, int]
"""Attempt, path and try number: a try of a step within an execution."""


def step_moves(
    before: ExecutionState, data: ev.Payload, after: ExecutionState
) -> tuple[StepMove, ...]:
    """The steps which an event changed, by path; the event leads from `before` to `after`."""
    kind = type(data)
    if kind in _CHANGE_THEIR_STEP:
        path: str = data.path  # type: ignore[attr-defined]  # every payload of that set has one
        return (StepMove(path, before.steps.get(path), after.steps[path]),)
    if kind in _END_OTHERS:
        own: str = getattr(data, "path", "")
        return tuple(
            StepMove(path, earlier, step)
            for path in sorted(before.live | {own})
            if (step := _left_of(path, before, after)) is not None
            and step is not (earlier := before.steps.get(path))
        )
    return ()


def _left_of(path: str, before: ExecutionState, after: ExecutionState) -> StepState | None:
    """The step after an event that ends others; None when there is nothing to tell of it.

    A loop that a person settles keeps nothing of its iterations, so one that was live there was
    cancelled and dropped by the same event.
    """
    step = after.steps.get(path)
    if step is None and (dropped := before.steps.get(path)) is not None:
        return dropped if dropped.state in STEP_ENDED else cancelled(dropped, after.updated_at)
    return step


def tries_of(move: StepMove, at: datetime) -> tuple[tuple[TryKey, StepState], ...]:
    """The tries that a move at that time is about, and what each looks like."""
    path, before, step = move
    awaited = before is not None and before.state == RETRYING and before.try_no == step.try_no
    if step.state != RETRYING and not awaited:
        return (_keyed(path, step),)
    coming = _keyed(path, _coming(step))
    if before is None or before.state in (FAILED, RETRYING):
        return (coming,)
    return _keyed(path, _left_behind(before, at)), coming


def _keyed(path: str, step: StepState) -> tuple[TryKey, StepState]:
    return (step.attempt, path, step.try_no), step


def _coming(step: StepState) -> StepState:
    """The re-try that is scheduled, or that will never begin, for which there is nothing to tell
    but that.
    """
    return structs.replace(
        step,
        try_no=step.try_no + 1,
        delivery=0,
        started_at=None,
        input=None,
        output=None,
        error=None,
        progress=None,
    )


def _left_behind(step: StepState, at: datetime) -> StepState:
    """The try that had failed, once nothing in its place and no question keeps it open."""
    return structs.replace(
        step, state=FAILED, ended_at=at, due_at=None, question_id=None, recovery=None
    )


def step_history(
    events: Iterable[ev.Event], names: Mapping[str, str] | None = None
) -> tuple[StepView, ...]:
    """Every try in order of its first event.

    `events` are one execution's from version 1 on, `names` by step id.
    """
    names = names or {}
    tries: dict[TryKey, StepState] = {}
    state: ExecutionState | None = None
    for event in events:
        before, state = state, evolve(state, event)
        if before is not None:
            for move in step_moves(before, event.data, state):
                tries.update(tries_of(move, event.meta.at))
    if state is None:
        return ()
    return tuple(_views(str(state.id), tries, names))


def _views(
    execution_id: str, tries: Mapping[TryKey, StepState], names: Mapping[str, str]
) -> Iterator[StepView]:
    for (_, path, _), step in tries.items():
        yield step_view(execution_id, path, step, names.get(step_id_of(path)))
