"""What the events of recovery make of a step. Only assignments, as in `domain/execution.py`."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from immutables import Map
from msgspec import structs

from domain import events as ev
from domain.definition import alternative_path, owner_of
from domain.execution_state import Episode, ExecutionState, Question, StepState
from domain.lane_paths import around, counts, is_inside
from domain.lifecycle import (
    AWAITING_ANSWER,
    COMPLETED,
    FAILED,
    PAUSED,
    PENDING,
    REROUTED,
    RETRYING,
)
from domain.recovery_stages import ALTERNATIVE, ASK, RETRY

Changes = dict[str, object]
_MILLISECOND: Final = timedelta(milliseconds=1)


def carried_episode(before: StepState | None) -> Episode | None:
    """The recovery that the next try of a step belongs to; it is one dispatch more."""
    if before is None or before.recovery is None or before.state != RETRYING:
        return None
    return structs.replace(before.recovery, dispatches=before.recovery.dispatches + 1)


def with_dispatch(steps: Map[str, StepState], path: str) -> Map[str, StepState]:
    """An alternative begins at `path`: a dispatch more of its owner's recovery."""
    owner = owner_of(path)
    step = steps.get(owner)
    if step is None or step.recovery is None or path.endswith("~undo"):
        return steps
    episode = structs.replace(step.recovery, dispatches=step.recovery.dispatches + 1)
    return steps.set(owner, structs.replace(step, recovery=episode))


