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

from application.ports import Changed, StoreUnavailable
from infrastructure.store_health import StoreThreads

LOOK_PAUSE_SECONDS: Final = 0.02
"""Between two looks at the log that others asked for."""
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
