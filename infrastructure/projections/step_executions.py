"""`step_executions`: a row per try of a step in an attempt."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from application.views import ErrorView, StepView, step_view
from domain.execution import StepState
from domain.json_values import Json
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import ProjectedTable


class StepExecution(Struct, frozen=True, gc=False):
    """The row.

    `StepView`, flat. `agent_name` of an action step is the action's name; durations are
    milliseconds.
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
)


class StepExecutions:
    """The projection: the last form of every try which the batch touched."""

    table = TABLE
    streams = EXECUTIONS

    def rows(self, batch: Batch) -> list[StepExecution]:
        """See Projection."""
        made: list[StepExecution] = []
        for change in batch.executions:
            if change.tries:
                execution_id, workspace_id = str(change.after.id), change.after.workspace_id
                made += [
                    _row(execution_id, workspace_id, path, step, position)
                    for (_, path, _), (step, position) in change.tries.items()
                ]
        return made


def _row(
    execution_id: str, workspace_id: str, path: str, step: StepState, position: int
) -> StepExecution:
    view: StepView = step_view(execution_id, path, step)
    return StepExecution(
        run_id=view.run_id,
        step_id=view.step_id,
        step_name=view.step_name,
        agent_name=view.agent_name,
        status=view.status,
        input_data=view.input_data,
        output_data=view.output_data,
        error_message=view.error_message,
        started_at=view.started_at,
        completed_at=view.completed_at,
        path=view.path,
        attempt=view.attempt,
        try_no=view.try_no,
        action=view.action,
        sub_status=view.sub_status,
        error_class=view.error_class,
        error=view.error,
        why=view.why,
        delivery=view.delivery,
        progress=view.progress,
        due_at=view.due_at,
        duration_ms=view.duration_ms,
        workspace_id=workspace_id,
        position=position,
    )
