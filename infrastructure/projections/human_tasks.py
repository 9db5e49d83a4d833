"""`human_tasks`: a row per task given to a person."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from application.reads import HumanTaskView
from domain.execution import ExecutionState, HumanTask
from domain.json_values import Json
from domain.lifecycle import RUNNING
from infrastructure.projections.asked_people import changed
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import Index, ProjectedTable


class HumanTaskRow(Struct, frozen=True, gc=False):
    """The row.

    `status` is TODO, DONE, or CANCELLED when the step that waited for it has ended otherwise.
    """

    run_id: str
    id: str
    workflow_name: str
    path: str
    attempt: int
    status: str
    priority: str
    wait: bool
    title: str
    description: str | None
    assigned_to: str | None
    created_at: datetime
    completed_at: datetime | None
    completed_by: str | None
    result: Json
    workspace_id: str


_FIELDS: Final = HumanTaskRow.__struct_fields__

TABLE: Final = ProjectedTable(
    name="human_tasks",
    version=1,
    row=HumanTaskRow,
    key=("run_id", "id"),
    stream="run_id",
    json=frozenset({"result"}),
    public=("id", "run_id", ("execution_id", "substr(run_id, 5)"), *_FIELDS[2:]),
    indexes=(Index("open", "workspace_id, status, created_at, id"),),
)


class HumanTasks:
    """The projection: the tasks whose row the batch changed."""

    table = TABLE
    streams = EXECUTIONS
    details = False

    def rows(self, batch: Batch) -> list[HumanTaskRow]:
        """See Projection."""
        return [
            _row(change.after, task)
            for change in batch.executions
            if change.after.tasks
            for task in changed(change, lambda state: state.tasks, _status)
        ]


def _status(state: ExecutionState, task: HumanTask) -> str:
    if task.status != "TODO" or not task.wait:
        return task.status
    step = state.steps.get(task.path)
    waits = step is not None and step.task_id == task.id and step.state == RUNNING
    return "TODO" if waits and not state.terminal else "CANCELLED"


def _row(state: ExecutionState, task: HumanTask) -> HumanTaskRow:
    return HumanTaskRow(
        run_id=f"run-{state.id}",
        id=task.id,
        workflow_name=state.workflow_name,
        path=task.path,
        attempt=task.attempt,
        status=_status(state, task),
        priority=task.priority,
        wait=task.wait,
        title=task.title,
        description=task.description,
        assigned_to=task.assigned_to,
        created_at=task.created_at,
        completed_at=task.completed_at,
        completed_by=task.completed_by,
        result=task.result,
        workspace_id=state.workspace_id,
    )


def task_view(row: Mapping[str, Any]) -> HumanTaskView:
    """A selected row as callers see it."""
    names = (name for name in HumanTaskView.__slots__ if name != "execution_id")
    return HumanTaskView(
        execution_id=row["run_id"].removeprefix("run-"), **{name: row[name] for name in names}
    )
