"""The queue writes of a batch as rows of each kind: what both back ends run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, assert_never
from uuid import UUID

from application.ports import Append, Discard, Enqueue, Finish, Progress, Touch

NOTHING_DUE: Final = 2**63 - 1
"""`ready_at` of a row that waits for somebody else."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(when: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exactly. Raises TypeError for a time without a zone."""
    return (when - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The time in UTC that is `microseconds` after 1970-01-01."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _due(ready_at: datetime | None) -> int:
    return NOTHING_DUE if ready_at is None else to_microseconds(ready_at)


class EnqueueRow(NamedTuple):
    """A new row; `version` here and below is that of the stream after the append."""

    execution_id: UUID
    version: int
    workspace_id: str
    priority: int
    ready_at: int
    leased: bool


class TouchRow(NamedTuple):
    """There is something new, to be looked at by `ready_at` at the latest."""

    execution_id: UUID
    version: int
    ready_at: int


class ProgressRow(NamedTuple):
    """The holder of the lease went on, and keeps it or gives it up."""

    execution_id: UUID
    version: int
    epoch: int
    ready_at: int
    released: bool


class FinishRow(NamedTuple):
    """The holder of the lease ended the execution."""

    execution_id: UUID
    epoch: int


class DiscardRow(NamedTuple):
    """Whoever holds the lease, the row goes."""

    execution_id: UUID


class WakeRow(NamedTuple):
    """The row of an execution which waits for one of the batch."""

    execution_id: UUID
    ready_at: int


@dataclass(slots=True)
class QueueRows:
    """The writes by kind, in the order of the batch."""

    enqueue: list[EnqueueRow] = field(default_factory=list)
    touch: list[TouchRow] = field(default_factory=list)
    progress: list[ProgressRow] = field(default_factory=list)
    finish: list[FinishRow] = field(default_factory=list)
    discard: list[DiscardRow] = field(default_factory=list)
    wake: list[WakeRow] = field(default_factory=list)


def queue_rows(appends: Sequence[Append]) -> QueueRows:
    """Sort the queue writes of a batch by kind."""
    rows = QueueRows()
    for append in appends:
        if append.queue is not None:
            _add(rows, append)
        if append.wakes is not None:
            at = append.events[-1].meta.at
            rows.wake.append(WakeRow(append.wakes, to_microseconds(at)))
    return rows


def _add(rows: QueueRows, append: Append) -> None:
    stream_id = append.stream_id
    version = append.events[-1].version
    match append.queue:
        case Progress(epoch, ready_at, release):
            rows.progress.append(ProgressRow(stream_id, version, epoch, _due(ready_at), release))
        case Enqueue(workspace_id, priority, ready_at, lease):
            rows.enqueue.append(
                EnqueueRow(stream_id, version, workspace_id, priority, _due(ready_at), lease)
            )
        case Finish(epoch):
            rows.finish.append(FinishRow(stream_id, epoch))
        case Touch(ready_at):
            rows.touch.append(TouchRow(stream_id, version, _due(ready_at)))
        case Discard():
            rows.discard.append(DiscardRow(stream_id))
        case None:
            return
        case _:
            assert_never(append.queue)
