"""Finds out whether PostgreSQL answers: by a connection of its own, so that a pool which is busy,
or full of dead connections, is never what tells.
"""

import asyncio
import threading
import time
from contextlib import suppress
from typing import Final

import psycopg

from infrastructure.event_store.prepared_call import (
    AnswerLate,
    AnswerLost,
    NotSent,
    PreparedCall,
    Refused,
)
from infrastructure.postgres_sessions import CONNECTING
from infrastructure.store_health import StoreHealth

PING_SECONDS: Final = 0.4
PONG_SECONDS: Final = 1.0
"""With the pause before it, less than the two seconds in which callers get an answer."""
LATE_SECONDS: Final = 0.5
"""A time-out that comes so much too late tells of this process, which slept, not of the store."""
RECONNECT_SECONDS: Final = 0.2
_QUESTION: Final = "SELECT pg_is_in_recovery()"
_WRITABLE: Final = b"\x00"  # false, in binary form


class PostgresWatch:
    """A thread that asks the server over and over whether it can be written to."""

    def __init__(self, dsn: str, health: StoreHealth) -> None:
        self._dsn = dsn
        self._health = health
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-health", daemon=True)

    def start(self) -> None:
        """Begin; in the event loop that the health belongs to."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """End; blocks for a question under way. Safe without a start."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = psycopg.connect(self._dsn, autocommit=True, **CONNECTING)
                call = PreparedCall(connection, _QUESTION, PONG_SECONDS)
            except (psycopg.Error, Refused) as error:
                self._tell(_first_line(error))
                self._stopping.wait(RECONNECT_SECONDS)
                continue
            try:
                self._ask(call)
            finally:
                call.close()

    def _ask(self, call: PreparedCall) -> None:
        """Until the connection ends, which by itself tells nothing: anybody may have ended an idle
        one. Whether there is a new one to be had tells.
        """
        while not self._stopping.is_set():
            asked_at = time.monotonic()
            try:
                answer = call.execute((), ()).get_value(0, 0)
            except AnswerLate as error:
                if time.monotonic() - asked_at < PONG_SECONDS + LATE_SECONDS:
                    self._tell(str(error))
                return
            except (AnswerLost, NotSent, Refused):
                return
            self._tell(None if answer == _WRITABLE else "this server cannot be written to")
            self._stopping.wait(PING_SECONDS)

    def _tell(self, cause: str | None) -> None:
        if self._loop is None or cause is self._health.cause is None:
            return
        with suppress(RuntimeError):  # that loop has ended, and who waited with it
            if cause is None:
                self._loop.call_soon_threadsafe(self._health.found)
            else:
                self._loop.call_soon_threadsafe(self._health.lost, cause)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
