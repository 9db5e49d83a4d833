"""The contract of `application.ports.WorkQueue` and of the five writes, on both back ends.

A worker with `lease_seconds=0` holds leases that have run out at once, so that nothing here waits.
"""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from msgspec import structs
from sqlalchemy import text

from application.ports import (
    Append,
    Claim,
    Discard,
    Enqueue,
    Finish,
    Progress,
    StaleLease,
    Touch,
    VersionConflict,
)
from infrastructure.database import Store
from tests.contracts.appends import FAR_AHEAD, LONG_AGO, append, request
from tests.contracts.conftest import OpenStore

pytestmark = pytest.mark.anyio


def rows(store: Store) -> dict[UUID, dict[str, object]]:
    with store.engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM work_queue")).mappings().all()
    return {UUID(str(row["execution_id"])): dict(row) for row in found}


async def begun(store: Store) -> tuple[UUID, int]:
    """A new execution, leased to the worker of `store`: its id and epoch."""
    one = request(lease=True)
    outcome = await store.log.append(one)
    assert outcome.epoch is not None
    return one.stream_id, outcome.epoch


# ------------------------------------------------------------------------------ the five writes


async def test_a_request_without_a_lease_can_be_claimed(store: Store) -> None:
    one = request()
    assert (await store.log.append(one)).epoch is None

    (claim,) = await store.queue.claim(10)

    assert (claim.execution_id, claim.version) == (one.stream_id, 1)
    assert claim.epoch > 0
    assert await store.queue.claim(10) == []


async def test_a_request_with_nothing_due_waits_until_it_is_claimed_by_name(store: Store) -> None:
    one = request(ready_at=None)
    await store.log.append(one)
    assert await store.queue.claim(10) == []
    assert await store.queue.next_due() is None

    claim = await store.queue.claim_named(one.stream_id)

    assert claim is not None
    assert (claim.execution_id, claim.version, claim.woken) == (one.stream_id, 1, False)
    assert await store.queue.renew() == [claim]
    assert await store.queue.claim_named(one.stream_id) is None
    await store.log.append(append(one.stream_id, 2, queue=Finish(claim.epoch)))
    assert await store.queue.claim_named(one.stream_id) is None


