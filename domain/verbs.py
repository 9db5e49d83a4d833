"""What may be done to an execution now. The lifecycle table says it; what is live says the rest."""

from typing import Final

from domain.compensation import UNDOING
from domain.definition import is_aside
from domain.errors import StateConflict
from domain.execution_state import ExecutionState
from domain.lifecycle import (
    EXECUTION_TABLE,
    PENDING,
    STEP_TABLE,
    follow,
    status_of,
    verbs_from,
)
from domain.signals import awaited_signal

TRIGGERS: Final = ("cancel", "pause", "resume", "retry")
"""Triggers of the execution machine that callers may pull."""
FORK: Final = "fork"
SKIP: Final = "skip"
COMPLETE: Final = "complete"
SIGNAL: Final = "signal"
VERBS: Final = (*TRIGGERS, FORK, SKIP, COMPLETE)
"""All verbs, in the order in which they are shown."""
_BY_HAND: Final = {SKIP: "skip_by_hand", COMPLETE: "complete_by_hand"}


def allowed_actions(state: ExecutionState) -> tuple[str, ...]:
    """The verbs that are legal now.

    `signal` while a step waits for one; it is taken earlier too, and kept.
    """
    found = verbs_from(state.state, TRIGGERS)
    if may_fork(state):
        found = (*found, FORK)
    if any(settled_by(state, path, SKIP) is not None for path in state.live):
        found = (*found, SKIP, COMPLETE)
    if any(
        (step := state.steps.get(path)) is not None and awaited_signal(step) is not None
        for path in state.live
    ):
        found = (*found, SIGNAL)
    return found


def may_fork(state: ExecutionState) -> bool:
    """Whether a step was reached, and nothing is being undone just now."""
    return bool(state.steps) and state.state not in UNDOING


def settled_by(state: ExecutionState, path: str, verb: str) -> str | None:
    """The state that `skip` or `complete` leads the step at `path` to; None where it is illegal.

    While finished steps are undone only a compensation can be settled; an alternative never, for
    it is its step that waits.
    """
    step = state.steps.get(path)
    if step is None or path not in state.live or state.state == PENDING or state.terminal:
        return None
    if is_aside(path) if state.state not in UNDOING else not path.endswith("~undo"):
        return None
    return follow(STEP_TABLE, step.state, _BY_HAND[verb])


def require(state: ExecutionState, verb: str) -> None:
    """Raises StateConflict when a trigger of the execution machine is illegal now."""
    if follow(EXECUTION_TABLE, state.state, verb, state) is None:
        raise refusal(state, f"cannot be asked to {verb}")


def refusal(state: ExecutionState, what: str) -> StateConflict:
    """The refusal of a verb; `what` goes on after `An execution that is FAILED`."""
    allowed = allowed_actions(state)
    hint = f"Possible now: {', '.join(allowed)}." if allowed else "Nothing can change it any more."
    return StateConflict(
        f"An execution that is {status_of(state.state)} {what}. {hint}",
        current_status=state.status,
        allowed_actions=allowed,
    )
