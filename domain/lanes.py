"""What the events of loops, forks and parallels do to an execution's state.

Parts of `evolve`: they only assign. An iteration that completed leaves its output and nothing else,
so the state does not grow with the work done; one that failed keeps its steps, which a retry then
need not run again.
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import chain

from immutables import Map
from msgspec import structs

from domain import events as ev
from domain.definition import is_aside
from domain.execution_state import ErrorInfo, ExecutionState, Fan, Lane, LaneEnd, StepState
from domain.json_values import Json, JsonObject
from domain.lane_paths import (
    branch_path,
    is_inside,
    iteration_around,
    iteration_path,
    lane_name,
    lane_owner,
    under,
)
from domain.lifecycle import CANCELLED, COMPLETED, FAILED, PENDING, SKIPPED, STEP_ENDED
from domain.recovery_evolution import cut_off

Changes = dict[str, object]
Steps = Map[str, StepState]
Lanes = Map[str, Lane]


# --- one lane ---


def lane_started(
    state: ExecutionState, data: ev.IterationStarted | ev.BranchStarted, meta: ev.Meta
) -> Changes:
    """The lane is open; what an earlier run-through of it left is its own again."""
    step = state.steps[data.path]
    fan = step.fan or Fan()
    if isinstance(data, ev.IterationStarted):
        lane = iteration_path(data.path, data.index)
        name = str(data.index)
        opened = Lane(paths=fan.left.get(name, ()))
        fan = structs.replace(fan, begun=data.index + 1, open=fan.open + 1)
    else:
        lane = branch_path(data.path, data.branch)
        opened = Lane(deadline_at=data.deadline_at)
        fan = structs.replace(fan, open=fan.open + 1)
    return {
        "steps": state.steps.set(data.path, structs.replace(step, fan=fan)),
        "lanes": state.lanes.set(lane, opened),
    }


def iteration_finished(state: ExecutionState, data: ev.IterationFinished, meta: ev.Meta) -> Changes:
    """Completed: its steps leave the state but for the output. Failed: they stay."""
    lane, name = iteration_path(data.path, data.index), str(data.index)
    paths = state.lanes[lane].paths
    end = _end_of(state.steps, data, lane, paths)
    steps, step = state.steps, state.steps[data.path]
    fan = _with_end(step.fan or Fan(), name, end)
    dropped = kept = 0
    if data.state == COMPLETED:
        kept = _size_of(steps, data.last, paths)
        steps, dropped = _without(steps, paths)
        left = fan.left.delete(name) if name in fan.left else fan.left
    else:
        left = fan.left.set(name, paths)
    step = structs.replace(step, fan=structs.replace(fan, left=left), size=step.size + kept)
    return {
        "steps": steps.set(data.path, step),
        "live": state.live.difference(paths),
        "lanes": state.lanes.delete(lane),
        "output_bytes": state.output_bytes + kept - dropped,
    }


def branch_finished(state: ExecutionState, data: ev.BranchFinished, meta: ev.Meta) -> Changes:
    """Its steps stay to be looked at; what still ran in it is cancelled."""
    lane = branch_path(data.path, data.branch)
    end = _end_of(state.steps, data, lane, ())
    steps, lanes = close(state.steps, state.lanes, state.live, lane, meta)
    step = steps[data.path]
    fan = _with_end(step.fan or Fan(), data.branch, end)
    return {
        "steps": steps.set(data.path, structs.replace(step, fan=fan)),
        "live": frozenset(each for each in state.live if not is_inside(each, lane)),
        "lanes": lanes.delete(lane),
        "recovery_spent_ms": state.recovery_spent_ms + cut_off(state, lane, meta),
    }


def _end_of(
    steps: Steps,
    data: ev.IterationFinished | ev.BranchFinished,
    lane: str,
    paths: tuple[str, ...],
) -> LaneEnd:
    if data.state != COMPLETED:
        error = ErrorInfo(
            data.code or "", data.error_class or "", data.message or "", data.last or lane
        )
        return LaneEnd(data.state, None, error, flawed=True)
    # In logs of earlier releases it may be one that a loop had left behind when it was skipped.
    last = None if data.last is None else steps.get(data.last)
    flawed = any(_is_flawed(steps[path]) for path in paths if path in steps and not is_aside(path))
    return LaneEnd(COMPLETED, None if last is None else last.output, None, flawed)


def _is_flawed(step: StepState) -> bool:
    return step.state == FAILED or (step.fan is not None and step.fan.flawed > 0)


def _with_end(fan: Fan, name: str, end: LaneEnd) -> Fan:
    return structs.replace(
        fan,
        open=fan.open - 1,
        done=fan.done + (end.state == COMPLETED),
        failed=fan.failed + (end.state == FAILED),
        flawed=fan.flawed + end.flawed,
        ends=fan.ends.set(name, end),
    )


def _size_of(steps: Steps, last: str | None, paths: tuple[str, ...]) -> int:
    """Bytes of the output of `last`: a composite's is made of what is inside it."""
    if last is None:
        return 0
    parts = (path for path in paths if path in steps and (path == last or is_inside(path, last)))
    return sum(steps[path].size for path in parts)


