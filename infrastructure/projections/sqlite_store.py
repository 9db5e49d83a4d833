"""Projections on one SQLite file.

Reads on a connection of their own, writes as jobs of the one writing connection.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from msgspec import Struct

from application.ports import StoreUnavailable
from infrastructure.addresses import SQLiteAddress
from infrastructure.event_store.sqlite import SQLiteJobs, readable
from infrastructure.projections.sessions import Prepared, Session, Standing
from infrastructure.projections.tables import Dialect, ProjectedTable

WRITE_SECONDS_MAX: Final = 60.0
_ROWS_PER_STATEMENT: Final = (16, 8, 4, 2, 1)

T = TypeVar("T")


class SQLiteSession:
    """Statements on one connection."""

    dialect: Dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """See Session."""
        return self._connection.execute(statement, tuple(parameters)).fetchall()

    def upsert(self, table: ProjectedTable, prepared: Prepared, suffix: str = "") -> None:
        """See Session; several rows a statement, in few sizes, so that statements stay prepared."""
        start = 0
        for size in _ROWS_PER_STATEMENT:
            while len(prepared) - start >= size:
                values = [value for row in prepared[start : start + size] for value in row]
                self._connection.execute(table.sqlite_upsert(suffix, size), values)
                start += size


class SQLiteProjectionStore:
    """See ProjectionStore. The leader is who holds a lock on a file beside the database."""

    dialect: Dialect = "sqlite"

    def __init__(self, path: Path, jobs: SQLiteJobs, *, leader: str = "projector") -> None:
        """`leader` is what the lock's file says after the database's name."""
        self._uri = SQLiteAddress(path).read_only_uri
        self._lock_path = path.with_name(f"{path.name}-{leader}")
        self._jobs = jobs
        self._reader: sqlite3.Connection | None = None
        self._lock: int | None = None

    def prepare(self, table: ProjectedTable, rows: Sequence[Struct]) -> Prepared:
        """See ProjectionStore; a list of values a row."""
        return table.sqlite_values(rows) if rows else ()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """See ProjectionStore."""
        with readable():
            if self._reader is None:
                self._reader = self._open()
            yield SQLiteSession(self._reader)

    def write(self, work: Callable[[Session], T]) -> T:
        """See ProjectionStore; blocks until the committer's thread has done it."""
        return self.write_soon(work)()

    def write_soon(self, work: Callable[[Session], T]) -> Callable[[], T]:
        """See ProjectionStore."""
        job = self._jobs.run(lambda connection: work(SQLiteSession(connection)))

        def done() -> T:
            try:
                return job.result(WRITE_SECONDS_MAX)
            except TimeoutError as error:
                cause = "SQLite's writing connection is busy for too long"
                raise StoreUnavailable(cause) from error

        return done

    restructure = write

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """See ProjectionStore."""
        with readable(), closing(self._open()) as connection:
            connection.execute("BEGIN")
            yield SQLiteSession(connection)

    def lead(self) -> bool:
        """See ProjectionStore."""
        if self._lock is None:
            self._lock = _locked(self._lock_path, fcntl.LOCK_EX)
        return self._lock is not None

    def standing(self) -> Standing:
        """See ProjectionStore; none is there for nothing else."""
        return Standing(outranked=False, led=self._lock is not None)

    def led(self, connection: sa.Connection) -> bool:
        """See ProjectionStore."""
        if self._lock is not None:
            return True
        if not self._lock_path.exists():
            return False
        probe = _locked(self._lock_path, fcntl.LOCK_SH)
        if probe is not None:
            os.close(probe)
        return probe is None

    def close(self) -> None:
        """See ProjectionStore."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10
        )
        connection.execute("PRAGMA cache_size = -16000")
        return connection


def _locked(path: Path, kind: int) -> int | None:
    """A descriptor that holds the lock until it is closed or the process ends.

    None when another does.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
