"""The database of a simulation: the log and the work queue, as both real back ends keep them.

Every method is one transaction. What it must do is what `tests/contracts/` asks of the real ones.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from application.ports import (
    Append,
    Appended,
    Claim,
    Discard,
    Enqueue,
    Finish,
    Progress,
    QueueRow,
    QueueStatistics,
    QueueWrite,
    StaleLease,
    Touch,
    VersionConflict,
)
from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.event_store.queue_writes import (
    NOTHING_DUE,
    from_microseconds,
    to_microseconds,
)

_CODEC: Final = Codec()


@dataclass(frozen=True, slots=True)
class Checks:
    """What the database checks. Without one of these it has a bug that invariants must find."""

    lease: bool = True
    """Writes of a lease holder are refused under an old epoch."""
    version_at_hand_back: bool = True
    """A lease is not given back when somebody wrote meanwhile."""


@dataclass(slots=True)
class Row:
    """A row of the work queue; times in microseconds, `owner` None when nobody has it. One that was
    `woken` stays ready until it is claimed anew.
    """

    priority: int
    ready_at: int
    owner: str | None
    lease_until: int
    epoch: int
    version: int
    woken: bool = False

    def due(self, ready_at: int) -> None:
        """What its lease holder says of when it is to be looked at."""
        self.ready_at = min(self.ready_at, ready_at) if self.woken else ready_at

    def wake(self, ready_at: int) -> None:
        """There is something new to look at, whatever its lease holder says."""
        self.woken, self.ready_at = True, min(self.ready_at, ready_at)


class SimulatedStore:
    """`now` is the time of the database in microseconds since 1970."""

    def __init__(
        self, now: Callable[[], int], lease_seconds: float, checks: Checks | None = None
    ) -> None:
        self.now = now
        self.log: list[Recorded] = []
        self.streams: dict[UUID, list[Recorded]] = {}
        self.rows: dict[UUID, Row] = {}
        self._lease = int(lease_seconds * 1_000_000)
        self._checks = checks or Checks()
        self._positions: list[int] = []
        self._position = 0
        self._epoch = 0
        self._digest = hashlib.sha256()

    # --- the log ---

    def append(self, worker: str, append: Append) -> Appended:
        """All events and the queue write, or none. Raises VersionConflict, StaleLease."""
        stream = self.streams.get(append.stream_id, [])
        self._position += 1
        if append.events[0].version != len(stream) + 1:
            raise VersionConflict("another writer stored one of these versions first")
        states = _CODEC.encode(append.events)
        version = append.events[-1].version
        epoch = self._write_queue(worker, append.stream_id, version, append.queue)
        woken = None if append.wakes is None else self.rows.get(append.wakes)
        if woken is not None:
            woken.wake(to_microseconds(append.events[-1].meta.at))
        for event, state in zip(append.events, states, strict=True):
            self._position += 1
            topic = event.data.TOPIC
            recorded = _CODEC.recorded(
                self._position, append.stream_id, event.version, topic, state
            )
            self._digest.update(
                f"{self._position} {append.stream_id} {event.version} {topic} ".encode()
            )
            self._digest.update(state)
            self.log.append(recorded)
            self._positions.append(self._position)
            stream.append(recorded)
        self.streams[append.stream_id] = stream
        return Appended(self._position - len(append.events) + 1, self._position, epoch)

    def read_stream(self, stream_id: UUID, after_version: int, limit: int) -> Sequence[Recorded]:
        """Events of one stream, in order of version."""
        return self.streams.get(stream_id, [])[after_version : after_version + limit]

    def read_all(self, after: int, limit: int) -> Sequence[Recorded]:
        """Events of all streams, in order of position."""
        place = bisect_right(self._positions, after)
        return self.log[place : place + limit]

    def head(self) -> int:
        """The position of the last event."""
        return self._positions[-1] if self._positions else 0

    def digest(self) -> str:
        """SHA-256 of everything stored, in order."""
        return self._digest.hexdigest()

    # --- the five writes ---

    def _write_queue(
        self, worker: str, stream_id: UUID, version: int, write: QueueWrite
    ) -> int | None:
        row = self.rows.get(stream_id)
        match write:
            case Enqueue(_, priority, ready_at, lease):
                epoch = self.draw_epoch()
                owner, until = (worker, self.now() + self._lease) if lease else (None, 0)
                ready = _due_at(ready_at)
                self.rows[stream_id] = Row(priority, ready, owner, until, epoch, version)
                return epoch if lease else None
            case Touch(ready_at) if row is not None:
                row.version = version
                row.ready_at = min(row.ready_at, _due_at(ready_at))
            case Progress(epoch, ready, release):
                held = self._held(row, worker, epoch)
                held.version = version
                held.due(_due_at(ready))
                held.lease_until = 0 if release else self.now() + self._lease
                held.owner = None if release else held.owner
            case Finish(epoch):
                self._held(row, worker, epoch)
                del self.rows[stream_id]
            case Discard():
                self.rows.pop(stream_id, None)
        return None

    def _held(self, row: Row | None, worker: str, epoch: int) -> Row:
        if row is None or (self._checks.lease and (row.epoch != epoch or row.owner != worker)):
            raise StaleLease("the lease belongs to another worker or is over")
        return row

    # --- the queue ---

    def draw_epoch(self) -> int:
        """A number that no lease had before, on an execution or on a task."""
        self._epoch += 1
        return self._epoch

    def claim(self, worker: str, limit: int) -> Sequence[Claim]:
        """Lease what is due and free, and what its worker let go."""
        now = self.now()
        free = [
            (row.priority, row.ready_at, stream_id.int, stream_id)
            for stream_id, row in self.rows.items()
            if (row.ready_at <= now if row.owner is None else row.lease_until <= now)
        ]
        claims = []
        for *_, stream_id in sorted(free)[:limit]:
            row = self.rows[stream_id]
            row.owner, row.lease_until, row.epoch = worker, now + self._lease, self.draw_epoch()
            row.woken = False
            claims.append(Claim(stream_id, row.epoch, row.version))
        return claims

    def claim_named(self, worker: str, execution_id: UUID) -> Claim | None:
        """Lease this row if nobody has it and it is not put off."""
        row, now = self.rows.get(execution_id), self.now()
        if row is None or row.owner is not None or now < row.ready_at < NOTHING_DUE:
            return None
        row.owner, row.lease_until, row.epoch = worker, now + self._lease, self.draw_epoch()
        row.woken = False
        return Claim(execution_id, row.epoch, row.version)

    def make_ready(self, execution_id: UUID) -> bool:
        """Let any worker have this row if nobody has it and nothing is due in it."""
        row = self.rows.get(execution_id)
        if row is None or row.owner is not None or row.ready_at != NOTHING_DUE:
            return False
        row.ready_at = self.now()
        return True

    def renew(self, worker: str) -> Sequence[Claim]:
        """Extend the leases of a worker."""
        mine = sorted(
            (each for each in self.rows.items() if each[1].owner == worker),
            key=lambda each: each[0].int,
        )
        for _, row in mine:
            row.lease_until = self.now() + self._lease
        return [Claim(stream_id, row.epoch, row.version, row.woken) for stream_id, row in mine]

    def hand_back(self, worker: str, claim: Claim, ready_at: int | None) -> bool:
        """Give up a lease unless the row moved on."""
        row = self.rows.get(claim.execution_id)
        if row is None or row.owner != worker or row.epoch != claim.epoch:
            return False
        if self._checks.version_at_hand_back and row.version != claim.version:
            return False
        row.owner, row.lease_until = None, 0
        row.due(NOTHING_DUE if ready_at is None else ready_at)
        return True

    def release_all(self, worker: str) -> None:
        """Drop every lease of a worker."""
        for row in self.rows.values():
            if row.owner == worker:
                row.owner, row.lease_until = None, 0
                row.ready_at = min(row.ready_at, self.now())

    def wake(self, execution_id: UUID) -> None:
        """Ready now, though there may be nothing to do: as after the queue was made anew."""
        row = self.rows.get(execution_id)
        if row is not None:
            row.ready_at = min(row.ready_at, self.now())

    def next_due(self) -> int | None:
        """When the earliest free row gets ready."""
        moments = [row.ready_at for row in self.rows.values() if row.owner is None]
        moments += [
            row.lease_until
            for row in self.rows.values()
            if row.owner is not None and row.lease_until <= self.now()
        ]
        due = min(moments, default=NOTHING_DUE)
        return None if due == NOTHING_DUE else due

    def row(self, execution_id: UUID) -> QueueRow | None:
        """The row of one execution."""
        row = self.rows.get(execution_id)
        if row is None:
            return None
        leased = row.owner is not None and row.lease_until > self.now()
        due = None if row.ready_at == NOTHING_DUE else from_microseconds(row.ready_at)
        return QueueRow(leased, from_microseconds(row.lease_until) if leased else None, due)

    def statistics(self) -> QueueStatistics:
        """Figures for operators."""
        now = self.now()
        ready = sum(
            row.lease_until <= now and (row.ready_at <= now or row.owner is not None)
            for row in self.rows.values()
        )
        leased = sum(row.lease_until > now for row in self.rows.values())
        return QueueStatistics(len(self.rows), ready, leased, 0, int(leased > 0), 0.0)


def _due_at(ready_at: datetime | None) -> int:
    return NOTHING_DUE if ready_at is None else to_microseconds(ready_at)
