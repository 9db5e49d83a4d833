"""The BreakerStore port: table `agent_breakers`, a row per agent, written by compare-and-swap."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

import msgspec
import psycopg

from application.breakers import UNKNOWN, BreakerKey, BreakerStore, Stored
from application.ports import StoreUnavailable, UnknownOutcome
from domain.breaker import Breaker
from infrastructure.database import Store
from infrastructure.event_store.sqlite import SQLiteJobs
from infrastructure.postgres_sessions import connect
from infrastructure.store_health import CALLS_WAITING_MAX, StoreHealth, StoreThreads

LOCK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.5

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Breaker)

T = TypeVar("T")


class OpenBreakerStore(BreakerStore, Protocol):
    """One that holds something which is to be let go of."""

    async def aclose(self) -> None:
        """Let go of it; nothing is called afterwards."""


def open_breaker_store(store: Store) -> OpenBreakerStore:
    """The records in the database of an open store."""
    if isinstance(store.writes, SQLiteJobs):
        return SQLiteBreakerStore(store.writes)
    return PostgresBreakerStore(store.writes.dsn, store.health)


_PG_LOAD: Final = (
    b"SELECT breaker::text, version FROM agent_breakers WHERE workspace_id = %s AND agent_name = %s"
)
_PG_INSERT: Final = b"""
INSERT INTO agent_breakers (workspace_id, agent_name, version, state, breaker)
VALUES (%s, %s, 1, %s, %s) ON CONFLICT DO NOTHING
"""
_PG_UPDATE: Final = b"""
UPDATE agent_breakers SET version = version + 1, state = %s, breaker = %s
WHERE workspace_id = %s AND agent_name = %s AND version = %s
"""


class PostgresBreakerStore(OpenBreakerStore):
    """On a connection and a thread of its own, made when first needed, anew after a loss."""

    def __init__(self, dsn: str, health: StoreHealth) -> None:
        self._dsn = dsn
        self._threads = StoreThreads("breakers", 1, health, waiting_max=CALLS_WAITING_MAX)
        self._connection: psycopg.Connection | None = None

    async def load(self, key: BreakerKey) -> Stored:
        """See BreakerStore."""
        row = await self._run(lambda c: c.execute(_PG_LOAD, key, prepare=True).fetchone())
        return _stored(row)

    async def save(self, key: BreakerKey, breaker: Breaker, version: int) -> bool:
        """See BreakerStore."""
        text = _text(breaker)
        values: tuple[object, ...] = (*key, breaker.state, text)
        statement = _PG_INSERT
        if version:
            statement, values = _PG_UPDATE, (breaker.state, text, *key, version)
        return await self._run(lambda c: c.execute(statement, values, prepare=True).rowcount == 1)

    async def aclose(self) -> None:
        """See OpenBreakerStore."""
        await asyncio.to_thread(self._threads.close)
        self._disconnect()

    async def _run(self, work: Callable[["psycopg.Connection[Any]"], T]) -> T:
        def call() -> T:
            try:
                if self._connection is None:
                    self._connection = connect(
                        self._dsn, lock_seconds=LOCK_SECONDS, answer_seconds=ANSWER_SECONDS
                    )
                return work(self._connection)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._disconnect()
                raise StoreUnavailable(f"PostgreSQL does not answer: {error}") from error

        return await self._threads.run(call)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


_LITE_LOAD: Final = (
    "SELECT breaker, version FROM agent_breakers WHERE workspace_id = ? AND agent_name = ?"
)
_LITE_INSERT: Final = (
    "INSERT INTO agent_breakers (workspace_id, agent_name, version, state, breaker)"
    " VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING"
)
_LITE_UPDATE: Final = (
    "UPDATE agent_breakers SET version = version + 1, state = ?, breaker = ?"
    " WHERE workspace_id = ? AND agent_name = ? AND version = ?"
)


class SQLiteBreakerStore(OpenBreakerStore):
    """Every call is a job of the one writing connection."""

    def __init__(self, jobs: SQLiteJobs) -> None:
        self._jobs = jobs

    async def load(self, key: BreakerKey) -> Stored:
        """See BreakerStore."""
        return _stored(await self._run(lambda c: c.execute(_LITE_LOAD, key).fetchone()))

    async def save(self, key: BreakerKey, breaker: Breaker, version: int) -> bool:
        """See BreakerStore."""
        text = _text(breaker)
        values: tuple[object, ...] = (*key, breaker.state, text)
        statement = _LITE_INSERT
        if version:
            statement, values = _LITE_UPDATE, (breaker.state, text, *key, version)
        return await self._run(lambda c: c.execute(statement, values).rowcount == 1)

    async def aclose(self) -> None:
        """See OpenBreakerStore; the connection belongs to the store."""

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.wrap_future(self._jobs.run(work))
        except (sqlite3.Error, UnknownOutcome) as error:
            raise StoreUnavailable(f"SQLite does not answer: {error}") from error


def _text(breaker: Breaker) -> str:
    return _ENCODER.encode(breaker).decode()


def _stored(row: tuple[Any, ...] | None) -> Stored:
    return UNKNOWN if row is None else Stored(_DECODER.decode(row[0]), row[1])
