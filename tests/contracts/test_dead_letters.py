"""The table of dead letters on both back ends, and what people do to one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from application.dead_letters import CLAIM_SECONDS, DeadLetterOffice, DeadLetterView
from application.messages import Message, Place, TransportHealth, Undeliverable
from domain.errors import NotFound, NotReady, StateConflict
from infrastructure.clock import DatabaseClock
from infrastructure.database import Store
from infrastructure.dead_letters import DeadLetterTable
from infrastructure.settings import Settings
from interfaces.processes.store_parts import dead_letter_table
from tests.contracts.conftest import OpenStore

pytestmark = pytest.mark.anyio

Elsewhere = Callable[..., Awaitable[DeadLetterOffice]]


class Outbox:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.answers = True
        self.bytes_max = 1_000
        self.asked = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()

    async def publish(self, messages: Sequence[Message]) -> None:
        self.asked.set()
        await self.takes.wait()
        for each in messages:
            if len(each.value) > self.bytes_max:
                raise Undeliverable(each, "the message is too large")
        self.sent.extend(messages)

    def health(self) -> TransportHealth:
        return TransportHealth(self.answers, "answers" if self.answers else "all brokers are down")

    async def close(self) -> None:
        pass


@pytest.fixture
async def table(store: Store, ledger_url: str) -> AsyncIterator[DeadLetterTable]:
    made = dead_letter_table(Settings(database_url=ledger_url), store)
    yield made
    await made.close()


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def office(table: DeadLetterTable, store: Store, outbox: Outbox) -> DeadLetterOffice:
    return DeadLetterOffice(table, store.clock, outbox)


def message(
    offset: int, value: bytes = b"{}", *, topic: str = "t", key: bytes | None = b"k"
) -> Message:
    headers = (("text", b"a"), ("binary", b"\xff\x00"))
    return Message(topic=topic, key=key, value=value, headers=headers, place=Place(1, offset))


async def listed(office: DeadLetterOffice, status: str | None = None) -> Sequence[DeadLetterView]:
    return (await office.list(status=status, topic=None, page=1, page_size=100)).items


async def test_a_dead_letter_is_kept_once_with_its_place_and_cause(
    office: DeadLetterOffice,
) -> None:
    for _ in range(3):
        await office.add(message(7), "/run_id: it is missing")
    (letter,) = await listed(office)
    assert (letter.topic, letter.partition, letter.offset) == ("t", 1, 7)
    assert (letter.status, letter.cause) == ("OPEN", "/run_id: it is missing")
    assert (letter.value, letter.value_bytes) == (None, 2)
    shown = await office.show(letter.id)
    assert (shown.key, shown.value, shown.encoding) == ("k", "{}", "utf-8")
    assert shown.headers["text"] == "a"
    assert shown.received_at.tzinfo is not None


async def test_another_message_from_the_same_place_is_not_taken_for_it(
    office: DeadLetterOffice,
) -> None:
    """A topic that was made anew begins at offset 0 again."""
    await office.add(message(0, b"old"), "old")
    (letter,) = await listed(office)
    await office.discard(letter.id)
    await office.add(message(0, b"new"), "new")
    (letter,) = await listed(office)
    assert (letter.status, letter.cause) == ("OPEN", "new")


async def test_bytes_that_are_no_text_are_told_in_base64(office: DeadLetterOffice) -> None:
    await office.add(message(1, b"\xff\x00", key=None), "it is not UTF-8\x00")
    (letter,) = await listed(office)
    shown = await office.show(letter.id)
    assert (shown.key, shown.value, shown.encoding) == (None, "/wA=", "base64")


async def test_lists_are_filtered_and_paged(office: DeadLetterOffice) -> None:
    for offset in range(5):
        await office.add(message(offset, topic=f"t{offset % 2}"), "why")
    first = await office.list(status="OPEN", topic="t0", page=1, page_size=2)
    second = await office.list(status="OPEN", topic="t0", page=2, page_size=2)
    assert (first.total, first.total_pages, len(first.items)) == (3, 2, 2)
    assert [each.offset for each in [*first.items, *second.items]] == [4, 2, 0]
    assert await listed(office, "DISCARDED") == []


async def test_a_replay_sends_the_message_as_it_was_and_marks_it(
    office: DeadLetterOffice, outbox: Outbox
) -> None:
    await office.add(message(3, b"\xff"), "why")
    (letter,) = await listed(office)
    replayed = await office.replay(letter.id)
    assert (replayed.status, replayed.allowed_actions) == ("REPLAYED", ())
    assert replayed.replayed_at is not None
    (sent,) = outbox.sent
    assert (sent.topic, sent.key, sent.value) == ("t", b"k", b"\xff")
    assert sent.header("binary") == b"\xff\x00"
    assert sent.header("flowledger-dead-letter") == letter.id.encode()
    with pytest.raises(StateConflict) as refused:
        await office.replay(letter.id)
    assert refused.value.current_status == "REPLAYED"
    assert len(outbox.sent) == 1


async def test_one_that_kafka_will_never_take_is_not_to_be_sent_again_and_again(
    office: DeadLetterOffice, outbox: Outbox
) -> None:
    await office.add(message(3, b"x" * 2_000), "why")
    (letter,) = await listed(office)
    with pytest.raises(StateConflict, match=r"max\.message\.bytes") as refused:
        await office.replay(letter.id)
    assert refused.value.allowed_actions == ("replay", "discard")
    outbox.bytes_max = 5_000
    assert (await office.replay(letter.id)).status == "REPLAYED"


async def test_one_that_is_being_sent_is_not_sent_beside_it(
    office: DeadLetterOffice, outbox: Outbox
) -> None:
    """Two clicks are one replay."""
    await office.add(message(3), "why")
    (letter,) = await listed(office)
    outbox.takes.clear()
    first = asyncio.create_task(office.replay(letter.id))
    await outbox.asked.wait()
    for verb in (office.replay, office.discard):
        with pytest.raises(StateConflict, match="being sent right now"):
            await verb(letter.id)
    outbox.takes.set()
    assert (await first).status == "REPLAYED"
    assert len(outbox.sent) == 1


@pytest.fixture
async def elsewhere(open_ledger: OpenStore, ledger_url: str) -> AsyncIterator[Elsewhere]:
    """A function which opens the office of another process, which may be ahead in time."""
    async with AsyncExitStack() as stack:

        async def open_it(outbox: Outbox, *, ahead: timedelta = timedelta()) -> DeadLetterOffice:
            store = await open_ledger(worker="w2")
            made = dead_letter_table(Settings(database_url=ledger_url), store)
            stack.push_async_callback(made.close)
            microseconds = int((store.clock.now() + ahead).timestamp() * 1_000_000)
            return DeadLetterOffice(made, DatabaseClock(microseconds), outbox)

        yield open_it


async def test_one_that_another_process_sends_is_not_sent_beside_it(
    office: DeadLetterOffice, outbox: Outbox, elsewhere: Elsewhere
) -> None:
    await office.add(message(3), "why")
    (letter,) = await listed(office)
    outbox.takes.clear()
    first = asyncio.create_task(office.replay(letter.id))
    await outbox.asked.wait()
    second_outbox = Outbox()
    second = await elsewhere(second_outbox)
    for verb in (second.replay, second.discard):
        with pytest.raises(StateConflict, match="being sent right now") as refused:
            await verb(letter.id)
        assert refused.value.current_status == "OPEN"
    outbox.takes.set()
    assert (await first).status == "REPLAYED"
    assert (len(outbox.sent), second_outbox.sent) == (1, [])
    with pytest.raises(StateConflict, match="REPLAYED"):
        await second.replay(letter.id)


async def test_of_many_replays_at_once_one_sends(
    office: DeadLetterOffice, outbox: Outbox, elsewhere: Elsewhere
) -> None:
    await office.add(message(3), "why")
    (letter,) = await listed(office)
    offices = [office, await elsewhere(outbox)] * 5
    ended = await asyncio.gather(
        *(each.replay(letter.id) for each in offices), return_exceptions=True
    )
    refused = [each for each in ended if isinstance(each, StateConflict)]
    assert (len(refused), len(outbox.sent)) == (9, 1)


async def test_a_replay_whose_process_died_can_be_made_again_after_a_while(
    office: DeadLetterOffice, outbox: Outbox, elsewhere: Elsewhere
) -> None:
    await office.add(message(3), "why")
    (letter,) = await listed(office)
    outbox.takes.clear()
    lost = asyncio.create_task(office.replay(letter.id))
    await outbox.asked.wait()
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    later = await elsewhere(Outbox(), ahead=timedelta(seconds=CLAIM_SECONDS + 1))
    assert (await later.replay(letter.id)).status == "REPLAYED"


async def test_one_that_lost_its_claim_settles_nothing(
    table: DeadLetterTable, store: Store
) -> None:
    """Another has it by then, and may find that it cannot be sent."""
    await DeadLetterOffice(table, store.clock, None).add(message(3), "why")
    (letter,) = await listed(DeadLetterOffice(table, store.clock, None))
    now = store.clock.now()
    first, second, third = (now + timedelta(seconds=each) for each in (1, 2, 3))
    assert await table.claim(letter.id, now, first) is not None
    assert await table.claim(letter.id, now, second) is None
    assert await table.claim(letter.id, first, third) is not None
    await table.release(letter.id, first)
    assert not await table.settle(letter.id, first, "REPLAYED", now)
    assert await table.claim(letter.id, second, third) is None
    assert await table.settle(letter.id, third, "DISCARDED", None)
    assert await table.claim(letter.id, third, third) is None


async def test_a_replay_that_failed_can_be_made_again_at_once(
    office: DeadLetterOffice, outbox: Outbox
) -> None:
    await office.add(message(3), "why")
    (letter,) = await listed(office)
    outbox.answers = False
    with pytest.raises(NotReady):
        await office.replay(letter.id)
    outbox.answers = True
    assert (await office.replay(letter.id)).status == "REPLAYED"


async def test_a_discarded_one_is_neither_sent_nor_discarded_again(
    office: DeadLetterOffice, outbox: Outbox
) -> None:
    await office.add(message(3), "why")
    (letter,) = await listed(office)
    assert (await office.discard(letter.id)).status == "DISCARDED"
    for verb in (office.replay, office.discard):
        with pytest.raises(StateConflict):
            await verb(letter.id)
    assert outbox.sent == []


async def test_without_a_broker_nothing_is_marked_as_sent(
    office: DeadLetterOffice, table: DeadLetterTable, store: Store, outbox: Outbox
) -> None:
    await office.add(message(3), "why")
    (letter,) = await listed(office)
    outbox.answers = False
    with pytest.raises(NotReady, match="all brokers are down"):
        await office.replay(letter.id)
    with pytest.raises(NotReady, match="FLOWLEDGER_KAFKA_BROKERS"):
        await DeadLetterOffice(table, store.clock, None).replay(letter.id)
    assert (await office.show(letter.id)).status == "OPEN"


async def test_an_unknown_one_is_not_found(office: DeadLetterOffice) -> None:
    for verb in (office.show, office.replay, office.discard):
        with pytest.raises(NotFound):
            await verb("nothing")