async def test_a_claim_by_name_leaves_what_is_leased_or_put_off(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    stream, _ = await begun(mine)
    later = request(ready_at=FAR_AHEAD)
    due = request()
    for each in (later, due):
        await mine.log.append(each)

    assert await other.queue.claim_named(stream) is None
    assert await other.queue.claim_named(later.stream_id) is None
    assert await other.queue.claim_named(due.stream_id) is not None


async def test_what_waits_can_be_made_ready_for_any_worker(store: Store) -> None:
    waiting, later = request(ready_at=None), request(ready_at=FAR_AHEAD)
    for each in (waiting, later):
        await store.log.append(each)

    assert await store.queue.make_ready(waiting.stream_id)
    assert not await store.queue.make_ready(waiting.stream_id)
    assert not await store.queue.make_ready(later.stream_id)
    assert not await store.queue.make_ready(uuid4())

    (claim,) = await store.queue.claim(10)
    assert claim.execution_id == waiting.stream_id


async def test_a_touch_without_a_time_leaves_the_ready_time(store: Store) -> None:
    one = request(ready_at=None)
    await store.log.append(one)
    await store.log.append(append(one.stream_id, 2, queue=Touch(None)))

    assert await store.queue.claim(10) == []
    claim = await store.queue.claim_named(one.stream_id)
    assert claim is not None
    assert claim.version == 2


async def test_a_request_with_a_lease_belongs_to_its_process(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    stream, epoch = await begun(mine)

    assert await other.queue.claim(10) == []
    assert await mine.queue.claim(10) == []
    assert await mine.queue.renew() == [Claim(stream, epoch, 1)]


async def test_a_refused_append_leaves_no_queue_row(store: Store) -> None:
    stream = uuid4()
    await store.log.append(append(stream))
    with pytest.raises(VersionConflict):
        await store.log.append(request(stream))
    assert rows(store) == {}


async def test_a_retry_opens_the_row_anew_and_fences_the_old_lease(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    stream, old = await begun(mine)
    retry = append(stream, 2, queue=Enqueue("default", 3, LONG_AGO, lease=True))
    new = (await other.log.append(retry)).epoch

    with pytest.raises(StaleLease):
        await mine.log.append(append(stream, 3, queue=Progress(old, None, release=False)))
    assert await other.queue.renew() == [Claim(stream, new or 0, 2)]
    assert rows(other)[stream]["priority"] == 3


async def test_a_touch_moves_version_and_ready_time_and_keeps_the_lease(store: Store) -> None:
    stream, epoch = await begun(store)
    await store.log.append(append(stream, 2, queue=Progress(epoch, None, release=False)))
    await store.log.append(append(stream, 3, queue=Touch(LONG_AGO)))

    assert await store.queue.renew() == [Claim(stream, epoch, 3)]
    row = rows(store)[stream]
    assert row["ready_at"] == int(LONG_AGO.timestamp() * 1_000_000)


async def test_a_touch_never_postpones(store: Store) -> None:
    one = request()
    await store.log.append(one)
    await store.log.append(append(one.stream_id, 2, queue=Touch(FAR_AHEAD)))
    assert [claim.version for claim in await store.queue.claim(1)] == [2]


async def test_progress_that_keeps_the_lease_extends_it(store: Store) -> None:
    stream, epoch = await begun(store)
    before = rows(store)[stream]
    await store.log.append(append(stream, 2, queue=Progress(epoch, FAR_AHEAD, release=False)))

    after = rows(store)[stream]
    assert (after["epoch"], after["version"], after["lease_owner"]) == (epoch, 2, "w1")
    assert after["ready_at"] == int(FAR_AHEAD.timestamp()) * 1_000_000
    assert int(str(after["lease_until"])) > int(str(before["lease_until"]))


async def test_progress_can_drop_the_lease(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    stream, epoch = await begun(mine)
    await mine.log.append(append(stream, 2, queue=Progress(epoch, LONG_AGO, release=True)))

    assert await mine.queue.renew() == []
    (claim,) = await other.queue.claim(1)
    assert (claim.execution_id, claim.version) == (stream, 2)
    assert claim.epoch > epoch


async def test_nothing_due_is_not_claimed_until_somebody_touches(store: Store) -> None:
    stream, epoch = await begun(store)
    await store.log.append(append(stream, 2, queue=Progress(epoch, None, release=True)))
    assert await store.queue.claim(1) == []
    assert await store.queue.next_due() is None

    await store.log.append(append(stream, 3, queue=Touch(LONG_AGO)))
    assert [claim.version for claim in await store.queue.claim(1)] == [3]


async def test_finish_and_discard_remove_the_row(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    finished, epoch = await begun(mine)
    discarded, _ = await begun(mine)

    await mine.log.append(append(finished, 2, queue=Finish(epoch)))
    await other.log.append(append(discarded, 2, queue=Discard()))

    assert rows(mine) == {}
    with pytest.raises(StaleLease):
        await mine.log.append(append(finished, 3, queue=Finish(epoch)))


@pytest.mark.parametrize("late", [Progress(0, None, release=False), Finish(0)])
async def test_a_worker_that_lost_its_lease_writes_nothing(
    open_ledger: OpenStore, late: Progress | Finish
) -> None:
    lost, other = await open_ledger(worker="w1", lease_seconds=0.0), await open_ledger(worker="w2")
    stream, epoch = await begun(lost)
    await other.queue.claim(1)

    write = Finish(epoch) if isinstance(late, Finish) else Progress(epoch, None, release=False)
    with pytest.raises(StaleLease):
        await lost.log.append(append(stream, 2, queue=write))

    assert len(await lost.log.read_stream(stream)) == 1
    assert rows(other)[stream]["lease_owner"] == "w2"


async def test_another_worker_cannot_use_an_epoch_that_is_not_its_own(
    open_ledger: OpenStore,
) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    stream, epoch = await begun(mine)
    with pytest.raises(StaleLease):
        await other.log.append(append(stream, 2, queue=Finish(epoch)))


async def test_hand_back_holds_only_for_the_version_planned_from(store: Store) -> None:
    stream, epoch = await begun(store)
    await store.log.append(append(stream, 2, queue=Touch(LONG_AGO)))

    assert not await store.queue.hand_back(Claim(stream, epoch, 1), None)
    assert not await store.queue.hand_back(Claim(stream, epoch + 1, 2), None)
    assert rows(store)[stream]["lease_owner"] == "w1"
    assert await store.queue.hand_back(Claim(stream, epoch, 2), FAR_AHEAD)
    assert rows(store)[stream]["lease_owner"] is None
    assert await store.queue.claim(1) == []
    assert await store.queue.next_due() == FAR_AHEAD


# ------------------------------------------------------------------------ one wakes another


def wakes(stream: UUID | None = None) -> Append:
    """An append of some execution that calls `stream`."""
    return structs.replace(append(), wakes=stream)


async def test_an_append_wakes_another_execution(store: Store) -> None:
    stream, epoch = await begun(store)
    await store.log.append(append(stream, 2, queue=Progress(epoch, None, release=True)))
    assert await store.queue.claim(1) == []

    await store.log.append(wakes(stream))

    assert [claim.version for claim in await store.queue.claim(1)] == [2]


@pytest.mark.parametrize("write", ["progress", "hand back"])
async def test_a_lease_holder_cannot_put_off_what_was_woken(store: Store, write: str) -> None:
    stream, epoch = await begun(store)
    await store.log.append(wakes(stream))
    if write == "progress":
        await store.log.append(append(stream, 2, queue=Progress(epoch, None, release=True)))
    else:
        assert await store.queue.hand_back(Claim(stream, epoch, 1), FAR_AHEAD)

    (claim,) = await store.queue.claim(1)

    assert claim.epoch > epoch
    assert await store.queue.hand_back(claim, None)
    assert await store.queue.claim(1) == []


async def test_a_renewal_tells_what_was_woken_until_it_is_claimed_anew(store: Store) -> None:
    stream, epoch = await begun(store)
    await store.log.append(wakes(stream))
    await store.log.append(append(stream, 2, queue=Progress(epoch, None, release=False)))

    assert await store.queue.renew() == [Claim(stream, epoch, 2, woken=True)]
    await store.log.append(append(stream, 3, queue=Progress(epoch, None, release=True)))
    (claim,) = await store.queue.claim(1)
    assert await store.queue.renew() == [Claim(stream, claim.epoch, 3)]


async def test_many_may_wake_the_same_at_once_and_one_that_has_ended(store: Store) -> None:
    stream, epoch = await begun(store)
    await store.log.append(append(stream, 2, queue=Progress(epoch, None, release=True)))
    await asyncio.gather(*(store.log.append(wakes(stream)) for _ in range(20)))
    (claim,) = await store.queue.claim(9)
    await store.log.append(append(stream, 3, queue=Finish(claim.epoch)))

    await store.log.append(wakes(stream))

    assert rows(store) == {}


async def test_a_refused_append_wakes_nobody(store: Store) -> None:
    stream, epoch = await begun(store)
    await store.log.append(append(stream, 2, queue=Progress(epoch, None, release=True)))
    other = append()
    await store.log.append(other)
    with pytest.raises(VersionConflict):
        await store.log.append(structs.replace(other, wakes=stream))
    assert await store.queue.claim(1) == []


# --------------------------------------------------------------------------------------- claims


async def test_claims_go_by_priority_then_ready_time(store: Store) -> None:
    wanted = []
    for priority, year in [(9, 2020), (0, 2022), (5, 2021), (0, 2021), (5, 2020)]:
        one = request(priority=priority, ready_at=datetime(year, 1, 1, tzinfo=UTC))
        await store.log.append(one)
        wanted.append((priority, year, one.stream_id))

    claimed = [await store.queue.claim(2), await store.queue.claim(1), await store.queue.claim(9)]

    order = [stream for _, _, stream in sorted(wanted, key=lambda each: each[:2])]
    assert [claim.execution_id for part in claimed for claim in part] == order
    assert [len(part) for part in claimed] == [2, 1, 2]


async def test_what_is_not_due_is_not_claimed(store: Store) -> None:
    await store.log.append(request(ready_at=FAR_AHEAD))
    assert await store.queue.claim(10) == []
    assert await store.queue.next_due() == FAR_AHEAD


async def test_an_expired_lease_is_taken_over_whatever_was_due(open_ledger: OpenStore) -> None:
    lost, other = await open_ledger(worker="w1", lease_seconds=0.0), await open_ledger(worker="w2")
    stream, epoch = await begun(lost)
    await lost.log.append(append(stream, 2, queue=Progress(epoch, None, release=False)))
    due = await other.queue.next_due()
    assert due is not None
    await other.queue.read_time()  # a process is behind the database by what its last reading took
    assert due <= other.clock.now()

    (claim,) = await other.queue.claim(10)

    assert (claim.execution_id, claim.version) == (stream, 2)
    assert claim.epoch > epoch
    assert rows(other)[stream]["deliveries"] == 1
    assert await lost.queue.renew() == []


async def test_a_first_claim_is_no_redelivery(store: Store) -> None:
    await store.log.append(request())
    (claim,) = await store.queue.claim(1)
    assert rows(store)[claim.execution_id]["deliveries"] == 0


async def test_epochs_are_never_given_twice(open_ledger: OpenStore) -> None:
    store = await open_ledger(lease_seconds=0.0)
    await asyncio.gather(*(store.log.append(request()) for _ in range(10)))
    seen = [claim.epoch for _ in range(4) for claim in await store.queue.claim(10)]
    assert len(seen) == len(set(seen)) == 40


async def test_concurrent_claims_share_without_overlap(open_ledger: OpenStore) -> None:
    stores = [await open_ledger(worker=f"w{i}") for i in range(3)]
    await asyncio.gather(*(stores[0].log.append(request()) for _ in range(300)))

    async def work(store: Store) -> list[UUID]:
        mine: list[UUID] = []
        while claims := await store.queue.claim(7):
            for claim in claims:
                mine.append(claim.execution_id)
                version = claim.version + 1
                await store.log.append(
                    append(claim.execution_id, version, queue=Finish(claim.epoch))
                )
        return mine

    parts = await asyncio.gather(*map(work, stores))
    claimed = [stream for part in parts for stream in part]
    assert len(claimed) == len(set(claimed)) == 300
    assert (await stores[0].queue.statistics()).depth == 0


async def test_appends_claims_and_renewals_at_once_do_not_deadlock(open_ledger: OpenStore) -> None:
    stores = [await open_ledger(worker=f"w{i}") for i in range(2)]
    streams = [await begun(stores[i % 2]) for i in range(60)]

    async def progress(i: int) -> None:
        store, (stream, epoch) = stores[i % 2], streams[i]
        for version in range(2, 8):
            write = Progress(epoch, FAR_AHEAD, release=False)
            await store.log.append(append(stream, version, queue=write))

    async def renew(store: Store) -> None:
        for _ in range(20):
            assert len(await store.queue.renew()) == 30
            await store.queue.claim(5)

    await asyncio.gather(*map(progress, range(60)), *map(renew, stores))

    assert all(store.counters.refused == 0 for store in stores)
    assert len(await stores[0].log.read_all(limit=1000)) == 60 * 7


# --------------------------------------------------------------------------- renewal and release


async def test_renewal_extends_every_lease_of_this_worker_only(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    kept = [await begun(mine) for _ in range(3)]
    foreign, _ = await begun(other)
    before = rows(mine)

    renewed = await mine.queue.renew()

    assert {(claim.execution_id, claim.epoch) for claim in renewed} == set(kept)
    after = rows(mine)
    for stream, _ in kept:
        assert int(str(after[stream]["lease_until"])) > int(str(before[stream]["lease_until"]))
    assert after[foreign] == before[foreign]


async def test_release_all_hands_everything_to_the_others(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(worker="w1"), await open_ledger(worker="w2")
    due, epoch = await begun(mine)
    await mine.log.append(append(due, 2, queue=Progress(epoch, None, release=False)))
    await begun(mine)
    foreign, _ = await begun(other)

    await mine.queue.release_all()

    assert await mine.queue.renew() == []
    assert len(await other.queue.claim(10)) == 2
    assert rows(other)[foreign]["deliveries"] == 0
    await mine.queue.release_all()


async def test_statistics_count_rows_by_what_they_wait_for(open_ledger: OpenStore) -> None:
    store = await open_ledger(worker="w1")
    empty = await store.queue.statistics()
    assert (empty.depth, empty.ready, empty.leased, empty.oldest_age_seconds) == (0, 0, 0, 0)

    await store.log.append(request(ready_at=FAR_AHEAD))
    await begun(store)
    waiting = await store.queue.statistics()
    assert (waiting.depth, waiting.ready, waiting.leased) == (2, 0, 1)
    assert waiting.oldest_age_seconds == 0

    await store.log.append(request())
    ready = await store.queue.statistics()
    assert (ready.depth, ready.ready, ready.leased) == (3, 1, 1)
    assert ready.oldest_age_seconds > 3600


async def test_a_row_tells_lease_and_due_time(store: Store) -> None:
    waiting, (leased, _) = request(ready_at=FAR_AHEAD), await begun(store)
    await store.log.append(waiting)

    free, held = await store.queue.row(waiting.stream_id), await store.queue.row(leased)

    assert free is not None
    assert (free.leased, free.lease_until, free.ready_at) == (False, None, FAR_AHEAD)
    assert held is not None
    assert held.leased
    assert held.lease_until is not None
    assert await store.queue.row(uuid4()) is None
