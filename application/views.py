"""What callers read: frozen results, computed from state by `summarise` and nowhere else.

The same view answers a GET, an as-of question, a stream, a command, and fills the `workflow_runs`
row. There is no "now" in it, so the view of a version never changes. Times are aware UTC datetimes,
durations milliseconds.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from domain.agent_names import AGENT, agent_of
from domain.compensation import UNDOING
from domain.definition import alternative_path, is_aside, step_id_of
from domain.execution import START, ErrorInfo, ExecutionState, StepState
from domain.execution_state import Fan, Origin, Parent, Pause
from domain.json_values import Json, JsonObject
from domain.lifecycle import (
    AWAITING_ANSWER,
    EXECUTING,
    REROUTED,
    RETRYING,
    RUNNING,
    STEP_ENDED,
    status_of,
)
from domain.signals import awaited_signal
from domain.verbs import allowed_actions

_MILLISECOND: Final = timedelta(milliseconds=1)
_PRESSING: Final = ("awaiting_answer", "rerouted", "retrying")


class ProgressView(Struct, frozen=True):
    """Steps by state.

    `percentage` is 100 for COMPLETED, else the ended share of all steps of the definition.
    """

    total: int
    done: int
    failed: int
    skipped: int
    running: int
    percentage: int


class ErrorView(Struct, frozen=True):
    """Why it failed: stable code, class, text, path of the step ("" for none)."""

    code: str
    error_class: str
    message: str
    path: str


class WaitView(Struct, frozen=True):
    """One thing it waits for.

    `kind`: start, timer, retry, alternative, question, action, agent, human_task, signal, child,
    compensation, and resume first of all while it is paused. `until` None when only others can end
    it; `detail` of a signal is its name, of a child its execution's id, of an agent (that has a
    task and is to answer) its name.
    """

    kind: str
    path: str
    until: datetime | None
    detail: str | None


class OriginView(Struct, frozen=True):
    """The execution that another one was forked from, as it was at `version`, at `from_step`."""

    execution_id: str
    version: int
    from_step: str


class ParentView(Struct, frozen=True):
    """The execution whose step this one runs for; `path` is that step's, with attempt and try."""

    execution_id: str
    path: str
    attempt: int
    try_no: int


class ExecutionView(Struct, frozen=True):
    """An execution as callers see it.

    `version` is its ETag; `position` that of its last event in the log. `steps_recovered` counts
    steps that failed and worked after all, in all attempts, outside of loops.
    """

    id: str
    execution_id: str
    run_id: str
    workspace_id: str
    workflow_id: str
    workflow_name: str
    workflow_version: int
    workflow_definition_id: str
    definition_sha256: str
    status: str
    sub_status: str | None
    attempt: int
    version: int
    position: int
    atomic_mode: str
    priority: int
    labels: dict[str, str]
    simulate: bool
    input_data: JsonObject
    output: Json
    partial: bool
    error: ErrorView | None
    error_message: str | None
    progress: ProgressView
    waiting_on: Sequence[WaitView]
    triggered_by: str
    created_at: datetime
    start_at: datetime | None
    started_at: datetime | None
    updated_at: datetime
    completed_at: datetime | None
    cancelled_at: datetime | None
    cancelled_by: str | None
    duration_ms: int | None
    parent: ParentView | None
    allowed_actions: Sequence[str]
    steps_recovered: int
    forked_from: OriginView | None = None


class StepView(Struct, frozen=True):
    """One try of a step in one attempt, with input, output and error."""

    step_execution_id: str
    run_id: str
    step_id: str
    step_name: str
    path: str
    agent_name: str
    action: str
    attempt: int
    try_no: int
    delivery: int
    status: str
    sub_status: str | None
    input_data: Json
    output_data: Json
    error: ErrorView | None
    error_message: str | None
    error_class: str | None
    why: str | None
    progress: Json
    due_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: int | None
    child_execution_id: str | None


def summarise(state: ExecutionState, position: int) -> ExecutionView:
    """The one definition of status, progress, timing and allowed actions."""
    status = status_of(state.state)
    text = str(state.id)
    return ExecutionView(
        id=text,
        execution_id=text,
        run_id=f"run-{text}",
        workspace_id=state.workspace_id,
        workflow_id=state.workflow_id,
        workflow_name=state.workflow_name,
        workflow_version=state.workflow_version,
        workflow_definition_id=str(state.definition_id),
        definition_sha256=state.sha256,
        status=status,
        sub_status=sub_status_of(state),
        attempt=state.attempt,
        version=state.version,
        position=position,
        atomic_mode=state.atomic_mode,
        priority=state.priority,
        labels=state.labels,
        simulate=state.simulate,
        input_data=state.input,
        output=state.output,
        partial=state.partial,
        error=error_view(state.error),
        error_message=_error_message(state, status),
        progress=_progress(state, status),
        waiting_on=waiting_on(state),
        triggered_by=state.triggered_by,
        created_at=state.created_at,
        start_at=state.start_at,
        started_at=state.started_at,
        updated_at=state.updated_at,
        completed_at=state.completed_at,
        cancelled_at=state.cancelled_at,
        cancelled_by=state.cancelled_by,
        duration_ms=milliseconds_between(state.started_at, state.completed_at),
        parent=_parent(state.parent),
        allowed_actions=allowed_actions(state),
        steps_recovered=state.steps_recovered,
        forked_from=_origin(state.forked_from),
    )


def _origin(origin: Origin | None) -> OriginView | None:
    if origin is None:
        return None
    return OriginView(str(origin.execution_id), origin.version, origin.from_step)


