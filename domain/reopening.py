"""What an explicit retry does again: never what is finished."""

from domain.definition import Definition, LoopStep, is_aside, owner_of, step_id_of
from domain.errors import StepNotReached
from domain.execution import ExecutionState
from domain.lanes import finished_branches, is_unfinished
from domain.lifecycle import COMPLETED


def undone_by_retry(
    state: ExecutionState, undone: frozenset[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(paths to reset, paths to reopen), each in order; all of `undone` is reset.

    Unfinished loops and forks are reopened: their finished iterations and branches stay.
    """
    reset, reopened = set(undone), set[str]()
    others = state.steps
    for path in undone:
        others = others.delete(path)
    finished = finished_branches(others)
    for path, step in others.items():
        if is_unfinished(path, step, others, finished):
            (reset if step.fan is None else reopened).add(path)
    gone = reset | reopened
    reset |= {path for path in state.steps if is_aside(path) and owner_of(path) in gone}
    return tuple(sorted(reset)), tuple(sorted(reopened))


def around_failures(state: ExecutionState) -> frozenset[str]:
    """What has completed where nothing has worked: composites that wrap what failed.

    Kept, they would keep it from running again.
    """
    steps = state.steps.items()
    return frozenset(path for path, step in steps if step.state == COMPLETED and not is_aside(path))


def was_reached(definition: Definition, state: ExecutionState, step_id: str) -> bool:
    """Whether a step ever ran; those of a finished iteration are not in the state any more."""
    if any(step_id_of(path) == step_id for path in state.steps):
        return True
    loops = set()
    while step_id:
        if isinstance(definition.steps[step_id], LoopStep):
            loops.add(step_id)
        step_id = definition.steps[step_id].parent
    begun = (step.fan for path, step in state.steps.items() if step_id_of(path) in loops)
    return any(fan is not None and fan.done > 0 for fan in begun)


def require_reached(
    definition: Definition, state: ExecutionState, step_id: str, field: str
) -> None:
    """Raises StepNotReached for a step that never ran; `field` is what named it."""
    if step_id not in definition.steps:
        raise StepNotReached(f"This definition has no step {step_id[:200]!r}.", field)
    if not was_reached(definition, state, step_id):
        message = f"Step {step_id!r} was never reached; {field} names one that ran."
        raise StepNotReached(message, field)


def main_line_step(definition: Definition, step_id: str) -> str:
    """The step of the main line that `step_id` is, or lies in."""
    while definition.steps[step_id].parent:
        step_id = definition.steps[step_id].parent
    return step_id
