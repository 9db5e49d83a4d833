"""The TaskQueue port: table `task_leases` beside the projection `agent_tasks`.

A lease is its epoch: times only say when the next worker may have the task. They are those of the
store's clock.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from application.ports import Clock
from application.tasks import TaskLease, TaskQueue
from infrastructure.database import Store
from infrastructure.event_store.queue_writes import from_microseconds, to_microseconds
from infrastructure.event_store.sqlite import SQLiteJobs, draw_epochs
from infrastructure.projections.agent_tasks import TABLE
from infrastructure.small_tables import Row, SmallTables, open_small_tables

MICROSECONDS: Final = 1_000_000
KEPT_SECONDS: Final = 3_600
"""How long the lease of an ended task is kept for a result that is sent twice."""
FORGOTTEN_AT_ONCE: Final = 500

_KEY: Final = "run_id, attempt, path, try_no"
_COLUMNS: Final = (
    f"workspace_id, {_KEY}, task_id, correlation_id, worker_id, epoch, lease_until, deliveries,"
    " settled"
)
_SAME: Final = (
    "l.run_id = t.run_id AND l.attempt = t.attempt AND l.path = t.path AND l.try_no = t.try_no"
)
_MAY_BE_TAKEN: Final = (
    "t.status = 'OPEN' AND t.transport = 'pull'"
    " AND (l.epoch IS NULL OR (NOT l.settled AND l.lease_until <= ?))"
)
_WITH_LEASES: Final = f"{TABLE.stored} t LEFT JOIN task_leases l ON {_SAME}"
_TASK: Final = "t.run_id, t.attempt, t.path, t.try_no, t.task_id, t.correlation_id"
_ORDERED: Final = "t.priority, t.dispatched_at"
# A lease that another one takes at the same time is left to it.
_TAKE_OVER: Final = (
    f"ON CONFLICT ({_KEY}) DO UPDATE SET worker_id = excluded.worker_id, epoch = excluded.epoch,"
    " lease_until = excluded.lease_until, deliveries = k.deliveries + 1"
    " WHERE NOT k.settled AND k.lease_until <= ?"
)
_PG_CLAIM: Final = (
    "WITH offers AS (SELECT o.* FROM unnest(?::text[]) AS wanted(name), LATERAL ("  # noqa: S608 - names of the code
    f"SELECT {_TASK}, {_ORDERED} FROM {_WITH_LEASES}"
    f" WHERE t.workspace_id = ? AND t.agent_name = wanted.name AND {_MAY_BE_TAKEN}"
    f" ORDER BY {_ORDERED} LIMIT ? FOR UPDATE OF t SKIP LOCKED"
    ") o ORDER BY o.priority, o.dispatched_at LIMIT ?), claimed AS ("
    f"INSERT INTO task_leases AS k ({_COLUMNS}) SELECT ?, {_KEY}, task_id, correlation_id, ?,"
    f" nextval('flowledger_epoch'), ?, 1, false FROM offers {_TAKE_OVER} RETURNING {_COLUMNS})"
    f" SELECT {_COLUMNS} FROM claimed JOIN (SELECT {_KEY}, priority, dispatched_at FROM offers) o"
    f" USING ({_KEY}) ORDER BY priority, dispatched_at"
)
_LITE_OFFERS: Final = (
    f"SELECT {_TASK}, {_ORDERED} FROM {_WITH_LEASES}"  # noqa: S608 - names of the code
    f" WHERE t.workspace_id = ? AND t.agent_name = ? AND {_MAY_BE_TAKEN}"
    f" ORDER BY {_ORDERED} LIMIT ?"
)
_LITE_CLAIM: Final = (
    f"INSERT INTO task_leases AS k ({_COLUMNS}) VALUES"  # noqa: S608 - names of the code
    f" (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, false) {_TAKE_OVER} RETURNING {_COLUMNS}"
)
_COUNT: Final = (
    f"SELECT count(*) FROM (SELECT 1 FROM {_WITH_LEASES}"  # noqa: S608 - names of the code
    f" WHERE t.workspace_id = ? AND t.agent_name = ? AND {_MAY_BE_TAKEN} LIMIT ?) found"
)
_FIND: Final = f"SELECT {_COLUMNS} FROM task_leases WHERE task_id = ? AND workspace_id = ?"  # noqa: S608 - names of the code
_THIS: Final = "run_id = ? AND attempt = ? AND path = ? AND try_no = ?"
_EXTEND: Final = (
    f"UPDATE task_leases SET lease_until = ? WHERE {_THIS} AND epoch = ? AND NOT settled"  # noqa: S608 - names of the code
    " RETURNING lease_until"
)
_GIVE_BACK: Final = (
    f"UPDATE task_leases SET lease_until = ?, deliveries = deliveries - 1 WHERE ({_KEY}, epoch)"  # noqa: S608 - names of the code
    " IN (VALUES {}) AND NOT settled"
)
_SETTLE: Final = f"UPDATE task_leases SET settled = true, lease_until = ? WHERE {_THIS}"  # noqa: S608 - names of the code
_FORGET: Final = (
    f"DELETE FROM task_leases WHERE ({_KEY}) IN (SELECT l.run_id, l.attempt, l.path, l.try_no"  # noqa: S608 - names of the code
    f" FROM task_leases l LEFT JOIN {TABLE.stored} t ON {_SAME}"
    " WHERE l.lease_until <= ? AND coalesce(t.status, '') <> 'OPEN' LIMIT ?) RETURNING task_id"
)


def open_task_queue(store: Store) -> "StoredTaskQueue":
    """The leases in the database of an open store."""
    tables = open_small_tables(store, "tasks")
    if isinstance(store.writes, SQLiteJobs):
        return _SQLiteTaskQueue(tables, store.clock, store.writes)
    return _PostgresTaskQueue(tables, store.clock)


class StoredTaskQueue(TaskQueue):
    """What both back ends do alike."""

    def __init__(self, tables: SmallTables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    async def offered(
        self, workspace_id: str, agents: Collection[str], limit: int
    ) -> Mapping[str, int]:
        """See TaskQueue."""
        found = {}
        for agent in sorted(agents):
            values = (workspace_id, agent, self._now(), limit)
            ((found[agent],),) = await self._tables.run(_COUNT, values)
        return found

    async def leases(self, workspace_id: str, task_id: str) -> Sequence[TaskLease]:
        """See TaskQueue."""
        return _leases(await self._tables.run(_FIND, (task_id, workspace_id)))

    async def extend(self, lease: TaskLease, lease_seconds: float) -> Any:
        """See TaskQueue."""
        until = self._now() + int(lease_seconds * MICROSECONDS)
        rows = await self._tables.run(_EXTEND, (until, *_key(lease), lease.epoch))
        return from_microseconds(until) if rows else None

    async def give_back(self, leases: Collection[TaskLease]) -> None:
        """See TaskQueue."""
        if not leases:
            return
        rows = ", ".join(["(?, ?, ?, ?, ?)"] * len(leases))
        values = chain.from_iterable((*_key(lease), lease.epoch) for lease in leases)
        await self._tables.run(_GIVE_BACK.format(rows), (self._now(), *values))

    async def settle(self, lease: TaskLease) -> None:
        """See TaskQueue."""
        await self._tables.run(_SETTLE, (self._now(), *_key(lease)))

    async def forget(self) -> int:
        """See TaskQueue."""
        before = self._now() - KEPT_SECONDS * MICROSECONDS
        return len(await self._tables.run(_FORGET, (before, FORGOTTEN_AT_ONCE)))

    async def aclose(self) -> None:
        """Let go of what is held; nothing is called afterwards."""
        await self._tables.aclose()

    def _now(self) -> int:
        return to_microseconds(self._clock.now())


class _PostgresTaskQueue(StoredTaskQueue):
    """Claims of several processes pass each other's rows over."""

    async def claim(
        self,
        workspace_id: str,
        agents: Collection[str],
        worker_id: str,
        *,
        limit: int,
        lease_seconds: float,
    ) -> Sequence[TaskLease]:
        """See TaskQueue."""
        now = self._now()
        until = now + int(lease_seconds * MICROSECONDS)
        values = (
            list(agents),
            workspace_id,
            now,
            limit,
            limit,
            workspace_id,
            worker_id,
            until,
            now,
        )
        return _leases(await self._tables.run(_PG_CLAIM, values))


