"""Many callers, one transaction at a time: the appends waiting now become one batch.

There is no artificial wait. While a batch commits, the next one gathers in a bounded queue. A batch
never holds two appends of one stream, and each caller gets its own result.

What is here holds for every store. Who carries a batch to the database is in `thread_commit.py`
(SQLite, whose calls block) and in `loop_commit.py` (PostgreSQL, which answers on a socket).
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

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

EVENTS_PER_BATCH_MAX: Final = 500
TRIES_AFTER_ROLLBACK_MAX: Final = 3
NEW_WORK_SHARE: Final = 0.8
"""Part of the queue open to new executions; the rest is kept for what already runs."""

COMMIT_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5),
)
BATCH_APPENDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


T = TypeVar("T")


class RolledBack(Exception):
    """The database undid the batch for its own reasons (deadlock): certain, and worth a retry."""


@dataclass(slots=True, eq=False)
class Pending:
    """An append on its way: its events as they will be stored, and who waits for it."""

    append: Append
    states: Sequence[bytes]
    future: asyncio.Future[Appended]
    submitted_at: float


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed batch got: a position per event and an epoch per `Enqueue`, in its order."""

    positions: Sequence[int]
    epochs: Sequence[int]


class Result(NamedTuple):
    """What became of one append: what its caller gets, and what others are told of it."""

    pending: Pending
    outcome: Appended | Exception
    change: Changed | None = None


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

    def add(self, results: Sequence[Result], started: float, ended: float) -> None:
        """One batch was carried to the database between these readings of the counter of time."""
        self.commit_seconds += ended - started
        self.commit_times.add(ended - started)
        self.batch_sizes.add(len(results))
        self.queue_seconds += sum([started - each.pending.submitted_at for each in results])
        self.batches += 1
        self.last_batch_appends = len(results)
        self.last_batch_events = sum([len(each.pending.states) for each in results])
        self.appends += self.last_batch_appends
        self.events += self.last_batch_events
        self.refused += sum([isinstance(each.outcome, Exception) for each in results])


class Gathering:
    """A batch that comes together; `passed_over` are those who wait for the one after it."""

    def __init__(self) -> None:
        self._batch: list[Pending] = []
        self._streams: set[UUID] = set()
        self._events = 0
        self.passed_over: deque[Pending] = deque()

    @property
    def empty(self) -> bool:
        """Whether nothing was taken or passed over."""
        return not self._batch and not self.passed_over

    @property
    def full(self) -> bool:
        """Whether no more is taken, or looked at: a thousand appends may wait for one stream."""
        return max(self._events, len(self.passed_over)) >= EVENTS_PER_BATCH_MAX

    def take(self, pending: Pending) -> None:
        """One more append, unless it has to come after another one of its stream."""
        stream_id = pending.append.stream_id
        if stream_id in self._streams:
            self.passed_over.append(pending)
            return
        self._streams.add(stream_id)
        self._batch.append(pending)
        self._events += len(pending.states)

    def batch(self) -> list[Pending]:
        """What was taken; appends of several processes take row locks in one order."""
        return sorted(self._batch, key=lambda pending: pending.append.stream_id.int)


class Course:
    """The way of one batch: write `step`, say how that went, until there are `results`."""

    def __init__(self, batch: Sequence[Pending], counters: CommitCounters) -> None:
        self.results: Sequence[Result] | None = None
        self._counters = counters
        self._started = time.perf_counter()
        self._steps = _committing(batch)
        self.step = next(self._steps)

    def stored(self, written: Written) -> None:
        """The step is in the database."""
        self._go_on(self._steps.send, written)

    def failed(self, error: Exception) -> None:
        """The step raised this; see `BatchWriter.write`."""
        self._go_on(self._steps.throw, error)

    def _go_on(self, tell: Callable[[T], Sequence[Pending]], how: T) -> None:
        try:
            self.step = tell(how)
        except StopIteration as end:
            results: list[Result] = end.value
            self._counters.add(results, self._started, time.perf_counter())
            self.results = results