def _parent(parent: Parent | None) -> ParentView | None:
    if parent is None:
        return None
    return ParentView(str(parent.execution_id), parent.path, parent.attempt, parent.try_no)


def sub_status_of(state: ExecutionState) -> str | None:
    """The execution's own sub-state unless executing, else the most pressing recovery state of its
    live steps.
    """
    if status_of(state.state) != "RUNNING":
        return None
    if state.state != EXECUTING:
        return state.state.partition(".")[2]
    recovering = {
        step.state.partition(".")[2]
        for path in state.live
        if (step := state.steps.get(path)) is not None and step.state.startswith("RECOVERING.")
    }
    return next((each for each in _PRESSING if each in recovering), "executing")


def waiting_on(state: ExecutionState) -> tuple[WaitView, ...]:
    """Everything that can move it next, in order of path."""
    if state.state == "PENDING":
        return (WaitView("start", "", state.start_at, None),)
    if state.state in UNDOING and not state.live:
        return tuple(WaitView("compensation", path, None, None) for path in state.to_undo[-1:])
    pause = state.pause
    first = () if pause is None else (WaitView("resume", "", pause.due_at, _who_paused(pause)),)
    return first + tuple(
        _wait(path, step)
        for path in sorted(state.live)
        if path != START
        and (step := state.steps[path]).state not in STEP_ENDED
        and (not step.is_around or step.state != RUNNING)
        and not (step.state == REROUTED and alternative_path(path, step.via or "") in state.live)
    )


def _who_paused(pause: Pause) -> str:
    return f"paused by {pause.by}" + (f": {pause.reason}" if pause.reason else "")


def _wait(path: str, step: StepState) -> WaitView:
    if step.state == REROUTED:
        return WaitView("alternative", path, None, step.via)
    if step.state == AWAITING_ANSWER:
        return WaitView("question", path, step.due_at, step.question_id)
    if step.state == RETRYING:
        return WaitView("retry", path, step.due_at, step.error.message if step.error else None)
    signal = awaited_signal(step)
    if signal is not None:
        return WaitView("signal", path, step.deadline_at, signal)
    if step.child_id is not None:
        return WaitView("child", path, step.deadline_at, str(step.child_id))
    if step.due_at is not None:
        return WaitView("timer", path, step.due_at, None)
    if step.task_id is not None:
        return WaitView("human_task", path, step.deadline_at, step.task_id)
    if step.dispatched is not None:
        return WaitView(AGENT, path, step.deadline_at, step.dispatched.agent)
    return WaitView("action", path, step.deadline_at, step.action)


def step_execution_id(execution_id: object, attempt: int, path: str, try_no: int) -> str:
    """The id of a try of a step."""
    return f"{execution_id}:{attempt}:{path}:{try_no}"


def step_view(execution_id: str, path: str, step: StepState, name: str | None = None) -> StepView:
    """A step's present try."""
    error = error_view(step.error)
    return StepView(
        step_execution_id=step_execution_id(execution_id, step.attempt, path, step.try_no),
        run_id=f"run-{execution_id}",
        step_id=step_id_of(path),
        step_name=name or step_id_of(path),
        path=path,
        agent_name=who_did(step.action)[0],
        action=who_did(step.action)[1],
        attempt=step.attempt,
        try_no=step.try_no,
        delivery=step.delivery,
        status=status_of(step.state),
        sub_status=step.state.partition(".")[2] or None,
        input_data=step.input,
        output_data=step.output,
        error=error,
        error_message=error.message if error else None,
        error_class=error.error_class if error else None,
        why=step.why,
        progress=_lanes(step) if step.fan is not None else step.progress,
        due_at=step.due_at,
        started_at=step.started_at,
        completed_at=step.ended_at,
        duration_ms=milliseconds_between(step.started_at, step.ended_at),
        child_execution_id=None if step.child_id is None else str(step.child_id),
    )


def who_did(action: str) -> tuple[str, str]:
    """`agent_name` and `action` of a try: an agent's are its name and `agent`."""
    agent = agent_of(action)
    return (action, action) if agent is None else (agent, AGENT)


def _lanes(step: StepState) -> Json:
    """How far a loop or fork_join is: iterations or branches by state, of a loop also how many."""
    fan = step.fan or Fan()
    counted: JsonObject = {"done": fan.done, "failed": fan.failed, "running": fan.open}
    items = step.input.get("collection") if isinstance(step.input, dict) else None
    return counted | {"total": len(items)} if isinstance(items, list) else counted


def milliseconds_between(start: datetime | None, end: datetime | None) -> int | None:
    """Whole milliseconds, None while one of the two is missing."""
    if start is None or end is None:
        return None
    return round((end - start) / _MILLISECOND)


def error_view(error: ErrorInfo | None) -> ErrorView | None:
    """An error as callers see it."""
    if error is None:
        return None
    return ErrorView(error.code, error.error_class, error.message, error.path)


def _error_message(state: ExecutionState, status: str) -> str | None:
    if status == "CANCELLED":
        return f"Cancelled: {state.cancel_reason}" if state.cancel_reason else "Cancelled"
    if state.error is None:
        return state.dispatch_problem
    return state.error.message


def _progress(state: ExecutionState, status: str) -> ProgressView:
    ended = state.steps_done + state.steps_failed + state.steps_skipped
    running = sum(
        1
        for path in state.live
        if not is_aside(path)
        and (step := state.steps.get(path)) is not None
        and step.state not in STEP_ENDED
    )
    total = state.steps_total
    percentage = 100 if status == "COMPLETED" else min(99, 100 * ended // total) if total else 0
    return ProgressView(
        total, state.steps_done, state.steps_failed, state.steps_skipped, running, percentage
    )
