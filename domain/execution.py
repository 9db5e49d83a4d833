"""An execution as its events tell it: frozen state, `evolve` per event, `fold`.

`evolve` only assigns: no rule, no clock, no I/O. A replay succeeds even where today's rules forbid
yesterday's path.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from immutables import Map
from msgspec import structs

from domain import (
    child_evolution,
    control_evolution,
    dispatch_evolution,
    lanes,
    recovery_evolution,
)
from domain import events as ev
from domain.definition import is_aside
from domain.dispatch_evolution import with_end
from domain.error_classes import STEP_TIMEOUT
from domain.execution_state import (
    START,
    Command,
    ErrorInfo,
    ExecutionState,
    HumanTask,
    Parent,
    StepState,
)
from domain.lane_paths import counts, under
from domain.lifecycle import (
    CANCELLED,
    CANCELLING,
    COMPENSATING,
    COMPLETED,
    EXECUTING,
    FAILED,
    PENDING,
    RUNNING,
    SKIPPED,
)
from domain.log_order import check_follows
from domain.recovery_config import config_of_json
from domain.recovery_evolution import carried_episode, cut_off, with_dispatch

__all__ = [
    "START",
    "Command",
    "ErrorInfo",
    "ExecutionState",
    "HumanTask",
    "StepState",
    "evolve",
    "fold",
]

COMMANDS_KEPT: Final = 100


def fold(events: Iterable[ev.Event], state: ExecutionState | None = None) -> ExecutionState | None:
    """The state after `events`, starting from `state`."""
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: ExecutionState | None, event: ev.Event) -> ExecutionState:
    """The state after one more event. Raises LogDamaged."""
    before = 0 if state is None else state.version
    if event.version != before + 1:  # spares the call, which would be felt in a long replay
        check_follows(before, event)
    data, meta = event.data, event.meta
    if type(data) is ev.Requested:
        return _requested(event, data)
    if state is None:
        raise TypeError(f"an execution's first event is {ev.Requested.TOPIC}, not {data.TOPIC}")
    changes = _APPLY[type(data)](state, data, meta)
    if meta.fingerprint is not None:
        changes["commands"] = _remember(state.commands, meta, event.version)
    return structs.replace(state, version=event.version, updated_at=meta.at, **changes)


Changes = dict[str, object]


def _requested(event: ev.Event, data: ev.Requested) -> ExecutionState:
    meta = event.meta
    return ExecutionState(
        id=event.execution_id,
        workspace_id=meta.ws,
        workflow_id=data.workflow_id,
        workflow_name=data.workflow_name,
        workflow_version=data.workflow_version,
        definition_id=data.definition_id,
        sha256=data.sha256,
        definition=data.definition,
        input=data.input,
        atomic_mode=data.atomic_mode,
        priority=data.priority,
        labels=data.labels,
        simulate=data.simulate,
        triggered_by=meta.actor,
        created_at=meta.at,
        steps_total=data.steps_total,
        start_at=data.start_at,
        version=event.version,
        updated_at=meta.at,
        state=PENDING,
        attempt=1,
        recovery=None if data.recovery is None else config_of_json(data.recovery),
        parent=None if data.parent is None else msgspec.convert(data.parent, Parent),
        commands=() if meta.fingerprint is None else _remember((), meta, event.version),
    )


def _remember(commands: tuple[Command, ...], meta: ev.Meta, version: int) -> tuple[Command, ...]:
    entry = Command(meta.cmd, meta.fingerprint or "", version)
    if commands and commands[-1].id == meta.cmd:
        return (*commands[:-1], entry)
    return (*commands[-(COMMANDS_KEPT - 1) :], entry)


def _started(state: ExecutionState, data: ev.Started, meta: ev.Meta) -> Changes:
    return {
        "state": EXECUTING,
        "live": frozenset((START,)),
        "started_at": meta.at,
        "deadline_at": data.deadline_at,
        "dispatch_problem": None,
    }


def _step_started(state: ExecutionState, data: ev.StepStarted, meta: ev.Meta) -> Changes:
    path = data.path
    before = state.steps.get(path)
    fan = None if before is None or before.fan is None else lanes.reopened(before.fan)
    step = StepState(
        state=RUNNING,
        attempt=data.attempt,
        try_no=data.try_no,
        delivery=1,
        action=data.action,
        after=data.after,
        started_at=meta.at,
        ended_at=None,
        due_at=data.due_at,
        deadline_at=data.deadline_at,
        input=data.input,
        output=None,
        error=None,
        size=0 if before is None or fan is None else before.size,
        fan=fan,
        recovery=carried_episode(before) if data.try_no > 1 else None,
        compensate_with=data.compensate_with,
    )
    changes: Changes = {
        "live": _moved(state.live, data.after, path),
        "lanes": lanes.noted(state.lanes, path),
    }
    steps = state.steps
    if data.try_no > 1:
        steps = lanes.reset_inside(steps, path)
        if steps is not state.steps:
            changes |= _counted(steps)
    if is_aside(path):
        steps = with_dispatch(steps, path)
    return changes | {"steps": steps.set(path, step)}


def _counted(steps: Map[str, StepState]) -> Changes:
    """The counters, from all steps; elsewhere each event moves them on."""
    counted = [step for path, step in steps.items() if counts(path)]
    states = [step.state for step in counted]
    return {
        "steps_done": states.count(COMPLETED),
        "steps_failed": states.count(FAILED),
        "steps_skipped": states.count(SKIPPED),
        "steps_recovered": sum(step.recovered for step in counted),
    }


def _moved(live: frozenset[str], after: str, path: str) -> frozenset[str]:
    """The walk goes from `after` to `path`; a composite stays live while its children run."""
    if is_aside(path) or (after != START and path.startswith(under(after))):
        return live | {path}
    return (live - {after}) | {path}


def _step_redelivered(state: ExecutionState, data: ev.StepRedelivered, meta: ev.Meta) -> Changes:
    step = structs.replace(
        state.steps[data.path],
        delivery=data.delivery,
        deadline_at=data.deadline_at,
        epoch=data.epoch,
    )
    return {"steps": state.steps.set(data.path, step)}


def _step_progressed(state: ExecutionState, data: ev.StepProgressed, meta: ev.Meta) -> Changes:
    step = structs.replace(state.steps[data.path], progress=data.progress)
    return {"steps": state.steps.set(data.path, step)}


def _step_completed(state: ExecutionState, data: ev.StepCompleted, meta: ev.Meta) -> Changes:
    path = data.path
    before = state.steps[path]
    step = structs.replace(
        before,
        state=COMPLETED,
        ended_at=meta.at,
        due_at=None,
        deadline_at=None,
        output=before.output if before.joined else data.output,
        size=before.size + data.size,
        dispatched=with_end(before.dispatched, meta.at),
    )
    steps, dropped = state.steps.set(path, step), 0
    if step.fan is not None:
        steps, dropped = lanes.trimmed(steps, path)
    changes: Changes = {
        "steps": steps,
        "live": _without_children(state.live, step, path),
        "steps_done": state.steps_done + counts(path),
        "output_bytes": state.output_bytes + data.size - dropped,
    }
    if step.compensate_with is not None:
        changes["to_undo"] = (*state.to_undo, path)
    return changes


def _without_children(live: frozenset[str], step: StepState, path: str) -> frozenset[str]:
    """What is done in a step's place, or to undo it, is over when it ends; its owner goes on."""
    if is_aside(path):
        return live - {path}
    if len(live) == 1 or not step.is_around:
        return live
    inside = under(path)
    return frozenset(each for each in live if not each.startswith(inside))


