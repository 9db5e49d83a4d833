"""Appends for the contract suites: small, legal events of made-up executions."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

from application.ports import Append, Enqueue, QueueWrite
from domain.events import Event, Meta, Payload, Started, StepCompleted

LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""A time before every database's now."""
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)
"""A time after every database's now."""
META = Meta(at=LONG_AGO, cmd="c-1", actor="tester")


def events(stream_id: UUID, first: int, *payloads: Payload) -> tuple[Event, ...]:
    """Events of consecutive versions from `first`; one `Started` when no payload is given."""
    return tuple(
        Event(stream_id, version, META, payload)
        for version, payload in enumerate(payloads or (Started(1, None),), start=first)
    )


def append(
    stream_id: UUID | None = None,
    first: int = 1,
    *,
    count: int = 1,
    queue: QueueWrite = None,
) -> Append:
    """An append of `count` events from version `first` on; to a new stream unless one is named."""
    stream = stream_id or uuid4()
    return Append(stream, events(stream, first, *[Started(1, None)] * count), queue)


def request(
    stream_id: UUID | None = None,
    *,
    priority: int = 5,
    ready_at: datetime | None = LONG_AGO,
    lease: bool = False,
) -> Append:
    """The first append of an execution, with its queue row."""
    return append(stream_id, queue=Enqueue("default", priority, ready_at, lease))


def completed(output: object) -> Payload:
    """A payload with any value as its private output."""
    return StepCompleted("fetch", 1, 1, 7, 2, output)  # type: ignore[arg-type]  # also what is no JSON
