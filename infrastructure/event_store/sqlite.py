"""The ledger on one SQLite file: the library's recorder for reads, and the one writing connection.

The writing connection belongs to the committer's thread. Everything else that writes (claims,
renewals, projections) is a job of that thread, because a second writer only waits for the first.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import PersistenceError, StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

from application.ports import StaleLease, StoreUnavailable, UnknownOutcome, VersionConflict
from infrastructure.event_store.group_commit import Pending, Written
from infrastructure.event_store.queue_writes import (
    EnqueueRow,
    FinishRow,
    ProgressRow,
    QueueRows,
    queue_rows,
)
from infrastructure.event_store.stream_reads import LogRow, Span
from infrastructure.event_store.thread_commit import ThreadCommitter

EVENTS_TABLE = "ledger_events"
ROWS_PER_INSERT = 128
CHECKPOINT_PAGES = 4000
"""A checkpoint is paid by one append; four times the default makes it four times as rare."""
_ROW = "(?,?,?,?)"
_INSERT = "INSERT INTO ledger_events (originator_id, originator_version, topic, state) VALUES "
_INSERT_FULL = _INSERT + ",".join([_ROW] * ROWS_PER_INSERT)

_ENQUEUE = """
INSERT INTO work_queue (execution_id, workspace_id, priority, ready_at, lease_owner, lease_until,
    epoch, version, deliveries)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)
ON CONFLICT (execution_id) DO UPDATE SET
    workspace_id = excluded.workspace_id, priority = excluded.priority,
    ready_at = excluded.ready_at, lease_owner = excluded.lease_owner,
    lease_until = excluded.lease_until, epoch = excluded.epoch,
    version = excluded.version, deliveries = excluded.deliveries
"""
_TOUCH = "UPDATE work_queue SET version = ?, ready_at = min(ready_at, ?) WHERE execution_id = ?"
_PROGRESS = """
UPDATE work_queue SET version = ?1, lease_until = ?4,
    ready_at = CASE WHEN woken THEN min(ready_at, ?2) ELSE ?2 END,
    lease_owner = CASE WHEN ?3 THEN NULL ELSE lease_owner END
