"""What a process opens that follows the log: the time, and a word when somebody stored something.
It appends seldom or never. PostgreSQL only.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import psycopg

from application.ports import Changed, StoreUnavailable, WorkQueue
from infrastructure.clock import DatabaseClock
from infrastructure.database import (
    StoreOptions,
    Upkeep,
    keep_time,
    postgres_committer,
    postgres_queue,
)
from infrastructure.event_store.codec import Codec
from infrastructure.event_store.log import LedgerLog
from infrastructure.event_store.postgres import LedgerDatastore, PostgresLedger
from infrastructure.postgres_signals import PostgresSignals
from infrastructure.start_gate import check_store
from infrastructure.store_health import CALLS_WAITING_MAX, StoreHealth, StoreThreads
from infrastructure.store_watch import PostgresWatch


@dataclass(slots=True, kw_only=True)
class Follower:
    """`start` it in the event loop, `close` it there at the end."""

    queue: WorkQueue
    clock: DatabaseClock
    health: StoreHealth
    watch: PostgresWatch
    open_log: Callable[[], LedgerLog]
    upkeep: Upkeep

    @property
    def log(self) -> LedgerLog:
        """The log for the few appends of such a process, made when first asked for."""
        return self.open_log()

    async def start(self) -> None:
        """Listen from now on."""
        self.watch.start()
        self.upkeep.start()

    async def close(self) -> None:
        """Let go of the database. Safe to call twice."""
        await self.upkeep.close()


def open_follower(url: str, dsn: str, options: StoreOptions, wake: Callable[[], None]) -> Follower:
    """Check the store at `url`, which is the PostgreSQL database `dsn`, and open it; `wake` is
    called in the event loop whenever another process stored something, and after each reconnect.

    Raises UnsafeStore, StoreUnavailable.
    """
    resources = ExitStack()
    try:
        check_store(
            url, sqlite_synchronous=options.sqlite_synchronous, environment=options.environment
        )
        health = StoreHealth()
        watch = PostgresWatch(dsn, health)
        resources.callback(watch.close)
        queue, clock = postgres_queue(dsn, options, health, resources)
    except psycopg.OperationalError as error:
        resources.close()
        raise StoreUnavailable(f"the database cannot be opened: {error}") from error
    except BaseException:
        resources.close()
        raise
    signals = PostgresSignals(dsn)
    work = [lambda: signals.exchange(wake), lambda: keep_time(queue)]

    def committed(changes: Sequence[Changed]) -> None:
        del changes  # whoever is told reads the log
        signals.announce()
        wake()

    return Follower(
        queue=queue,
        clock=clock,
        health=health,
        watch=watch,
        open_log=_log(dsn, options, health, committed, resources),
        upkeep=Upkeep(work, resources),
    )


def _log(
    dsn: str,
    options: StoreOptions,
    health: StoreHealth,
    committed: Callable[[Sequence[Changed]], None],
    resources: ExitStack,
) -> Callable[[], LedgerLog]:
    @cache
    def make() -> LedgerLog:
        datastore = LedgerDatastore(dsn, connections_max=1, answer_seconds=options.answer_seconds)
        resources.callback(datastore.close)
        threads = StoreThreads("commands", 1, health, waiting_max=CALLS_WAITING_MAX)
        resources.callback(threads.close)
        committer = postgres_committer(dsn, options, health, committed, resources)
        return LedgerLog(Codec(), committer, PostgresLedger(datastore), threads)

    return make
