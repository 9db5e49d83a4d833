"""The contract of `application.ports.ChangeFeed`: own changes at once, those of others soon."""

import asyncio
from uuid import UUID, uuid4

import pytest

from infrastructure.database import Store
from tests.contracts.appends import append
from tests.contracts.conftest import OpenStore

pytestmark = pytest.mark.anyio


class Heard:
    """A subscriber that keeps what it was told and can be waited for."""

    def __init__(self, store: Store) -> None:
        self.changes: list[tuple[UUID, int]] = []
        self._news = asyncio.Event()
        self.unsubscribe = store.feed.subscribe(self._hear)

    def _hear(self, stream_id: UUID, version: int) -> None:
        self.changes.append((stream_id, version))
        self._news.set()

    async def until(self, stream_id: UUID, version: int) -> None:
        while (stream_id, version) not in self.changes:
            self._news.clear()
            await self._news.wait()


async def test_own_changes_are_told_with_the_last_version(store: Store) -> None:
    heard = Heard(store)
    one = append(count=3)
    await store.log.append(one)
    await heard.until(one.stream_id, 3)
    assert heard.changes == [(one.stream_id, 3)]


async def test_changes_of_another_process_are_told(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(), await open_ledger()
    heard = Heard(mine)
    foreign = append(count=2)

    await other.log.append(foreign)

    await heard.until(foreign.stream_id, 2)


async def test_another_process_is_noticed_between_own_appends(open_ledger: OpenStore) -> None:
    mine = await open_ledger(poll_seconds=0.05)
    heard = Heard(mine)
    other = await open_ledger()
    streams = [uuid4() for _ in range(5)]
    for stream in streams:
        await other.log.append(append(stream))
        await mine.log.append(append())

    for stream in streams:
        await heard.until(stream, 1)


async def test_nothing_of_many_interleaved_writers_is_missed(open_ledger: OpenStore) -> None:
    mine, other = await open_ledger(poll_seconds=0.05), await open_ledger()
    heard = Heard(mine)
    streams = [uuid4() for _ in range(400)]

    await asyncio.gather(
        *((mine, other)[i % 2].log.append(append(stream)) for i, stream in enumerate(streams))
    )

    for stream in streams:
        await heard.until(stream, 1)


async def test_an_ended_subscription_hears_nothing(store: Store) -> None:
    ended, going_on = Heard(store), Heard(store)
    ended.unsubscribe()
    ended.unsubscribe()
    one = append()
    await store.log.append(one)
    await going_on.until(one.stream_id, 1)
    assert ended.changes == []


async def test_a_failing_subscriber_does_not_silence_the_others(store: Store) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: failures.append(context["exception"])
    )

    def fail(stream_id: UUID, version: int) -> None:
        raise LookupError(stream_id)

    store.feed.subscribe(fail)
    heard = Heard(store)
    one = append()
    await store.log.append(one)
    await heard.until(one.stream_id, 1)
    assert [str(failure) for failure in failures] == [str(LookupError(one.stream_id))]
