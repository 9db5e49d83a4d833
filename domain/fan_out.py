"""What comes next in a parallel, a loop or a fork_join.

A composite looks at its counters only, and the step that ended in a lane finds its own successor,
so that an iteration costs the same in a long loop as in a short one. A critical failure inside is
judged by the composite; only its own failure counts outside.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from domain import events as ev
from domain.beginnings import begin_step
from domain.definition import (
    Branch,
    Definition,
    ForkJoinStep,
    LoopStep,
    ParallelStep,
    child_path,
    step_id_of,
)
from domain.execution import ExecutionState, StepState
from domain.execution_state import ErrorInfo, Fan
from domain.json_values import JsonObject
from domain.lane_paths import branch_path, iteration_path, lane_name, lane_owner
from domain.lifecycle import CANCELLED, COMPLETED, FAILED, PENDING, STEP_ENDED
from domain.outcomes import Plan, complete_composite, fail_step, with_recovery

LIVE_MAX: Final = 1_000
"""Live steps of one execution beyond which a composite with something running begins no more."""
_LISTED_MAX: Final = 10
_TEXT_MAX: Final = 200


# --- parallel ---


def plan_parallel(
    definition: Definition, state: ExecutionState, path: str, declared: ParallelStep, now: datetime
) -> Plan:
    """Begin the next child, or join when all have ended."""
    running, failed = 0, []
    following: str | None = None
    for child in declared.children:
        step = state.steps.get(child_path(path, child))
        if step is None or step.state == PENDING:
            following = following or child
        elif step.state not in STEP_ENDED:
            running += 1
        elif step.state in (FAILED, CANCELLED) and definition.steps[child].critical:
            failed.append((child, step.error))
    if following is not None:
        if running >= declared.parallelism or not _has_room(state, running):
            return ()
        inner = child_path(path, following)
        return tuple(begin_step(definition.steps[following], state, inner, path, now))
    if running:
        return ()
    together = ev.Joined(path, state.attempt, "parallel", 0, declared.children, (), None)
    if not failed:
        return (together, complete_composite(state, path))
    message = f"{len(failed)} of {len(declared.children)} children failed"
    return _fail(definition, state, path, "children_failed", message, failed, together, now)


# --- loop ---


def plan_loop(
    definition: Definition, state: ExecutionState, path: str, declared: LoopStep, now: datetime
) -> Plan:
    """Begin the next iteration, or join when all have ended."""
    step = state.steps[path]
    fan, total = step.fan or Fan(), _count_of(step)
    stopped = declared.on_error == "stop" and fan.failed > 0
    index = fan.begun
    while str(index) in fan.ends:  # finished in an earlier attempt or try
        index += 1
    if index < total and not stopped:
        if fan.open >= declared.parallelism or not _has_room(state, fan.open):
            return ()
        begun = ev.IterationStarted(path, state.attempt, index)
        lane = iteration_path(path, index)
        return (begun, *_enter(definition, state, lane, declared.body, now))
    if fan.open:
        return ()
    together = ev.Joined(path, state.attempt, "loop", total, (), (), None)
    if not fan.failed or declared.on_error == "continue":
        return (together, complete_composite(state, path))
    message = f"{fan.failed} of {total} iterations failed"
    failed = _failed_lanes(fan, (str(each) for each in range(total)))
    return _fail(definition, state, path, "iterations_failed", message, failed, together, now)


def _count_of(step: StepState) -> int:
    items = step.input["collection"] if isinstance(step.input, dict) else None
    return len(items) if isinstance(items, list) else 0


# --- fork_join ---


def plan_fork(
    definition: Definition, state: ExecutionState, path: str, declared: ForkJoinStep, now: datetime
) -> Plan:
    """Join when enough branches have completed or none can any more, else begin the next one."""
    fan = state.steps[path].fan or Fan()
    names = tuple(branch.name for branch in declared.branches)
    if fan.done >= declared.needed:
        unneeded = tuple(name for name in names if name not in fan.ends)
        together = ev.Joined(path, state.attempt, "fork_join", 0, names, unneeded, None)
        return (together, complete_composite(state, path))
    for branch in declared.branches:
        lane = state.lanes.get(branch_path(path, branch.name))
        if lane is None and branch.name not in fan.ends:
            if _has_room(state, fan.open):
                return _begin_branch(definition, state, path, branch, now)
        elif lane is not None and lane.deadline_at is not None and lane.deadline_at <= now:
            return (_branch_timed_out(state, path, branch),)
    if fan.open:
        return ()
    together = ev.Joined(path, state.attempt, "fork_join", 0, names, (), None)
    message = f"{fan.failed} of {len(names)} branches failed, and {declared.needed} had to complete"
    failed = _failed_lanes(fan, names)
    return _fail(definition, state, path, "branches_failed", message, failed, together, now)


def _begin_branch(
    definition: Definition, state: ExecutionState, path: str, branch: Branch, now: datetime
) -> Plan:
    seconds = branch.timeout_seconds
    deadline = None if seconds is None else now + timedelta(seconds=seconds)
    begun = ev.BranchStarted(path, state.attempt, branch.name, deadline)
    lane = branch_path(path, branch.name)
    return (begun, *_enter(definition, state, lane, branch.steps, now))


def _branch_timed_out(state: ExecutionState, path: str, branch: Branch) -> ev.BranchFinished:
    message = f"The branch did not end within {branch.timeout_seconds:g} seconds."
    return ev.BranchFinished(
        path, state.attempt, branch.name, FAILED, None, "timeout", "branch_timeout", message
    )


# --- inside a lane ---


def go_on_in_lane(
    definition: Definition,
    state: ExecutionState,
    path: str,
    around: LoopStep | ForkJoinStep,
    now: datetime,
) -> Plan:
    """`path` has ended: the next step of its iteration or branch begins, or the lane ends."""
    lane, step = path.rpartition("/")[0], state.steps[path]
    ids = steps_of_lane(around, lane)
    if step.state != COMPLETED and _breaks(definition, path, step):
        return (_lane_failed(state, lane, path, step.error),)
    number = ids.index(step_id_of(path)) + 1
    return _go_on(definition, state, lane, ids, number, path, now)


def steps_of_lane(around: LoopStep | ForkJoinStep, lane: str) -> tuple[str, ...]:
    """Ids of the steps that an iteration or branch runs, in order."""
    if isinstance(around, LoopStep):
        return around.body
    name = lane_name(lane)
    return next(branch.steps for branch in around.branches if branch.name == name)


def _enter(
    definition: Definition, state: ExecutionState, lane: str, ids: Sequence[str], now: datetime
) -> Plan:
    return _go_on(definition, state, lane, ids, 0, lane_owner(lane), now)


def _go_on(
    definition: Definition,
    state: ExecutionState,
    lane: str,
    ids: Sequence[str],
    number: int,
    after: str,
    now: datetime,
) -> Plan:
    """Begin step `number` of the lane, or what follows it where an earlier attempt finished it."""
    for step_id in ids[number:]:
        path = child_path(lane, step_id)
        step = state.steps.get(path)
        if step is None or step.state == PENDING:
            return tuple(begin_step(definition.steps[step_id], state, path, after, now))
    return (_lane_completed(state, lane, ids),)


def _breaks(definition: Definition, path: str, step: StepState) -> bool:
    return step.state in (FAILED, CANCELLED) and definition.steps[step_id_of(path)].critical


def _lane_completed(
    state: ExecutionState, lane: str, ids: Sequence[str]
) -> ev.IterationFinished | ev.BranchFinished:
    """The output is that of the last step which completed, as on the main line."""
    last = None
    for step_id in reversed(ids):
        path = child_path(lane, step_id)
        step = state.steps.get(path)
        if step is not None and step.state == COMPLETED:
            last = path
            break
    return _finished(state, lane, COMPLETED, last, None)


def _lane_failed(
    state: ExecutionState, lane: str, path: str, error: ErrorInfo | None
) -> ev.IterationFinished | ev.BranchFinished:
    error = error or ErrorInfo("step_failed", "unknown", "The step failed.", path)
    return _finished(state, lane, FAILED, path, error)


def _finished(
    state: ExecutionState, lane: str, ended: str, last: str | None, error: ErrorInfo | None
) -> ev.IterationFinished | ev.BranchFinished:
    told = (None, None, None) if error is None else (error.error_class, error.code, error.message)
    owner, name = lane_owner(lane), lane_name(lane)
    if lane.endswith("]"):
        return ev.IterationFinished(owner, state.attempt, int(name), ended, last, *told)
    return ev.BranchFinished(owner, state.attempt, name, ended, last, *told)


# --- the failure of a composite ---


def _failed_lanes(fan: Fan, names: Iterable[str]) -> list[tuple[str, ErrorInfo | None]]:
    ends = ((name, fan.ends.get(name)) for name in names)
    return [(name, end.error) for name, end in ends if end is not None and end.state == FAILED]


def _fail(
    definition: Definition,
    state: ExecutionState,
    path: str,
    code: str,
    message: str,
    failed: Sequence[tuple[str, ErrorInfo | None]],
    together: ev.Joined,
    now: datetime,
) -> Plan:
    """The composite fails with its output joined; the message lists what failed in it."""
    classes = {error.error_class if error else "unknown" for _, error in failed}
    error_class = classes.pop() if len(classes) == 1 else "unknown"
    listed = "; ".join(_listed(name, error) for name, error in failed[:_LISTED_MAX])
    more = f"; and {len(failed) - _LISTED_MAX} more" if len(failed) > _LISTED_MAX else ""
    ended = fail_step(
        state,
        path,
        code,
        error_class,
        f"{message}: {listed}{more}.",
        retryable=error_class != "permanent",
    )
    return (together, *with_recovery(definition, ended, now))


def _listed(name: str, error: ErrorInfo | None) -> str:
    if error is None:
        return name
    text = error.message if len(error.message) <= _TEXT_MAX else error.message[:_TEXT_MAX] + "…"
    return f"{name} ({error.code}): {text.rstrip('.')}"


def _has_room(state: ExecutionState, running: int) -> bool:
    """The first of a composite always may begin, so that none waits for another for ever."""
    return running == 0 or len(state.live) < LIVE_MAX


def fail_around(definition: Definition, state: ExecutionState, path: str, now: datetime) -> Plan:
    """A conditional inside a composite fails with its branch."""
    step = state.steps[path]
    child = None if step.child is None else state.steps.get(step.child)
    error = child.error if child is not None else None
    if error is None:
        error = ErrorInfo("step_failed", "unknown", "The branch failed.", path)
    ended = fail_step(
        state,
        path,
        error.code,
        error.error_class,
        error.message,
        retryable=error.error_class != "permanent",
    )
    return with_recovery(definition, ended, now)


def join_conditional(state: ExecutionState, path: str, frame: JsonObject) -> Plan:
    """The end of a conditional around something large: its output is joined, not repeated."""
    together = ev.Joined(path, state.attempt, "conditional", 0, (), (), frame)
    return (together, complete_composite(state, path))
