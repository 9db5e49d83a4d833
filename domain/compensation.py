"""Undoing: in strict mode what has finished is undone, last first, before the execution ends.

A step says with `compensate_with` which step undoes it. That one runs at `{path}~undo`, sees
`${undo.input}` and `${undo.output}`, and has its own re-tries. From the first of them on nothing
else starts.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from domain import events as ev
from domain.beginnings import begin_step
from domain.definition import Definition, declared_at, owner_of, undo_path
from domain.execution_state import ErrorInfo, ExecutionState
from domain.lifecycle import CANCELLING, COMPENSATING, COMPLETED, FAILED, PENDING, SKIPPED

CANCELLED: Final = "cancelled"
"""The reason of a compensation that leads to CANCELLED."""
COMPENSATION_FAILED: Final = "compensation_failed"
UNDOING: Final = frozenset({COMPENSATING, CANCELLING})
"""States in which nothing but a compensation starts."""


def undone_paths(state: ExecutionState) -> Iterator[str]:
    """Paths of the steps whose compensation has ended: what they did does not hold any more."""
    for path in state.steps:
        if path.endswith("~undo") and owner_of(path) not in state.to_undo:
            yield owner_of(path)


def compensation_first(state: ExecutionState, failed: ev.Failed) -> ev.Payload:
    """A failure of the execution, or the undoing that has to come before it."""
    if not state.compensations_due:
        return failed
    return ev.CompensationStarted(
        failed.attempt,
        failed.reason,
        failed.error_class,
        failed.code,
        failed.path,
        tuple(reversed(state.to_undo)),
        failed.message,
    )


def cancel_first(state: ExecutionState) -> ev.Payload:
    """The end of a cancelled execution, or the undoing that has to come before it."""
    if not state.compensations_due:
        return ev.Cancelled(state.attempt)
    paths = tuple(reversed(state.to_undo))
    return ev.CompensationStarted(state.attempt, CANCELLED, "", "", "", paths, "")


def plan_undoing(
    definition: Definition, state: ExecutionState, now: datetime
) -> tuple[ev.Payload, ...] | None:
    """The next facts while finished steps are undone; None while a compensation runs."""
    if not state.to_undo:
        return (_end(state),)
    owner = state.to_undo[-1]
    path = undo_path(owner)
    step = state.steps.get(path)
    if step is None or step.state == PENDING:
        return tuple(begin_step(declared_at(definition, path), state, path, owner, now))
    if step.state in (COMPLETED, SKIPPED):
        return (ev.CompensationFinished(owner, state.attempt),)
    if step.state == FAILED:
        return (_failed(state, path, step.error),)
    return None


def _end(state: ExecutionState) -> ev.Payload:
    if state.state == CANCELLING:
        return ev.Cancelled(state.attempt)
    error = state.error or ErrorInfo("step_failed", "unknown", "", "")
    return ev.Failed(
        state.attempt,
        state.abort_reason or "critical_step",
        error.error_class,
        error.code,
        error.path,
        error.message,
    )


def _failed(state: ExecutionState, path: str, error: ErrorInfo | None) -> ev.Failed:
    left = ", ".join(reversed(state.to_undo))
    why = "" if error is None else f" {error.message}".rstrip()
    message = f"The compensation {path} failed:{why} Not undone: {left}. Undo what is left by hand."
    error_class = "unknown" if error is None else error.error_class
    return ev.Failed(
        state.attempt, COMPENSATION_FAILED, error_class, COMPENSATION_FAILED, path, message
    )
