"""The Clock port: database time, carried on by the monotonic clock between two readings."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

MICROSECONDS = 1_000_000


def _monotonic() -> int:
    return time.monotonic_ns() // 1000


class DatabaseClock:
    """The time of the database as last read, plus what has passed here since; never goes back."""

    def __init__(
        self, database_microseconds: int, monotonic: Callable[[], int] = _monotonic
    ) -> None:
        """Start from a reading just made, in microseconds since 1970-01-01 UTC.

        `monotonic` counts microseconds and is that of the event loop which waits.
        """
        self._monotonic = monotonic
        self._offset = database_microseconds - monotonic()
        self._latest = database_microseconds

    def synchronise(self, database_microseconds: int) -> None:
        """Take over a reading just made. A step back is waited out, not followed."""
        self._offset = database_microseconds - self._monotonic()

    def now(self) -> datetime:
        """The time in UTC, with microseconds."""
        present = self._monotonic() + self._offset
        if present > self._latest:
            self._latest = present
        # One call, and exact to the microsecond until the year 2255.
        return datetime.fromtimestamp(self._latest / MICROSECONDS, UTC)

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        await asyncio.sleep(seconds)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in the event loop once it is `when`; the returned function cancels."""
        loop = asyncio.get_running_loop()
        handle: asyncio.TimerHandle

        def arm() -> None:
            nonlocal handle
            left = (when - self.now()).total_seconds()
            handle = loop.call_later(max(0.0, left), ring)

        def ring() -> None:
            if self.now() >= when:
                callback()
            else:  # the database's time fell back since
                arm()

        arm()
        return lambda: handle.cancel()


def system_microseconds() -> int:
    """The time of this machine, in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000
