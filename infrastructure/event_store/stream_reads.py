"""Reads of streams: those that are wanted in one round of the event loop are made in one go.

A worker that claims fifty executions wants fifty streams at once. One by one each costs a hand-over
to a thread and back and a statement, which is more than the few rows that it brings.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from domain.events import Recorded
from infrastructure.store_health import StoreThreads

LogRow = tuple[UUID, int, str, bytes, int]
"""Execution id, version, topic, state, position."""
STREAMS_PER_READ_MAX: Final = 50
EVENTS_TOGETHER_MAX: Final = 100
BYTES_TOGETHER_MAX: Final = 32 * 1024
"""Of a stream that is read with others; a larger one is read by itself, so that no statement takes
long and nobody waits for the events of another.
"""


class Span(NamedTuple):
    """At most `limit` events of a stream that follow a version."""

    stream_id: UUID
    after_version: int
    limit: int


class SpanReader(Protocol):
    """Blocking reads, safe to call from several threads; raise StoreUnavailable."""

    def stream_rows(self, stream_id: UUID, after_version: int, limit: int) -> list[LogRow]:
        """Rows of one stream by version."""

    def span_rows(self, spans: Sequence[Span], bytes_max: int) -> list[list[LogRow] | None]:
        """The same for each of several, in their order; None where the states of the events have
        more bytes together, and then those bytes are not read.
        """


class _Wanted(NamedTuple):
    span: Span
    future: asyncio.Future[Sequence[Recorded]]


_Found = Sequence[Recorded] | BaseException | None
"""The events of a span; why they cannot be read, which concerns nobody else; None for too many."""


class StreamReads:
    """Belongs to the event loop of its callers."""

    def __init__(
        self,
        reader: SpanReader,
        threads: StoreThreads,
        decoded: Callable[[Sequence[LogRow]], list[Recorded]],
    ) -> None:
        self._reader = reader
        self._threads = threads
        self._decoded = decoded
        self._wanted: list[_Wanted] = []
        self._reading: set[asyncio.Task[None]] = set()

    async def read(self, span: Span) -> Sequence[Recorded]:
        """The events of `span`. Raises StoreUnavailable, Overloaded, or what an event of it does to
        the decoder.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Recorded]] = loop.create_future()
        self._wanted.append(_Wanted(span, future))
        if len(self._wanted) == 1:
            loop.call_soon(self._begin)
        return await future

    def _begin(self) -> None:
        wanted = [each for each in self._wanted if not each.future.done()]
        self._wanted = []
        for start in range(0, len(wanted), STREAMS_PER_READ_MAX):
            self._spawn(wanted[start : start + STREAMS_PER_READ_MAX])

    def _spawn(self, wanted: Sequence[_Wanted]) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(wanted))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

        def left(future: asyncio.Future[Sequence[Recorded]]) -> None:
            if future.cancelled() and all(each.future.done() for each in wanted):
                task.cancel()  # what has not begun is not read for nobody

        for each in wanted:
            each.future.add_done_callback(left)

    async def _serve(self, wanted: Sequence[_Wanted]) -> None:
        spans = [each.span for each in wanted]
        try:
            found = await self._threads.run(partial(self._found, spans), calls=len(spans))
        except asyncio.CancelledError:
            for each in wanted:
                each.future.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - it goes to all who asked
            found = [error for _ in wanted]
        for each, events in zip(wanted, found, strict=True):
            if each.future.done():  # who asked has gone
                continue
            if events is None:
                self._spawn([each])
            elif isinstance(events, BaseException):
                each.future.set_exception(events)
            else:
                each.future.set_result(events)

    def _found(self, spans: Sequence[Span]) -> list[_Found]:
        if len(spans) == 1:
            return [self._outcome(self._reader.stream_rows(*spans[0]))]
        short = [each._replace(limit=min(each.limit, EVENTS_TOGETHER_MAX)) for each in spans]
        found = self._reader.span_rows(short, BYTES_TOGETHER_MAX)
        return [
            None
            if rows is None or (cut.limit < span.limit and len(rows) == cut.limit)
            else self._outcome(rows)
            for span, cut, rows in zip(spans, short, found, strict=True)
        ]

    def _outcome(self, rows: Sequence[LogRow]) -> Sequence[Recorded] | Exception:
        try:
            return self._decoded(rows)
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked for these events
            return error