class _SQLiteTaskQueue(StoredTaskQueue):
    """A claim is one job of the one writing connection."""

    def __init__(self, tables: SmallTables, clock: Clock, jobs: SQLiteJobs) -> None:
        super().__init__(tables, clock)
        self._jobs = jobs

    async def claim(
        self,
        workspace_id: str,
        agents: Collection[str],
        worker_id: str,
        *,
        limit: int,
        lease_seconds: float,
    ) -> Sequence[TaskLease]:
        """See TaskQueue."""
        now = self._now()
        until = now + int(lease_seconds * MICROSECONDS)

        def work(connection: sqlite3.Connection) -> list[Row]:
            offers: list[Row] = []
            for agent in agents:
                values = (workspace_id, agent, now, limit)
                offers += connection.execute(_LITE_OFFERS, values).fetchall()
            offers.sort(key=lambda row: row[6:])
            claimed: list[Row] = []
            del offers[limit:]
            if offers:
                for epoch, (*task, _, _) in zip(
                    draw_epochs(connection, len(offers)), offers, strict=True
                ):
                    row = (workspace_id, *task, worker_id, epoch, until, now)
                    claimed += connection.execute(_LITE_CLAIM, row).fetchall()
            return claimed

        return _leases(await self._jobs.done(work))


def _key(lease: TaskLease) -> tuple[str, int, str, int]:
    return lease.run_id, lease.attempt, lease.path, lease.try_no


def _leases(rows: Iterable[Row]) -> list[TaskLease]:
    return [
        TaskLease(
            workspace_id=workspace_id,
            run_id=run_id,
            attempt=attempt,
            path=path,
            try_no=try_no,
            task_id=task_id,
            correlation_id=correlation_id,
            worker_id=worker_id,
            epoch=epoch,
            lease_until=from_microseconds(until),
            delivery=delivery,
            settled=bool(settled),
        )
        for (
            workspace_id,
            run_id,
            attempt,
            path,
            try_no,
            task_id,
            correlation_id,
            worker_id,
            epoch,
            until,
            delivery,
            settled,
        ) in rows
    ]
