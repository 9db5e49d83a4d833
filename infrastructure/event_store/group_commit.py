"""Many callers, one transaction at a time: the appends waiting now become one batch.

There is no artificial wait. While a batch commits, the next one gathers in a bounded queue. A batch
never holds two appends of one stream, and each caller gets its own result.
"""

import asyncio
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

from application.ports import (
    Append,
    Appended,
    Changed,
    Enqueue,
    Overloaded,
    StoreUnavailable,
    UnknownOutcome,
)
from infrastructure.distribution import Distribution

EVENTS_PER_BATCH_MAX = 500
TRIES_AFTER_ROLLBACK_MAX = 3
NEW_WORK_SHARE = 0.8
"""Part of the queue open to new executions; the rest is kept for what already runs."""

COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BATCH_APPENDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)

T = TypeVar("T")


class RolledBack(Exception):
    """The database undid the batch for its own reasons (deadlock): certain, and worth a retry."""


@dataclass(slots=True, eq=False)
class Pending:
    """An append on its way: its events as they will be stored, and who waits for it."""

    append: Append
    states: Sequence[bytes]
    future: asyncio.Future[Appended]
    loop: asyncio.AbstractEventLoop
    submitted_at: float


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed batch got: a position per event and an epoch per `Enqueue`, in its order."""

    positions: Sequence[int]
    epochs: Sequence[int]


class BatchWriter(Protocol):
    """One connection that stores batches; used by the committer's thread only."""

    def write(self, batch: Sequence[Pending]) -> Written:
        """Store all of the batch in one transaction.

        Raises RolledBack, StoreUnavailable (nothing stored), UnknownOutcome; VersionConflict,
        StaleLease or ValueError when one of the appends is at fault (nothing stored).
        """

    def close(self) -> None:
        """Close the connection."""


@dataclass(slots=True)
class CommitCounters:
    """What the committer did since it started; `queue_seconds` sums over appends."""

    batches: int = 0
    appends: int = 0
    events: int = 0
    refused: int = 0
    commit_seconds: float = 0.0
    queue_seconds: float = 0.0
    last_batch_appends: int = 0
    last_batch_events: int = 0
    commit_times: Distribution = field(default_factory=lambda: Distribution(COMMIT_SECONDS))
    batch_sizes: Distribution = field(default_factory=lambda: Distribution(BATCH_APPENDS))


@dataclass(slots=True)
class _Delivery:
    """The results of one batch for one event loop."""

    results: list[tuple[asyncio.Future[Appended], Appended | Exception]] = field(
        default_factory=list
    )
    changes: list[Changed] = field(default_factory=list)


class _Signal(Enum):
    CLOSE = "close"


_Job = Callable[[], None]
_Result = tuple[Pending, Appended | Exception, Changed | None]


