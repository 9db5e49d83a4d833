"""The WorkQueue port: who works on what, and until when.

Every comparison of times is made by the database, or on SQLite with the clock of this machine. A
row can be claimed when it is due and nobody has it, or when the worker that had it let its lease
run out, whether or not anything was due then.
"""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg_pool import ConnectionPool

from application.ports import Claim, QueueRow, QueueStatistics, StoreUnavailable
from infrastructure.event_store.queue_writes import (
    NOTHING_DUE,
    from_microseconds,
    to_microseconds,
)
from infrastructure.event_store.sqlite import SQLiteJobs, draw_epochs
from infrastructure.store_health import StoreThreads

PRIORITIES = range(10)
MICROSECONDS = 1_000_000

T = TypeVar("T")
ClockReading = Callable[[int], None]
"""Called with the database's time in microseconds whenever a statement brought it along."""


# ---------------------------------------------------------------------------------- PostgreSQL

_PG_CLAIM = "SELECT present, ids, epochs, versions FROM flowledger_claim_v2(%s, %s, %s)"
# Rows which an append holds at this moment are passed over: it may be waiting for one of ours. Such
# an append extends the lease itself, or the next renewal does.
_PG_RENEW = """
WITH free AS (
    SELECT execution_id FROM work_queue WHERE lease_owner = %(worker)s
    ORDER BY execution_id FOR UPDATE SKIP LOCKED
), renewed AS (
    UPDATE work_queue q SET lease_until = flowledger_now() + %(lease)s
    FROM free WHERE q.execution_id = free.execution_id
    RETURNING q.execution_id, q.epoch, q.version, q.woken
)
SELECT execution_id, epoch, version, woken, flowledger_now() FROM renewed
UNION ALL
SELECT execution_id, epoch, version, woken, flowledger_now() FROM work_queue
WHERE lease_owner = %(worker)s AND execution_id NOT IN (SELECT execution_id FROM free)
ORDER BY execution_id
"""
_PG_HAND_BACK = """
UPDATE work_queue SET lease_owner = NULL, lease_until = 0,
    ready_at = CASE WHEN woken THEN least(ready_at, %(due)s) ELSE %(due)s END
WHERE execution_id = %(id)s AND epoch = %(epoch)s AND version = %(version)s
    AND lease_owner = %(worker)s
"""
_PG_RELEASE_ALL = """
UPDATE work_queue q SET lease_owner = NULL, lease_until = 0,
    ready_at = least(q.ready_at, flowledger_now())
FROM (
    SELECT execution_id FROM work_queue WHERE lease_owner = %s
    ORDER BY execution_id FOR UPDATE SKIP LOCKED
) mine
WHERE q.execution_id = mine.execution_id
"""
_PG_CLAIM_NAMED = f"""
UPDATE work_queue SET lease_owner = %(worker)s, lease_until = flowledger_now() + %(lease)s,
    epoch = nextval('flowledger_epoch'), woken = false
WHERE execution_id = %(id)s AND lease_owner IS NULL
    AND (ready_at <= flowledger_now() OR ready_at = {NOTHING_DUE})
RETURNING execution_id, epoch, version
"""  # noqa: S608 - a constant
_PG_MAKE_READY = f"""
UPDATE work_queue SET ready_at = flowledger_now()
WHERE execution_id = %s AND lease_owner IS NULL AND ready_at = {NOTHING_DUE}
"""  # noqa: S608 - a constant
_PG_NEXT_DUE = """
SELECT least(
    (SELECT min(l.ready_at) FROM generate_series(0, 9) AS p(level), LATERAL (
        SELECT min(ready_at) AS ready_at FROM work_queue
        WHERE lease_owner IS NULL AND priority = p.level) AS l),
    (SELECT min(lease_until) FROM work_queue
        WHERE lease_owner IS NOT NULL AND lease_until <= flowledger_now())
)
"""
_PG_ROW = """
SELECT lease_owner IS NOT NULL AND lease_until > flowledger_now(), lease_until, ready_at
FROM work_queue WHERE execution_id = %s
"""
_PG_STATISTICS = """
SELECT count(execution_id),
    count(*) FILTER (WHERE lease_until <= n.now AND (ready_at <= n.now OR lease_owner IS NOT NULL)),
    count(*) FILTER (WHERE lease_owner IS NOT NULL AND lease_until > n.now),
    count(*) FILTER (WHERE lease_owner IS NOT NULL AND lease_until <= n.now),
    count(DISTINCT lease_owner) FILTER (WHERE lease_until > n.now),
    coalesce(n.now - min(least(ready_at, n.now)) FILTER (WHERE lease_until <= n.now), 0)
FROM work_queue RIGHT JOIN (SELECT flowledger_now() AS now) n ON true GROUP BY n.now
"""


