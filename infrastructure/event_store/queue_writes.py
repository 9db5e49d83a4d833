"""The queue writes of a batch, sorted by kind into columns: what both back ends run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never
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


@dataclass(slots=True)
class QueueColumns:
    """Parallel lists per kind of write; versions are those of the streams after the append."""

    enqueue_ids: list[UUID] = field(default_factory=list)
    enqueue_versions: list[int] = field(default_factory=list)
    enqueue_workspaces: list[str] = field(default_factory=list)
    enqueue_priorities: list[int] = field(default_factory=list)
    enqueue_ready: list[int] = field(default_factory=list)
    enqueue_leased: list[bool] = field(default_factory=list)
    touch_ids: list[UUID] = field(default_factory=list)
    touch_versions: list[int] = field(default_factory=list)
    touch_ready: list[int] = field(default_factory=list)
    progress_ids: list[UUID] = field(default_factory=list)
    progress_versions: list[int] = field(default_factory=list)
    progress_epochs: list[int] = field(default_factory=list)
    progress_ready: list[int] = field(default_factory=list)
    progress_released: list[bool] = field(default_factory=list)
    finish_ids: list[UUID] = field(default_factory=list)
    finish_epochs: list[int] = field(default_factory=list)
    discard_ids: list[UUID] = field(default_factory=list)
    wake_ids: list[UUID] = field(default_factory=list)
    wake_ready: list[int] = field(default_factory=list)


def queue_columns(appends: Sequence[Append]) -> QueueColumns:
    """Sort the queue writes of a batch by kind, keeping the order of the batch."""
    columns = QueueColumns()
    for append in appends:
        if append.queue is not None:
            _add(columns, append)
        if append.wakes is not None:
            columns.wake_ids.append(append.wakes)
            columns.wake_ready.append(to_microseconds(append.events[-1].meta.at))
    return columns


def _add(columns: QueueColumns, append: Append) -> None:
    stream_id = append.stream_id
    version = append.events[-1].version
    match append.queue:
        case Progress(epoch, ready_at, release):
            columns.progress_ids.append(stream_id)
            columns.progress_versions.append(version)
            columns.progress_epochs.append(epoch)
            columns.progress_ready.append(_due(ready_at))
            columns.progress_released.append(release)
        case Enqueue(workspace_id, priority, ready_at, lease):
            columns.enqueue_ids.append(stream_id)
            columns.enqueue_versions.append(version)
            columns.enqueue_workspaces.append(workspace_id)
            columns.enqueue_priorities.append(priority)
            columns.enqueue_ready.append(_due(ready_at))
            columns.enqueue_leased.append(lease)
        case Finish(epoch):
            columns.finish_ids.append(stream_id)
            columns.finish_epochs.append(epoch)
        case Touch(ready_at):
            columns.touch_ids.append(stream_id)
            columns.touch_versions.append(version)
            columns.touch_ready.append(_due(ready_at))
        case Discard():
            columns.discard_ids.append(stream_id)
        case None:
            return
        case _:
            assert_never(append.queue)
