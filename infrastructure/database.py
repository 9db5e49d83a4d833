"""Opens the store: everything that touches the database, put together for one process."""

import asyncio
import os
import socket
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol
from uuid import uuid4

import psycopg
from eventsourcing.sqlite import SQLiteDatastore
from psycopg_pool import ConnectionPool
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import QueuePool

from application.ports import Changed, NamedStarts, Overloaded, StoreUnavailable, WorkQueue
from infrastructure.addresses import PostgresAddress, SQLiteAddress, parse_address
from infrastructure.change_feed import LogChangeFeed
from infrastructure.clock import DatabaseClock, system_microseconds
from infrastructure.event_store.codec import Codec
from infrastructure.event_store.group_commit import CommitCounters, GroupCommitter
from infrastructure.event_store.log import LedgerLog
from infrastructure.event_store.loop_commit import LoopCommitter
from infrastructure.event_store.postgres import (
    LedgerDatastore,
    PostgresLedger,
    PostgresWriter,
)
from infrastructure.event_store.sqlite import SQLiteJobs, SQLiteLedger, SQLiteWriter, open_writer
from infrastructure.event_store.thread_commit import ThreadCommitter
from infrastructure.postgres_sessions import CONNECTING, connect, session_settings
from infrastructure.postgres_signals import PostgresSignals
from infrastructure.start_gate import check_store
from infrastructure.store_health import (
    CALLS_WAITING_MAX,
    StoreHealth,
    StoreThreads,
)
from infrastructure.store_watch import PostgresWatch
from infrastructure.work_queue import PostgresWorkQueue, SQLiteWorkQueue

CLOCK_REFRESH_SECONDS = 10.0
LEASE_THREADS = 2
LOOKING_THREADS = 1
FEED_THREADS = 1
QUERY_SECONDS_MAX = 30.0


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How the store is used; the defaults are those of production.

    `worker` names the holder of leases and is unique among the processes that share a database.
    `answer_seconds` bounds how long a caller waits while the database does not answer. Threads have
    a connection each; commands, queries, leases and the feed do not share theirs.
    """

    worker: str = field(default_factory=_worker_name)
    lease_seconds: float = 15.0
    appends_max: int = 10_000
    lock_seconds: float = 1.0
    answer_seconds: float = 1.5
    poll_seconds: float = 1.0
    command_threads: int = 2
    query_threads: int = 4
    sqlite_synchronous: str = "FULL"
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)


class Upkeep:
    """What runs in the background of an open store, and what is let go of at its end."""

    def __init__(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, None]]], resources: ExitStack
    ) -> None:
        self._work = work
        self._resources = resources
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, in the event loop."""
        self._tasks = [asyncio.create_task(work()) for work in self._work]
        for task in self._tasks:
            task.add_done_callback(_report_failure)

    async def close(self) -> None:
        """End all of it. Safe to call twice and without a start."""
        waiting = set(self._tasks)
        while waiting:
            for task in waiting:
                task.cancel()
            # The driver may lose a cancellation that comes together with an answer: ask again.
            _, waiting = await asyncio.wait(waiting, timeout=1.0)
        await asyncio.to_thread(self._resources.close)


class StoreQueue(WorkQueue, NamedStarts, Protocol):
    """All that the queue of a store does."""


@dataclass(slots=True, kw_only=True)
class Store:
    """The open store of one process. `start` it in the event loop, `close` it there at the end."""

    log: LedgerLog
    """For commands and workers."""
    queries: LedgerLog
    """The same for those who only look, however many they are."""
    query_threads: StoreThreads
    health: StoreHealth
    queue: StoreQueue
    feed: LogChangeFeed
    clock: DatabaseClock
    open_engine: Callable[[], Engine]
    writes: SQLiteJobs | PostgresAddress
    """How others write: as jobs of the one writing connection, or on connections of their own."""
    committer: GroupCommitter
    watch: PostgresWatch | None
    upkeep: Upkeep

    @property
    def engine(self) -> Engine:
        """SQLAlchemy engine for reads, made when first asked for; its connections cannot write."""
        return self.open_engine()

    async def ping(self) -> None:
        """Raises StoreUnavailable when the store does not answer; on PostgreSQL that is known."""
        if self.watch is None:
            await self.log.head()
        self.health.require()

    @property
    def counters(self) -> CommitCounters:
        """What the committer did since the start."""
        return self.committer.counters

    def refuse_new_work(self, reason: Callable[[], str | None]) -> None:
        """Ask `reason` before each new execution; while it gives one, callers get Overloaded."""
        self.committer.admission = reason

    async def start(self) -> None:
        """Watch from now on for changes of other processes, and keep the clock right."""
        if self.watch is not None:
            self.watch.start()
        await self.feed.begin()
        self.upkeep.start()

    async def close(self) -> None:
        """Store what was handed over, then let go of the database. Safe to call twice."""
        await self.upkeep.close()


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a background task of the store ended", "exception": error, "task": task}
        )