def _without(steps: Steps, paths: Iterable[str]) -> tuple[Steps, int]:
    """The steps without those, nor what loops among them kept for a retry; and the bytes that go.

    An iteration knows its own steps only: those of a loop in it are known to that one.
    """
    dropped = 0
    for path in paths:
        step = steps.get(path)
        if step is None:
            continue
        steps, kept = _without(steps.delete(path), _left_in(step))
        dropped += step.size + kept
    return steps, dropped


def _left_in(step: StepState) -> Iterable[str]:
    return () if step.fan is None else chain.from_iterable(step.fan.left.values())


def noted(lanes: Lanes, path: str) -> Lanes:
    """The lanes, with `path` among the steps of the iteration around it."""
    around = iteration_around(path)
    lane = lanes.get(around) if around else None
    if lane is None or path in lane.paths:
        return lanes
    return lanes.set(around, structs.replace(lane, paths=(*lane.paths, path)))


# --- the end of a composite ---


def joined(state: ExecutionState, data: ev.Joined, meta: ev.Meta) -> Changes:
    """The output is put together; branches that are not needed are cancelled."""
    path, steps, lanes, live = data.path, state.steps, state.lanes, state.live
    spent_ms = state.recovery_spent_ms
    for name in data.cancelled:
        lane = branch_path(path, name)
        spent_ms += cut_off(state, lane, meta)
        steps, lanes = close(steps, lanes, live, lane, meta, why="join_satisfied")
        live = frozenset(each for each in live if not is_inside(each, lane))
        lanes = lanes.delete(lane) if lane in lanes else lanes
    step = steps[path]
    fan = step.fan
    if fan is not None and data.cancelled:
        ends = fan.ends
        for name in data.cancelled:
            ends = ends.set(name, LaneEnd(CANCELLED))
        fan = structs.replace(fan, open=0, ends=ends)
    step = structs.replace(step, fan=fan)
    step = structs.replace(step, output=_put_together(data, step, steps), joined=True)
    return {
        "steps": steps.set(path, step),
        "live": live,
        "lanes": lanes,
        "recovery_spent_ms": spent_ms,
    }


def _put_together(data: ev.Joined, step: StepState, steps: Steps) -> Json:
    ends = step.fan.ends if step.fan is not None else Map[str, LaneEnd]()
    if data.kind == "parallel":
        children = {name: steps.get(branch_path(data.path, name)) for name in data.parts}
        return {name: None if child is None else child.output for name, child in children.items()}
    if data.kind == "fork_join":
        return {name: ends[name].output if name in ends else None for name in data.parts}
    if data.kind == "conditional":
        child = None if step.child is None else steps.get(step.child)
        return {**(data.frame or {}), "branch_output": None if child is None else child.output}
    return _iterations(data.total, ends)


