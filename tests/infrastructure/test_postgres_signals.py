"""Hints between processes on PostgreSQL: heard from others, not from oneself, after a loss too."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest

from infrastructure.postgres_signals import CHANNEL, PostgresSignals

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 20


class Station:
    """One process: how many hints it heard, the one after each connect included."""

    def __init__(self, dsn: str) -> None:
        self.signals = PostgresSignals(dsn)
        self.heard = 0
        self._news = asyncio.Event()

    def hear(self) -> None:
        self.heard += 1
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.heard < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def open_station(postgres_dsn: str) -> AsyncIterator[Callable[[], Station]]:
    async with AsyncExitStack() as stack:

        def open_it() -> Station:
            station = Station(postgres_dsn)
            task = asyncio.get_running_loop().create_task(station.signals.exchange(station.hear))

            async def close() -> None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            stack.push_async_callback(close)
            return station

        yield open_it


async def test_the_others_hear_what_one_announces_and_it_does_not(
    open_station: Callable[[], Station],
) -> None:
    one, two, three = open_station(), open_station(), open_station()
    for station in (one, two, three):
        await station.until(2)  # connected, and not alone

    one.signals.announce()
    await two.until(3)
    await three.until(3)
    two.signals.announce()  # its hint reaches `one` after that of `one` itself would have
    await one.until(3)

    assert one.heard == 3


async def test_one_who_is_alone_tells_nobody_but_whoever_comes(
    open_station: Callable[[], Station], postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infrastructure.postgres_signals.HERE_SECONDS", 3_600)
    words: list[str] = []
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as outside:
        await outside.execute(f"LISTEN {CHANNEL}".encode())
        outside.add_notify_handler(lambda told: words.append(told.payload))

        async def until(expected: list[str]) -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(words) < len(expected):
                    await outside.execute("SELECT 1")
            assert words == expected

        one = open_station()
        await until(["hello"])
        for _ in range(10):
            one.signals.announce()
            await asyncio.sleep(0.01)
        two = open_station()
        # The newcomer is answered at once, with what it may have missed.
        await until(["hello", "hello", ""])
        await one.until(2)
        await two.until(2)
        two.signals.announce()  # which knows by now that it is not alone
        await one.until(3)
        await until(["hello", "hello", "", ""])


async def test_hints_of_a_moment_are_told_once(open_station: Callable[[], Station]) -> None:
    one, two = open_station(), open_station()
    await one.until(2)
    await two.until(2)

    for _ in range(1_000):
        one.signals.announce()
    await two.until(3)
    two.signals.announce()
    await one.until(3)

    assert two.heard <= 4  # the leading edge, and what came while that was told


async def test_a_lost_connection_comes_back_and_says_so(
    open_station: Callable[[], Station], postgres_dsn: str
) -> None:
    one, two = open_station(), open_station()
    await one.until(2)
    await two.until(2)

    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as operator:
        await operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await one.until(3)
        await two.until(3)
        one.signals.announce()
        await two.until(4)
        await operator.execute(f"NOTIFY {CHANNEL}".encode())
        await one.until(4)


async def test_what_takes_the_number_of_a_lost_connection_at_once_is_left_alone(
    open_station: Callable[[], Station], postgres_dsn: str
) -> None:
    loop, before = asyncio.get_running_loop(), open_numbers()
    one = open_station()
    await one.until(1)
    its_own = open_numbers() - before
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as operator:
        await operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while its_own <= open_numbers():  # noqa: ASYNC110 - the operating system tells nobody
                await asyncio.sleep(0)
        near, far = socket.socketpair()
        with near, far:
            read = asyncio.Event()
            loop.add_reader(near, read.set)
            await one.until(2)
            far.send(b"x")
            async with asyncio.timeout(PATIENCE_SECONDS):
                await read.wait()
            loop.remove_reader(near)


def open_numbers() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}
