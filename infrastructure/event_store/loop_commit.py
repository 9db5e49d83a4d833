"""Group commit in the event loop, for a database that answers on a socket.

A thread would have to ask the interpreter for its turn twice a batch, behind all that the event
loop computes meanwhile (docs/decisions/0018-committer-in-the-loop.md).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from application.ports import Changed
from infrastructure.event_store.group_commit import (
    Course,
    Gathering,
    GroupCommitter,
    Pending,
    Written,
    closing,
)

Told = Callable[[Written | Exception], None]
"""Hears what became of a batch: what it got, or what `BatchWriter.write` would raise."""


class LoopWriter(Protocol):
    """One connection that stores batches, one at a time, without blocking the event loop."""

    def begin(self, batch: Sequence[Pending], told: Told) -> None:
        """Send all of the batch in one transaction; `told` is called once, later. Never raises."""

    def close(self) -> None:
        """Close the connection; in the event loop."""


class LoopCommitter(GroupCommitter):
    """Belongs to the event loop of its first caller."""

    def __init__(
        self,
        writer: LoopWriter,
        *,
        appends_max: int,
        on_committed: Callable[[Sequence[Changed]], None],
    ) -> None:
        super().__init__(appends_max=appends_max, on_committed=on_committed)
        self._writer = writer
        self._queue: deque[Pending] = deque()
        self._open = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._course: Course | None = None
        self._last = 0
        """How many appends the batch before had."""
        self._coming_round = False
        self._drained = asyncio.Event()

    def close(self) -> None:
        """See GroupCommitter."""
        self._open = False
        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()

    def _waiting(self) -> int:
        return len(self._queue)

    def _put(self, pending: Pending) -> None:
        if not self._open:
            raise closing()
        loop = pending.future.get_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("an open store belongs to one event loop; open another for this one")
        self._queue.append(pending)
        if self._course is not None:
            return
        # Half of those who were woken together are enough: the database works for them while the
        # others decide, and from then on the halves take turns.
        if 2 * len(self._queue) >= self._last:
            self._begin()
        elif not self._coming_round:
            self._coming_round = True
            loop.call_soon(self._come_round)

    def _come_round(self) -> None:
        """Nobody else came in this round of the loop."""
        self._coming_round = False
        if self._queue and self._course is None:
            self._begin()

    def _begin(self) -> None:
        gathering, waiting = Gathering(), self._queue
        while waiting and not gathering.full:
            gathering.take(waiting.popleft())
        waiting.extendleft(reversed(gathering.passed_over))
        self._course = Course(gathering.batch(), self.counters)
        self._writer.begin(self._course.step, self._told)

    def _told(self, how: Written | Exception) -> None:
        course = self._course
        if course is None:
            raise RuntimeError("told of a batch that nobody sent")
        if isinstance(how, Exception):
            course.failed(how)
        else:
            course.stored(how)
        if course.results is None:
            self._writer.begin(course.step, self._told)
            return
        self._last = len(course.results)
        self._course = None
        if self._queue:  # before the callers: the database has nothing to do
            self._begin()
        self._deliver(course.results)
        if self._course is None:
            self._drained.set()

    async def _end(self) -> None:
        while self._course is not None or self._queue:
            self._drained.clear()
            await self._drained.wait()
        self._writer.close()