def _iterations(total: int, ends: Map[str, LaneEnd]) -> JsonObject:
    outputs: list[Json] = []
    errors: list[Json] = []
    for index in range(total):
        end = ends.get(str(index))
        outputs.append(None if end is None else end.output)
        if end is not None and end.error is not None:
            error = end.error
            errors.append(
                {
                    "index": index,
                    "code": error.code,
                    "error_class": error.error_class,
                    "message": error.message,
                    "path": error.path,
                }
            )
    result: JsonObject = {"iterations": outputs, "total_count": total}
    return result | {"failed_count": len(errors), "errors": errors} if errors else result


def trimmed(steps: Steps, path: str) -> tuple[Steps, int]:
    """The steps without what a loop that completes kept for a retry, and the bytes that go."""
    step = steps[path]
    if step.fan is None:
        return steps, 0
    steps, dropped = _without(steps, _left_in(step))
    fan = structs.replace(step.fan, ends=Map(), left=Map())
    return steps.set(path, structs.replace(step, fan=fan)), dropped


def close(
    steps: Steps,
    lanes: Lanes,
    live: Iterable[str],
    around: str,
    meta: ev.Meta,
    why: str | None = None,
) -> tuple[Steps, Lanes]:
    """Cancel what is live inside `around` ("" is everywhere) and close the lanes there."""
    inside = under(around) if around else ("",)
    for path in live:
        if path.startswith(inside):
            step = steps.get(path)
            if step is not None and step.state not in STEP_ENDED:
                steps = steps.set(path, cancelled(step, meta.at, why))
    for lane, opened in lanes.items():
        owner = lane_owner(lane)
        if not lane.startswith(inside) or owner not in steps:
            continue
        lanes = lanes.delete(lane)
        step = steps[owner]
        fan = step.fan or Fan()
        left = fan.left.set(lane_name(lane), opened.paths) if lane.endswith("]") else fan.left
        fan = structs.replace(fan, open=fan.open - 1, left=left)
        steps = steps.set(owner, structs.replace(step, fan=fan))
    return steps, lanes


def cancelled(step: StepState, at: datetime, why: str | None = None) -> StepState:
    """What a step that has not ended becomes."""
    return structs.replace(
        step,
        state=CANCELLED,
        ended_at=at,
        due_at=None,
        deadline_at=None,
        recovery=None,
        question_id=None,
        why=step.why if why is None else why,
    )


# --- a composite that begins anew ---


def reopened(fan: Fan) -> Fan:
    """What is left of it when its composite begins anew: the lanes that completed."""
    ends = fan.ends
    for name, end in fan.ends.items():
        if end.state != COMPLETED:
            ends = ends.delete(name)
    flawed = sum(end.flawed for end in ends.values())
    return Fan(done=len(ends), flawed=flawed, ends=ends, left=fan.left)


def reset_inside(steps: Steps, path: str) -> Steps:
    """A new try of a composite starts over with what its last one left unfinished."""
    step = steps.get(path)
    if step is None or not step.is_around:
        return steps
    inside, finished = under(path), finished_branches(steps)
    for each, inner in steps.items():
        if each.startswith(inside) and is_unfinished(each, inner, steps, finished):
            fan = None if inner.fan is None else reopened(inner.fan)
            steps = steps.set(each, structs.replace(inner, state=PENDING, ended_at=None, fan=fan))
    return steps


def finished_branches(steps: Steps) -> frozenset[str]:
    """Lanes of the completed branches of forks that have not completed themselves."""
    return frozenset(
        branch_path(path, name)
        for path, step in steps.items()
        if step.action == "fork_join" and step.fan is not None and step.state != COMPLETED
        for name, end in step.fan.ends.items()
        if end.state == COMPLETED
    )


def is_unfinished(path: str, step: StepState, steps: Steps, finished: frozenset[str]) -> bool:
    """Whether a retry does a step again.

    Not what completed, nor what its condition or a person skipped, nor anything inside of those.
    """
    if is_finished(step):
        return False
    around = path.rpartition("/")[0]
    while around:
        outer = steps.get(around)
        if around in finished or (outer is not None and is_finished(outer)):
            return False
        around = lane_owner(around)
    return True


def is_finished(step: StepState) -> bool:
    """Whether a step is finished for good."""
    skipped = step.state == SKIPPED and (step.why or "").startswith(("condition", "operator"))
    return step.state == COMPLETED or skipped
