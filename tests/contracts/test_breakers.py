"""The contract of `application.breakers.BreakerStore`, and the use case over it, on both back ends.

Two open stores stand for two processes. Time is virtual; the stores and their races are real.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from application.breakers import UNKNOWN, BreakerKey, Breakers, Stored
from application.ports import StoreUnavailable
from domain.breaker import (
    CLOSED,
    DEFAULT_SETTINGS,
    HALF_OPEN,
    OPEN,
    Admitted,
    Breaker,
    BreakerSettings,
    CallResult,
    Probe,
    Slice,
)
from infrastructure.breaker_store import StoredBreakers, open_breaker_store
from infrastructure.database import Store
from tests.contracts.conftest import OpenStore

pytestmark = pytest.mark.anyio

KEY = BreakerKey("default", "scorer")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT_SECONDS = 30.0
OpenBreakers = Callable[[Store], StoredBreakers]


class VirtualClock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError("breakers wait for nothing")


class Watched:
    """A store that counts what is asked of it, and can be lost."""

    def __init__(self, inner: StoredBreakers) -> None:
        self.inner = inner
        self.loads = 0
        self.saves = 0
        self.is_lost = False

    async def load(self, key: BreakerKey) -> Stored:
        self.loads += 1
        if self.is_lost:
            raise StoreUnavailable("lost by the test")
        return await self.inner.load(key)

    async def save(self, key: BreakerKey, breaker: Breaker, version: int) -> bool:
        self.saves += 1
        if self.is_lost:
            raise StoreUnavailable("lost by the test")
        return await self.inner.save(key, breaker, version)


class Process:
    """What one process has, and its calls to the agent."""

    def __init__(self, inner: StoredBreakers, clock: VirtualClock) -> None:
        self.store = Watched(inner)
        self.breakers = Breakers(self.store, clock)

    async def begin(self, settings: BreakerSettings = DEFAULT_SETTINGS) -> Admitted | None:
        decision = await self.breakers.admit(KEY, settings, LIMIT_SECONDS)
        return decision if isinstance(decision, Admitted) else None

    async def end(self, call: Admitted, result: CallResult) -> None:
        await self.breakers.record(KEY, call, result)

    async def call(self, result: CallResult) -> bool:
        """Whether the call was made."""
        call = await self.begin()
        if call is not None:
            await self.end(call, result)
        return call is not None

    async def state(self) -> str:
        return (await self.breakers.look(KEY)).state


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def open_breakers() -> AsyncIterator[OpenBreakers]:
    async with AsyncExitStack() as stack:

        def open_it(store: Store) -> StoredBreakers:
            opened = open_breaker_store(store)
            stack.push_async_callback(opened.aclose)
            return opened

        yield open_it


@pytest.fixture
async def records(store: Store, open_breakers: OpenBreakers) -> StoredBreakers:
    return open_breakers(store)


@pytest.fixture
async def one(records: StoredBreakers, clock: VirtualClock) -> Process:
    return Process(records, clock)


@pytest.fixture
async def two(
    open_ledger: OpenStore, open_breakers: OpenBreakers, one: Process, clock: VirtualClock
) -> tuple[Process, Process]:
    return one, Process(open_breakers(await open_ledger(worker="w2")), clock)


# ------------------------------------------------------------------------------------- the store


async def test_an_agent_without_a_record_is_closed(records: StoredBreakers) -> None:
    assert await records.load(KEY) == UNKNOWN


async def test_what_was_saved_is_loaded(records: StoredBreakers) -> None:
    full = Breaker(
        state=HALF_OPEN,
        round=7,
        failures_in_a_row=2,
        window=(Slice(1_770_000_000.5, 10, 3),),
        opened_at=START,
        cause="3 of 10 calls failed within 120 s",
        probes=(Probe(4, START + timedelta(seconds=30)),),
        probes_begun=4,
        probes_succeeded=1,
    )
    assert await records.save(KEY, full, 0)
    assert await records.load(KEY) == Stored(full, 1)
    assert await records.load(BreakerKey("other", KEY.agent)) == UNKNOWN


async def test_only_the_version_that_was_read_is_replaced(records: StoredBreakers) -> None:
    assert await records.save(KEY, Breaker(round=1), 0)
    assert not await records.save(KEY, Breaker(round=2), 0)
    assert await records.save(KEY, Breaker(round=3), 1)
    assert not await records.save(KEY, Breaker(round=4), 1)
    assert not await records.save(KEY, Breaker(round=5), 3)
    assert await records.load(KEY) == Stored(Breaker(round=3), 2)


async def test_of_many_who_save_one_version_one_wins(two: tuple[Process, Process]) -> None:
    for version in range(3):
        saved = await asyncio.gather(
            *(
                process.store.save(KEY, Breaker(round=version), version)
                for process in two
                for _ in range(20)
            )
        )
        assert sum(saved) == 1


# ---------------------------------------------------------------------------------- the use case


async def test_an_agent_that_works_costs_one_access_a_second(
    one: Process, clock: VirtualClock
) -> None:
    for _ in range(100):
        for _ in range(10):
            assert await one.call("success")
        clock.at += timedelta(seconds=0.1)
    assert one.store.loads + one.store.saves <= 2 * 11
    await one.breakers.flush()
    assert sum(part.calls for part in (await one.breakers.look(KEY)).window) == 1_000


async def test_a_failure_is_shared_at_once_with_the_successes_before_it(one: Process) -> None:
    for _ in range(3):
        await one.call("success")
    await one.call("failure")
    seen = await one.breakers.look(KEY)
    assert [(part.calls, part.failures) for part in seen.window] == [(4, 1)]
    assert seen.failures_in_a_row == 1


async def test_failures_of_all_processes_together_open_it(two: tuple[Process, Process]) -> None:
    for index in range(5):
        assert await two[index % 2].call("failure")
    assert [await process.state() for process in two] == [OPEN, OPEN]
    assert not await two[0].call("success"), "the one that wrote last knows at once"


async def test_the_others_learn_within_a_second(
    two: tuple[Process, Process], clock: VirtualClock
) -> None:
    one, other = two
    assert await other.call("success")
    for _ in range(5):
        await one.call("failure")
    clock.at += timedelta(seconds=1)
    assert await other.begin() is None


@pytest.mark.parametrize("allowed", [1, 3])
async def test_never_more_probes_than_allowed_over_all_processes(
    two: tuple[Process, Process], clock: VirtualClock, allowed: int
) -> None:
    settings = BreakerSettings(half_open_max_calls=allowed)
    for _ in range(5):
        await two[0].call("failure")
    for _ in range(5):
        clock.at += timedelta(seconds=60)
        begun = await asyncio.gather(
            *(process.begin(settings) for _ in range(20) for process in two)
        )
        probes = [probe for probe in begun if probe is not None]
        assert len(probes) == allowed
        assert len({probe.probe for probe in probes}) == allowed
        await two[0].end(probes[0], "failure")
        assert await two[1].state() == OPEN


async def test_probes_of_several_processes_close_it(
    two: tuple[Process, Process], clock: VirtualClock
) -> None:
    for _ in range(5):
        await two[0].call("failure")
    clock.at += timedelta(seconds=60)
    callers = (two[0], two[1], two[0])
    probes = [await caller.begin() for caller in callers]
    for caller, probe in zip(callers, probes, strict=True):
        assert probe is not None
        assert await two[0].state() == HALF_OPEN
        await caller.end(probe, "success")
    assert await two[1].state() == CLOSED


async def test_a_process_that_is_lost_with_its_probes_blocks_nobody_for_ever(
    two: tuple[Process, Process], clock: VirtualClock
) -> None:
    lost, other = two
    for _ in range(5):
        await lost.call("failure")
    clock.at += timedelta(seconds=60)
    assert all([await lost.begin() for _ in range(3)])
    clock.at += timedelta(seconds=LIMIT_SECONDS)
    assert await other.begin() is None
    clock.at += timedelta(seconds=5)
    assert await other.begin() is not None


async def test_an_agent_that_fails_for_30_seconds_is_called_no_more_than_its_probes(
    two: tuple[Process, Process], clock: VirtualClock
) -> None:
    """Two processes with four callers each, a call every 50 ms; it stays open for ten seconds."""
    settings = BreakerSettings(timeout_seconds=10)
    made: list[Admitted] = []
    works_at = START + timedelta(seconds=30)

    async def caller(process: Process) -> None:
        call = await process.begin(settings)
        if call is None:
            return
        if clock.at < works_at:
            made.append(call)
        await process.end(call, "failure" if clock.at < works_at else "success")

    while clock.at < works_at:
        await asyncio.gather(*(caller(process) for process in two for _ in range(4)))
        clock.at += timedelta(seconds=0.05)
    probes = [call for call in made if call.probe]
    half_open_times = 2  # after 10 and after 20 seconds
    assert 2 <= len(probes) <= half_open_times * settings.half_open_max_calls
    assert len(made) - len(probes) <= 8, "those that were under way when it opened"
    clock.at += timedelta(seconds=10)
    for _ in range(settings.half_open_max_calls):
        await caller(two[0])
    assert await two[1].state() == CLOSED


# ------------------------------------------------------------------------ when the store is lost


async def test_while_the_store_is_lost_what_was_known_holds(
    one: Process, clock: VirtualClock
) -> None:
    assert await one.call("success")
    one.store.is_lost = True
    clock.at += timedelta(seconds=5)
    for _ in range(4):
        assert await one.call("failure")
    one.store.is_lost = False
    assert await one.call("failure")
    assert await one.state() == OPEN, "what was told meanwhile was not forgotten"


async def test_no_probe_begins_while_the_store_is_lost(one: Process, clock: VirtualClock) -> None:
    for _ in range(5):
        await one.call("failure")
    one.store.is_lost = True
    clock.at += timedelta(seconds=60)
    assert await one.begin() is None
    one.store.is_lost = False
    assert await one.begin() is not None
