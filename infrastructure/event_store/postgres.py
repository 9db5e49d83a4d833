"""The ledger on PostgreSQL: the library's recorder on our schema, and the writer of batches.

Differences from the library's recorder: one statement in one round trip, a lock which maintenance
commands do not wait for, and no call that repeats an append or a read by itself.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any
from uuid import UUID

import psycopg
from eventsourcing.persistence import InterfaceError, OperationalError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.pq.abc import PGresult
from psycopg.rows import DictRow, tuple_row
from psycopg_pool import PoolTimeout

from application.ports import StaleLease, StoreUnavailable, UnknownOutcome, VersionConflict
from infrastructure.event_store.group_commit import Pending, RolledBack, Written
from infrastructure.event_store.loop_commit import Told
from infrastructure.event_store.postgres_wire import (
    bool_array,
    bytea_array,
    int8_array,
    read_int8_array,
    text_array,
    uuid_array,
)
from infrastructure.event_store.prepared_call import (
    AnswerLate,
    AnswerLost,
    LoopCall,
    NotSent,
    PreparedCall,
    Refused,
)
from infrastructure.event_store.queue_writes import QueueRows, queue_rows
from infrastructure.event_store.stream_reads import LogRow, Span
from infrastructure.postgres_sessions import CONNECTING, connect, session_settings

EVENTS_TABLE = "ledger_events"
STALE_LEASE = "FL001"
CONFLICT = "23505"
UNDONE = frozenset({"40001", "40P01"})
_PLACES = ", ".join(f"${place}" for place in range(1, 26))
APPEND = f"SELECT positions, epochs FROM flowledger_append_v2({_PLACES})"  # noqa: S608 - constants
_BINARY = [1] * 4 + [0] + [1] * 20  # the worker's name alone is text
_BACK_OFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

# Prepared while the table is empty, these would become a scan and sort of the whole backlog.
PINNED_PLAN = (
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SET enable_sort = off",
)


class LedgerDatastore(PostgresDatastore):
    """The library's connection pool for reads, on any libpq connection string."""

    def __init__(self, dsn: str, *, connections_max: int, answer_seconds: float) -> None:
        self._answer_seconds = answer_seconds  # used by the next call already
        super().__init__(
            dbname="",
            host="",
            port="",
            user="",
            password="",
            connect_timeout=answer_seconds,
            pool_size=1,
            max_overflow=connections_max - 1,
        )
        self.pool.conninfo = dsn
        self.pool.kwargs = {"row_factory": psycopg.rows.dict_row, **CONNECTING}
        # Give up soon and try anew at the next call, instead of ever longer pauses.
        self.pool.reconnect_timeout = answer_seconds

    def register_type_adapters(self) -> None:
        """Nothing: our appends need no composite types, so there is no look-up at start."""

    def after_connect_func(self) -> Callable[[psycopg.Connection[Any]], None]:
        """Settings of every connection of the pool."""
        seconds = self._answer_seconds

        def configure(connection: psycopg.Connection[DictRow]) -> None:
            connection.autocommit = True
            for statement in (
                *session_settings(seconds, seconds),
                "SET default_transaction_read_only = on",
                *PINNED_PLAN,
            ):
                connection.execute(statement.encode())

        return configure


