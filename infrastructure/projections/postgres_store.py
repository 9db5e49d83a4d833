"""Projections on PostgreSQL.

One connection which leads, reads the log with a pinned plan, and writes. That it is one connection
is what fences: a process that loses the leader's lock loses the connection it writes on.

While a write is on its way in a thread of its own, reads go over a second connection, which is
closed with the next write that is waited for.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final, TypeVar

import psycopg
import sqlalchemy as sa
from msgspec import Struct

from application.ports import StoreUnavailable
from infrastructure.event_store.postgres import PINNED_PLAN
from infrastructure.postgres_sessions import SERVER_NOTICES_VANISHED, connect
from infrastructure.projections.sessions import Prepared, Session, Standing
from infrastructure.projections.tables import Dialect, ProjectedTable, encode_json

LEADER_LOCK: Final = 7017281934620003
RELAY_LOCK: Final = 7017281934620008
_PRECEDENCE: Final = 100
"""Added to the leader's lock: the lock that those share who are there for nothing else."""
LOCK_SECONDS: Final = 10.0
STATEMENT_SECONDS: Final = 120.0

T = TypeVar("T")


class PostgresSession:
    """Statements on one connection, prepared, with binary results."""

    dialect: Dialect = "postgresql"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """See Session."""
        # A cursor for each: within a pipeline, one would take the results of statements before.
        cursor = self._connection.cursor(binary=True)
        cursor.execute(_placed(statement), tuple(parameters), prepare=bool(parameters))
        # Not asked of the cursor, which in a pipeline does not know before it has waited.
        answers = statement.startswith(("SELECT", "EXPLAIN")) or " RETURNING " in statement
        return cursor.fetchall() if answers else []

    def upsert(self, table: ProjectedTable, prepared: Prepared, suffix: str = "") -> None:
        """See Session; one statement, the rows are one JSON parameter."""
        if prepared:
            cursor = self._connection.cursor()
            cursor.execute(table.postgresql_upsert(suffix), prepared, prepare=True)


class PostgresProjectionStore:
    """See ProjectionStore. Connects when it is first needed, and anew after a loss."""

    dialect: Dialect = "postgresql"

    def __init__(
        self, dsn: str, *, leader_lock: int = LEADER_LOCK, dedicated: bool = False
    ) -> None:
        """`leader_lock` is the advisory lock of those who lead in this. A `dedicated` process does
        nothing else, so others do not lead while one is there.
        """
        self._dsn = dsn
        self._leader_lock = leader_lock
        self._dedicated = dedicated
        self._connection: psycopg.Connection | None = None
        self._beside: psycopg.Connection | None = None
        self._writes: ThreadPoolExecutor | None = None
        self._writing: Future[Any] | None = None
        self._leads = False

    def prepare(self, table: ProjectedTable, rows: Sequence[Struct]) -> Prepared:
        """See ProjectionStore; one JSON text."""
        return (encode_json(rows).decode(),) if rows else ()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """See ProjectionStore."""
        if self._writing is None:
            with self._reached() as connection:
                yield PostgresSession(connection)
            return
        try:
            if self._beside is None:
                self._beside = self._connected()
            yield PostgresSession(self._beside)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._leave_beside()
            raise _unavailable(error) from error

    def write(self, work: Callable[[Session], T]) -> T:
        """See ProjectionStore; statements do not wait for the answers of those before."""
        self._leave_beside()
        return self._transact(work)

    def _transact(self, work: Callable[[Session], T]) -> T:
        with self._reached() as connection, connection.pipeline(), connection.transaction():
            return work(PostgresSession(connection))

    def write_soon(self, work: Callable[[Session], T]) -> Callable[[], T]:
        """See ProjectionStore; in a thread of its own, on the connection which leads."""
        if self._writes is None:
            self._writes = ThreadPoolExecutor(1, thread_name_prefix="projection-writes")
        self._writing = writing = self._writes.submit(lambda: self._transact(work))

        def done() -> T:
            try:
                return writing.result()
            finally:
                self._writing = None

        return done

    def restructure(self, work: Callable[[Session], T]) -> T:
        """See ProjectionStore; without a pipeline, in which the driver loses its prepared
        statements when tables are dropped."""
        with self._reached() as connection, connection.transaction():
            return work(PostgresSession(connection))

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """See ProjectionStore."""
        with self._reached() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield PostgresSession(connection)

    def lead(self) -> bool:
        """See ProjectionStore."""
        with self._reached() as connection:
            if not self._leads:
                row = connection.execute(
                    "SELECT pg_try_advisory_lock(%s)", (self._leader_lock,)
                ).fetchone()
                self._leads = bool(row and row[0])
            return self._leads

    def standing(self) -> Standing:
        """See ProjectionStore."""
        precedence, leader = _held(self._leader_lock + _PRECEDENCE), _held(self._leader_lock)
        with self._reached() as connection:
            row = connection.execute(f"SELECT ({precedence}), ({leader})".encode()).fetchone()
        held, led = row or (False, False)
        return Standing(outranked=held and not self._dedicated, led=led)

    def led(self, connection: sa.Connection) -> bool:
        """See ProjectionStore."""
        return bool(connection.execute(sa.text(_held(self._leader_lock))).scalar_one())

    def close(self) -> None:
        """See ProjectionStore."""
        if self._writes is not None:
            self._writes.shutdown()
            self._writes = self._writing = None
        self._leave()
        self._leave_beside()

    def _leave_beside(self) -> None:
        """Close the second connection: it would be lost by the next time, some day."""
        beside, self._beside = self._beside, None
        _close(beside)

    def _leave(self) -> None:
        """Close the connection which leads."""
        connection, self._connection = self._connection, None
        self._leads = False
        _close(connection)

    @contextmanager
    def _reached(self) -> Iterator[psycopg.Connection]:
        try:
            if self._connection is None:
                self._connection = self._connected(*self._precedence())
            yield self._connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._leave()
            raise _unavailable(error) from error

    def _precedence(self) -> Sequence[str]:
        key = self._leader_lock + _PRECEDENCE
        return (f"SELECT pg_advisory_lock_shared({key})",) if self._dedicated else ()

    def _connected(self, *statements: str) -> psycopg.Connection:
        return connect(
            self._dsn,
            lock_seconds=LOCK_SECONDS,
            answer_seconds=STATEMENT_SECONDS,
            statements=(*PINNED_PLAN, *SERVER_NOTICES_VANISHED, *statements),
        )


def _close(connection: psycopg.Connection | None) -> None:
    if connection is not None:
        with suppress(psycopg.Error):
            connection.close()


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"PostgreSQL does not answer: {error}")


def _held(key: int) -> str:
    """Tells whether any process holds the advisory lock of this number."""
    return (
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND granted"  # noqa: S608 - a number
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        f" AND ((classid::bigint << 32) | objid::bigint) = {key} AND objsubid = 1"
    )


@cache
def _placed(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()