def _step_failed(state: ExecutionState, data: ev.StepFailed, meta: ev.Meta) -> Changes:
    path = data.path
    error = ErrorInfo(data.code, data.error_class, data.message, path, data.retryable)
    steps, open_lanes, spent_ms = state.steps, state.lanes, state.recovery_spent_ms
    if steps[path].is_around:
        if steps[path].recovery is None:
            spent_ms += cut_off(state, path, meta)
        steps, open_lanes = lanes.close(steps, open_lanes, state.live, path, meta)
    before = steps[path]
    step = structs.replace(
        before,
        state=FAILED,
        ended_at=meta.at,
        due_at=None,
        deadline_at=None,
        output=before.output if before.joined else data.output,
        error=error,
        dispatched=with_end(before.dispatched, meta.at, timed_out=data.code == STEP_TIMEOUT),
    )
    return {
        "steps": steps.set(path, step),
        "live": _without_children(state.live, step, path),
        "lanes": open_lanes,
        "steps_failed": state.steps_failed + counts(path),
        "recovery_spent_ms": spent_ms,
    }


def _step_skipped(state: ExecutionState, data: ev.StepSkipped, meta: ev.Meta) -> Changes:
    before = state.steps.get(data.path)
    if before is not None and before.state == RUNNING:  # it waited in vain
        ended = structs.replace(
            before, state=SKIPPED, ended_at=meta.at, due_at=None, deadline_at=None, why=data.why
        )
        return {
            "steps": state.steps.set(data.path, ended),
            "steps_skipped": state.steps_skipped + counts(data.path),
        }
    step = StepState(
        state=SKIPPED,
        attempt=data.attempt,
        try_no=0,
        delivery=0,
        action="",
        after=data.after,
        started_at=None,
        ended_at=meta.at,
        due_at=None,
        deadline_at=None,
        input=None,
        output=None,
        error=None,
        why=data.why if data.detail is None else f"{data.why}: {data.detail}",
    )
    steps, dropped = state.steps, 0
    if before is not None:  # a loop that an earlier attempt or try began
        steps, dropped = lanes.trimmed(steps, data.path)
        dropped += before.size
    changes: Changes = {
        "steps": steps.set(data.path, step),
        "steps_skipped": state.steps_skipped + counts(data.path),
        "lanes": lanes.noted(state.lanes, data.path),
        "output_bytes": state.output_bytes - dropped,
    }
    if is_aside(data.path):
        return changes
    if data.why == "condition":
        changes["live"] = _moved(state.live, data.after, data.path)
    return changes