def cut_off(state: ExecutionState, outer: str, meta: ev.Meta, *, with_own: bool = False) -> int:
    """Milliseconds spent by recoveries that end because the composite or lane around them has.

    With `with_own` that of the step at `outer` is one of them.
    """
    return sum(
        -(-step.recovery.used(meta.at) // _MILLISECOND)
        for path in state.live
        if (is_inside(path, outer) or (with_own and path == outer))
        and (step := state.steps.get(path)) is not None
        and step.recovery is not None
        and not _recovers_around(state, path)
    )


def _started(state: ExecutionState, data: ev.RecoveryStarted, meta: ev.Meta) -> Changes:
    episode = Episode(meta.at, data.budget_ms)
    return _with(state, data.path, recovery=episode)


def _retry_scheduled(state: ExecutionState, data: ev.RetryScheduled, meta: ev.Meta) -> Changes:
    step = state.steps[data.path]
    episode = step.recovery
    if episode is not None:
        asked = step.state == AWAITING_ANSWER
        episode = structs.replace(
            episode,
            paused_at=_held_since(state, meta),
            strategy=ASK if asked else RETRY,
            retries=episode.retries if asked else episode.retries + 1,
        )
    changes = _with(
        state,
        data.path,
        state=RETRYING,
        ended_at=None,
        due_at=data.due_at,
        question_id=None,
        via=None,
        recovery=episode,
    )
    return changes | _lives_again(state, data.path)


def _alternative_selected(
    state: ExecutionState, data: ev.AlternativeSelected, meta: ev.Meta
) -> Changes:
    step = state.steps[data.path]
    episode = step.recovery or Episode(meta.at, None)
    asked = step.state == AWAITING_ANSWER
    changes = _with(
        state,
        data.path,
        state=REROUTED,
        ended_at=None,
        due_at=None,
        question_id=None,
        via=data.id,
        recovery=structs.replace(
            episode,
            paused_at=_held_since(state, meta),
            strategy=ASK if asked else ALTERNATIVE,
            alternatives=(*episode.alternatives, data.id),
        ),
    )
    other = alternative_path(data.path, data.id)
    if other in state.steps:  # it was tried before, by another recovery or another answer
        again = structs.replace(state.steps[other], state=PENDING, ended_at=None)
        changes["steps"] = _steps(changes).set(other, again)
    return changes | _lives_again(state, data.path)


def _held_since(state: ExecutionState, meta: ev.Meta) -> datetime | None:
    """A pause keeps the next try from beginning: the clock stands still until it is over."""
    return meta.at if state.state == PAUSED else None


def _question_asked(state: ExecutionState, data: ev.QuestionAsked, meta: ev.Meta) -> Changes:
    episode = state.steps[data.path].recovery or Episode(meta.at, None)
    question = Question(
        id=data.question_id,
        path=data.path,
        attempt=data.attempt,
        texts=data.texts,
        options=data.options,
        asked_at=meta.at,
        due_at=data.due_at,
        on_timeout=data.on_timeout,
    )
    changes = _with(
        state,
        data.path,
        state=AWAITING_ANSWER,
        ended_at=None,
        due_at=data.due_at,
        question_id=data.question_id,
        via=None,
        recovery=structs.replace(episode, asked=True, paused_at=meta.at),
    )
    changes["questions"] = state.questions.set(data.question_id, question)
    return changes | _lives_again(state, data.path)


def _question_answered(state: ExecutionState, data: ev.QuestionAnswered, meta: ev.Meta) -> Changes:
    answered = structs.replace(
        state.questions[data.question_id],
        kind=data.kind,
        alternative=data.alternative,
        read_as=data.read_as,
        answer=data.answer,
        answered_at=meta.at,
        answered_by=meta.actor,
    )
    changes: Changes = {"questions": state.questions.set(data.question_id, answered)}
    episode = state.steps[data.path].recovery
    if episode is not None and episode.paused_at is not None:
        stood = episode.paused + (meta.at - episode.paused_at)
        going = structs.replace(episode, paused=stood, paused_at=None)
        changes |= _with(state, data.path, recovery=going)
    return changes


def _succeeded(state: ExecutionState, data: ev.RecoverySucceeded, meta: ev.Meta) -> Changes:
    path, step = data.path, state.steps[data.path]
    spent = _spent(state, path, data.recovery_ms)
    spent["steps_recovered"] = state.steps_recovered + counts(path)
    if step.state != REROUTED:
        return spent | _with(state, path, recovery=None, recovered=True)
    other = state.steps[alternative_path(path, step.via or "")]
    changes = _with(
        state,
        path,
        state=COMPLETED,
        ended_at=meta.at,
        due_at=None,
        output=other.output,
        error=None,
        recovery=None,
        recovered=True,
    )
    changes["steps_done"] = state.steps_done + counts(path)
    if step.compensate_with is not None:
        changes["to_undo"] = (*state.to_undo, path)
    return changes | spent


def _exhausted(state: ExecutionState, data: ev.RecoveryExhausted, meta: ev.Meta) -> Changes:
    path, step = data.path, state.steps[data.path]
    changes = _with(
        state,
        path,
        state=FAILED,
        ended_at=step.ended_at if step.state == FAILED else meta.at,
        due_at=None,
        question_id=None,
        recovery=None,
        why=data.reason,
    )
    if step.state != FAILED:
        changes["steps_failed"] = state.steps_failed + counts(path)
    return changes | _spent(state, path, data.recovery_ms)


def _spent(state: ExecutionState, path: str, recovery_ms: int) -> Changes:
    """Time inside another step's recovery is that one's."""
    if _recovers_around(state, path):
        return {}
    return {"recovery_spent_ms": state.recovery_spent_ms + recovery_ms}


def _recovers_around(state: ExecutionState, path: str) -> bool:
    outer = (state.steps.get(each) for each in around(path))
    return any(step is not None and step.recovery is not None for step in outer)


def _with(before: ExecutionState, path: str, /, **fields: object) -> Changes:
    return {"steps": before.steps.set(path, structs.replace(before.steps[path], **fields))}


def _steps(changes: Changes) -> Map[str, StepState]:
    steps = changes["steps"]
    if not isinstance(steps, Map):
        raise TypeError("changes hold the steps as a map")
    return steps


def _lives_again(state: ExecutionState, path: str) -> Changes:
    """A failed step is not given up: it counts as live and no more as failed."""
    changes: Changes = {"live": state.live | {path}}
    if state.steps[path].state == FAILED:
        changes["steps_failed"] = state.steps_failed - counts(path)
    return changes


# Any: each function takes the payload that is its key, which a dict cannot say.
APPLY: Final[dict[type[ev.Payload], Callable[[ExecutionState, Any, ev.Meta], Changes]]] = {
    ev.RecoveryStarted: _started,
    ev.RetryScheduled: _retry_scheduled,
    ev.AlternativeSelected: _alternative_selected,
    ev.QuestionAsked: _question_asked,
    ev.QuestionAnswered: _question_answered,
    ev.RecoverySucceeded: _succeeded,
    ev.RecoveryExhausted: _exhausted,
}
