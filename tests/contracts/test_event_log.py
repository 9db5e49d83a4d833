"""The contract of `application.ports.EventLog`, on SQLite and PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Sequence
from uuid import UUID, uuid4

import pytest

from application.ports import (
    Append,
    Finish,
    Overloaded,
    Progress,
    StaleLease,
    StoreUnavailable,
    VersionConflict,
)
from domain.events import Recorded
from domain.json_values import NotStorable
from infrastructure.database import Store
from tests.contracts.appends import FAR_AHEAD, append, completed, events, request
from tests.contracts.conftest import OpenStore, nothing_can_be_stored
from tests.engine import PATIENCE_SECONDS, until

pytestmark = pytest.mark.anyio


async def test_an_empty_log_has_head_zero_and_no_events(store: Store) -> None:
    assert await store.log.head() == 0
    assert await store.log.read_all() == []
    assert await store.log.read_stream(uuid4()) == []


async def test_what_was_appended_is_read_back(store: Store) -> None:
    one = append(count=3)
    two = Append(one.stream_id, events(one.stream_id, 4, completed({"a": [1, None, "é€😀"]})))
    first = await store.log.append(one)
    second = await store.log.append(two)

    read = await store.log.read_stream(one.stream_id)

    assert [entry.event for entry in read] == [*one.events, *two.events]
    assert [entry.position for entry in read] == sorted(entry.position for entry in read)
    assert (read[2].position, read[3].position) == (first.position, second.position)
    assert await store.log.head() == second.position
    assert await store.log.read_all() == read


async def test_reads_start_after_and_stop_at_a_limit(store: Store) -> None:
    one = append(count=5)
    await store.log.append(one)
    await store.log.append(append(count=2))
    everything = await store.log.read_all()

    assert await store.log.read_stream(one.stream_id, after_version=2, limit=2) == everything[2:4]
    assert await store.log.read_all(after=everything[1].position, limit=3) == everything[2:5]
    assert await store.log.read_all(after=everything[-1].position) == []


async def test_streams_that_are_read_at_once_are_those_read_one_by_one(store: Store) -> None:
    streams = []
    for count in range(1, 8):
        one = append(count=count)
        await store.log.append(one)
        streams.append(one.stream_id)
    large = append()
    await store.log.append(large)
    await store.log.append(
        Append(large.stream_id, events(large.stream_id, 2, *[completed("é" * 20_000)] * 3))
    )
    streams.append(large.stream_id)
    wanted = [
        (stream, after, limit)
        for stream in (*streams, uuid4(), *reversed(streams))
        for after, limit in ((0, 10_000), (2, 3))
    ]

    def read(stream: UUID, after: int, limit: int) -> Awaitable[Sequence[Recorded]]:
        return store.log.read_stream(stream, after_version=after, limit=limit)

    together = await asyncio.gather(*(read(*each) for each in wanted))

    assert together == [await read(*each) for each in wanted]
    assert max(map(len, together)) == 7


async def test_an_append_of_a_stored_version_is_refused_whole(store: Store) -> None:
    first = append(count=2)
    await store.log.append(first)

    with pytest.raises(VersionConflict):
        await store.log.append(append(first.stream_id, 2, count=3))

    assert len(await store.log.read_all()) == 2
    await store.log.append(append(first.stream_id, 3))


async def test_a_conflict_in_a_batch_hits_the_loser_only(store: Store) -> None:
    taken = append()
    await store.log.append(taken)
    appends = [append() for _ in range(40)]
    appends[7] = appends[23] = appends[39] = append(taken.stream_id)

    outcomes = await asyncio.gather(
        *(store.log.append(each) for each in appends), return_exceptions=True
    )

    losers = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, VersionConflict)]
    assert losers == [7, 23, 39]
    assert sum(1 for outcome in outcomes if isinstance(outcome, Exception)) == 3
    assert len(await store.log.read_all()) == 1 + 37


async def test_a_stale_lease_in_a_batch_hits_the_loser_only(store: Store) -> None:
    requests = [request(lease=True) for _ in range(30)]
    begun = await asyncio.gather(*(store.log.append(each) for each in requests))
    epochs = [outcome.epoch or 0 for outcome in begun]
    epochs[4] += 1_000_000
    epochs[21] += 1_000_000

    outcomes = await asyncio.gather(
        *(
            store.log.append(append(each.stream_id, 2, queue=write))
            for each, write in zip(
                requests,
                [
                    Progress(epoch, FAR_AHEAD, release=False) if i % 2 else Finish(epoch)
                    for i, epoch in enumerate(epochs)
                ],
                strict=True,
            )
        ),
        return_exceptions=True,
    )

    assert [i for i, outcome in enumerate(outcomes) if isinstance(outcome, StaleLease)] == [4, 21]
    assert sum(1 for outcome in outcomes if isinstance(outcome, Exception)) == 2
    assert len(await store.log.read_all()) == 30 + 28
    assert (await store.queue.statistics()).depth == 16  # 15 progressed or refused, one refused


async def test_appends_of_one_stream_submitted_together_keep_their_order(store: Store) -> None:
    stream = uuid4()

    await asyncio.gather(*(store.log.append(append(stream, version)) for version in range(1, 31)))

    read = await store.log.read_stream(stream)
    assert [entry.event.version for entry in read] == list(range(1, 31))


async def test_many_appends_of_one_stream_neither_lose_their_order_nor_hold_another(
    store: Store,
) -> None:
    stream = uuid4()
    many = [asyncio.ensure_future(store.log.append(append(stream, n + 1))) for n in range(600)]
    await asyncio.sleep(0)  # they reach the queue
    other = await store.log.append(append())
    ends = [(await each).position for each in many]

    assert ends == sorted(ends)
    assert other.position < ends[150]


async def test_two_writers_of_one_version_have_one_winner(open_ledger: OpenStore) -> None:
    one, two = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    streams = [uuid4() for _ in range(50)]

    outcomes = await asyncio.gather(
        *(each.log.append(append(stream)) for stream in streams for each in (one, two)),
        return_exceptions=True,
    )

    for pair in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert sum(1 for outcome in pair if isinstance(outcome, VersionConflict)) == 1
    assert len(await one.log.read_all()) == 50


@pytest.mark.parametrize(
    "value", [float("nan"), {"deep": [float("inf")]}, "nul \0", {"k\0": 1}, "half \ud800"]
)
async def test_a_value_that_would_not_come_back_never_gets_in(store: Store, value: object) -> None:
    stream = uuid4()
    with pytest.raises(NotStorable):
        await store.log.append(Append(stream, events(stream, 1, completed(value))))
    assert await store.log.head() == 0


async def test_an_append_needs_events_and_only_its_own(store: Store) -> None:
    with pytest.raises(ValueError, match="at least one event"):
        await store.log.append(Append(uuid4(), ()))
    with pytest.raises(ValueError, match="another stream"):
        await store.log.append(Append(uuid4(), events(uuid4(), 1)))


async def test_a_large_append_and_large_values_are_stored(store: Store) -> None:
    stream = uuid4()
    big = Append(stream, events(stream, 1, *[completed("x" * 2000)] * 1200))
    huge = Append(uuid := uuid4(), events(uuid, 1, completed("y" * 3_000_000)))

    await asyncio.gather(store.log.append(big), store.log.append(huge))

    assert [entry.event for entry in await store.log.read_stream(stream)] == list(big.events)
    assert [entry.event for entry in await store.log.read_stream(uuid)] == list(huge.events)


async def test_a_full_queue_refuses_new_work_first(open_ledger: OpenStore, ledger_url: str) -> None:
    store = await open_ledger(appends_max=10, lock_seconds=30.0)
    with nothing_can_be_stored(ledger_url):
        waiting = [asyncio.ensure_future(store.log.append(append()))]
        await asyncio.sleep(0)
        await until(lambda: store.log.saturation() == 0)  # it waits in the database now
        waiting += [asyncio.ensure_future(store.log.append(request())) for _ in range(8)]
        await asyncio.sleep(0)  # they reach the queue

        assert store.log.saturation() == 0.8
        with pytest.raises(Overloaded):
            store.log.require_room()
        with pytest.raises(Overloaded) as refusal:
            await store.log.append(request())
        assert refusal.value.retry_after_seconds > 0
        waiting += [asyncio.ensure_future(store.log.append(append())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="full"):
            await store.log.append(append())

    await asyncio.gather(*waiting)
    assert len(await store.log.read_all()) == 11


async def test_admission_stops_new_executions_only(store: Store) -> None:
    store.refuse_new_work(lambda: "the projections are 30 s behind")
    with pytest.raises(Overloaded, match="30 s behind"):
        await store.log.append(request())
    await store.log.append(append())
    assert len(await store.log.read_all()) == 1

    store.refuse_new_work(lambda: None)
    await store.log.append(request())


async def test_closing_stores_what_was_handed_over(open_ledger: OpenStore) -> None:
    store, other = await open_ledger(), await open_ledger()
    waiting = [asyncio.ensure_future(store.log.append(append())) for _ in range(200)]
    await asyncio.sleep(0)  # let them reach the queue

    await store.close()

    assert len({(await each).position for each in waiting}) == 200
    assert len(await other.log.read_all()) == 200
    with pytest.raises(StoreUnavailable):
        await store.log.append(append())


async def test_a_cancelled_caller_does_not_take_its_append_back(store: Store) -> None:
    one = append()
    waiting = asyncio.ensure_future(store.log.append(one))
    await asyncio.sleep(0)
    waiting.cancel()
    await store.log.append(append())

    assert [entry.event for entry in await store.log.read_stream(one.stream_id)] == list(one.events)


async def test_counters_tell_what_was_stored(store: Store) -> None:
    first = append(count=2)
    await store.log.append(first)
    with pytest.raises(VersionConflict):
        await store.log.append(first)

    counters = store.counters
    assert (counters.appends, counters.events, counters.refused) == (2, 4, 1)
    assert counters.batches == 2
    assert counters.last_batch_appends == 1
    assert counters.commit_seconds > 0
    assert counters.queue_seconds > 0
    assert store.log.saturation() == 0
    store.log.require_room()


async def test_whoever_closes_returns_once_all_is_stored(
    open_ledger: OpenStore, ledger_url: str
) -> None:
    store = await open_ledger(lock_seconds=30.0)
    with nothing_can_be_stored(ledger_url):
        waiting = asyncio.ensure_future(store.log.append(append()))
        await asyncio.sleep(0)
        await until(lambda: store.log.saturation() == 0)
        closing = [asyncio.create_task(asyncio.to_thread(store.committer.close)) for _ in range(2)]
        _, still = await asyncio.wait(closing, timeout=0.1)
        assert len(still) == 2

    await waiting
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*closing)