def _branch_taken(state: ExecutionState, data: ev.BranchTaken, meta: ev.Meta) -> Changes:
    step = structs.replace(
        state.steps[data.path],
        branch=data.branch,
        child=data.child,
        why=data.error,
        actual=data.actual,
    )
    return {"steps": state.steps.set(data.path, step)}


def _task_created(state: ExecutionState, data: ev.HumanTaskCreated, meta: ev.Meta) -> Changes:
    task = HumanTask(
        id=data.task_id,
        path=data.path,
        attempt=data.attempt,
        status="TODO",
        priority=data.priority,
        wait=data.wait,
        title=data.title,
        description=data.description,
        assigned_to=data.assigned_to,
        created_at=meta.at,
        completed_at=None,
        completed_by=None,
        result=None,
    )
    step = structs.replace(state.steps[data.path], task_id=data.task_id)
    return {
        "tasks": state.tasks.set(data.task_id, task),
        "steps": state.steps.set(data.path, step),
    }


def _task_completed(state: ExecutionState, data: ev.HumanTaskCompleted, meta: ev.Meta) -> Changes:
    task = structs.replace(
        state.tasks[data.task_id],
        status="DONE",
        completed_at=meta.at,
        completed_by=meta.actor,
        result=data.result,
    )
    return {"tasks": state.tasks.set(data.task_id, task)}


def _cancel_requested(state: ExecutionState, data: ev.CancelRequested, meta: ev.Meta) -> Changes:
    return {"cancelled_by": meta.actor, "cancel_reason": data.reason}


def _cancelled(state: ExecutionState, data: ev.Cancelled, meta: ev.Meta) -> Changes:
    return _stopped(state, meta) | {"state": CANCELLED, "cancelled_at": meta.at}


def _stopped(state: ExecutionState, meta: ev.Meta) -> Changes:
    """Nothing goes on: what is live is cancelled, open iterations and branches close."""
    steps, open_lanes = lanes.close(state.steps, state.lanes, state.live, "", meta)
    return {
        "steps": steps,
        "live": frozenset(),
        "lanes": open_lanes,
        "completed_at": meta.at,
        "deadline_at": None,
        "pause": None,
    }


