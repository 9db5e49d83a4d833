"""What the use cases need from the outside: the log, the work queue, a clock, a change feed.

Two implementations each (SQLite and PostgreSQL), held to one contract suite in `tests/contracts/`.
Values are `msgspec` structs: several are made for each append, and a frozen dataclass costs more
than the rest of them.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from domain.events import Event, Recorded

Report = Callable[[str, dict[str, object]], None]
"""Tell an operator of an event, by its name and facts."""


class Clock(Protocol):
    """Database time, carried on by the monotonic clock between two looks at the database."""

    def now(self) -> datetime:
        """The time in UTC, with microseconds."""

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` of this clock pass; cancellable."""

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in the event loop at `when`; the returned function takes that back."""


# --- the five writes of the work queue (a row per open execution) ---


class Enqueue(Struct, frozen=True):
    """(a) A request or a retry: the execution has work from `ready_at` on.

    `ready_at` None: it has none until somebody makes it ready. `lease` hands it to this process's
    worker at once.
    """

    workspace_id: str
    priority: int
    ready_at: datetime | None
    lease: bool


class Touch(Struct, frozen=True):
    """(b) Somebody without the lease wrote: the row's version moves and it is ready then.

    `ready_at` None: not earlier than before. The lease stays.
    """

    ready_at: datetime | None


class Progress(Struct, frozen=True):
    """(c) The lease holder wrote.

    `ready_at` None means nothing is due; `release` drops the lease in the same write.
    """

    epoch: int
    ready_at: datetime | None
    release: bool


class Finish(Struct, frozen=True):
    """(d) The lease holder ended it: the row goes."""

    epoch: int


class Discard(Struct, frozen=True):
    """(d) for a writer without the lease that ended an execution (cancel).

    The row goes whoever holds it.
    """


QueueWrite = Enqueue | Touch | Progress | Finish | Discard | None


class Append(Struct, frozen=True):
    """One command's events for one stream, and what they do to its queue row.

    `wakes` names another execution that has something to look at now (the parent of one that
    ended): its row gets ready, and stays so until it is claimed anew, whatever its lease holder
    writes or gives back meanwhile. Nothing happens when it has no row. One transaction, all or
    nothing.
    """

    stream_id: UUID
    events: Sequence[Event]
    queue: QueueWrite = None
    wakes: UUID | None = None


class Appended(Struct, frozen=True):
    """`first` and `position` are those of the first and the last event; those between follow one
    another without a gap.

    `epoch` of the lease an `Enqueue(lease=True)` took, else None.
    """

    first: int
    position: int
    epoch: int | None


class Changed(Struct, frozen=True):
    """A stream grew to `version`; its new events have the positions `first` to `last`."""

    stream_id: UUID
    version: int
    first: int
    last: int


class VersionConflict(Exception):
    """Another writer stored one of these versions first.

    Certain: nothing of this append is stored.
    """


class StaleLease(Exception):
    """The queue row is not leased to this worker with this epoch any more.

    Certain: nothing is stored.
    """


class UnknownOutcome(Exception):
    """The connection was lost before the answer: the append may or may not be stored.

    Look for the command id.
    """


class Overloaded(Exception):
    """The append queue is full or the projections are too far behind.

    Try again after `retry_after_seconds`.
    """

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(Exception):
    """The database does not answer."""


class EventLog(Protocol):
    """Streams of events, appended in one global order."""

    async def append(self, append: Append) -> Appended:
        """Store all events or none.

        Raises VersionConflict, StaleLease, UnknownOutcome, Overloaded, StoreUnavailable.
        """

    async def read_stream(
        self, stream_id: UUID, *, after_version: int = 0, limit: int = 10_000
    ) -> Sequence[Recorded]:
        """Events of one stream, in order of version."""

    async def read_all(self, *, after: int = 0, limit: int = 500) -> Sequence[Recorded]:
        """Events of all streams, in order of position."""

    async def head(self) -> int:
        """The highest position stored, 0 for an empty log."""

    def require_room(self) -> None:
        """Raise Overloaded where an append that makes a new execution would be refused now."""


class Claim(Struct, frozen=True):
    """A leased queue row. `version` is the stream version at the claim.

    `woken` tells a renewal that another execution called since the claim.
    """

    execution_id: UUID
    epoch: int
    version: int
    woken: bool = False


class QueueStatistics(Struct, frozen=True):
    """`ready` rows are due and without a live lease; `lapsed` ones among them were left by a worker
    that went silent; `oldest_age_seconds` is that of the longest-ready of them, 0 when there is
    none. `workers` hold the `leased` rows.
    """

    depth: int
    ready: int
    leased: int
    lapsed: int
    workers: int
    oldest_age_seconds: float


class QueueRow(Struct, frozen=True):
    """An execution's row in the work queue. `ready_at` None means nothing is due by itself."""

    leased: bool
    lease_until: datetime | None
    ready_at: datetime | None


class WorkQueue(Protocol):
    """The index over the log of what still has something to do. Times are database times."""

    async def claim(self, limit: int) -> Sequence[Claim]:
        """Lease up to `limit` rows, by priority and ready time: due ones that nobody has, and those
        whose worker let its lease run out, whatever was due then.
        """

    async def renew(self) -> Sequence[Claim]:
        """Extend every lease of this worker; returns all of them with their present version."""

    async def hand_back(self, claim: Claim, ready_at: datetime | None) -> bool:
        """(e) Give up the lease if the row still has this epoch and version.

        One that was woken meanwhile is ready at once. False tells to reload and plan again.
        """

    async def release_all(self) -> None:
        """Drop every lease of this worker (shutdown)."""

    async def next_due(self) -> datetime | None:
        """When the earliest row that nobody has gets ready, a lapsed lease counting as ready now.

        None when there is none. Leases still alive may lapse earlier: poll as well.
        """

    async def row(self, execution_id: UUID) -> QueueRow | None:
        """The row of one execution; None when it has nothing left to do."""

    async def statistics(self) -> QueueStatistics:
        """Figures for operators."""


class NamedStarts(Protocol):
    """The queue for one who was told which execution to start. Raises StoreUnavailable."""

    async def claim_named(self, execution_id: UUID) -> Claim | None:
        """Lease this row if nobody has it and it is not put off to a later time; None else."""

    async def make_ready(self, execution_id: UUID) -> bool:
        """Let any worker claim this row if nobody has it and nothing is due in it by itself.

        False when that is not so, or there is no such row.
        """


class ChangeFeed(Protocol):
    """Hints that streams changed. A hint may come late or be lost; whoever waits also polls."""

    def publish(self, changes: Sequence[Changed]) -> None:
        """Called by the log after a commit of this process, in the event loop."""

    def subscribe(self, callback: Callable[[UUID, int], None]) -> Callable[[], None]:
        """`callback(stream_id, version)` in the event loop for each change seen.

        The returned function ends it.
        """
