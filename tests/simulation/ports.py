"""The ports of one simulated process, over the line to the shared database."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from application.outside_runs import OutsideDefinition, OutsideRun
from application.ports import (
    Append,
    Appended,
    Changed,
    Claim,
    Overloaded,
    QueueRow,
    QueueStatistics,
    StoreUnavailable,
    UnknownOutcome,
)
from application.reads import ExecutionQuery, Page
from application.views import ExecutionView
from domain.events import Recorded
from infrastructure.clock import DatabaseClock
from infrastructure.event_store.queue_writes import from_microseconds, to_microseconds
from tests.simulation.line import Life, Line, Weather
from tests.simulation.store import SimulatedStore

Subscriber = Callable[[UUID, int], None]
HINT_SECONDS = 0.3
POLL_SECONDS = 1.0


class ProcessClock:
    """The real clock over virtual time; what it wakes belongs to a process."""

    def __init__(self, clock: DatabaseClock, life: Life) -> None:
        self._clock = clock
        self._life = life

    def synchronise(self, microseconds: int) -> None:
        self._clock.synchronise(microseconds)

    def now(self) -> datetime:
        return self._clock.now()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self._life.reached()

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        taken_back = False

        def ring() -> None:
            if not taken_back:
                callback()

        cancel = self._clock.call_at(when, lambda: self._life.later(ring))

        def take_back() -> None:
            nonlocal taken_back
            taken_back = True
            cancel()

        return take_back


class Feed:
    """Hints for one process: its own at once, those of others late, twice, or not at all."""

    def __init__(
        self, life: Life, weather: Weather, others: Callable[[], Sequence["Feed"]]
    ) -> None:
        self.life = life
        self._weather = weather
        self._others = others
        self._subscribers: dict[int, Subscriber] = {}
        self._next_key = 0
        self._seen = 0

    def publish(self, changes: Sequence[Changed]) -> None:
        for change in changes:
            self._tell(change.stream_id, change.version)
            for other in self._others():
                other.hear(change)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        key, self._next_key = self._next_key, self._next_key + 1
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)  # a worker may be stopped twice

        return unsubscribe

    def hear(self, change: Changed) -> None:
        """A hint of another process is on its way."""
        if self._weather.strikes("hint lost", 0.2):
            return
        loop = asyncio.get_running_loop()
        times = 1 + self._weather.strikes("hint doubled", 0.1)
        for _ in range(times):
            late = self._weather.strikes("hint late", 0.2)
            seconds = self._weather.chance.random() * (HINT_SECONDS if late else 0.005)
            loop.call_later(
                seconds,
                lambda: self.life.later(lambda: self._tell(change.stream_id, change.version)),
            )

    async def watch(self, line: Line, store: SimulatedStore, clock: ProcessClock) -> None:
        """Look at the log every second, for ever: hints get lost."""
        self._seen = store.head()
        while True:
            await clock.sleep(POLL_SECONDS)
            try:
                newer = await line.call(lambda: store.read_all(self._seen, 2_000))
            except StoreUnavailable:
                continue
            if newer:
                self._seen = newer[-1].position
                latest = {each.event.execution_id: each.event.version for each in newer}
                for stream_id, version in latest.items():
                    self._tell(stream_id, version)

    def _tell(self, stream_id: UUID, version: int) -> None:
        for callback in tuple(self._subscribers.values()):
            callback(stream_id, version)


class Log:
    """The EventLog of one process."""

    def __init__(
        self, worker: str, store: SimulatedStore, line: Line, feed: Feed, weather: Weather
    ) -> None:
        self._worker = worker
        self._store = store
        self._line = line
        self._feed = feed
        self._weather = weather

    async def append(self, append: Append) -> Appended:
        if self._weather.strikes("append queue full", 0.01):
            raise Overloaded("the append queue is full")
        done = await self._line.call(
            lambda: self._store.append(self._worker, append), lost=UnknownOutcome
        )
        first = done.position - len(append.events) + 1
        version = append.events[-1].version
        self._feed.publish([Changed(append.stream_id, version, first, done.position)])
        return done

    async def read_stream(
        self, stream_id: UUID, *, after_version: int = 0, limit: int = 10_000
    ) -> Sequence[Recorded]:
        return await self._line.call(
            lambda: self._store.read_stream(stream_id, after_version, limit)
        )

    async def read_all(self, *, after: int = 0, limit: int = 500) -> Sequence[Recorded]:
        return await self._line.call(lambda: self._store.read_all(after, limit))

    async def head(self) -> int:
        return await self._line.call(self._store.head)

    def require_room(self) -> None:
        return None


class Queue:
    """The WorkQueue of one process. Claims and renewals tell its clock the database's time."""

    def __init__(self, worker: str, store: SimulatedStore, line: Line, clock: ProcessClock) -> None:
        self._worker = worker
        self._store = store
        self._line = line
        self._clock = clock

    async def claim(self, limit: int) -> Sequence[Claim]:
        return await self._timed(lambda: self._store.claim(self._worker, limit))

    async def claim_named(self, execution_id: UUID) -> Claim | None:
        return await self._line.call(lambda: self._store.claim_named(self._worker, execution_id))

    async def make_ready(self, execution_id: UUID) -> bool:
        return await self._line.call(lambda: self._store.make_ready(execution_id))

    async def renew(self) -> Sequence[Claim]:
        return await self._timed(lambda: self._store.renew(self._worker))

    async def _timed(self, work: Callable[[], Sequence[Claim]]) -> Sequence[Claim]:
        claims, present = await self._line.call(lambda: (work(), self._store.now()))
        self._clock.synchronise(present)
        return claims

    async def hand_back(self, claim: Claim, ready_at: datetime | None) -> bool:
        due = None if ready_at is None else to_microseconds(ready_at)
        return await self._line.call(lambda: self._store.hand_back(self._worker, claim, due))

    async def release_all(self) -> None:
        await self._line.call(lambda: self._store.release_all(self._worker))

    async def next_due(self) -> datetime | None:
        due = await self._line.call(self._store.next_due)
        return None if due is None else from_microseconds(due)

    async def row(self, execution_id: UUID) -> QueueRow | None:
        return await self._line.call(lambda: self._store.row(execution_id))

    async def statistics(self) -> QueueStatistics:
        return await self._line.call(self._store.statistics)


class NoOutsideRows:
    """The OutsideRows and PendingRows of an installation where nobody inserts any, and nobody looks
    for what a broker has lost, as it loses nothing.
    """

    async def outside_run(self, workspace_id: str, run_id: str) -> OutsideRun | None:
        return None

    async def outside_definition(
        self, workspace_id: str, references: Sequence[str]
    ) -> OutsideDefinition | None:
        return None

    async def name_execution(self, workspace_id: str, run_id: str, execution_run_id: str) -> None:
        return

    async def executions(self, query: ExecutionQuery) -> Page[ExecutionView]:
        return Page((), 0, 1, query.page_size, 0, None)
