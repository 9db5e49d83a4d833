"""Keeps all projections up with the log: one thread a process, one leader in the cluster.

Projections that stand at the same position share one feed (a lane). One that cannot take an event
leaves the others, finds out in ever smaller batches which event it is, and pauses there; nothing is
skipped.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Final, NamedTuple

from application.ports import StoreUnavailable, UnknownOutcome
from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.projections import checkpoints
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.projections.checkpoints import (
    RUNNING,
    Checkpoint,
    CheckpointMoved,
    Failure,
)
from infrastructure.projections.folding import Projection
from infrastructure.projections.lanes import EVENTS_PER_BATCH_MAX, Lane
from infrastructure.projections.log_reading import NO_LIMIT, LogReading
from infrastructure.projections.sessions import ProjectionStore, Session

POLL_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.1
"""Between two batches while there is work, unless somebody waits for a position: a batch costs the
same whatever it holds, and the thread shares its process with the server."""
FULL_PAUSE_SECONDS: Final = 0.001
PATIENCE_SECONDS: Final = 5.0
"""A process that also serves leads all the same when those made for it leave the tables alone so
long: one that stands still, or cannot write, holds its lock too.
"""
KEEP_SECONDS: Final = 300.0
"""After it gave way once, and had to lead again, it does not give way before."""
RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
CAUSE_LENGTH_MAX: Final = 2_000

_log = logging.getLogger("flowledger.projections")


class Lag(NamedTuple):
    """How far the foremost feed is behind: events (at most), and the age of the oldest not taken.

    A single projection that catches up after a rebuild or a resume does not count.
    """

    events: int
    seconds: float


class ProjectionRunner:
    """The projections' thread. `start` and `stop` it; `wake` it when something was appended."""

    def __init__(
        self,
        store: ProjectionStore,
        now: Callable[[], datetime],
        *,
        projections: Sequence[Projection] = PROJECTIONS,
        codec: Codec | None = None,
        poll_seconds: float = POLL_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
        batch_max: int = EVENTS_PER_BATCH_MAX,
        may_lead: bool = True,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`now` is the database's time, which event times are compared with for the lag. One that
        may not lead tells how far the leader is, and fills no table.
        """
        self._may_lead = may_lead
        self._patience_seconds = patience_seconds
        self._unled_since: float | None = None
        self._gave_way_at = -math.inf
        self._store = store
        self._now = now
        self._projections = tuple(projections)
        self._codec = codec or Codec()
        self._poll_seconds = poll_seconds
        self._pause_seconds = pause_seconds
        self._batch_max = batch_max
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="projections", daemon=True)
        self._progress = Progress()
        self._paused: dict[str, int] = {}
        self._lag = Lag(0, 0.0)
        self.leading = False
        """Whether this process fills the tables."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch in hand; blocks. Safe to call twice and without a start."""
        self._stopping.set()
        self._wanted.set()
        self._hurry.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self, *_: object) -> None:
        """Something was appended; cheap, from any thread."""
        if not self._wanted.is_set():
            self._wanted.set()

    def hurry(self) -> None:
        """Somebody waits: take the next batch without the pause; cheap, from any thread."""
        if not self._hurry.is_set():
            self._hurry.set()

    def lag(self) -> Lag:
        """As of the last look at the log, at most a second ago; costs nothing."""
        return self._lag

    @property
    def position(self) -> int:
        """Every projection's table holds the events up to here."""
        return self._progress.position

    async def reached(self, position: int, timeout_seconds: float) -> bool:
        """Whether all projections reach `position` in time."""
        if position > self._progress.position:
            self.hurry()
        return await self._progress.wait(position, timeout_seconds)

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                if self._may_lead and self._lead():
                    self._serve()
                    self._leave()
                else:
                    self._observe()
                    self._stopping.wait(self._poll_seconds)
                failures = 0
            except CheckpointMoved:
                _log.info("projections_reloaded")
            except (StoreUnavailable, UnknownOutcome) as error:
                _log.warning("projections_wait_for_the_store", extra={"cause": str(error)})
                failures = self._wait_after(failures)
            except Exception:  # noqa: BLE001 - whatever it is, the thread must not die of it
                _log.exception("projections_failed")
                failures = self._wait_after(failures)
        self._leave()

    def _lead(self) -> bool:
        """Be the leader, unless somebody is there for nothing else and takes that up in time."""
        standing = self._store.standing()
        now = time.monotonic()
        if not standing.outranked or standing.led:
            self._unled_since = None
        elif self._unled_since is None:
            self._unled_since = now
        if standing.outranked:
            if self._unled_since is None or now - self._unled_since < self._patience_seconds:
                return False
            self._gave_way_at = now
        return self._store.lead()

    def _gives_way(self) -> bool:
        now = time.monotonic()
        if now - self._gave_way_at < KEEP_SECONDS or not self._store.standing().outranked:
            return False
        self._gave_way_at = now
        return True

    def _leave(self) -> None:
        self.leading = False
        self._store.close()

    def _wait_after(self, failures: int) -> int:
        self._leave()
        self._stopping.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        return failures + 1

    def _observe(self) -> None:
        """Another process leads: see how far it is."""
        with self._store.reading() as session:
            found = checkpoints.read_checkpoints(session)
            log = LogReading(session, self._codec)
            head = log.head()
            mine = [at for at in map(found.get, map(_key, self._projections)) if at is not None]
            position = min((each.position for each in mine), default=0)
            running = min((each.position for each in mine if each.state == RUNNING), default=head)
            waiting = log.after(running, 1)
        oldest = waiting[0].event.meta.at if waiting and isinstance(waiting[0], Recorded) else None
        self._lag = Lag(max(0, head - running), self._age(oldest))
        self._progress.reach(position)

    def _serve(self) -> None:
        """Lead until stopped, or until a process is there that does nothing else."""
        lanes = self._load()
        self.leading = True
        looked = time.monotonic()
        while not self._stopping.is_set():
            self._wanted.clear()
            busy, full = self._cycle(lanes)
            lanes = self._merged(lanes)
            self._progress.reach(self._lowest(lanes))
            if full:
                self._stopping.wait(FULL_PAUSE_SECONDS)
            elif busy:
                self._hurry.wait(self._pause_seconds)
                self._hurry.clear()
            else:
                self._wanted.wait(self._poll_seconds)
            if time.monotonic() - looked > self._poll_seconds:
                looked = time.monotonic()
                if self._gives_way():
                    _log.info("projections_left_to_a_projector")
                    return
                if self._paused and self._resumed():
                    lanes = self._load()

    def _load(self) -> list[Lane]:
        """The lanes as the checkpoints tell."""

        def create(session: Session) -> None:
            checkpoints.create_missing(session, self._projections)

        self._store.write(create)
        with self._store.reading() as session:
            found = checkpoints.read_checkpoints(session)
        standing = [(each, found[_key(each)]) for each in self._projections]
        self._paused = {at.name: at.position for _, at in standing if at.state != RUNNING}
        running = sorted((at.position, each.table.name, each) for each, at in _running(standing))
        return [
            self._lane([each for _, _, each in group], position)
            for position, group in groupby(running, key=lambda entry: entry[0])
        ]

    def _lane(
        self, projections: Sequence[Projection], position: int, limit: int | None = None
    ) -> Lane:
        return Lane(self._store, self._codec, projections, position, limit or self._batch_max)

    def _cycle(self, lanes: list[Lane]) -> tuple[bool, bool]:
        """One batch for each lane, the foremost first.

        Whether there was work, and whether more waits.
        """
        busy = full = False
        upto = NO_LIMIT
        for lane in sorted(lanes, key=lambda each: -each.position):
            wanted = lane.limit
            read = self._advance(lanes, lane, upto)
            behind = read >= wanted or lane.position < upto != NO_LIMIT
            busy, full = busy or read > 0, full or behind
            if upto == NO_LIMIT:
                self._note_lag(lane, behind=read >= wanted)
            upto = lane.position
        return busy, full

    def _advance(self, lanes: list[Lane], lane: Lane, upto: int) -> int:
        try:
            read = lane.advance(upto)
        except (StoreUnavailable, UnknownOutcome, CheckpointMoved):
            raise
        except Exception as error:  # noqa: BLE001 - folds may fail in any way
            self._isolate(lanes, lane, error)
            return len(lane.last_read)
        lane.limit = min(self._batch_max, lane.limit * 2) if read >= lane.limit else self._batch_max
        return read

    def _isolate(self, lanes: list[Lane], lane: Lane, error: Exception) -> None:
        """A batch failed.

        Each projection on its own, then half the events, until one of each is left.
        """
        events = len(lane.last_read)
        if events > 1 or len(lane.projections) > 1:
            half = max(1, events // 2)
            lanes.remove(lane)
            lanes += [self._lane([each], lane.position, half) for each in lane.projections]
            return
        lanes.remove(lane)
        self._pause(lane, error)

    def _pause(self, lane: Lane, error: Exception) -> None:
        (projection,), event = lane.projections, lane.last_read[0]
        recorded = event.event if isinstance(event, Recorded) else None
        failure = Failure(
            *_key(projection),
            position=event.position,
            topic=recorded.data.TOPIC if recorded else getattr(event, "topic", ""),
            execution_id=str(recorded.execution_id if recorded else getattr(event, "stream", "")),
            cause=f"{type(error).__name__}: {error}"[:CAUSE_LENGTH_MAX],
        )
        self._store.write(lambda session: checkpoints.pause(session, failure))
        self._paused[failure.name] = lane.position
        _log.error("projection_paused", extra={"facts": failure._asdict()}, exc_info=error)

    def _merged(self, lanes: list[Lane]) -> list[Lane]:
        """Lanes that meet become one again.

        The largest keeps its memory when it takes nobody in.
        """
        merged = []
        for position, group in groupby(
            sorted(lanes, key=lambda each: each.position), key=lambda each: each.position
        ):
            same = list(group)
            grown = [lane for lane in same if lane.limit == self._batch_max]
            if len(grown) > 1:
                together = [each for lane in grown for each in lane.projections]
                merged.append(self._lane(together, position))
                merged += [lane for lane in same if lane not in grown]
            else:
                merged += same
        return merged

    def _resumed(self) -> bool:
        with self._store.reading() as session:
            found = checkpoints.read_checkpoints(session)
        return any(
            at.state == RUNNING
            for each in self._projections
            if each.table.name in self._paused and (at := found.get(_key(each))) is not None
        )

    def _lowest(self, lanes: Iterable[Lane]) -> int:
        return min([lane.position for lane in lanes] + list(self._paused.values()), default=0)

    def _note_lag(self, lane: Lane, *, behind: bool) -> None:
        if not behind:
            self._lag = Lag(0, 0.0)
            return
        with self._store.reading() as session:
            head = LogReading(session, self._codec).head()
        self._lag = Lag(max(0, head - lane.position), self._age(lane.reached_at))

    def _age(self, at: datetime | None) -> float:
        return 0.0 if at is None else max(0.0, (self._now() - at).total_seconds())


class Progress:
    """A position that only grows, and who waits for it."""

    def __init__(self) -> None:
        self.position = 0
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def reach(self, position: int) -> None:
        """Move on and wake whoever waited for that."""
        with self._lock:
            self.position = max(self.position, position)
            due = [each for each in self._waiting if each[0] <= self.position]
            if due:
                self._waiting = [each for each in self._waiting if each[0] > self.position]
        for _, loop, future in due:
            with suppress(RuntimeError):  # that loop has ended, and who waited with it
                loop.call_soon_threadsafe(_wake, future)

    async def wait(self, position: int, timeout_seconds: float) -> bool:
        """Whether `position` is reached in time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = (position, loop, future)
        with self._lock:
            if self.position >= position:
                return True
            self._waiting.append(entry)
        try:
            await asyncio.wait_for(future, timeout_seconds)
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiting = [each for each in self._waiting if each is not entry]
        return True


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _key(projection: Projection) -> tuple[str, int]:
    return projection.table.name, projection.table.version


def _running(
    standing: Iterable[tuple[Projection, Checkpoint]],
) -> Iterable[tuple[Projection, Checkpoint]]:
    return ((each, at) for each, at in standing if at.state == RUNNING)
