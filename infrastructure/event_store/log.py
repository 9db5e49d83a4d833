"""The EventLog port: codec, committer and reader put together."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from application.ports import Append, Appended
from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.event_store.group_commit import GroupCommitter
from infrastructure.event_store.stream_reads import LogRow, Span, SpanReader, StreamReads
from infrastructure.store_health import StoreThreads

T = TypeVar("T")


class LogReader(SpanReader, Protocol):
    """Blocking reads of the log, safe to call from several threads; raise StoreUnavailable."""

    def head(self) -> int:
        """The highest position, 0 for an empty log."""

    def rows_after(self, position: int, limit: int) -> list[LogRow]:
        """Rows of all streams by position."""

    def versions_between(self, after: int, upto: int, limit: int) -> list[tuple[UUID, int, int]]:
        """Stream, version and position of the rows in (after, upto]."""


class LedgerLog:
    """Streams of events in one global order; see `application.ports.EventLog`."""

    def __init__(
        self, codec: Codec, committer: GroupCommitter, reader: LogReader, threads: StoreThreads
    ) -> None:
        self._codec = codec
        self._committer = committer
        self.reader = reader
        self._threads = threads
        self._streams = StreamReads(reader, threads, self._decoded)

    async def append(self, append: Append) -> Appended:
        """Store all events or none; see `application.ports.EventLog.append`.

        Also raises what `Codec.encode` raises, and ValueError for an append without events or with
        those of another stream; then nothing is stored.
        """
        if not append.events:
            raise ValueError("an append needs at least one event")
        stream_id = append.stream_id
        for event in append.events:
            if event.execution_id is not stream_id and event.execution_id != stream_id:
                raise ValueError(f"an event of another stream in the append to {stream_id}")
        return await self._committer.submit(append, self._codec.encode(append.events))

    async def read_stream(
        self, stream_id: UUID, *, after_version: int = 0, limit: int = 10_000
    ) -> Sequence[Recorded]:
        """Events of one stream, in order of version."""
        return await self._streams.read(Span(stream_id, after_version, limit))

    async def read_all(self, *, after: int = 0, limit: int = 500) -> Sequence[Recorded]:
        """Events of all streams, in order of position."""
        return await self._in_thread(lambda: self.read_batch(after, limit))

    def read_batch(self, after: int, limit: int) -> list[Recorded]:
        """The same, blocking: for threads of their own, such as a projection feed."""
        return self._decoded(self.reader.rows_after(after, limit))

    async def head(self) -> int:
        """The highest position stored, 0 for an empty log."""
        return await self._in_thread(self.reader.head)

    def saturation(self) -> float:
        """How full the append queue is, 0 to 1."""
        return self._committer.saturation()

    def require_room(self) -> None:
        """See `application.ports.EventLog.require_room`."""
        self._committer.require_room()

    def _decoded(self, rows: Sequence[LogRow]) -> list[Recorded]:
        recorded = self._codec.recorded
        return [
            recorded(position, execution_id, version, topic, state)
            for execution_id, version, topic, state, position in rows
        ]

    async def _in_thread(self, read: Callable[[], T]) -> T:
        return await self._threads.run(read)
