"""`agent_tasks`: a row per task that went out to an agent, whatever carries it there."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from msgspec import Struct

from application.reads import AgentTaskView
from domain.definition import step_id_of
from domain.execution import ExecutionState, StepState
from domain.json_values import Json
from domain.lifecycle import CANCELLED, RUNNING, SKIPPED
from infrastructure.event_store.queue_writes import from_microseconds
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import Index, ProjectedTable

OPEN: Final = "OPEN"
STATUSES: Final = (OPEN, "DONE", "TIMED_OUT", "CANCELLED")


class AgentTask(Struct, frozen=True, gc=False):
    """The row, of one try of a step.

    `status` is OPEN, DONE (it has a result, also one that tells of a failure), TIMED_OUT, or
    CANCELLED when the step ended otherwise.
    """

    run_id: str
    task_id: str
    correlation_id: str
    workflow_name: str
    path: str
    step_id: str
    attempt: int
    try_no: int
    agent_name: str
    transport: str
    status: str
    priority: int
    dispatched_at: datetime
    deadline_at: datetime | None
    ended_at: datetime | None
    input_data: Json
    workspace_id: str
    position: int


_FIELDS: Final = AgentTask.__struct_fields__

TABLE: Final = ProjectedTable(
    name="agent_tasks",
    version=1,
    row=AgentTask,
    # Not by the id of the task: its eight digits may meet those of another try.
    key=("run_id", "attempt", "path", "try_no"),
    stream="run_id",
    json=frozenset({"input_data"}),
    public=("task_id", "run_id", ("execution_id", "substr(run_id, 5)"), *_FIELDS[2:]),
    indexes=(
        Index(
            "offered",
            "workspace_id, agent_name, priority, dispatched_at",
            "status = 'OPEN' AND transport = 'pull'",
        ),
        Index("status", "workspace_id, status, dispatched_at"),
        Index("task", "task_id"),
    ),
)

_TASKS: Final = TABLE.selectable
_LEASES: Final = sa.table(
    "task_leases",
    *(sa.column(name) for name in (*TABLE.key, "worker_id")),
    sa.column("lease_until", sa.BigInteger),
    sa.column("deliveries", sa.BigInteger),
)


class AgentTasks:
    """The projection: the last form of every dispatched try that the batch touched."""

    table = TABLE
    streams = EXECUTIONS
    details = True

    def rows(self, batch: Batch) -> list[AgentTask]:
        """See Projection."""
        return [
            _row(change.after, path, step, position)
            for change in batch.executions
            for (_, path, _), (step, position) in change.tries.items()
            # A re-try that is scheduled is not sent yet: what it has is of the try before.
            if step.dispatched is not None and step.started_at is not None
        ]


def _status(step: StepState) -> str:
    sent = step.dispatched
    if sent is not None and sent.ended_at is not None:  # whatever became of the step since
        return "TIMED_OUT" if sent.timed_out else "DONE"
    if step.state == RUNNING:
        return OPEN
    return "CANCELLED" if step.state in (CANCELLED, SKIPPED) else "DONE"


def _row(state: ExecutionState, path: str, step: StepState, position: int) -> AgentTask:
    sent = step.dispatched
    assert sent is not None, "only tries that went out are listed"  # noqa: S101 - a slip of ours
    return AgentTask(
        run_id=f"run-{state.id}",
        task_id=sent.task_id,
        correlation_id=sent.correlation_id,
        workflow_name=state.workflow_name,
        path=path,
        step_id=step_id_of(path),
        attempt=step.attempt,
        try_no=step.try_no,
        agent_name=sent.agent,
        transport=sent.transport,
        status=_status(step),
        priority=state.priority,
        dispatched_at=sent.since,
        deadline_at=step.deadline_at,
        ended_at=sent.ended_at or step.ended_at,
        input_data=step.input,
        workspace_id=state.workspace_id,
        position=position,
    )


def tasks_with_leases(
    workspace_id: str,
    *,
    status: str | None = None,
    agent: str | None = None,
    execution_id: str | None = None,
    task_id: str | None = None,
) -> sa.Select[Any]:
    """The tasks that fit, with the newest lease of those that a worker asked for."""
    same = (_TASKS.c[name] == _LEASES.c[name] for name in TABLE.key)
    wanted = sa.select(
        _TASKS, _LEASES.c.worker_id, _LEASES.c.lease_until, _LEASES.c.deliveries
    ).select_from(_TASKS.outerjoin(_LEASES, sa.and_(*same)))
    run_id = None if execution_id is None else f"run-{execution_id.removeprefix('run-')}"
    filters = {"status": status, "agent_name": agent, "run_id": run_id, "task_id": task_id}
    conditions = [_TASKS.c[name] == value for name, value in filters.items() if value is not None]
    return wanted.where(_TASKS.c.workspace_id == workspace_id, *conditions)


def agent_task_view(row: Mapping[str, Any]) -> AgentTaskView:
    """A row of `tasks_with_leases` as callers see it."""
    leased = row["status"] == OPEN and row["lease_until"] is not None
    named: dict[str, Any] = {
        "execution_id": row["run_id"].removeprefix("run-"),
        "lease_until": from_microseconds(row["lease_until"]) if leased else None,
        "delivery": row["deliveries"],
    }
    names = (name for name in AgentTaskView.__slots__ if name not in named)
    return AgentTaskView(**named, **{name: row[name] for name in names})
