"""What operators do to an execution that runs: pause it, let it go on, settle a stuck step.

Source: docs/explanation/pauses.md and docs/how-to/unblock-an-execution.md.
"""

from datetime import timedelta
from typing import Final

from domain import events as ev
from domain.definition import Definition, is_aside, owner_of, step_id_of
from domain.draft import Draft
from domain.errors import Invalid, StateConflict, StepNotFound
from domain.execution_state import ExecutionState
from domain.json_values import Json, NotStorable, check_storable
from domain.lifecycle import EXECUTING, PAUSED, PENDING, RETRYING, STEP_ENDED, status_of
from domain.mistakes import Mistake
from domain.outcomes import OUTPUT_BYTES_MAX, bytes_of
from domain.verbs import COMPLETE, allowed_actions, refusal, require, settled_by

PAUSE_SECONDS_MAX: Final = 366 * 86_400
"""The longest that `max_pause_duration_seconds` may say."""


def pause(draft: Draft, max_seconds: float | None, reason: str | None) -> None:
    """Nothing new begins. Nothing to do when it is paused already: its pause stays as it is.

    Raises StateConflict, and Invalid for a duration that is not between 0 and a year.
    """
    state = draft.state
    if max_seconds is not None and not 0 < max_seconds <= PAUSE_SECONDS_MAX:
        message = f"a pause lasts more than 0 and at most {PAUSE_SECONDS_MAX} seconds"
        raise Invalid(message, [Mistake("/max_pause_duration_seconds", "out_of_range", message)])
    if state.state == PAUSED:
        return
    require(state, "pause")
    due_at = None if max_seconds is None else draft.meta.at + timedelta(seconds=max_seconds)
    draft.record(ev.Paused(state.attempt, due_at, reason))


def resume(draft: Draft, reason: str | None) -> None:
    """It goes on. Nothing to do when it is not paused. Raises StateConflict."""
    state = draft.state
    if state.state in (PENDING, EXECUTING):
        return
    require(state, "resume")
    draft.record(ev.Resumed(state.attempt, reason))


def settle_step(
    draft: Draft, definition: Definition, path: str, verb: str, reason: str, output: Json = None
) -> None:
    """A person ends a live step: `verb` is `skip` or `complete`, the latter with `output`.

    Raises StepNotFound for a path that the definition does not know, StateConflict for a step that
    is not live, Invalid for an output that cannot be kept.
    """
    state = draft.state
    ended = settled_by(state, path, verb)
    if ended is None:
        raise _not_live(definition, state, path, verb)
    size = 0
    if verb == COMPLETE:
        size = _checked_size(state, output)
    step = state.steps[path]
    try_no = step.try_no + (step.state == RETRYING)  # the one that would have come
    draft.record(ev.StepSettled(path, step.attempt, try_no, ended, size, reason, output))


def _checked_size(state: ExecutionState, output: Json) -> int:
    try:
        check_storable(output)
    except NotStorable as error:
        raise Invalid(
            str(error), [Mistake(f"/output{error.pointer}", error.code, error.message)]
        ) from error
    size = bytes_of(output)
    if state.output_bytes + size > OUTPUT_BYTES_MAX:
        message = f"the outputs of one execution have at most {OUTPUT_BYTES_MAX} bytes"
        raise Invalid(message, [Mistake("/output", "too_large", message)])
    return size


def _not_live(
    definition: Definition, state: ExecutionState, path: str, verb: str
) -> StepNotFound | StateConflict:
    shown = repr(path[:200])
    step = state.steps.get(path)
    if step is None and step_id_of(path) not in definition.steps:
        return StepNotFound(
            f"This definition has no step at {shown}; its steps are listed with their paths."
        )
    if state.terminal or state.state == PENDING:
        return refusal(state, f"has no step to {verb}")
    if step is None:
        what = f"The step at {shown} has not begun, or its iteration is over"
    elif step.state in STEP_ENDED:
        what = f"The step at {shown} is {step.state} already"
    elif is_aside(path):
        what = f"{shown} is an alternative; settle the step that it stands for, {owner_of(path)!r}"
    else:
        what = f"The step at {shown} is {status_of(step.state)}"
    settleable = [each for each in sorted(state.live) if settled_by(state, each, verb)]
    hint = f"Can be settled now: {', '.join(settleable[:12])}." if settleable else "None is live."
    return StateConflict(
        f"{what}. {hint}", current_status=state.status, allowed_actions=allowed_actions(state)
    )
