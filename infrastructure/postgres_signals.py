"""LISTEN and NOTIFY between the processes on one database, on a connection of their own.

Who is alone tells nobody: each process says that it is there, and announces what it stored only
while it hears of others. Spoken to libpq itself: up to two hundred hints a second are told, and the
driver's cursors would cost the event loop more than an execution does.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final, NamedTuple

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from infrastructure.postgres_sessions import CONNECTING

CHANNEL: Final = "flowledger"
HERE: Final = b"here"
"""The word of one who is there and has no news."""
NOTIFY_PAUSE_SECONDS: Final = 0.005
HERE_SECONDS: Final = 3.0
GONE_SECONDS: Final = 10.0
"""Who was not heard for so long is taken for gone."""
ANSWER_SECONDS: Final = 5.0
RECONNECT_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class PostgresSignals:
    """Tells the other processes that something was stored, and hears it from them."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._wanted = asyncio.Event()
        self._has_news = False
        self._accompanied_until = 0.0

    def announce(self) -> None:
        """Tell the others, if there are any: at once when nothing was told lately, else within
        5 ms.
        """
        if asyncio.get_running_loop().time() < self._accompanied_until:
            self._has_news = True
            self._wanted.set()

    async def exchange(self, on_signal: Callable[[], None]) -> None:
        """Tell what is announced, and call `on_signal` when another process announces, when there
        is another one at last, and after each reconnect; for ever.
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
            except (psycopg.OperationalError, psycopg.InterfaceError, OSError):
                await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
                failures += 1

    async def _exchange_on(self, libpq: PGconn, on_signal: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def heard(*, news: bool) -> None:
            alone = loop.time() >= self._accompanied_until
            self._accompanied_until = loop.time() + GONE_SECONDS
            if alone:
                self._wanted.set()  # so that they know of us
            if alone or news:  # what they stored while they took themselves for alone is news, too
                on_signal()

        line = _Line(libpq, heard, loop.create_future())
        # With a number of its own: libpq closes its socket as soon as the connection ends, and what
        # the loop opens next gets that number. Not to be had of a connection that is lost.
        own = socket.socket(fileno=os.dup(libpq.socket))
        loop.add_reader(own, line.read)
        work = [loop.create_task(self._tell(line)), loop.create_task(self._be_there())]
        try:
            await asyncio.wait({*work, line.lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(own)
            own.close()
            for each in work:
                each.cancel()
            ended = await asyncio.gather(*work, return_exceptions=True)
        if line.lost.done():
            line.lost.result()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _be_there(self) -> None:
        while True:
            self._wanted.set()
            await asyncio.sleep(HERE_SECONDS)

    async def _tell(self, line: "_Line") -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            async with asyncio.timeout(ANSWER_SECONDS):
                await line.idle.wait()
            has_news, self._has_news = self._has_news, False
            line.notify(news=has_news)
            await asyncio.sleep(NOTIFY_PAUSE_SECONDS)


class _Told(NamedTuple):
    by_others: bool
    news: bool


class _Line:
    """An open connection that listens; `lost` gets the error when it ends."""

    def __init__(
        self, libpq: PGconn, heard: Callable[..., None], lost: asyncio.Future[None]
    ) -> None:
        self._libpq = libpq
        self._heard = heard
        self.lost = lost
        self.idle = asyncio.Event()
        self.idle.set()

    def notify(self, *, news: bool) -> None:
        self.idle.clear()
        word = b"" if news else b", '" + HERE + b"'"
        self._libpq.send_query(f"NOTIFY {CHANNEL}".encode() + word)
        if self._libpq.flush():
            raise psycopg.OperationalError("the connection takes no more")

    def read(self) -> None:
        try:
            told = self._told()
        except psycopg.OperationalError as error:
            if not self.lost.done():
                self.lost.set_exception(error)
            return
        if told.by_others:
            self._heard(news=told.news)

    def _told(self) -> _Told:
        libpq = self._libpq
        libpq.consume_input()
        while not libpq.is_busy():
            result = libpq.get_result()
            if result is None:
                self.idle.set()
                break
            if result.status != ExecStatus.COMMAND_OK:
                raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        by_others = news = False
        while (notification := libpq.notifies()) is not None:
            if notification.be_pid != libpq.backend_pid:
                by_others = True
                news = news or notification.extra != HERE
        return _Told(by_others, news)
