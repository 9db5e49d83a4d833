"""Tables of a few rows that are neither the log nor computed from it, on both back ends."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import psycopg

from application.ports import StoreUnavailable
from infrastructure.database import Store
from infrastructure.event_store.sqlite import SQLiteJobs
from infrastructure.postgres_sessions import connect
from infrastructure.store_health import CALLS_WAITING_MAX, StoreHealth, StoreThreads

LOCK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.5

Row = tuple[Any, ...]


class SmallTables(Protocol):
    """Statements, each in a transaction of its own."""

    async def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Its rows, none for a statement that returns none. Values stand where `?` is.

        Raises StoreUnavailable (and then it may have been carried out), Overloaded.
        """

    async def aclose(self) -> None:
        """Let go of what is held; nothing is called afterwards."""


def open_small_tables(store: Store, name: str) -> SmallTables:
    """Those in the database of an open store; `name` is for threads."""
    if isinstance(store.writes, SQLiteJobs):
        return _SQLiteTables(store.writes)
    return _PostgresTables(store.writes.dsn, store.health, name)


class _PostgresTables:
    """On a connection and a thread of their own, made when first needed, anew after a loss."""

    def __init__(self, dsn: str, health: StoreHealth, name: str) -> None:
        self._dsn = dsn
        self._threads = StoreThreads(name, 1, health, waiting_max=CALLS_WAITING_MAX)
        self._connection: psycopg.Connection | None = None

    async def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """See SmallTables."""
        return await self._threads.run(lambda: self._call(statement, values))

    async def aclose(self) -> None:
        """See SmallTables."""
        await asyncio.to_thread(self._threads.close)
        self._disconnect()

    def _call(self, statement: str, values: Sequence[object]) -> list[Row]:
        try:
            if self._connection is None:
                self._connection = connect(
                    self._dsn, lock_seconds=LOCK_SECONDS, answer_seconds=ANSWER_SECONDS
                )
            cursor = self._connection.execute(statement.replace("?", "%s").encode(), values)
            return cursor.fetchall() if cursor.description else []
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._disconnect()
            raise StoreUnavailable(f"PostgreSQL does not answer: {error}") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


class _SQLiteTables:
    """Every call is a job of the one writing connection."""

    def __init__(self, jobs: SQLiteJobs) -> None:
        self._jobs = jobs

    async def run(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """See SmallTables."""
        return await self._jobs.done(
            lambda connection: connection.execute(statement, values).fetchall()
        )

    async def aclose(self) -> None:
        """See SmallTables; the connection belongs to the store."""
