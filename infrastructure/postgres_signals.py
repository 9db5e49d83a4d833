"""LISTEN and NOTIFY between the processes on one database, on a connection of their own.

Who is alone says every three seconds that it is there, with news or without; what it stored it
announces at once only while it hears of others. Spoken to libpq itself: up to two hundred hints a
second are told, and the driver's cursors would cost the event loop more than an execution does.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from infrastructure.postgres_sessions import CONNECTING

CHANNEL: Final = "flowledger"
NEWS: Final = b""
HERE: Final = b"here"
"""The word of one who is there and has no news."""
HELLO: Final = b"hello"
"""The first word on a connection: the others answer, so that each knows of the other at once."""
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
        self._has_news = True  # who is alone says so with the next word, for whoever came meanwhile
        if asyncio.get_running_loop().time() < self._accompanied_until:
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

        def heard(words: set[bytes]) -> None:
            alone = loop.time() >= self._accompanied_until
            self._accompanied_until = loop.time() + GONE_SECONDS
            if HELLO in words or (alone and self._has_news):
                self._wanted.set()
            if alone or NEWS in words:  # what they stored while they thought to be alone is news
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
            await asyncio.sleep(HERE_SECONDS)
            self._wanted.set()

    async def _tell(self, line: "_Line") -> None:
        await line.say(HELLO)
        if self._has_news:
            self._wanted.set()
        while True:
            await asyncio.sleep(NOTIFY_PAUSE_SECONDS)
            await self._wanted.wait()
            self._wanted.clear()
            has_news, self._has_news = self._has_news, False
            await line.say(NEWS if has_news else HERE)


class _Line:
    """An open connection that listens; `lost` gets the error when it ends."""

    def __init__(
        self, libpq: PGconn, heard: Callable[[set[bytes]], None], lost: asyncio.Future[None]
    ) -> None:
        self._libpq = libpq
        self._heard = heard
        self.lost = lost
        self._idle = asyncio.Event()
        self._idle.set()

    async def say(self, word: bytes) -> None:
        """Once the word before has arrived. Raises TimeoutError when it does not."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._idle.wait()
        self._idle.clear()
        self._libpq.send_query(f"NOTIFY {CHANNEL}, '{word.decode()}'".encode())
        if self._libpq.flush():
            raise psycopg.OperationalError("the connection takes no more")

    def read(self) -> None:
        try:
            words = self._words_of_others()
        except psycopg.OperationalError as error:
            if not self.lost.done():
                self.lost.set_exception(error)
            return
        if words:
            self._heard(words)

    def _words_of_others(self) -> set[bytes]:
        libpq = self._libpq
        libpq.consume_input()
        while not libpq.is_busy():
            result = libpq.get_result()
            if result is None:
                self._idle.set()
                break
            if result.status != ExecStatus.COMMAND_OK:
                raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        words = set()
        while (notification := libpq.notifies()) is not None:
            if notification.be_pid != libpq.backend_pid:
                words.add(notification.extra)
        return words
