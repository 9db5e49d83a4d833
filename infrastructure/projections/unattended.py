"""Which open executions nobody looks after: the rows of `workflow_runs` against the work queue."""

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from application.reads import LAPSED, NO_ROW, NOT_TAKEN, NOTHING_DUE, Unattended
from infrastructure.event_store.queue_writes import NOTHING_DUE as NEVER
from infrastructure.event_store.queue_writes import from_microseconds, to_microseconds
from infrastructure.projections.workflow_runs import TABLE

RUNS: Final = TABLE.selectable
QUEUE: Final = sa.table(
    "work_queue",
    sa.column("execution_id"),
    sa.column("ready_at", sa.BigInteger),
    sa.column("lease_owner"),
    sa.column("lease_until", sa.BigInteger),
)


def unattended(
    connection: sa.Connection,
    workspace_id: str,
    *,
    now: datetime,
    lease: timedelta,
    patience: timedelta,
    limit: int,
) -> list[Unattended]:
    """Open executions untouched for longer than lease and patience, without a live lease, and not
    put off to a time to come; those that wait for a person are among them.
    """
    before = now - lease - patience
    lapsed = sa.and_(
        QUEUE.c.lease_owner.is_not(None),
        QUEUE.c.lease_until <= to_microseconds(now - patience),
    )
    free = QUEUE.c.lease_owner.is_(None)
    due = sa.and_(free, QUEUE.c.ready_at <= to_microseconds(before))
    never = sa.and_(free, QUEUE.c.ready_at == NEVER)
    missing = QUEUE.c.execution_id.is_(None)
    why = sa.case((missing, NO_ROW), (lapsed, LAPSED), (due, NOT_TAKEN), else_=NOTHING_DUE)
    statement = (
        sa.select(RUNS.c.run_id, RUNS.c.updated_at, QUEUE.c.ready_at, QUEUE.c.lease_until, why)
        .select_from(RUNS.outerjoin(QUEUE, QUEUE.c.execution_id == _queue_id(connection)))
        .where(
            RUNS.c.workspace_id == workspace_id,
            RUNS.c.status.in_(("PENDING", "RUNNING")),
            RUNS.c.updated_at <= before,
            sa.or_(missing, lapsed, due, never),
        )
        # What waits for a person is most, and is no fault: it comes last.
        .order_by(sa.case((never, 1), else_=0), RUNS.c.updated_at)
        .limit(limit)
    )
    return [_found(row) for row in connection.execute(statement)]


def _queue_id(connection: sa.Connection) -> "sa.ColumnElement[Any]":
    text = sa.func.substr(RUNS.c.run_id, 5)
    if connection.dialect.name == "postgresql":
        return sa.cast(text, sa.Uuid)
    return sa.func.replace(text, "-", "")


def _found(row: Any) -> Unattended:  # a row of the columns above
    run_id, updated_at, ready_at, lease_until, why = row
    since = updated_at
    if why == LAPSED:
        since = from_microseconds(lease_until)
    elif why == NOT_TAKEN:
        since = from_microseconds(ready_at)
    return Unattended(run_id.removeprefix("run-"), why, since)
