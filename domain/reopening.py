"""What an explicit retry does again: never what is finished."""

from domain.definition import Definition, LoopStep, step_id_of
from domain.execution import ExecutionState
from domain.lanes import finished_branches, is_unfinished


def undone_by_retry(
    state: ExecutionState, undone: frozenset[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(paths to reset, paths to reopen), each in order; all of `undone` is reset.

    Unfinished loops and forks are reopened: their finished iterations and branches stay.
    """
    finished = finished_branches(state.steps)
    reset, reopened = set(undone), set[str]()
    for path, step in state.steps.items():
        if path in reset or not is_unfinished(path, step, state.steps, finished):
            continue
        (reset if step.fan is None else reopened).add(path)
    return tuple(sorted(reset)), tuple(sorted(reopened))


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