class PostgresWorkQueue:
    """The queue on PostgreSQL. The pool has a connection for each of the threads; those that keep
    leases do nothing else, so that no reader ever delays a renewal.
    """

    def __init__(
        self,
        pool: "ConnectionPool[psycopg.Connection]",
        leasing: StoreThreads,
        looking: StoreThreads,
        *,
        worker: str,
        lease_seconds: float,
        on_time: ClockReading,
    ) -> None:
        """`worker` is unique among all processes that ever share the database."""
        self._pool = pool
        self._leasing = leasing
        self._looking = looking
        self._worker = worker
        self._lease = int(lease_seconds * MICROSECONDS)
        self._on_time = on_time

    async def claim(self, limit: int) -> Sequence[Claim]:
        """See `application.ports.WorkQueue.claim`."""
        rows = await self._rows(_PG_CLAIM, (self._worker, self._lease, limit))
        present, ids, epochs, versions = rows[0]
        self._on_time(present)
        return list(map(Claim, ids, epochs, versions))

    async def renew(self) -> Sequence[Claim]:
        """See `application.ports.WorkQueue.renew`."""
        rows = await self._rows(_PG_RENEW, {"worker": self._worker, "lease": self._lease})
        if rows:
            self._on_time(rows[0][4])
        return [Claim(*row[:4]) for row in rows]

    async def hand_back(self, claim: Claim, ready_at: datetime | None) -> bool:
        """See `application.ports.WorkQueue.hand_back`."""
        due = NOTHING_DUE if ready_at is None else to_microseconds(ready_at)
        parameters = {
            "due": due,
            "id": claim.execution_id,
            "epoch": claim.epoch,
            "version": claim.version,
            "worker": self._worker,
        }
        return await self._changed(_PG_HAND_BACK, parameters) == 1

    async def release_all(self) -> None:
        """See `application.ports.WorkQueue.release_all`."""
        while await self._changed(_PG_RELEASE_ALL, (self._worker,)):
            continue

    async def claim_named(self, execution_id: UUID) -> Claim | None:
        """See `application.ports.NamedStarts.claim_named`."""
        parameters = {"worker": self._worker, "lease": self._lease, "id": execution_id}
        rows = await self._rows(_PG_CLAIM_NAMED, parameters)
        return Claim(*rows[0]) if rows else None

    async def make_ready(self, execution_id: UUID) -> bool:
        """See `application.ports.NamedStarts.make_ready`."""
        return await self._changed(_PG_MAKE_READY, (execution_id,)) == 1

    async def next_due(self) -> datetime | None:
        """See `application.ports.WorkQueue.next_due`."""
        return _due((await self._rows(_PG_NEXT_DUE, ()))[0][0])

    async def row(self, execution_id: UUID) -> QueueRow | None:
        """See `application.ports.WorkQueue.row`."""
        return _row(await self._looked(_PG_ROW, (execution_id,)))

    async def statistics(self) -> QueueStatistics:
        """See `application.ports.WorkQueue.statistics`."""
        depth, ready, leased, lapsed, workers, age = (await self._looked(_PG_STATISTICS, ()))[0]
        return QueueStatistics(depth, ready, leased, lapsed, workers, age / MICROSECONDS)

    async def read_time(self) -> None:
        """Ask the database for its time and pass that on."""
        self._on_time((await self._looked("SELECT flowledger_now()", ()))[0][0])

    async def _rows(self, statement: str, parameters: Any) -> list[Any]:
        return await self._leasing.run(
            lambda: self._executed(statement, parameters, lambda cursor: cursor.fetchall())
        )

    async def _looked(self, statement: str, parameters: Any) -> list[Any]:
        return await self._looking.run(
            lambda: self._executed(statement, parameters, lambda cursor: cursor.fetchall())
        )

    async def _changed(self, statement: str, parameters: Any) -> int:
        return await self._leasing.run(
            lambda: self._executed(statement, parameters, lambda cursor: cursor.rowcount)
        )

    def _executed(
        self, statement: str, parameters: Any, result: Callable[["psycopg.Cursor[Any]"], T]
    ) -> T:
        try:
            with self._pool.connection() as connection:
                return result(connection.execute(statement.encode(), parameters, prepare=True))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            # Replace connections that went with a restarted server before the next call.
            self._pool.check()
            raise StoreUnavailable(f"PostgreSQL does not answer: {error}") from error