def _compensation_started(
    state: ExecutionState, data: ev.CompensationStarted, meta: ev.Meta
) -> Changes:
    cancelling = data.reason == "cancelled"
    steps, open_lanes = lanes.close(state.steps, state.lanes, state.live, "", meta)
    changes: Changes = {
        "state": CANCELLING if cancelling else COMPENSATING,
        "steps": steps,
        "live": frozenset(),
        "lanes": open_lanes,
        "deadline_at": None,
        "pause": None,
        "abort_reason": data.reason,
    }
    if not cancelling:
        changes["error"] = ErrorInfo(data.code, data.error_class, data.message, data.path)
    return changes


def _compensation_finished(
    state: ExecutionState, data: ev.CompensationFinished, meta: ev.Meta
) -> Changes:
    return {"to_undo": tuple(each for each in state.to_undo if each != data.path)}


def _completed(state: ExecutionState, data: ev.Completed, meta: ev.Meta) -> Changes:
    return {
        "state": COMPLETED,
        "live": frozenset(),
        "completed_at": meta.at,
        "deadline_at": None,
        "output": data.output if data.output_of is None else state.steps[data.output_of].output,
        "partial": data.partial,
    }


def _failed(state: ExecutionState, data: ev.Failed, meta: ev.Meta) -> Changes:
    error = ErrorInfo(data.code, data.error_class, data.message, data.path)
    return _stopped(state, meta) | {"state": FAILED, "error": error}


def _retried(state: ExecutionState, data: ev.Retried, meta: ev.Meta) -> Changes:
    steps = state.steps
    # Some may have left: what a loop inside another one kept did not leave with the outer one in
    # earlier releases, so that their retries name it.
    for path in data.reset:
        if path in steps:
            steps = steps.delete(path)
    for path in data.reopened:
        if path in steps:
            steps = steps.set(path, structs.replace(steps[path], state=PENDING, try_no=0))
    return _counted(steps) | {
        "state": PENDING,
        "attempt": data.attempt,
        "start_at": data.start_at,
        "steps": steps,
        "live": frozenset(),
        "recovery_spent_ms": 0,
        "to_undo": tuple(path for path in state.to_undo if path in steps),
        "abort_reason": None,
        "output_bytes": sum(step.size for step in steps.values()),
        "started_at": None,
        "completed_at": None,
        "cancelled_at": None,
        "cancelled_by": None,
        "cancel_reason": None,
        "output": None,
        "partial": False,
        "error": None,
    }


def _unchanged(state: ExecutionState, data: ev.Payload, meta: ev.Meta) -> Changes:
    return {}


# Any: each function takes the payload that is its key, which a dict cannot say.
_APPLY: Final[dict[type[ev.Payload], Callable[[ExecutionState, Any, ev.Meta], Changes]]] = {
    ev.Started: _started,
    ev.StepStarted: _step_started,
    ev.StepRedelivered: _step_redelivered,
    ev.StepProgressed: _step_progressed,
    ev.StepCompleted: _step_completed,
    ev.StepFailed: _step_failed,
    ev.StepSkipped: _step_skipped,
    ev.BranchTaken: _branch_taken,
    ev.IterationStarted: lanes.lane_started,
    ev.IterationFinished: lanes.iteration_finished,
    ev.BranchStarted: lanes.lane_started,
    ev.BranchFinished: lanes.branch_finished,
    ev.Joined: lanes.joined,
    ev.HumanTaskCreated: _task_created,
    ev.HumanTaskCompleted: _task_completed,
    ev.CancelRequested: _cancel_requested,
    ev.Cancelled: _cancelled,
    ev.Completed: _completed,
    ev.Failed: _failed,
    ev.Retried: _retried,
    ev.CompensationStarted: _compensation_started,
    ev.CompensationFinished: _compensation_finished,
    ev.LateResultIgnored: _unchanged,
    **recovery_evolution.APPLY,
    **control_evolution.APPLY,
    **child_evolution.APPLY,
    **dispatch_evolution.APPLY,
}
