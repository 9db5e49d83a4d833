"""What pauses, operators and forks make of a state. Only assignments, as in `domain/execution.py`.

While an execution is paused the clocks of what the pause keeps from running stand still: the
execution's own time-out, those of branches and composites, and the recovery of a step that waits
for its next try. What is in flight runs on, and so does its clock.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from immutables import Map
from msgspec import structs

from domain import events as ev
from domain import lanes
from domain.definition import is_aside
from domain.execution_state import (
    ErrorInfo,
    ExecutionState,
    Fan,
    Lane,
    Origin,
    Pause,
    StepState,
)
from domain.lane_paths import counts, under
from domain.lifecycle import (
    AWAITING_ANSWER,
    COMPLETED,
    EXECUTING,
    FAILED,
    PAUSED,
    PENDING,
    RUNNING,
    SKIPPED,
)
from domain.pausing import is_in_flight
from domain.recovery_evolution import cut_off

BY_HAND: Final = "operator"
"""What `why` of a step begins with that a person has settled."""

Changes = dict[str, object]
Steps = Map[str, StepState]


# --- pauses ---


def _paused(state: ExecutionState, data: ev.Paused, meta: ev.Meta) -> Changes:
    steps = state.steps
    for path in state.live:
        step = steps.get(path)
        if step is None or step.recovery is None or is_in_flight(steps, path):
            continue
        if step.recovery.paused_at is None:
            held = structs.replace(step.recovery, paused_at=meta.at)
            steps = steps.set(path, structs.replace(step, recovery=held))
    return {
        "state": PAUSED,
        "steps": steps,
        "pause": Pause(meta.at, meta.actor, data.reason, data.due_at),
    }


def _resumed(state: ExecutionState, data: ev.Resumed, meta: ev.Meta) -> Changes:
    since = meta.at if state.pause is None else state.pause.since
    stood = meta.at - since
    steps = state.steps
    for path in state.live:
        step = steps.get(path)
        if step is not None and (going_on := _going_on(step, stood, meta)) is not step:
            steps = steps.set(path, going_on)
    return {
        "state": EXECUTING if state.has_begun else PENDING,
        "steps": steps,
        "lanes": _later(state.lanes, stood),
        "deadline_at": None if state.deadline_at is None else state.deadline_at + stood,
        "pause": None,
    }


def _going_on(step: StepState, stood: timedelta, meta: ev.Meta) -> StepState:
    if step.state == RUNNING and step.is_around and step.deadline_at is not None:
        step = structs.replace(step, deadline_at=step.deadline_at + stood)
    episode = step.recovery
    if episode is None or episode.paused_at is None or step.state == AWAITING_ANSWER:
        return step
    kept = episode.paused + (meta.at - episode.paused_at)
    return structs.replace(step, recovery=structs.replace(episode, paused=kept, paused_at=None))


def _later(open_lanes: Map[str, Lane], stood: timedelta) -> Map[str, Lane]:
    for name, lane in open_lanes.items():
        if lane.deadline_at is not None:
            moved = structs.replace(lane, deadline_at=lane.deadline_at + stood)
            open_lanes = open_lanes.set(name, moved)
    return open_lanes


# --- a step that a person settles ---


def _step_settled(state: ExecutionState, data: ev.StepSettled, meta: ev.Meta) -> Changes:
    path = data.path
    before = state.steps[path]
    spent_ms = state.recovery_spent_ms + cut_off(state, path, meta, with_own=True)
    steps, open_lanes = lanes.close(state.steps, state.lanes, state.live, path, meta)
    steps, dropped = lanes.trimmed(steps, path)
    step = structs.replace(
        steps[path],
        state=data.state,
        try_no=data.try_no,
        started_at=before.started_at if data.try_no == before.try_no else None,
        ended_at=meta.at,
        due_at=None,
        deadline_at=None,
        output=data.output,
        error=None,
        size=data.size,
        joined=False,
        recovery=None,
        question_id=None,
        via=None,
        why=f"{BY_HAND}: {data.reason}",
    )
    inside = under(path)
    live = frozenset(each for each in state.live if not each.startswith(inside))
    changes: Changes = {
        "steps": steps.set(path, step),
        "live": live - {path} if is_aside(path) else live,
        "lanes": open_lanes,
        "recovery_spent_ms": spent_ms,
        "output_bytes": state.output_bytes + data.size - before.size - dropped,
    }
    counter = "steps_done" if data.state == COMPLETED else "steps_skipped"
    changes[counter] = getattr(state, counter) + counts(path)
    if data.state == COMPLETED and step.compensate_with is not None:
        changes["to_undo"] = (*state.to_undo, path)
    return changes


# --- forks ---


def _forked_from(state: ExecutionState, data: ev.ForkedFrom, meta: ev.Meta) -> Changes:
    return {"forked_from": Origin(data.execution_id, data.version, data.from_step)}


def _step_kept(state: ExecutionState, data: ev.StepKept, meta: ev.Meta) -> Changes:
    path = data.path
    failed = data.code is not None
    step = StepState(
        state=data.state,
        attempt=state.attempt,
        try_no=data.try_no,
        delivery=0,
        action=data.action,
        after=data.after,
        started_at=data.started_at,
        ended_at=data.ended_at,
        due_at=None,
        deadline_at=None,
        input=None,
        output=data.output,
        error=ErrorInfo(data.code or "", data.error_class or "", data.message or "", path)
        if failed
        else None,
        why=data.why,
        branch=data.branch,
        child=data.child,
        size=data.size,
        fan=None
        if data.lanes_done is None
        else Fan(done=data.lanes_done, failed=data.lanes_failed, flawed=data.lanes_flawed),
    )
    counted = counts(path)
    return {
        "steps": state.steps.set(path, step),
        "steps_done": state.steps_done + (counted and data.state == COMPLETED),
        "steps_failed": state.steps_failed + (counted and data.state == FAILED),
        "steps_skipped": state.steps_skipped + (counted and data.state == SKIPPED),
        "output_bytes": state.output_bytes + data.size,
    }


# Any: each function takes the payload that is its key, which a dict cannot say.
APPLY: Final[dict[type[ev.Payload], Callable[[ExecutionState, Any, ev.Meta], Changes]]] = {
    ev.Paused: _paused,
    ev.Resumed: _resumed,
    ev.StepSettled: _step_settled,
    ev.ForkedFrom: _forked_from,
    ev.StepKept: _step_kept,
}