# -------------------------------------------------------------------------------------- SQLite

_LITE_ABANDONED = """
SELECT execution_id, version, priority, ready_at, 1 FROM work_queue
WHERE lease_owner IS NOT NULL AND lease_until <= ? ORDER BY priority, ready_at LIMIT ?
"""
_LITE_DUE = """
SELECT execution_id, version, priority, ready_at, 0 FROM work_queue
WHERE lease_owner IS NULL AND priority = ? AND ready_at <= ? ORDER BY ready_at LIMIT ?
"""
_LITE_CLAIM = """
UPDATE work_queue SET lease_owner = ?, lease_until = ?, epoch = ?, deliveries = deliveries + ?,
    woken = 0
WHERE execution_id = ?
"""
_LITE_CLAIM_NAMED = """
UPDATE work_queue SET lease_owner = ?, lease_until = ?, epoch = ?, woken = 0
WHERE execution_id = ? AND lease_owner IS NULL AND (ready_at <= ? OR ready_at = ?)
RETURNING version
"""
_LITE_MAKE_READY = (
    "UPDATE work_queue SET ready_at = ?"
    " WHERE execution_id = ? AND lease_owner IS NULL AND ready_at = ?"
)
_LITE_STATISTICS = """
SELECT count(*),
    coalesce(sum(lease_until <= :now AND (ready_at <= :now OR lease_owner IS NOT NULL)), 0),
    coalesce(sum(lease_owner IS NOT NULL AND lease_until > :now), 0),
    coalesce(sum(lease_owner IS NOT NULL AND lease_until <= :now), 0),
    count(DISTINCT CASE WHEN lease_until > :now THEN lease_owner END),
    coalesce(:now - min(CASE WHEN lease_until <= :now THEN min(ready_at, :now) END), 0)
FROM work_queue
"""


