"""`step_executions`: a row per try of a step in an attempt."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from application.views import ErrorView, error_view, milliseconds_between, who_did
from domain.definition import step_id_of
from domain.execution import StepState
from domain.json_values import Json
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import OutsideRows, ProjectedTable


class StepExecution(Struct, frozen=True, gc=False):
    """The row.

    `StepView`, flat. `agent_name` of a step that an agent did is the agent's name and `action` then
    `agent`; of an action step both are the action's name. Durations are milliseconds.
    """

    run_id: str
    step_id: str
    step_name: str
    agent_name: str
    status: str
    input_data: Json
    output_data: Json
    error_message: str | None
    started_at: datetime | None
    completed_at: datetime | None
    path: str
    attempt: int
    try_no: int
    action: str
    sub_status: str | None
    error_class: str | None
    error: ErrorView | None
    why: str | None
    delivery: int
    progress: Json
    due_at: datetime | None
    duration_ms: int | None
    workspace_id: str
    position: int


_ID: Final = "substr(run_id, 5) || ':' || attempt || ':' || path || ':' || try_no"
_FIELDS: Final = StepExecution.__struct_fields__

TABLE: Final = ProjectedTable(
    name="step_executions",
    version=1,
    row=StepExecution,
    key=("run_id", "attempt", "path", "try_no"),
    stream="run_id",
    json=frozenset({"input_data", "output_data", "error", "progress"}),
    public=(
        ("id", _ID),
        ("step_execution_id", _ID),
        *_FIELDS[:4],
        "status",
        *_FIELDS[5:7],
        "error_message",
        *_FIELDS[8:],
        ("execution_id", "substr(run_id, 5)"),
    ),
    outside=OutsideRows(
        table="outside_steps",
        given=frozenset((*_FIELDS[:10], "workspace_id")),
        computed={"id": "o.id || ''", "step_execution_id": "o.id || ''"},
        # Until the run has steps of its own here.
        shown="NOT EXISTS (SELECT 1 FROM {stored} r WHERE r.run_id = o.run_id)"
        " AND NOT EXISTS (SELECT 1 FROM outside_run_ids n"
        " JOIN {stored} r ON r.run_id = n.execution_run_id"
        " WHERE n.workspace_id = o.workspace_id AND n.run_id = o.run_id)",
    ),
)


class StepExecutions:
    """The projection: the last form of every try which the batch touched."""

    table = TABLE
    streams = EXECUTIONS
    details = True

    def rows(self, batch: Batch) -> list[StepExecution]:
        """See Projection."""
        made: list[StepExecution] = []
        for change in batch.executions:
            if change.tries:
                run_id, workspace_id = f"run-{change.after.id}", change.after.workspace_id
                made += [
                    _row(run_id, workspace_id, path, step, position)
                    for (_, path, _), (step, position) in change.tries.items()
                ]
        return made


def _row(
    run_id: str, workspace_id: str, path: str, step: StepState, position: int
) -> StepExecution:
    error = step.error
    status, _, sub_status = step.state.partition(".")
    step_id, (agent_name, action) = step_id_of(path), who_did(step.action)
    return StepExecution(
        run_id,
        step_id,
        step_id,
        agent_name,
        status,
        step.input,
        step.output,
        error.message if error else None,
        step.started_at,
        step.ended_at,
        path,
        step.attempt,
        step.try_no,
        action,
        sub_status or None,
        error.error_class if error else None,
        error_view(error),
        step.why,
        step.delivery,
        step.progress,
        step.due_at,
        milliseconds_between(step.started_at, step.ended_at),
        workspace_id,
        position,
    )