def _committing(batch: Sequence[Pending]) -> Generator[Sequence[Pending], Written, list[Result]]:
    """Yields what to write next. Halves the batch while one append spoils it for the others."""
    try:
        written = yield from _writing(batch)
    except UnknownOutcome as error:
        return [Result(pending, UnknownOutcome(str(error))) for pending in batch]
    except StoreUnavailable as error:
        return [Result(pending, StoreUnavailable(str(error))) for pending in batch]
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to one of the callers
        if len(batch) == 1:
            return [Result(batch[0], error)]
        half = len(batch) // 2
        first = yield from _committing(batch[:half])
        return first + (yield from _committing(batch[half:]))
    return _results(batch, written)


def _writing(batch: Sequence[Pending]) -> Generator[Sequence[Pending], Written, Written]:
    for _ in range(TRIES_AFTER_ROLLBACK_MAX):
        try:
            return (yield batch)
        except RolledBack as error:
            cause = str(error)
    raise StoreUnavailable(f"the database undid the append repeatedly: {cause}")


def _results(batch: Sequence[Pending], written: Written) -> list[Result]:
    results: list[Result] = []
    epochs = iter(written.epochs)
    after = 0
    for pending in batch:
        first, after = after, after + len(pending.states)
        at, last = written.positions[first], written.positions[after - 1]
        append = pending.append
        epoch = None
        if isinstance(append.queue, Enqueue):
            drawn = next(epochs)
            epoch = drawn if append.queue.lease else None
        change = Changed(append.stream_id, append.events[-1].version, at, last)
        results.append(Result(pending, Appended(at, last, epoch), change))
    return results


class GroupCommitter(ABC):
    """Takes appends and stores them in batches."""

    def __init__(
        self,
        *,
        appends_max: int,
        on_committed: Callable[[Sequence[Changed]], None],
    ) -> None:
        """`on_committed` is called in the event loop of the callers, once a batch."""
        self.counters = CommitCounters()
        self.admission: Callable[[], str | None] | None = None
        """Gives the reason why no new execution is taken now, None when there is none."""
        self._appends_max = appends_max
        self._on_committed = on_committed

    @abstractmethod
    def close(self) -> None:
        """Store what was handed over, then let go of the connection. Blocks, so it is called
        outside the event loop; safe to call twice.
        """

    @abstractmethod
    def _waiting(self) -> int:
        """How many appends have not been taken into a batch."""

    @abstractmethod
    def _put(self, pending: Pending) -> None:
        """Hand over. Raises StoreUnavailable when the store is closing."""

    def submit(self, append: Append, states: Sequence[bytes]) -> asyncio.Future[Appended]:
        """Hand over an append; the future belongs to the running loop.

        A cancelled future does not take the append back. Raises Overloaded, StoreUnavailable.
        """
        self._admit(append)
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._put(Pending(append, states, future, time.perf_counter()))
        return future

    def saturation(self) -> float:
        """How full the queue is, 0 to 1."""
        return min(1.0, self._waiting() / self._appends_max)

    def require_room(self) -> None:
        """Raise Overloaded while no new execution is taken."""
        reason = self.admission() if self.admission is not None else None
        if reason is not None:
            raise Overloaded(reason)
        waiting = self._waiting()
        if waiting >= self._appends_max * NEW_WORK_SHARE:
            raise Overloaded(f"{waiting} appends wait to be stored; no new work is taken now")

    def _admit(self, append: Append) -> None:
        if isinstance(append.queue, Enqueue):
            self.require_room()
        elif (waiting := self._waiting()) >= self._appends_max:
            raise Overloaded(f"the append queue is full ({waiting} wait to be stored)")

    def _deliver(self, results: Sequence[Result]) -> None:
        """Wake the callers; in their event loop."""
        changes = []
        for pending, outcome, change in results:
            if change is not None:
                changes.append(change)
            if pending.future.done():
                continue
            if isinstance(outcome, Exception):
                pending.future.set_exception(outcome)
            else:
                pending.future.set_result(outcome)
        if changes:
            # After the callers: who hears of a change then finds it in their cache.
            asyncio.get_running_loop().call_soon(self._on_committed, changes)


def closing() -> StoreUnavailable:
    """The refusal once a committer is closed."""
    return StoreUnavailable("the store is closing; nothing is stored any more")