class SQLiteWorkQueue:
    """The queue on SQLite: every call is a job of the committer's thread."""

    def __init__(
        self,
        jobs: SQLiteJobs,
        *,
        worker: str,
        lease_seconds: float,
        now: Callable[[], int],
        on_time: ClockReading,
    ) -> None:
        """`now` gives the time in microseconds since 1970-01-01 UTC."""
        self._jobs = jobs
        self._worker = worker
        self._lease = int(lease_seconds * MICROSECONDS)
        self._now = now
        self._on_time = on_time

    async def claim(self, limit: int) -> Sequence[Claim]:
        """See `application.ports.WorkQueue.claim`."""
        return await self._run(lambda connection: self._claim(connection, limit))

    async def renew(self) -> Sequence[Claim]:
        """See `application.ports.WorkQueue.renew`."""
        return await self._run(self._renew)

    async def hand_back(self, claim: Claim, ready_at: datetime | None) -> bool:
        """See `application.ports.WorkQueue.hand_back`."""
        due = NOTHING_DUE if ready_at is None else to_microseconds(ready_at)
        statement = (
            "UPDATE work_queue SET lease_owner = NULL, lease_until = 0,"
            " ready_at = CASE WHEN woken THEN min(ready_at, ?1) ELSE ?1 END"
            " WHERE execution_id = ?2 AND epoch = ?3 AND version = ?4 AND lease_owner = ?5"
        )
        parameters = (due, claim.execution_id.hex, claim.epoch, claim.version, self._worker)
        return await self._run(lambda c: c.execute(statement, parameters).rowcount == 1)

    async def release_all(self) -> None:
        """See `application.ports.WorkQueue.release_all`."""
        statement = (
            "UPDATE work_queue SET lease_owner = NULL, lease_until = 0,"
            " ready_at = min(ready_at, ?) WHERE lease_owner = ?"
        )
        await self._run(lambda c: c.execute(statement, (self._now(), self._worker)).rowcount)

    async def claim_named(self, execution_id: UUID) -> Claim | None:
        """See `application.ports.NamedStarts.claim_named`."""
        return await self._run(lambda connection: self._claim_named(connection, execution_id))

    async def make_ready(self, execution_id: UUID) -> bool:
        """See `application.ports.NamedStarts.make_ready`."""
        values = (self._now(), execution_id.hex, NOTHING_DUE)
        return await self._run(lambda c: c.execute(_LITE_MAKE_READY, values).rowcount == 1)

    async def next_due(self) -> datetime | None:
        """See `application.ports.WorkQueue.next_due`."""
        return _due(await self._run(self._next_due))

    async def row(self, execution_id: UUID) -> QueueRow | None:
        """See `application.ports.WorkQueue.row`."""
        statement = (
            "SELECT lease_owner IS NOT NULL AND lease_until > ?, lease_until, ready_at"
            " FROM work_queue WHERE execution_id = ?"
        )
        parameters = (self._now(), execution_id.hex)
        return _row(await self._run(lambda c: c.execute(statement, parameters).fetchall()))

    async def statistics(self) -> QueueStatistics:
        """See `application.ports.WorkQueue.statistics`."""
        depth, ready, leased, lapsed, workers, age = await self._run(
            lambda c: c.execute(_LITE_STATISTICS, {"now": self._now()}).fetchone()
        )
        return QueueStatistics(depth, ready, leased, lapsed, workers, age / MICROSECONDS)

    async def read_time(self) -> None:
        """Read this machine's time and pass that on."""
        self._on_time(self._now())

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        result = await self._jobs.done(work)
        self._on_time(self._now())
        return result

    def _claim(self, connection: sqlite3.Connection, limit: int) -> list[Claim]:
        now = self._now()
        rows = connection.execute(_LITE_ABANDONED, (now, limit)).fetchall()
        for priority in PRIORITIES:
            if len(rows) >= limit:
                break
            rows += connection.execute(_LITE_DUE, (priority, now, limit - len(rows))).fetchall()
        if not rows:
            return []
        rows.sort(key=lambda row: row[2:4])
        epochs = draw_epochs(connection, len(rows))
        connection.executemany(
            _LITE_CLAIM,
            [
                (self._worker, now + self._lease, epoch, taken_over, execution_id)
                for epoch, (execution_id, _, _, _, taken_over) in zip(epochs, rows, strict=True)
            ],
        )
        return [
            Claim(UUID(hex=row[0]), epoch, row[1]) for epoch, row in zip(epochs, rows, strict=True)
        ]

    def _claim_named(self, connection: sqlite3.Connection, execution_id: UUID) -> Claim | None:
        now = self._now()
        (epoch,) = draw_epochs(connection, 1)
        until, row = now + self._lease, execution_id.hex
        found = connection.execute(
            _LITE_CLAIM_NAMED, (self._worker, until, epoch, row, now, NOTHING_DUE)
        ).fetchone()
        return None if found is None else Claim(execution_id, epoch, found[0])

    def _renew(self, connection: sqlite3.Connection) -> list[Claim]:
        rows = connection.execute(
            "UPDATE work_queue SET lease_until = ? WHERE lease_owner = ?"
            " RETURNING execution_id, epoch, version, woken",
            (self._now() + self._lease, self._worker),
        ).fetchall()
        return [Claim(UUID(hex=row[0]), row[1], row[2], bool(row[3])) for row in sorted(rows)]

    def _next_due(self, connection: sqlite3.Connection) -> int | None:
        moments = [
            connection.execute(
                "SELECT min(ready_at) FROM work_queue WHERE lease_owner IS NULL AND priority = ?",
                (priority,),
            ).fetchone()[0]
            for priority in PRIORITIES
        ]
        moments.append(
            connection.execute(
                "SELECT min(lease_until) FROM work_queue"
                " WHERE lease_owner IS NOT NULL AND lease_until <= ?",
                (self._now(),),
            ).fetchone()[0]
        )
        return min((moment for moment in moments if moment is not None), default=None)


def _due(microseconds: int | None) -> datetime | None:
    if microseconds is None or microseconds == NOTHING_DUE:
        return None
    return from_microseconds(microseconds)


def _row(rows: list[Any]) -> QueueRow | None:
    if not rows:
        return None
    leased, lease_until, ready_at = rows[0]
    until = from_microseconds(lease_until) if leased else None
    return QueueRow(bool(leased), until, _due(ready_at))