WHERE execution_id = ?5 AND epoch = ?6 AND lease_owner = ?7
"""
_FINISH = "DELETE FROM work_queue WHERE execution_id = ? AND epoch = ? AND lease_owner = ?"
_WAKE = "UPDATE work_queue SET woken = 1, ready_at = min(ready_at, ?) WHERE execution_id = ?"
_DISCARD = "DELETE FROM work_queue WHERE execution_id = ?"

T = TypeVar("T")


class SQLiteLedger(SQLiteApplicationRecorder):
    """Reads of `ledger_events`, the library's and two faster ones of our own."""

    def __init__(self, datastore: SQLiteDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)

    def create_table(self) -> None:
        """Refused: the schema is that of the migrations."""
        raise NotImplementedError("the schema is made by `flowledger migrate`")

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """Refused: appends go through the group committer, which owns the one writer."""
        raise NotImplementedError("append through infrastructure.event_store.log.LedgerLog")

    def head(self) -> int:
        """The highest position, 0 for an empty log. Raises StoreUnavailable."""
        with readable():
            return self.max_notification_id() or 0

    def stream_rows(self, stream_id: UUID, after_version: int, limit: int) -> list[LogRow]:
        """Rows of one stream by version. Raises StoreUnavailable."""
        return self._rows(
            "SELECT originator_id, originator_version, topic, state, rowid FROM ledger_events"
            " WHERE originator_id = ? AND originator_version > ?"
            " ORDER BY originator_version LIMIT ?",
            (stream_id.hex, after_version, limit),
        )

    def span_rows(self, spans: Sequence[Span], bytes_max: int) -> list[list[LogRow] | None]:
        """Rows of several streams, each by version; None for those of more bytes. Raises
        StoreUnavailable.
        """
        return [
            None if self._bytes(span) > bytes_max else self.stream_rows(*span) for span in spans
        ]

    def _bytes(self, span: Span) -> int:
        ((size,),) = self._selected(
            "SELECT coalesce(sum(length(state)), 0) FROM (SELECT state FROM ledger_events"
            " WHERE originator_id = ? AND originator_version > ?"
            " ORDER BY originator_version LIMIT ?)",
            (span.stream_id.hex, span.after_version, span.limit),
        )
        return int(size)

    def rows_after(self, position: int, limit: int) -> list[LogRow]:
        """Rows of all streams by position. Raises StoreUnavailable."""
        return self._rows(
            "SELECT originator_id, originator_version, topic, state, rowid FROM ledger_events"
            " WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (position, limit),
        )

    def versions_between(self, after: int, upto: int, limit: int) -> list[tuple[UUID, int, int]]:
        """Stream, version and position of the rows in (after, upto]. Raises StoreUnavailable."""
        return self._rows(
            "SELECT originator_id, originator_version, rowid FROM ledger_events"
            " WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?",
            (after, upto, limit),
        )

    def _rows(self, statement: str, parameters: tuple[object, ...]) -> list[Any]:
        rows = self._selected(statement, parameters)
        return [(UUID(hex=row[0]), *row[1:]) for row in rows]

    def _selected(self, statement: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with readable(), self.datastore.transaction(commit=False) as cursor:
            cursor.execute(statement, parameters)
            return list(map(tuple, cursor.fetchall()))


@contextmanager
def readable() -> Iterator[None]:
    """Reads of the file: whatever goes wrong is StoreUnavailable."""
    try:
        yield
    except (PersistenceError, sqlite3.Error) as error:
        raise StoreUnavailable(f"the SQLite file cannot be read: {error}") from error


def open_writer(path: Path, *, synchronous: str, busy_seconds: float) -> sqlite3.Connection:
    """The writing connection, without implicit transactions.

    `synchronous` is FULL or EXTRA; with less, a power failure takes acknowledged appends along.
    """
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,  # made by who opens the store, used by the committer's thread
        timeout=busy_seconds,
        cached_statements=512,
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    return connection


class SQLiteWriter:
    """The BatchWriter: one transaction a batch, on the one connection that writes."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        worker: str,
        lease_seconds: float,
        now: Callable[[], int],
    ) -> None:
        """`now` gives the time in microseconds since 1970-01-01 UTC."""
        self._connection = connection
        self._worker = worker
        self._lease = int(lease_seconds * 1_000_000)
        self._now = now

    def write(self, batch: Sequence[Pending]) -> Written:
        """See BatchWriter."""
        rows: list[object] = []
        for pending in batch:
            for event, state in zip(pending.append.events, pending.states, strict=True):
                rows += (event.execution_id.hex, event.version, event.data.TOPIC, state)
        queue = queue_rows([pending.append for pending in batch])
        try:
            return self.transaction(lambda connection: self._store(connection, rows, queue))
        except sqlite3.IntegrityError as error:
            raise _meaning(error) from error
        except sqlite3.Error as error:
            raise StoreUnavailable(f"SQLite cannot write: {error}") from error

    def transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction that nothing else writes beside.

        Raises what `work` raises; StoreUnavailable when another program holds the file, the disk
        is full, the file is damaged and the like; UnknownOutcome when the commit itself failed.
        """
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StoreUnavailable(f"SQLite cannot write: {error}") from error
        try:
            result = work(connection)
        except BaseException as error:
            self._roll_back()
            if _is_the_file_s_fault(error):
                raise StoreUnavailable(f"SQLite cannot write: {error}") from error
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise UnknownOutcome(f"SQLite could not finish the commit: {error}") from error
        return result

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # some errors end the transaction by themselves
            self._connection.execute("ROLLBACK")

    def _store(
        self, connection: sqlite3.Connection, rows: list[object], queue: QueueRows
    ) -> Written:
        positions: list[int] = []
        for start in range(0, len(rows), 4 * ROWS_PER_INSERT):
            part = rows[start : start + 4 * ROWS_PER_INSERT]
            count = len(part) // 4
            statement = (
                _INSERT_FULL if count == ROWS_PER_INSERT else _INSERT + ",".join([_ROW] * count)
            )
            last = connection.execute(statement, part).lastrowid
            if last is None:
                raise RuntimeError("SQLite did not say where it put the events")
            # Nothing else writes meanwhile, so the positions of one statement are consecutive.
            positions.extend(range(last - count + 1, last + 1))
        return Written(positions, self._write_queue(connection, queue))

    def _write_queue(self, connection: sqlite3.Connection, queue: QueueRows) -> list[int]:
        lease_end = self._now() + self._lease
        epochs = self._enqueue(connection, queue.enqueue, lease_end)
        if queue.touch:
            connection.executemany(
                _TOUCH, [(version, ready, row.hex) for row, version, ready in queue.touch]
            )
        if queue.progress:
            self._progress(connection, queue.progress, lease_end)
        if queue.finish:
            finished = connection.executemany(
                _FINISH, [(row.hex, epoch, self._worker) for row, epoch in queue.finish]
            )
            self._all_leased(finished.rowcount, queue.finish)
        if queue.discard:
            connection.executemany(_DISCARD, [(row.hex,) for (row,) in queue.discard])
        if queue.wake:
            connection.executemany(_WAKE, [(ready, row.hex) for row, ready in queue.wake])
        return epochs

    def _enqueue(
        self, connection: sqlite3.Connection, rows: Sequence[EnqueueRow], lease_end: int
    ) -> list[int]:
        if not rows:
            return []
        epochs = draw_epochs(connection, len(rows))
        ours, nobody_s = (self._worker, lease_end), (None, 0)
        connection.executemany(
            _ENQUEUE,
            [
                (
                    row.hex,
                    workspace,
                    priority,
                    ready,
                    *(ours if leased else nobody_s),
                    epoch,
                    version,
                )
                for (row, version, workspace, priority, ready, leased), epoch in zip(
                    rows, epochs, strict=True
                )
            ],
        )
        return epochs

    def _progress(
        self, connection: sqlite3.Connection, rows: Sequence[ProgressRow], lease_end: int
    ) -> None:
        progressed = connection.executemany(
            _PROGRESS,
            [
                (
                    version,
                    ready,
                    released,
                    0 if released else lease_end,
                    row.hex,
                    epoch,
                    self._worker,
                )
                for row, version, epoch, ready, released in rows
            ],
        )
        self._all_leased(progressed.rowcount, rows)

    def _all_leased(self, written: int, wanted: Sequence[ProgressRow | FinishRow]) -> None:
        if written < len(wanted):
            names = ", ".join(str(row.execution_id) for row in wanted[:3])
            raise StaleLease(f"the lease on {names} belongs to another worker or is over")


class SQLiteJobs:
    """Work for the writing connection, done in the committer's thread between two batches."""

    def __init__(self, committer: ThreadCommitter, writer: SQLiteWriter) -> None:
        self._committer = committer
        self._writer = writer

    def run(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run `work` in a transaction of its own; it must not end that itself.

        The future, or this call, raises what `SQLiteWriter.transaction` raises.
        """
        return self._committer.run_job(lambda: self._writer.transaction(work))

    async def done(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `run` gives, where it need not be known whether a failed commit came after all:
        raises StoreUnavailable for that, too.
        """
        try:
            return await asyncio.wrap_future(self.run(work))
        except UnknownOutcome as error:
            raise StoreUnavailable(str(error)) from error


def draw_epochs(connection: sqlite3.Connection, count: int) -> list[int]:
    """`count` numbers that no lease had before; inside a transaction."""
    (latest,) = connection.execute(
        "UPDATE lease_epoch SET latest = latest + ? RETURNING latest", (count,)
    ).fetchone()
    return list(range(latest - count + 1, latest + 1))


def _is_the_file_s_fault(error: BaseException) -> bool:
    """Busy, full, unreadable, damaged. SQLITE_ERROR and the other classes tell of a wrong statement
    or value.
    """
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorname != "SQLITE_ERROR"
    return type(error) is sqlite3.DatabaseError


def _meaning(error: sqlite3.IntegrityError) -> Exception:
    if error.sqlite_errorname in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_TRIGGER"}:
        return VersionConflict("another writer stored one of these versions first")
    return ValueError(f"SQLite refuses the events: {error}")
