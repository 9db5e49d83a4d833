"""The ChangeFeed port: tells subscribers of this process which streams moved.

Changes of this process are known at once. Those of other processes are read from the log: every
second, and on PostgreSQL as soon as one of them says that it stored something.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol
from uuid import UUID

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from application.ports import Changed, StoreUnavailable
from infrastructure.postgres_sessions import CONNECTING
from infrastructure.store_health import StoreThreads

CHANNEL: Final = "flowledger"
NOTIFY_PAUSE_SECONDS: Final = 0.005
LOOK_PAUSE_SECONDS: Final = 0.02
"""Between two looks at the log that others asked for."""
ANSWER_SECONDS: Final = 5.0
RECONNECT_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
ROWS_PER_LOOK: Final = 2000

Subscriber = Callable[[UUID, int], None]


class LogTail(Protocol):
    """What the feed reads of the log; blocking, raises StoreUnavailable."""

    def head(self) -> int:
        """The highest position."""

    def versions_between(self, after: int, upto: int, limit: int) -> list[tuple[UUID, int, int]]:
        """Stream, version and position of the rows in (after, upto]."""


class LogChangeFeed:
    """Hints that streams changed; see `application.ports.ChangeFeed`."""

    def __init__(
        self,
        tail: LogTail,
        threads: StoreThreads,
        *,
        poll_seconds: float,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        """`announce` tells the other processes that something was stored; it must not block."""
        self._tail = tail
        self._threads = threads
        self._poll_seconds = poll_seconds
        self._announce = announce
        self._subscribers: dict[int, Subscriber] = {}
        self._next_key = 0
        self._seen = 0
        self._own: deque[tuple[int, int]] = deque()
        self._look_now = asyncio.Event()

    def publish(self, changes: Sequence[Changed]) -> None:
        """Tell subscribers of a commit of this process; in the event loop."""
        for change in changes:
            self._remember(change.first, change.last)
        self._tell([(change.stream_id, change.version) for change in changes])
        self._announce()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback(stream_id, version)` for each change seen, until the result is called."""
        key = self._next_key
        self._next_key += 1
        self._subscribers[key] = callback
        return lambda: self._unsubscribe(key)

    def look(self) -> None:
        """Somebody else stored something: read on without waiting for the next second."""
        self._look_now.set()

    async def begin(self) -> None:
        """Take the present end of the log as the start: every later change is told."""
        self._seen = await self._threads.run(self._tail.head)

    async def run(self) -> None:
        """Watch the log until cancelled; after `begin`."""
        loop = asyncio.get_running_loop()
        while True:
            looked_at = loop.time()
            with suppress(StoreUnavailable):  # the next look comes by itself
                await self._catch_up()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._look_now.wait()
            await asyncio.sleep(looked_at + LOOK_PAUSE_SECONDS - loop.time())
            self._look_now.clear()

    def _unsubscribe(self, key: int) -> None:
        self._subscribers.pop(key, None)

    async def _catch_up(self) -> None:
        """Read what lies between the positions that this process stored itself."""
        head = await self._threads.run(self._tail.head)
        while True:
            while self._own and self._own[0][0] <= self._seen + 1:
                self._seen = max(self._seen, self._own.popleft()[1])
            if self._seen >= head:
                return
            upto = min(head, self._own[0][0] - 1) if self._own else head
            rows = await self._threads.run(
                partial(self._tail.versions_between, self._seen, upto, ROWS_PER_LOOK)
            )
            self._seen = rows[-1][2] if len(rows) == ROWS_PER_LOOK else upto
            # Of several changes of one stream the last counts.
            self._tell({stream_id: version for stream_id, version, _ in rows}.items())

    def _remember(self, first: int, last: int) -> None:
        if self._own and self._own[-1][1] + 1 == first:
            self._own[-1] = (self._own[-1][0], last)
        else:
            self._own.append((first, last))

    def _tell(self, changes: Collection[tuple[UUID, int]]) -> None:
        if not self._subscribers:
            return
        for callback in tuple(self._subscribers.values()):
            for stream_id, version in changes:
                try:
                    callback(stream_id, version)
                except Exception as error:  # noqa: BLE001 - one subscriber must not silence others
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": "a subscriber of the change feed failed", "exception": error}
                    )


class PostgresSignals:
    """LISTEN and NOTIFY between the processes on one database, on a connection of their own.

    Spoken to libpq itself: up to two hundred hints a second are told, and the driver's cursors
    would cost the event loop more than an execution does.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._wanted = asyncio.Event()

    def announce(self) -> None:
        """Tell the others: at once when nothing was told lately, else within 5 ms."""
        self._wanted.set()

    async def exchange(self, on_signal: Callable[[], None]) -> None:
        """Tell what is announced, and call `on_signal` when another process announces and after
        each reconnect; for ever.
        """
        failures = 0
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._dsn, autocommit=True, **CONNECTING
                ) as connection:
                    # A hint may be lost, so that its commit need not wait for the disk.
                    await connection.execute("SET synchronous_commit = off")
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    failures = 0
                    on_signal()
                    await self._exchange_on(connection.pgconn, on_signal)
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
                await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
                failures += 1

    async def _exchange_on(self, libpq: PGconn, on_signal: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        line = _Line(libpq, on_signal, loop.create_future())
        socket = libpq.socket  # not to be had of a connection that is lost
        loop.add_reader(socket, line.read)
        teller = loop.create_task(self._tell(line))
        try:
            await asyncio.wait({teller, line.lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(socket)
            teller.cancel()
            told = await asyncio.gather(teller, return_exceptions=True)
        if line.lost.done():
            line.lost.result()
        if isinstance(told[0], Exception):
            raise told[0]

    async def _tell(self, line: "_Line") -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            async with asyncio.timeout(ANSWER_SECONDS):
                await line.idle.wait()
            line.notify()
            await asyncio.sleep(NOTIFY_PAUSE_SECONDS)


class _Line:
    """An open connection that listens; `lost` gets the error when it ends."""

    def __init__(
        self, libpq: PGconn, on_signal: Callable[[], None], lost: asyncio.Future[None]
    ) -> None:
        self._libpq = libpq
        self._on_signal = on_signal
        self.lost = lost
        self.idle = asyncio.Event()
        self.idle.set()

    def notify(self) -> None:
        self.idle.clear()
        self._libpq.send_query(f"NOTIFY {CHANNEL}".encode())
        if self._libpq.flush():
            raise psycopg.OperationalError("the connection takes no more")

    def read(self) -> None:
        try:
            others = self._others_told()
        except psycopg.OperationalError as error:
            if not self.lost.done():
                self.lost.set_exception(error)
            return
        if others:
            self._on_signal()

    def _others_told(self) -> bool:
        libpq = self._libpq
        libpq.consume_input()
        while not libpq.is_busy():
            result = libpq.get_result()
            if result is None:
                self.idle.set()
                break
            if result.status != ExecStatus.COMMAND_OK:
                raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        others = False
        while (notification := libpq.notifies()) is not None:
            others = others or notification.be_pid != libpq.backend_pid
        return others