def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """Check the store at `url` and open it.

    Raises BadAddress, UnsafeStore, StoreUnavailable.
    """
    options = options or StoreOptions()
    resources = ExitStack()
    try:
        check_store(
            url,
            sqlite_synchronous=options.sqlite_synchronous,
            environment=options.environment,
        )
        match parse_address(url):
            case SQLiteAddress() as address:
                return _open_sqlite(address, options, resources)
            case PostgresAddress(dsn):
                return _open_postgres(dsn, options, resources)
    except (psycopg.OperationalError, sqlite3.Error) as error:
        resources.close()
        raise StoreUnavailable(f"the database cannot be opened: {error}") from error
    except BaseException:
        resources.close()
        raise


def _open_sqlite(address: SQLiteAddress, options: StoreOptions, resources: ExitStack) -> Store:
    connection = open_writer(
        address.path,
        synchronous=options.sqlite_synchronous,
        busy_seconds=options.answer_seconds,
    )
    resources.callback(connection.close)
    # Readers come after the writer, which has made the files that a write-ahead log needs.
    datastore = SQLiteDatastore(address.read_only_uri)
    resources.callback(datastore.close)
    reader = SQLiteLedger(datastore)
    threads = _Threads(StoreHealth(), options, resources)
    feed = LogChangeFeed(reader, threads.feed, poll_seconds=options.poll_seconds)
    clock = DatabaseClock(system_microseconds())
    writer = SQLiteWriter(
        connection,
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        now=system_microseconds,
    )
    committer = ThreadCommitter(writer, appends_max=options.appends_max, on_committed=feed.publish)
    resources.callback(committer.close)
    jobs = SQLiteJobs(committer, writer)
    queue = SQLiteWorkQueue(
        jobs,
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        now=system_microseconds,
        on_time=clock.synchronise,
    )
    codec = Codec()
    return Store(
        log=LedgerLog(codec, committer, reader, threads.commands),
        queries=LedgerLog(codec, committer, reader, threads.queries),
        query_threads=threads.queries,
        health=threads.health,
        queue=queue,
        feed=feed,
        clock=clock,
        open_engine=_read_engine(
            "sqlite://",
            lambda: sqlite3.connect(address.read_only_uri, uri=True, check_same_thread=False),
            options,
            resources,
        ),
        writes=jobs,
        committer=committer,
        watch=None,
        upkeep=Upkeep([feed.run, lambda: keep_time(queue)], resources),
    )


def _open_postgres(dsn: str, options: StoreOptions, resources: ExitStack) -> Store:
    datastore = LedgerDatastore(
        dsn,
        connections_max=options.command_threads + options.query_threads + FEED_THREADS,
        answer_seconds=options.answer_seconds,
    )
    resources.callback(datastore.close)
    reader = PostgresLedger(datastore)
    threads = _Threads(StoreHealth(), options, resources)
    watch = PostgresWatch(dsn, threads.health)
    resources.callback(watch.close)
    signals = PostgresSignals(dsn)
    feed = LogChangeFeed(
        reader, threads.feed, poll_seconds=options.poll_seconds, announce=signals.announce
    )
    queue, clock = postgres_queue(dsn, options, threads.health, resources)
    committer = postgres_committer(dsn, options, threads.health, feed.publish, resources)
    codec = Codec()
    return Store(
        log=LedgerLog(codec, committer, reader, threads.commands),
        queries=LedgerLog(codec, committer, reader, threads.queries),
        query_threads=threads.queries,
        health=threads.health,
        queue=queue,
        feed=feed,
        clock=clock,
        open_engine=_read_engine(
            "postgresql+psycopg://",
            lambda: connect(
                dsn,
                lock_seconds=options.lock_seconds,
                answer_seconds=QUERY_SECONDS_MAX,
                statements=["SET default_transaction_read_only = on"],
            ),
            options,
            resources,
        ),
        writes=PostgresAddress(dsn),
        committer=committer,
        watch=watch,
        upkeep=Upkeep(
            [feed.run, lambda: signals.exchange(feed.look), lambda: keep_time(queue)], resources
        ),
    )