class GroupCommitter:
    """Owns the thread which stores batches and, on SQLite, does everything else that writes."""

    def __init__(
        self,
        writer: BatchWriter,
        *,
        appends_max: int,
        on_committed: Callable[[Sequence[Changed]], None],
        admission: Callable[[], str | None] | None = None,
    ) -> None:
        """`on_committed` is called in the event loop of the callers, once a batch.

        `admission` gives the reason why no new execution is taken now, None when there is none.
        """
        self.counters = CommitCounters()
        self._writer = writer
        self._appends_max = appends_max
        self._on_committed = on_committed
        self.admission = admission
        self._queue: queue.SimpleQueue[Pending | _Job | _Signal] = queue.SimpleQueue()
        self._carried: deque[Pending] = deque()
        self._open = True
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ledger-committer", daemon=True)
        self._thread.start()

    def submit(self, append: Append, states: Sequence[bytes]) -> asyncio.Future[Appended]:
        """Hand over an append; the future belongs to the running loop.

        A cancelled future does not take the append back. Raises Overloaded, StoreUnavailable.
        """
        self._admit(append)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        self._put(Pending(append, states, future, loop, time.perf_counter()))
        return future

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

    def saturation(self) -> float:
        """How full the queue is, 0 to 1."""
        return min(1.0, self._queue.qsize() / self._appends_max)

    def require_room(self) -> None:
        """Raise Overloaded while no new execution is taken."""
        reason = self.admission() if self.admission is not None else None
        if reason is not None:
            raise Overloaded(reason)
        waiting = self._queue.qsize()
        if waiting >= self._appends_max * NEW_WORK_SHARE:
            raise Overloaded(f"{waiting} appends wait to be stored; no new work is taken now")

    def close(self) -> None:
        """Store what was handed over, then end the thread. Blocks; safe to call twice."""
        with self._closing:
            if self._open:
                self._open = False
                self._queue.put(_Signal.CLOSE)
        self._thread.join()

    # ------------------------------------------------------------------------- callers' side

    def _admit(self, append: Append) -> None:
        waiting = self._queue.qsize()
        if isinstance(append.queue, Enqueue):
            self.require_room()
        elif waiting >= self._appends_max:
            raise Overloaded(f"the append queue is full ({waiting} wait to be stored)")

    def _put(self, item: "Pending | _Job") -> None:
        with self._closing:
            if not self._open:
                raise StoreUnavailable("the store is closing; nothing is stored any more")
            self._queue.put(item)

    # --------------------------------------------------------------------- committer's thread

    def _run(self) -> None:
        closing = False
        while not closing or self._carried:
            batch, then = self._next_batch()
            if batch:
                self._deliver(self._commit_counted(batch))
            if then is _Signal.CLOSE:
                closing = True
            elif then is not None:
                then()
        self._writer.close()

    def _next_batch(self) -> "tuple[list[Pending], _Job | _Signal | None]":
        """What is waiting now, up to the limit, and the job that stood in the queue behind it."""
        batch: list[Pending] = []
        streams = set()
        events = 0
        earlier, self._carried = self._carried, deque()
        then: _Job | _Signal | None = None
        while events < EVENTS_PER_BATCH_MAX:
            if earlier:
                pending = earlier.popleft()
            else:
                item = self._take(wait=not batch and not self._carried)
                if not isinstance(item, Pending):
                    then = item
                    break
                pending = item
            if pending.append.stream_id in streams:
                self._carried.append(pending)
                continue
            streams.add(pending.append.stream_id)
            batch.append(pending)
            events += len(pending.states)
        self._carried.extend(earlier)
        # Appends of several processes take row locks in one order.
        batch.sort(key=lambda pending: pending.append.stream_id.int)
        return batch, then

    def _take(self, *, wait: bool) -> "Pending | _Job | _Signal | None":
        if wait:
            return self._queue.get()
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _commit_counted(self, batch: list[Pending]) -> list[_Result]:
        started = time.perf_counter()
        results = self._commit(batch)
        counters = self.counters
        seconds = time.perf_counter() - started
        counters.commit_seconds += seconds
        counters.commit_times.add(seconds)
        counters.batch_sizes.add(len(batch))
        counters.queue_seconds += sum(started - pending.submitted_at for pending in batch)
        counters.batches += 1
        counters.last_batch_appends = len(batch)
        counters.last_batch_events = sum(len(pending.states) for pending in batch)
        counters.appends += counters.last_batch_appends
        counters.events += counters.last_batch_events
        counters.refused += sum(1 for result in results if isinstance(result[1], Exception))
        return results

    def _commit(self, batch: list[Pending]) -> list[_Result]:
        """Store the batch; halve it while one append spoils it for the others."""
        try:
            written = self._write(batch)
        except UnknownOutcome as error:
            return [(pending, UnknownOutcome(str(error)), None) for pending in batch]
        except StoreUnavailable as error:
            return [(pending, StoreUnavailable(str(error)), None) for pending in batch]
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to one of the callers
            if len(batch) == 1:
                return [(batch[0], error, None)]
            half = len(batch) // 2
            return self._commit(batch[:half]) + self._commit(batch[half:])
        return _results(batch, written)

    def _write(self, batch: list[Pending]) -> Written:
        for _ in range(TRIES_AFTER_ROLLBACK_MAX):
            try:
                return self._writer.write(batch)
            except RolledBack as error:
                cause = str(error)
        raise StoreUnavailable(f"the database undid the append repeatedly: {cause}")

    def _deliver(self, results: list[_Result]) -> None:
        deliveries: dict[asyncio.AbstractEventLoop, _Delivery] = defaultdict(_Delivery)
        for pending, outcome, change in results:
            delivery = deliveries[pending.loop]
            delivery.results.append((pending.future, outcome))
            if change is not None:
                delivery.changes.append(change)
        for loop, delivery in deliveries.items():
            try:
                loop.call_soon_threadsafe(self._wake, delivery)
            except RuntimeError:  # that loop has ended, and its callers with it
                continue

    # --------------------------------------------------------------------- in the event loop

    def _wake(self, delivery: _Delivery) -> None:
        for future, outcome in delivery.results:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if delivery.changes:
            # After the callers: who hears of a change then finds it in their cache.
            asyncio.get_running_loop().call_soon(self._on_committed, delivery.changes)


def _results(batch: list[Pending], written: Written) -> list[_Result]:
    results: list[_Result] = []
    epochs = iter(written.epochs)
    after = 0
    for pending in batch:
        first, after = after, after + len(pending.states)
        last = written.positions[after - 1]
        append = pending.append
        epoch = None
        if isinstance(append.queue, Enqueue):
            drawn = next(epochs)
            epoch = drawn if append.queue.lease else None
        version = append.events[-1].version
        change = Changed(append.stream_id, version, written.positions[first], last)
        results.append((pending, Appended(written.positions[first], last, epoch), change))
    return results
