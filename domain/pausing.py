"""Pauses: nothing new begins, and what is in flight goes on.

Source: docs/explanation/pauses.md.
"""

from collections.abc import Iterator
from datetime import datetime

from immutables import Map

from domain.definition import alternative_path
from domain.execution_state import ExecutionState, StepState
from domain.lifecycle import AWAITING_ANSWER, REROUTED, RUNNING, STEP_ENDED


def is_in_flight(steps: Map[str, StepState], path: str) -> bool:
    """Whether something of the live step at `path` runs that a pause does not stop.

    An effect, a wait, a person who was asked; not a composite, nor a step before its next try.
    """
    step = steps[path]
    if step.state == RUNNING:
        return not step.is_around and step.action != "conditional"
    if step.state == REROUTED:
        other = steps.get(alternative_path(path, step.via or ""))
        return other is not None and (other.state == RUNNING or other.state in STEP_ENDED)
    return step.state == AWAITING_ANSWER


def in_flight(state: ExecutionState) -> Iterator[str]:
    """The paths that go on in a pause."""
    return (path for path in state.live if path in state.steps and is_in_flight(state.steps, path))


def due_while_paused(state: ExecutionState) -> datetime | None:
    """The earliest time at which a paused execution has something to record by itself."""
    due = [] if state.pause is None else [state.pause.due_at]
    for path in in_flight(state):
        step = state.steps[path]
        due += [step.due_at, step.deadline_at]
    return min((each for each in due if each is not None), default=None)