class PostgresLedger(PostgresApplicationRecorder):
    """Reads of `ledger_events`, the library's and two faster ones of our own."""

    def __init__(self, datastore: LedgerDatastore) -> None:
        super().__init__(datastore, events_table_name=EVENTS_TABLE)

    def create_table(self) -> None:
        """Refused: the schema is that of the migrations."""
        raise NotImplementedError("the schema is made by `flowledger migrate`")

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """Refused: appends go through the group committer, which orders them."""
        raise NotImplementedError("append through infrastructure.event_store.log.LedgerLog")

    # The library repeats its reads ten times; these are the same functions without that.
    select_events = PostgresApplicationRecorder.select_events.__wrapped__
    select_notifications = PostgresApplicationRecorder.select_notifications.__wrapped__
    max_notification_id = PostgresApplicationRecorder.max_notification_id.__wrapped__

    def head(self) -> int:
        """The highest position, 0 for an empty log. Raises StoreUnavailable."""
        return self._once_more(self.max_notification_id) or 0

    def stream_rows(self, stream_id: UUID, after_version: int, limit: int) -> list[LogRow]:
        """Rows of one stream by version. Raises StoreUnavailable."""
        return self._rows(
            "SELECT originator_id, originator_version, topic, state, notification_id"
            " FROM ledger_events WHERE originator_id = %s AND originator_version > %s"
            " ORDER BY originator_version LIMIT %s",
            (stream_id, after_version, limit),
        )

    def span_rows(self, spans: Sequence[Span], bytes_max: int) -> list[list[LogRow] | None]:
        """Rows of several streams, each by version; None for those of more bytes. Raises
        StoreUnavailable.
        """
        rows = self._rows(
            # The sizes of states are known without reading them.
            "SELECT e.place, e.originator_id, e.originator_version, e.topic,"
            " CASE WHEN sum(octet_length(e.state)) OVER (PARTITION BY e.place) <= %s"
            " THEN e.state END, e.notification_id"
            " FROM (SELECT s.place, l.* FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[])"
            " WITH ORDINALITY AS s(id, after, most, place) CROSS JOIN LATERAL ("
            " SELECT originator_id, originator_version, topic, state, notification_id"
            " FROM ledger_events WHERE originator_id = s.id AND originator_version > s.after"
            " ORDER BY originator_version LIMIT s.most) AS l) AS e",
            (bytes_max, *map(list, zip(*spans, strict=True))),
        )
        found: list[list[LogRow] | None] = [[] for _ in spans]
        for place, *row in sorted(rows, key=itemgetter(0, 2)):  # the join promises no order
            stream = found[place - 1]
            if row[3] is None:
                found[place - 1] = None
            elif stream is not None:
                stream.append(tuple(row))
        return found

    def rows_after(self, position: int, limit: int) -> list[LogRow]:
        """Rows of all streams by position. Raises StoreUnavailable."""
        return self._rows(
            "SELECT originator_id, originator_version, topic, state, notification_id"
            " FROM ledger_events WHERE notification_id > %s ORDER BY notification_id LIMIT %s",
            (position, limit),
        )

    def versions_between(self, after: int, upto: int, limit: int) -> list[tuple[UUID, int, int]]:
        """Stream, version and position of the rows in (after, upto]. Raises StoreUnavailable."""
        return self._rows(
            "SELECT originator_id, originator_version, notification_id FROM ledger_events"
            " WHERE notification_id > %s AND notification_id <= %s"
            " ORDER BY notification_id LIMIT %s",
            (after, upto, limit),
        )

    def _rows(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        def read() -> list[Any]:
            with (
                self.datastore.get_connection() as connection,
                connection.cursor(binary=True, row_factory=tuple_row) as cursor,
            ):
                return cursor.execute(statement.encode(), parameters, prepare=True).fetchall()

        rows: list[Any] = self._once_more(read)
        return rows

    def _once_more(self, read: Callable[[], Any]) -> Any:  # rows of any shape
        """A pooled connection may be older than a restart of the server: replace it, read again."""
        try:
            return read()
        except (OperationalError, InterfaceError) as error:
            if isinstance(error.__cause__, PoolTimeout):
                raise StoreUnavailable(f"PostgreSQL does not answer: {error}") from error
        try:
            self.datastore.pool.check()
            return read()
        except (OperationalError, InterfaceError) as error:
            raise StoreUnavailable(f"PostgreSQL does not answer: {error}") from error


class PostgresWriter:
    """The LoopWriter: one connection, one statement a batch."""

    def __init__(
        self,
        dsn: str,
        *,
        worker: str,
        lease_seconds: float,
        lock_seconds: float,
        answer_seconds: float,
        require: Callable[[], None] = lambda: None,
    ) -> None:
        """`require` raises StoreUnavailable while the store is known not to answer."""
        self._dsn = dsn
        self._require = require
        self._worker = worker.encode()
        self._lease = int8_parameter(int(lease_seconds * 1_000_000))
        self._lock_seconds = lock_seconds
        self._answer_seconds = answer_seconds
        self._call: LoopCall | None = None
        # Held, for the event loop itself would let it be collected.
        self._opening: asyncio.Task[None] | None = None
        self._failures = 0
        self._next_attempt = 0.0
        self._last_error = ""

    def begin(self, batch: Sequence[Pending], told: Told) -> None:
        """See LoopWriter."""
        loop = asyncio.get_running_loop()
        try:
            self._require()
            parameters = self._parameters(batch)
        except Exception as error:  # noqa: BLE001 - whoever began the batch is told
            loop.call_soon(told, error)
            return
        if self._call is None or not self._send(self._call, batch, parameters, told):
            self._opening = loop.create_task(self._open_and_send(batch, parameters, told))

    def _send(
        self, call: LoopCall, batch: Sequence[Pending], parameters: Sequence[bytes], told: Told
    ) -> bool:
        """False when the connection died while idle, so that nothing was sent."""
        try:
            call.begin(parameters, _BINARY, lambda how: told(self._outcome(how, batch)))
        except NotSent as error:
            self._drop()
            self._last_error = str(error)
            return False
        return True

    async def _open_and_send(
        self, batch: Sequence[Pending], parameters: Sequence[bytes], told: Told
    ) -> None:
        try:
            call = self._call = await self._connected()
        except Exception as error:  # noqa: BLE001 - as in `begin`: untold, the batch never ends
            told(error)
            return
        if not self._send(call, batch, parameters, told):
            told(StoreUnavailable(f"PostgreSQL closes every connection: {self._last_error}"))

    def _outcome(
        self, how: "PGresult | Refused | AnswerLost", batch: Sequence[Pending]
    ) -> Written | Exception:
        if isinstance(how, Refused):
            return _meaning(how, batch)
        if not isinstance(how, AnswerLost):
            return Written(
                read_int8_array(how.get_value(0, 0)), read_int8_array(how.get_value(0, 1))
            )
        self._drop()
        if isinstance(how, AnswerLate):
            # Those who waited behind this batch shall not wait for a connection as well.
            self._postpone(str(how))
        return UnknownOutcome(f"the connection to PostgreSQL was lost before the answer: {how}")

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._drop()

    def _parameters(self, batch: Sequence[Pending]) -> list[bytes]:
        events = [event for pending in batch for event in pending.append.events]
        return [
            uuid_array([event.execution_id for event in events]),
            int8_array([event.version for event in events]),
            text_array([event.data.TOPIC for event in events]),
            bytea_array([state for pending in batch for state in pending.states]),
            self._worker,
            self._lease,
            *_queue_parameters(queue_rows([pending.append for pending in batch])),
        ]

    async def _connected(self) -> LoopCall:
        """A new connection. Raises StoreUnavailable."""
        if time.monotonic() < self._next_attempt:
            raise StoreUnavailable(f"PostgreSQL does not answer: {self._last_error}")
        try:
            call = LoopCall(await self._opened())
        except (psycopg.Error, OSError, Refused) as error:
            self._postpone(str(error).strip())
            raise StoreUnavailable(f"PostgreSQL does not answer: {self._last_error}") from error
        self._failures = 0
        return call

    async def _opened(self) -> PreparedCall:
        """Connect in a thread, which is left to itself when a server that stands still holds it:
        neither the batch nor the end of the process waits for that.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[PreparedCall] = loop.create_future()

        def hand_over(call: PreparedCall | None, error: Exception | None) -> None:
            if opened.done():
                if call is not None:
                    call.close()
            elif call is not None:
                opened.set_result(call)
            elif error is not None:
                opened.set_exception(error)

        def connect_here() -> None:
            call, failed = None, None
            try:
                call = self._connect()
            except Exception as error:  # noqa: BLE001 - it goes to whoever waits
                failed = error
            with suppress(RuntimeError):  # that loop has ended, and who waited with it
                loop.call_soon_threadsafe(hand_over, call, failed)

        threading.Thread(target=connect_here, name="ledger-connection", daemon=True).start()
        seconds = CONNECTING["connect_timeout"] + self._answer_seconds
        try:
            async with asyncio.timeout(seconds):
                return await opened
        except TimeoutError as error:
            raise TimeoutError(f"no connection within {seconds:g} s") from error

    def _connect(self) -> PreparedCall:
        connection = connect(
            self._dsn,
            lock_seconds=self._lock_seconds,
            answer_seconds=self._answer_seconds,
            statements=(
                # Joins of a handful of parameters with a table of any size.
                "SET enable_hashjoin = off",
                "SET enable_mergejoin = off",
                *PINNED_PLAN[:2],
            ),
        )
        return PreparedCall(connection, APPEND, self._answer_seconds)

    def _postpone(self, cause: str) -> None:
        pause = _BACK_OFF_SECONDS[min(self._failures, len(_BACK_OFF_SECONDS) - 1)]
        self._failures += 1
        self._next_attempt = time.monotonic() + pause
        self._last_error = cause

    def _drop(self) -> None:
        if self._call is not None:
            self._call.close()
            self._call = None


def int8_parameter(value: int) -> bytes:
    """A `bigint` parameter in binary form."""
    return value.to_bytes(8, "big", signed=True)


def _queue_parameters(queue: QueueRows) -> list[bytes]:
    return [
        *_ENQUEUE.of(queue.enqueue),
        *_TOUCH.of(queue.touch),
        *_PROGRESS.of(queue.progress),
        *_FINISH.of(queue.finish),
        *_DISCARD.of(queue.discard),
        *_WAKE.of(queue.wake),
    ]


class _Arrays:
    """How the columns of one kind of queue row are written."""

    def __init__(self, *columns: Callable[[Sequence[Any]], bytes]) -> None:
        self._columns = columns
        self._empty = [array(()) for array in columns]

    def of(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[bytes]:
        """A parameter for each column; a batch has rows of two or three of the six kinds."""
        if not rows:
            return self._empty
        return [
            array(column)
            for array, column in zip(self._columns, zip(*rows, strict=True), strict=True)
        ]


_ENQUEUE = _Arrays(uuid_array, int8_array, text_array, int8_array, int8_array, bool_array)
_TOUCH = _Arrays(uuid_array, int8_array, int8_array)
_PROGRESS = _Arrays(uuid_array, int8_array, int8_array, int8_array, bool_array)
_FINISH = _Arrays(uuid_array, int8_array)
_DISCARD = _Arrays(uuid_array)
_WAKE = _Arrays(uuid_array, int8_array)


def _meaning(error: Refused, batch: Sequence[Pending]) -> Exception:
    if error.sqlstate in UNDONE:
        return RolledBack(str(error))
    if error.sqlstate == CONFLICT:
        return VersionConflict(f"another writer stored a version of {_streams(batch)} first")
    if error.sqlstate == STALE_LEASE:
        return StaleLease(f"the lease on {_streams(batch)} belongs to another worker or is over")
    if error.sqlstate[:2] in {"22", "23"}:
        return ValueError(f"PostgreSQL refuses the events of {_streams(batch)}: {error}")
    return StoreUnavailable(f"PostgreSQL did not store the append: {error}")


def _streams(batch: Sequence[Pending]) -> str:
    return ", ".join(str(pending.append.stream_id) for pending in batch[:3])
