"""`workflow_runs`: a row per execution, the summary which callers read, as columns."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from application.views import (
    ErrorView,
    ExecutionView,
    OriginView,
    ParentView,
    ProgressView,
    WaitView,
    summarise,
)
from domain.json_values import Json, JsonObject
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import Index, OutsideRows, ProjectedTable


class WorkflowRun(Struct, frozen=True, gc=False):
    """The row: `ExecutionView`, flat. Durations are milliseconds, `progress` is a percentage."""

    run_id: str
    workflow_id: str
    workflow_name: str
    workflow_definition_id: str
    status: str
    input_data: JsonObject
    error_message: str | None
    triggered_by: str
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    cancelled_at: datetime | None
    cancelled_by: str | None
    workspace_id: str
    workflow_version: int
    definition_sha256: str
    sub_status: str | None
    attempt: int
    version: int
    position: int
    atomic_mode: str
    priority: int
    labels: dict[str, str]
    simulate: bool
    output: Json
    partial: bool
    error: ErrorView | None
    steps_total: int
    steps_done: int
    steps_failed: int
    steps_skipped: int
    steps_running: int
    progress: int
    waiting_on: Sequence[WaitView]
    start_at: datetime | None
    started_at: datetime | None
    duration_ms: int | None
    allowed_actions: Sequence[str]
    steps_recovered: int
    forked_from: str | None
    forked_from_version: int | None
    forked_from_step: str | None
    parent: ParentView | None
    parent_run_id: str | None


TABLE: Final = ProjectedTable(
    name="workflow_runs",
    version=1,
    row=WorkflowRun,
    key=("run_id",),
    stream="run_id",
    json=frozenset({"input_data", "output", "error", "waiting_on", "allowed_actions", "parent"}),
    jsonb=frozenset({"labels"}),
    public=(
        ("id", "run_id"),
        *WorkflowRun.__struct_fields__[:13],
        ("execution_id", "substr(run_id, 5)"),
        *WorkflowRun.__struct_fields__[13:],
    ),
    indexes=(
        Index("created", "workspace_id, created_at, run_id"),
        Index("status", "workspace_id, status, created_at, run_id"),
        Index("workflow", "workspace_id, workflow_name, created_at, run_id"),
        Index("duration", "workspace_id, workflow_name, duration_ms", where="status = 'COMPLETED'"),
        Index("forks", "forked_from, created_at, run_id", where="forked_from IS NOT NULL"),
        Index(
            "parent",
            "workspace_id, parent_run_id, created_at, run_id",
            where="parent_run_id IS NOT NULL",
        ),
        Index("labels", "labels jsonb_path_ops", where="labels <> '{}'", using="gin"),
    ),
    outside=OutsideRows(
        table="outside_runs",
        given=frozenset(WorkflowRun.__struct_fields__[:14]),
        computed={"id": "o.run_id"},
        # Until the execution is there, under the same run id or that which another text names.
        shown="NOT EXISTS (SELECT 1 FROM {stored} r WHERE r.run_id = o.run_id)"
        " AND NOT EXISTS (SELECT 1 FROM outside_run_ids n"
        " JOIN {stored} r ON r.run_id = n.execution_run_id"
        " WHERE n.workspace_id = o.workspace_id AND n.run_id = o.run_id)",
    ),
)


class WorkflowRuns:
    """The projection: one summary per touched execution and batch."""

    table = TABLE
    streams = EXECUTIONS
    details = False

    def rows(self, batch: Batch) -> list[WorkflowRun]:
        """See Projection."""
        return [run_row(summarise(each.after, each.position)) for each in batch.executions]


def run_row(view: ExecutionView) -> WorkflowRun:
    """A summary as a row."""
    progress, origin = view.progress, view.forked_from
    return WorkflowRun(
        run_id=view.run_id,
        workflow_id=view.workflow_id,
        workflow_name=view.workflow_name,
        workflow_definition_id=view.workflow_definition_id,
        status=view.status,
        input_data=view.input_data,
        error_message=view.error_message,
        triggered_by=view.triggered_by,
        created_at=view.created_at,
        updated_at=view.updated_at,
        completed_at=view.completed_at,
        cancelled_at=view.cancelled_at,
        cancelled_by=view.cancelled_by,
        workspace_id=view.workspace_id,
        workflow_version=view.workflow_version,
        definition_sha256=view.definition_sha256,
        sub_status=view.sub_status,
        attempt=view.attempt,
        version=view.version,
        position=view.position,
        atomic_mode=view.atomic_mode,
        priority=view.priority,
        labels=view.labels,
        simulate=view.simulate,
        output=view.output,
        partial=view.partial,
        error=view.error,
        steps_total=progress.total,
        steps_done=progress.done,
        steps_failed=progress.failed,
        steps_skipped=progress.skipped,
        steps_running=progress.running,
        progress=progress.percentage,
        waiting_on=view.waiting_on,
        start_at=view.start_at,
        started_at=view.started_at,
        duration_ms=view.duration_ms,
        allowed_actions=view.allowed_actions,
        steps_recovered=view.steps_recovered,
        forked_from=None if origin is None else origin.execution_id,
        forked_from_version=None if origin is None else origin.version,
        forked_from_step=None if origin is None else origin.from_step,
        parent=view.parent,
        parent_run_id=None if view.parent is None else f"run-{view.parent.execution_id}",
    )


_FLAT: Final = frozenset(ExecutionView.__struct_fields__) - {
    "id",
    "execution_id",
    "error",
    "progress",
    "waiting_on",
    "allowed_actions",
    "forked_from",
    "parent",
}


def run_view(row: Mapping[str, Any]) -> ExecutionView:
    """A selected row as the summary it was made from."""
    execution_id = row["run_id"].removeprefix("run-")
    return ExecutionView(
        id=execution_id,
        execution_id=execution_id,
        error=None if row["error"] is None else msgspec.convert(row["error"], ErrorView),
        parent=None if row["parent"] is None else msgspec.convert(row["parent"], ParentView),
        progress=ProgressView(
            total=row["steps_total"],
            done=row["steps_done"],
            failed=row["steps_failed"],
            skipped=row["steps_skipped"],
            running=row["steps_running"],
            percentage=row["progress"],
        ),
        waiting_on=tuple(msgspec.convert(each, WaitView) for each in row["waiting_on"]),
        allowed_actions=tuple(row["allowed_actions"]),
        forked_from=None
        if row["forked_from"] is None
        else OriginView(row["forked_from"], row["forked_from_version"], row["forked_from_step"]),
        **{name: row[name] for name in _FLAT},
    )
