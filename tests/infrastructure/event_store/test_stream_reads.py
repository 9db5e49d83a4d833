"""Reads that are wanted in one round of the event loop, over a reader that counts."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

import pytest

from application.ports import Append, StoreUnavailable
from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.event_store.stream_reads import (
    BYTES_TOGETHER_MAX,
    EVENTS_TOGETHER_MAX,
    STREAMS_PER_READ_MAX,
    LogRow,
    Span,
    StreamReads,
)
from infrastructure.store_health import StoreHealth, StoreThreads
from tests.contracts.appends import append, completed, events

pytestmark = pytest.mark.anyio

ROOM = 60
"""Reads that may wait."""
UNREADABLE = "execution.exploded.v1"


class CountingReader:
    """Streams in memory."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.lost = False
        self._rows: dict[UUID, list[LogRow]] = {}

    def stream_rows(self, stream_id: UUID, after_version: int, limit: int) -> list[LogRow]:
        return self._read([Span(stream_id, after_version, limit)])[0]

    def span_rows(self, spans: Sequence[Span], bytes_max: int) -> list[list[LogRow] | None]:
        found = self._read(spans)
        return [None if sum(len(row[3]) for row in rows) > bytes_max else rows for rows in found]

    def _read(self, spans: Sequence[Span]) -> list[list[LogRow]]:
        self.calls.append(len(spans))
        if self.lost:
            raise StoreUnavailable("the database does not answer")
        return [
            [row for row in self._rows[stream] if row[1] > after][:limit]
            for stream, after, limit in spans
        ]

    def add(self, count: int, topic: str | None = None, *, output: str = "") -> UUID:
        """A stream of so many events; of a topic that nobody knows, if that is given."""
        one = append(uuid4(), count=count)
        if output:
            one = Append(one.stream_id, events(one.stream_id, 1, *[completed(output)] * count))
        states = Codec().encode(one.events)
        self._rows[one.stream_id] = [
            (one.stream_id, event.version, topic or event.data.TOPIC, state, event.version)
            for event, state in zip(one.events, states, strict=True)
        ]
        return one.stream_id


@pytest.fixture
def reader() -> CountingReader:
    return CountingReader()


@pytest.fixture
def threads() -> Iterator[StoreThreads]:
    opened = StoreThreads("reads", 1, StoreHealth(), waiting_max=ROOM)
    yield opened
    opened.close()


@pytest.fixture
def reads(reader: CountingReader, threads: StoreThreads) -> StreamReads:
    codec = Codec()

    def decoded(rows: Sequence[LogRow]) -> list[Recorded]:
        return [codec.recorded(row[4], row[0], row[1], row[2], row[3]) for row in rows]

    return StreamReads(reader, threads, decoded)


async def test_a_lone_read_is_one_call(reader: CountingReader, reads: StreamReads) -> None:
    stream = reader.add(3)

    read = await reads.read(Span(stream, 1, 10))

    assert [each.event.version for each in read] == [2, 3]
    assert reader.calls == [1]


async def test_reads_of_one_round_share_a_call(reader: CountingReader, reads: StreamReads) -> None:
    streams = [reader.add(1 + number % 3) for number in range(STREAMS_PER_READ_MAX + 7)]

    read = await asyncio.gather(*(reads.read(Span(stream, 0, 2)) for stream in streams))

    assert [each[0].event.execution_id for each in read] == streams
    assert [len(each) for each in read] == [min(2, 1 + n % 3) for n in range(len(streams))]
    assert sorted(reader.calls) == [7, STREAMS_PER_READ_MAX]


async def test_a_long_stream_is_read_by_itself(reader: CountingReader, reads: StreamReads) -> None:
    streams = [reader.add(count) for count in (1, EVENTS_TOGETHER_MAX + 1, EVENTS_TOGETHER_MAX)]
    limits = (10_000, 10_000, EVENTS_TOGETHER_MAX)

    read = await asyncio.gather(
        *(reads.read(Span(*each)) for each in zip(streams, (0, 0, 0), limits, strict=True))
    )

    assert [len(each) for each in read] == [1, EVENTS_TOGETHER_MAX + 1, EVENTS_TOGETHER_MAX]
    assert reader.calls == [3, 1]


async def test_a_large_stream_is_read_by_itself(reader: CountingReader, reads: StreamReads) -> None:
    streams = [reader.add(1), reader.add(2, output="x" * (BYTES_TOGETHER_MAX // 2)), reader.add(3)]

    read = await asyncio.gather(*(reads.read(Span(stream, 0, 10)) for stream in streams))

    assert [len(each) for each in read] == [1, 2, 3]
    assert reader.calls == [3, 1]


async def test_an_event_that_cannot_be_read_fails_its_own_stream_only(
    reader: CountingReader, reads: StreamReads
) -> None:
    streams = [reader.add(1), reader.add(1, UNREADABLE), reader.add(2)]

    read = await asyncio.gather(
        *(reads.read(Span(stream, 0, 10)) for stream in streams), return_exceptions=True
    )

    assert isinstance(read[1], Exception)
    assert UNREADABLE in str(read[1])
    assert not isinstance(read[0], BaseException)
    assert not isinstance(read[2], BaseException)
    assert (len(read[0]), len(read[2])) == (1, 2)


async def test_everybody_hears_that_the_store_is_lost_and_the_next_read_is_a_new_call(
    reader: CountingReader, reads: StreamReads
) -> None:
    streams = [reader.add(1), reader.add(1)]
    reader.lost = True

    failed = await asyncio.gather(
        *(reads.read(Span(stream, 0, 10)) for stream in streams), return_exceptions=True
    )
    reader.lost = False

    assert [type(each) for each in failed] == [StoreUnavailable] * 2
    assert len(await reads.read(Span(streams[0], 0, 10))) == 1


async def test_who_gives_up_takes_nobody_along(reader: CountingReader, reads: StreamReads) -> None:
    streams = [reader.add(1), reader.add(1)]
    first, second = (asyncio.create_task(reads.read(Span(each, 0, 10))) for each in streams)
    await asyncio.sleep(0)  # both are waiting

    first.cancel()

    assert len(await second) == 1
    assert first.cancelled()


async def test_nobody_s_reads_keep_no_room_and_are_not_made(
    reader: CountingReader, reads: StreamReads, threads: StoreThreads
) -> None:
    stream, released = reader.add(1), threading.Event()
    holding = asyncio.create_task(threads.run(released.wait))  # the only thread
    await asyncio.sleep(0)
    leaving = [asyncio.create_task(reads.read(Span(stream, 0, 10))) for _ in range(ROOM)]
    async with asyncio.timeout(30):
        while threads.waiting < ROOM:  # noqa: ASYNC110 - the reads begin by themselves
            await asyncio.sleep(0)

    for each in leaving:
        each.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    async with asyncio.timeout(30):
        while threads.waiting > 1:  # noqa: ASYNC110 - and end so
            await asyncio.sleep(0)
    staying = asyncio.create_task(reads.read(Span(stream, 0, 10)))
    await asyncio.sleep(0)
    released.set()

    assert len(await staying) == 1
    assert await holding
    assert reader.calls == [1]
