"""What a process opens that follows the log and appends nothing: the time, and a word when
somebody stored something. PostgreSQL only.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

from application.ports import StoreUnavailable, WorkQueue
from infrastructure.change_feed import PostgresSignals
from infrastructure.clock import DatabaseClock
from infrastructure.database import StoreOptions, Upkeep, keep_time, postgres_queue
from infrastructure.start_gate import check_store
from infrastructure.store_health import StoreHealth
from infrastructure.store_watch import PostgresWatch


@dataclass(slots=True, kw_only=True)
class Follower:
    """`start` it in the event loop, `close` it there at the end."""

    queue: WorkQueue
    clock: DatabaseClock
    health: StoreHealth
    watch: PostgresWatch
    upkeep: Upkeep

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
    return Follower(
        queue=queue, clock=clock, health=health, watch=watch, upkeep=Upkeep(work, resources)
    )