class _Threads:
    """The threads of a process, apart from each other so that queries never delay a command."""

    def __init__(self, health: StoreHealth, options: StoreOptions, resources: ExitStack) -> None:
        self.health = health
        self.commands = StoreThreads(
            "commands", options.command_threads, health, waiting_max=CALLS_WAITING_MAX
        )
        self.queries = StoreThreads(
            "queries", options.query_threads, health, waiting_max=CALLS_WAITING_MAX
        )
        self.feed = StoreThreads("feed", FEED_THREADS, health)
        for each in (self.commands, self.queries, self.feed):
            resources.callback(each.close)


def postgres_queue(
    dsn: str, options: StoreOptions, health: StoreHealth, resources: ExitStack
) -> tuple[PostgresWorkQueue, DatabaseClock]:
    """The queue with connections of its own, and the clock that it keeps right."""
    pool = _queue_pool(dsn, options)
    resources.callback(pool.close)
    clock = DatabaseClock(_postgres_time(pool))
    leasing = StoreThreads("leases", LEASE_THREADS, health)
    looking = StoreThreads("queue", LOOKING_THREADS, health, waiting_max=CALLS_WAITING_MAX)
    for each in (leasing, looking):
        resources.callback(each.close)
    queue = PostgresWorkQueue(
        pool,
        leasing,
        looking,
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        on_time=clock.synchronise,
    )
    return queue, clock


def postgres_committer(
    dsn: str,
    options: StoreOptions,
    health: StoreHealth,
    on_committed: Callable[[Sequence[Changed]], None],
    resources: ExitStack,
) -> LoopCommitter:
    """What appends, connected when it is first needed; `on_committed` is called once a batch."""
    writer = PostgresWriter(
        dsn,
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        lock_seconds=options.lock_seconds,
        answer_seconds=options.answer_seconds,
        require=health.require,
    )
    committer = LoopCommitter(writer, appends_max=options.appends_max, on_committed=on_committed)
    resources.callback(committer.close)
    return committer


def _queue_pool(dsn: str, options: StoreOptions) -> "ConnectionPool[psycopg.Connection]":
    def configure(connection: psycopg.Connection) -> None:
        connection.autocommit = True
        for statement in (
            *session_settings(options.lock_seconds, options.answer_seconds),
            # Planned while the queue is short, they must not scan it when it is long.
            "SET enable_seqscan = off",
            "SET enable_bitmapscan = off",
        ):
            connection.execute(statement.encode())

    return ConnectionPool(
        dsn,
        kwargs=CONNECTING,
        min_size=1,
        max_size=LEASE_THREADS + LOOKING_THREADS,
        configure=configure,
        timeout=options.answer_seconds,
        reconnect_timeout=options.answer_seconds,
        open=True,
    )


def _postgres_time(pool: "ConnectionPool[psycopg.Connection]") -> int:
    with pool.connection() as connection:
        row = connection.execute("SELECT flowledger_now()").fetchone()
    if row is None:
        raise StoreUnavailable("PostgreSQL does not tell the time")
    return int(row[0])


def _read_engine(
    dialect: str, creator: Callable[[], Any], options: StoreOptions, resources: ExitStack
) -> Callable[[], Engine]:
    @cache
    def make() -> Engine:
        engine = create_engine(
            dialect,
            creator=creator,
            poolclass=QueuePool,
            pool_size=options.query_threads,
            pool_timeout=options.answer_seconds,
            pool_pre_ping=True,
        )
        resources.callback(engine.dispose)
        return engine

    return make


async def keep_time(queue: SQLiteWorkQueue | PostgresWorkQueue) -> None:
    """Read the database's time every ten seconds; for ever."""
    while True:
        with suppress(StoreUnavailable, Overloaded):  # the monotonic clock carries on meanwhile
            await queue.read_time()
        await asyncio.sleep(CLOCK_REFRESH_SECONDS)
