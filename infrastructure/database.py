"""Opens the store: everything that touches the database, put together for one process."""

import asyncio
import os
import socket
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg
from eventsourcing.sqlite import SQLiteDatastore
from psycopg_pool import ConnectionPool
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import QueuePool

from application.ports import StoreUnavailable, WorkQueue
from infrastructure.addresses import PostgresAddress, SQLiteAddress, parse_address
from infrastructure.change_feed import LogChangeFeed, PostgresSignals
from infrastructure.clock import DatabaseClock, system_microseconds
from infrastructure.event_store.codec import Codec
from infrastructure.event_store.group_commit import BatchWriter, CommitCounters, GroupCommitter
from infrastructure.event_store.log import LedgerLog
from infrastructure.event_store.postgres import (
    LedgerDatastore,
    PostgresLedger,
    PostgresWriter,
    connect,
    session_settings,
)
from infrastructure.event_store.sqlite import SQLiteJobs, SQLiteLedger, SQLiteWriter, open_writer
from infrastructure.start_gate import check_store
from infrastructure.work_queue import PostgresWorkQueue, SQLiteWorkQueue

CLOCK_REFRESH_SECONDS = 10.0
QUEUE_CONNECTIONS = 2
QUERY_SECONDS_MAX = 30.0


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How the store is used; the defaults are those of production.

    `worker` names the holder of leases and is unique among the processes that share a database.
    `answer_seconds` bounds how long a caller waits while the database does not answer.
    """

    worker: str = field(default_factory=_worker_name)
    lease_seconds: float = 15.0
    appends_max: int = 10_000
    lock_seconds: float = 1.0
    answer_seconds: float = 2.0
    poll_seconds: float = 1.0
    reader_threads: int = 4
    sqlite_synchronous: str = "FULL"
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)


@dataclass(slots=True, kw_only=True)
class Store:
    """The open store of one process. `start` it in the event loop, `close` it there at the end."""

    log: LedgerLog
    queue: WorkQueue
    feed: LogChangeFeed
    clock: DatabaseClock
    engine: Engine
    """SQLAlchemy engine for reads; its connections cannot write."""
    writes: SQLiteJobs | PostgresAddress
    """How others write: as jobs of the one writing connection, or on connections of their own."""
    committer: GroupCommitter
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    resources: ExitStack
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def counters(self) -> CommitCounters:
        """What the committer did since the start."""
        return self.committer.counters

    def refuse_new_work(self, reason: Callable[[], str | None]) -> None:
        """Ask `reason` before each new execution; while it gives one, callers get Overloaded."""
        self.committer.admission = reason

    async def start(self) -> None:
        """Watch from now on for changes of other processes, and keep the clock right."""
        await self.feed.begin()
        self._tasks = [asyncio.create_task(work()) for work in self.background]
        for task in self._tasks:
            task.add_done_callback(_report_failure)

    async def close(self) -> None:
        """Store what was handed over, then let go of the database. Safe to call twice."""
        waiting = set(self._tasks)
        while waiting:
            for task in waiting:
                task.cancel()
            # The driver may lose a cancellation that comes together with an answer: ask again.
            _, waiting = await asyncio.wait(waiting, timeout=1.0)
        await asyncio.to_thread(self.resources.close)


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
    threads = _threads("ledger-reader", options.reader_threads, resources)
    feed = LogChangeFeed(reader, threads, poll_seconds=options.poll_seconds)
    clock = DatabaseClock(system_microseconds())
    writer = SQLiteWriter(
        connection,
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        now=system_microseconds,
    )
    committer = _committer(writer, feed, options, resources)
    jobs = SQLiteJobs(committer, writer)
    queue = SQLiteWorkQueue(
        jobs,
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        now=system_microseconds,
        on_time=clock.synchronise,
    )
    engine = _read_engine(
        "sqlite://",
        lambda: sqlite3.connect(address.read_only_uri, uri=True, check_same_thread=False),
        options,
        resources,
    )
    return Store(
        log=LedgerLog(Codec(), committer, reader, threads),
        queue=queue,
        feed=feed,
        clock=clock,
        engine=engine,
        writes=jobs,
        committer=committer,
        background=[feed.run, lambda: _keep_time(queue)],
        resources=resources,
    )


def _open_postgres(dsn: str, options: StoreOptions, resources: ExitStack) -> Store:
    datastore = LedgerDatastore(
        dsn, connections_max=options.reader_threads, answer_seconds=options.answer_seconds
    )
    resources.callback(datastore.close)
    reader = PostgresLedger(datastore)
    threads = _threads("ledger-reader", options.reader_threads, resources)
    signals = PostgresSignals(dsn)
    feed = LogChangeFeed(
        reader, threads, poll_seconds=options.poll_seconds, announce=signals.announce
    )
    pool = _queue_pool(dsn, options)
    resources.callback(pool.close)
    clock = DatabaseClock(_postgres_time(pool))
    queue = PostgresWorkQueue(
        pool,
        _threads("work-queue", QUEUE_CONNECTIONS, resources),
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        on_time=clock.synchronise,
    )
    writer = PostgresWriter(
        dsn,
        worker=options.worker,
        lease_seconds=options.lease_seconds,
        lock_seconds=options.lock_seconds,
        answer_seconds=options.answer_seconds,
    )
    committer = _committer(writer, feed, options, resources)
    engine = _read_engine(
        "postgresql+psycopg://",
        lambda: connect(
            dsn,
            lock_seconds=options.lock_seconds,
            answer_seconds=QUERY_SECONDS_MAX,
            statements=["SET default_transaction_read_only = on"],
        ),
        options,
        resources,
    )
    return Store(
        log=LedgerLog(Codec(), committer, reader, threads),
        queue=queue,
        feed=feed,
        clock=clock,
        engine=engine,
        writes=PostgresAddress(dsn),
        committer=committer,
        background=[
            feed.run,
            lambda: signals.exchange(feed.look),
            lambda: _keep_time(queue),
        ],
        resources=resources,
    )


def _committer(
    writer: BatchWriter, feed: LogChangeFeed, options: StoreOptions, resources: ExitStack
) -> GroupCommitter:
    committer = GroupCommitter(writer, appends_max=options.appends_max, on_committed=feed.publish)
    resources.callback(committer.close)
    return committer


def _threads(name: str, count: int, resources: ExitStack) -> ThreadPoolExecutor:
    threads = ThreadPoolExecutor(count, thread_name_prefix=name)
    resources.callback(threads.shutdown)
    return threads


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
        kwargs={"connect_timeout": 2},
        min_size=1,
        max_size=QUEUE_CONNECTIONS,
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
) -> Engine:
    engine = create_engine(
        dialect,
        creator=creator,
        poolclass=QueuePool,
        pool_size=options.reader_threads,
        pool_timeout=options.answer_seconds,
        pool_pre_ping=True,
    )
    resources.callback(engine.dispose)
    return engine


async def _keep_time(queue: SQLiteWorkQueue | PostgresWorkQueue) -> None:
    while True:
        with suppress(StoreUnavailable):  # the monotonic clock carries on meanwhile
            await queue.read_time()
        await asyncio.sleep(CLOCK_REFRESH_SECONDS)
