"""Database time, carried on between two readings."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from infrastructure.clock import DatabaseClock, system_microseconds
from infrastructure.event_store.queue_writes import from_microseconds, to_microseconds

pytestmark = pytest.mark.anyio

NOON = to_microseconds(datetime(2026, 1, 2, 12, tzinfo=UTC))


async def test_the_clock_goes_on_from_the_reading() -> None:
    clock = DatabaseClock(NOON)
    first, second = clock.now(), clock.now()
    assert from_microseconds(NOON) <= first <= second
    assert first.tzinfo is UTC


async def test_the_clock_follows_the_database_forward_and_never_goes_back() -> None:
    clock = DatabaseClock(NOON)
    clock.synchronise(NOON + 3_600_000_000)
    later = clock.now()
    assert later >= from_microseconds(NOON + 3_600_000_000)
    clock.synchronise(NOON)
    assert clock.now() == later


async def test_microseconds_are_kept_exactly() -> None:
    for when in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, 23, 59, 59, 999999, UTC)):
        assert from_microseconds(to_microseconds(when)) == when
    assert abs(system_microseconds() - to_microseconds(datetime.now(UTC))) < 60_000_000


async def test_a_timer_rings_when_it_is_time() -> None:
    clock = DatabaseClock(NOON)
    rung: asyncio.Future[datetime] = asyncio.get_running_loop().create_future()
    due = clock.now() + timedelta(milliseconds=20)
    clock.call_at(due, lambda: rung.set_result(clock.now()))
    assert await rung >= due


async def test_a_timer_waits_on_when_the_database_s_time_fell_back() -> None:
    clock = DatabaseClock(NOON)
    rung: asyncio.Future[datetime] = asyncio.get_running_loop().create_future()
    due = from_microseconds(NOON) + timedelta(milliseconds=40)
    clock.call_at(due, lambda: rung.set_result(clock.now()))
    clock.synchronise(NOON - 60_000)
    assert await rung >= due


async def test_a_timer_can_be_taken_back() -> None:
    clock = DatabaseClock(NOON)
    rung = asyncio.Event()
    cancel = clock.call_at(clock.now() - timedelta(seconds=1), rung.set)
    cancel()
    cancel()
    await clock.sleep(0.01)
    assert not rung.is_set()
