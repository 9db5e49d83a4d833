"""What a diagram shows of parallels, loops and forks: their lines, and one state for each step.

A step in a loop has a state in each of its iterations; the picture has one box for it.
"""

from domain.definition import (
    ConditionalStep,
    Definition,
    ForkJoinStep,
    LoopStep,
    ParallelStep,
    Step,
    child_path,
    is_aside,
    step_id_of,
)
from domain.execution import ExecutionState, StepState
from domain.lane_paths import branch_path
from domain.lifecycle import CANCELLED, COMPLETED, FAILED, STEP_ENDED


def lines_in(step: Step) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(label of the way in, steps in order) of what a step runs side by side or again and again.

    A conditional's branches, of which only one runs, are not among them.
    """
    match step:
        case ParallelStep():
            return tuple(("", (child,)) for child in step.children)
        case LoopStep():
            return (("each item", step.body),)
        case ForkJoinStep():
            return tuple((branch.name, branch.steps) for branch in step.branches)
    return ()


def path_of(definition: Definition, step_id: str) -> str:
    """The path as it will be, with `[]` where the number of an iteration belongs."""
    parent = definition.steps[step_id].parent
    if not parent:
        return step_id
    around, outer = definition.steps[parent], path_of(definition, parent)
    match around:
        case LoopStep():
            return child_path(f"{outer}[]", step_id)
        case ForkJoinStep():
            name = next(each.name for each in around.branches if step_id in each.steps)
            return child_path(branch_path(outer, name), step_id)
        case ConditionalStep() | ParallelStep():
            return child_path(outer, step_id)
    return step_id


def states_by_step(state: ExecutionState) -> dict[str, tuple[str, StepState]]:
    """(path, state) to show for each step: one that runs, else one that stopped, else the first."""
    shown: dict[str, tuple[str, StepState]] = {}
    for path, step in state.steps.items():
        if is_aside(path):
            continue
        step_id = step_id_of(path)
        known = shown.get(step_id)
        if known is None or _rank(path, step) < _rank(*known):
            shown[step_id] = (path, step)
    return shown


def _rank(path: str, step: StepState) -> tuple[int, int, str]:
    stopped = step.state in (FAILED, CANCELLED)
    urgent = 0 if step.state not in STEP_ENDED else 1 if stopped else 2
    return (urgent, len(path), path)


def lanes_text(step: StepState) -> str | None:
    """`3 of 10 done, 1 failed` for a loop or fork_join that has begun."""
    fan = step.fan
    if fan is None:
        return None
    items = step.input.get("collection") if isinstance(step.input, dict) else None
    of = f" of {len(items)}" if isinstance(items, list) else ""
    failed = f", {fan.failed} failed" if fan.failed else ""
    return f"{fan.done}{of} done{failed}"


def has_let_go(loop: StepState) -> bool:
    """Whether steps of iterations that ended have left the state."""
    fan = loop.fan
    return fan is not None and (fan.done > 0 or (loop.state == COMPLETED and fan.failed > 0))


def is_flawless(loop: StepState) -> bool:
    """Whether every iteration is done and nothing in them failed."""
    return loop.state == COMPLETED and loop.fan is not None and loop.fan.flawed == 0
