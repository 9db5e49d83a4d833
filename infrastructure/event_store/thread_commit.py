"""Group commit by a thread, for a database whose calls block: it stores batches and, on SQLite,
does everything else that writes.
"""

import asyncio
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import Enum
from typing import Protocol, TypeVar

from application.ports import Changed
from infrastructure.event_store.group_commit import (
    Course,
    Gathering,
    GroupCommitter,
    Pending,
    Result,
    Written,
    closing,
)

T = TypeVar("T")


class BatchWriter(Protocol):
    """One connection that stores batches; used by the committer's thread only."""

    def write(self, batch: Sequence[Pending]) -> Written:
        """Store all of the batch in one transaction.

        Raises RolledBack, StoreUnavailable (nothing stored), UnknownOutcome; VersionConflict,
        StaleLease or ValueError when one of the appends is at fault (nothing stored).
        """

    def close(self) -> None:
        """Close the connection."""


class _Signal(Enum):
    CLOSE = "close"


_Job = Callable[[], None]


class ThreadCommitter(GroupCommitter):
    """Owns the thread which alone uses the writer."""

    def __init__(
        self,
        writer: BatchWriter,
        *,
        appends_max: int,
        on_committed: Callable[[Sequence[Changed]], None],
    ) -> None:
        super().__init__(appends_max=appends_max, on_committed=on_committed)
        self._writer = writer
        self._queue: queue.SimpleQueue[Pending | _Job | _Signal] = queue.SimpleQueue()
        self._passed_over: deque[Pending] = deque()
        self._open = True
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ledger-committer", daemon=True)
        self._thread.start()

    def run_job(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` in the committer's thread between two batches. Raises StoreUnavailable."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(job())
            except Exception as error:  # noqa: BLE001 - it goes to whoever waits for the job
                future.set_exception(error)

        self._put(run)
        return future

    def close(self) -> None:
        """See GroupCommitter."""
        with self._closing:
            if self._open:
                self._open = False
                self._queue.put(_Signal.CLOSE)
        self._thread.join()

    def _waiting(self) -> int:
        return self._queue.qsize()

    def _put(self, item: "Pending | _Job") -> None:
        with self._closing:
            if not self._open:
                raise closing()
            self._queue.put(item)

    # --------------------------------------------------------------------- committer's thread

    def _run(self) -> None:
        last = False
        while not last or self._passed_over:
            batch, then = self._next_batch()
            if batch:
                self._hand_back(self._commit(batch))
            if then is _Signal.CLOSE:
                last = True
            elif then is not None:
                then()
        self._writer.close()

    def _next_batch(self) -> "tuple[list[Pending], _Job | _Signal | None]":
        """What is waiting now, up to the limit, and the job that stood in the queue behind it."""
        gathering = Gathering()
        earlier, then = self._passed_over, None
        while not gathering.full:
            if earlier:
                gathering.take(earlier.popleft())
                continue
            item = self._take(wait=gathering.empty)
            if not isinstance(item, Pending):
                then = item
                break
            gathering.take(item)
        self._passed_over = gathering.passed_over + earlier
        return gathering.batch(), then

    def _take(self, *, wait: bool) -> "Pending | _Job | _Signal | None":
        if wait:
            return self._queue.get()
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _commit(self, batch: Sequence[Pending]) -> Sequence[Result]:
        course = Course(batch, self.counters)
        while course.results is None:
            try:
                written = self._writer.write(course.step)
            except Exception as error:  # noqa: BLE001 - the course knows what it means
                course.failed(error)
            else:
                course.stored(written)
        return course.results

    def _hand_back(self, results: Sequence[Result]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Result]] = defaultdict(list)
        for result in results:
            by_loop[result.pending.future.get_loop()].append(result)
        for loop, its_own in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._deliver, its_own)
            except RuntimeError:  # that loop has ended, and its callers with it
                continue
