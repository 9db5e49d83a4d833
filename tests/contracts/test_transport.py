"""What every message transport keeps to, on the mock cluster and on a real broker."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

import pytest

from application.messages import (
    POSITION_HEADER,
    Message,
    MessageHandler,
    Poison,
)
from application.ports import StoreUnavailable
from application.requests import ExecuteOptions, NoRunner, Requests
from infrastructure.input_schema import JsonSchemas
from infrastructure.kafka.client import KafkaAddress
from infrastructure.kafka.publisher import KafkaPublisher
from infrastructure.kafka.receiver import KafkaReceiver
from infrastructure.settings import Settings
from interfaces.bootstrap import open_api, open_projector, open_services, open_worker
from interfaces.processes.projecting import ProjectorProcess
from tests.builders import linear
from tests.engine import CALLER
from tests.kafka.broker import KafkaBroker

pytestmark = pytest.mark.anyio

SECONDS_MAX = 60
KEYS = [b"a", b"b", b"c"]


class KeptLetters:
    """Dead letters in memory."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, str]] = []

    async def add(self, message: Message, cause: str) -> None:
        self.kept.append((message.value, cause))


class Inbox:
    """A handler that remembers; `expect` waits until it has so many."""

    def __init__(self, do: Callable[[Message], Awaitable[None]] | None = None) -> None:
        self.taken: list[Message] = []
        self._do = do
        self._more = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        if self._do is not None:
            await self._do(message)
        self.taken.append(message)
        self._more.set()

    async def expect(self, count: int) -> list[Message]:
        async with asyncio.timeout(SECONDS_MAX):
            while len(self.taken) < count:
                self._more.clear()
                await self._more.wait()
        return self.taken

    def values(self, key: bytes | None = None) -> list[bytes]:
        return [each.value for each in self.taken if key is None or each.key == key]


Receive = Callable[..., KafkaReceiver]
ReceiveOn = Callable[[str], Receive]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(SECONDS_MAX * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come to that")


@pytest.fixture
def topic() -> str:
    return f"test.{uuid4().hex}"


@pytest.fixture
async def publisher(kafka: str) -> AsyncIterator[KafkaPublisher]:
    made = KafkaPublisher(KafkaAddress(brokers=kafka))
    yield made
    await made.close()


@pytest.fixture
async def letters() -> KeptLetters:
    return KeptLetters()


@pytest.fixture
def receive(kafka: str, receive_on: ReceiveOn) -> Receive:
    """Start one more member of the test's group."""
    return receive_on(kafka)


@pytest.fixture
async def receive_on(topic: str, letters: KeptLetters) -> AsyncIterator[ReceiveOn]:
    """The same on a broker that the test names."""
    async with AsyncExitStack() as stack:

        def start(kafka: str, handle: MessageHandler, *, at_once: int = 1) -> KafkaReceiver:
            receiver = KafkaReceiver(
                KafkaAddress(brokers=kafka, options={"session.timeout.ms": 6_000}),
                [topic],
                f"group-{topic}",
                handle,
                letters,
                at_once=at_once,
                end_seconds=0.2,
            )
            receiver.start()
            stack.push_async_callback(receiver.stop)
            return receiver

        yield lambda kafka: partial(start, kafka)


def messages(topic: str, count: int) -> list[Message]:
    return [
        Message(topic=topic, key=KEYS[n % len(KEYS)], value=b"%d" % n, headers=(("n", b"%d" % n),))
        for n in range(count)
    ]


async def test_messages_come_in_order_of_each_key_with_their_headers(
    publisher: KafkaPublisher, receive: Receive, topic: str
) -> None:
    sent = messages(topic, 300)
    await publisher.publish(sent)
    inbox = Inbox()
    receive(inbox)
    await inbox.expect(300)
    for key in KEYS:
        assert inbox.values(key) == [each.value for each in sent if each.key == key]
    assert all(each.header("n") == each.value for each in inbox.taken)
    assert publisher.health().answers


async def test_a_topic_that_cannot_be_read_is_told_until_it_can(
    mock_kafka: str, topic: str, letters: KeptLetters
) -> None:
    """As one that nobody has made, where a broker makes none by itself."""
    address = KafkaAddress(brokers=mock_kafka, options={"allow.auto.create.topics": False})
    inbox = Inbox()
    receiver = KafkaReceiver(address, [topic], f"group-{topic}", inbox, letters)
    receiver.start()
    publisher = KafkaPublisher(KafkaAddress(brokers=mock_kafka))
    try:
        await until(lambda: receiver.health().detail == f"the topic {topic} does not exist yet")
        assert receiver.health().answers, "the broker does"
        await publisher.publish(messages(topic, 1))
        await inbox.expect(1)
        assert receiver.health().detail == "answers"
    finally:
        await publisher.close()
        await receiver.stop()


async def test_what_was_handled_does_not_come_again(
    publisher: KafkaPublisher, receive: Receive, topic: str
) -> None:
    await publisher.publish(messages(topic, 50))
    first, second = Inbox(), Inbox()
    receiver = receive(first)
    await first.expect(50)
    await receiver.stop()
    await publisher.publish([Message(topic=topic, key=b"a", value=b"later")])
    receive(second)
    await second.expect(1)
    assert second.values() == [b"later"]


async def test_what_was_not_handled_comes_again(
    publisher: KafkaPublisher, receive: Receive, topic: str
) -> None:
    """A process that ends while messages are in hand loses none of them."""
    await publisher.publish([Message(topic=topic, key=b"a", value=b"%d" % n) for n in range(9)])

    async def stuck_at_three(message: Message) -> None:
        if message.value == b"3":
            await asyncio.Event().wait()

    first, second = Inbox(stuck_at_three), Inbox()
    receiver = receive(first)
    await first.expect(3)
    await receiver.stop()
    receive(second)
    await second.expect(6)
    assert first.values() == [b"0", b"1", b"2"]
    assert second.values() == [b"3", b"4", b"5", b"6", b"7", b"8"]


async def test_poison_is_put_aside_and_blocks_nobody(
    publisher: KafkaPublisher, receive: Receive, topic: str, letters: KeptLetters
) -> None:
    async def refuse(message: Message) -> None:
        if message.value == b"1":
            raise Poison("it has no run id")
        if message.value == b"2":
            raise ZeroDivisionError("a slip")

    inbox = Inbox(refuse)
    await publisher.publish([Message(topic=topic, key=b"a", value=b"%d" % n) for n in range(5)])
    receiver = receive(inbox)
    await inbox.expect(3)
    await receiver.stop()
    assert inbox.values() == [b"0", b"3", b"4"]
    assert [value for value, _ in letters.kept] == [b"1", b"2"]
    assert letters.kept[0][1] == "it has no run id"
    assert "ZeroDivisionError: a slip" in letters.kept[1][1]
    again = Inbox()
    receive(again)
    await publisher.publish([Message(topic=topic, key=b"a", value=b"5")])
    assert [each.value for each in await again.expect(1)] == [b"5"]


async def test_messages_wait_while_the_store_is_away(
    publisher: KafkaPublisher, receive: Receive, topic: str, letters: KeptLetters
) -> None:
    tries = 0

    async def away_at_first(_: Message) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise StoreUnavailable("the database does not answer")

    inbox = Inbox(away_at_first)
    await publisher.publish([Message(topic=topic, key=b"a", value=b"%d" % n) for n in range(3)])
    receive(inbox)
    await inbox.expect(3)
    assert inbox.values() == [b"0", b"1", b"2"]
    assert letters.kept == []


async def test_while_the_store_is_away_nothing_is_committed_and_the_cause_is_told(
    publisher: KafkaPublisher, receive: Receive, topic: str
) -> None:
    asked = asyncio.Event()
    tries = 0

    async def away(_: Message) -> None:
        nonlocal tries
        tries += 1
        if tries > 2:
            asked.set()
        raise StoreUnavailable("the database does not answer")

    await publisher.publish([Message(topic=topic, key=b"a", value=b"only")])
    receiver = receive(Inbox(away))
    async with asyncio.timeout(SECONDS_MAX):
        await asked.wait()
    assert "the database does not answer" in receiver.health().detail
    await receiver.stop()
    inbox = Inbox()
    receive(inbox)
    assert [each.value for each in await inbox.expect(1)] == [b"only"]


async def test_a_slow_handler_holds_its_partition_back_and_loses_nothing(
    publisher: KafkaPublisher, receive: Receive, topic: str
) -> None:
    free = asyncio.Event()

    async def wait(_: Message) -> None:
        await free.wait()

    inbox = Inbox(wait)
    sent = [Message(topic=topic, key=b"a", value=b"%d" % n) for n in range(5_000)]
    await publisher.publish(sent)
    receiver = receive(inbox)
    await until(lambda: receiver.holding_back)
    assert inbox.taken == []
    free.set()
    await inbox.expect(5_000)
    assert inbox.values() == [each.value for each in sent]


async def test_at_once_keeps_the_order_of_a_key(
    publisher: KafkaPublisher, receive: Receive, topic: str
) -> None:
    """A slow message delays those of its own key and no others."""
    free = asyncio.Event()

    async def first_waits(message: Message) -> None:
        if message.value == b"0":
            await free.wait()

    inbox = Inbox(first_waits)
    await publisher.publish(messages(topic, 30))
    receive(inbox, at_once=5)
    await inbox.expect(20)
    assert inbox.values(b"a") == []
    free.set()
    await inbox.expect(30)
    assert inbox.values(b"a") == [b"%d" % n for n in range(0, 30, 3)]


async def test_two_members_share_the_partitions(
    publisher: KafkaPublisher, receive: Receive, topic: str
) -> None:
    await publisher.publish(messages(topic, 4))
    first, second = Inbox(), Inbox()
    receive(first)
    await first.expect(4)
    receiver = receive(second)
    async with asyncio.timeout(SECONDS_MAX):
        while not second.taken:  # until the group has given it some
            keys = [uuid4().bytes for _ in range(8)]
            await publisher.publish([Message(topic=topic, key=key, value=b"") for key in keys])
            await asyncio.sleep(0.05)
    await receiver.stop()
    # What the second one leaves behind comes to the first.
    sent = [Message(topic=topic, key=uuid4().bytes, value=b"last") for _ in range(20)]
    await publisher.publish(sent)
    await until(lambda: first.values().count(b"last") == 20)


async def test_what_executions_do_is_told_on_the_broker(
    kafka: str, sqlite_ledger_url: str, receive: Receive, topic: str
) -> None:
    """The whole way: executed, recorded, relayed; then the broker has it, in order."""
    settings = Settings(
        database_url=sqlite_ledger_url,
        kafka_brokers=kafka,
        kafka_monitoring_topic=topic,
        kafka_cloudevents=True,
    )
    inbox = Inbox()
    receive(inbox)
    services = await open_services(settings)
    try:
        await services.workflows.publish(
            CALLER, {**linear(2, config={"variables": {"x": 1}}), "name": "two"}
        )
        answer = await services.requests.execute(CALLER, "two", ExecuteOptions())
        await inbox.expect(5)
        checks = await services.checks()
    finally:
        await services.close()
    told = [json.loads(each.value) for each in inbox.taken]
    assert [(each["step_id"], each["status"]) for each in told] == [
        ("s1", "RUNNING"),
        ("s1", "COMPLETED"),
        ("s2", "RUNNING"),
        ("s2", "COMPLETED"),
        ("workflow", "COMPLETED"),
    ]
    assert {each["run_id"] for each in told} == {answer.view.run_id}
    assert {each.header("ce_type") for each in inbox.taken} == {b"flowledger.monitoring_update.v1"}
    positions = [int(each.header(POSITION_HEADER) or b"") for each in inbox.taken]
    assert positions == sorted(positions)
    assert checks["kafka"].detail == "sends"


async def test_the_projector_sends_what_others_recorded_and_a_second_one_takes_over(
    mock_kafka: str, postgresql_ledger_url: str, receive_on: ReceiveOn, topic: str
) -> None:
    settings = Settings(
        database_url=postgresql_ledger_url, kafka_brokers=mock_kafka, kafka_monitoring_topic=topic
    )
    inbox = Inbox()
    receive_on(mock_kafka)(inbox)
    async with AsyncExitStack() as stack:
        api = await open_api(settings)
        stack.push_async_callback(api.close)
        worker = await open_worker(settings)
        stack.push_async_callback(worker.close)
        first = await open_projector(settings)
        stack.push_async_callback(first.close)
        second = await open_projector(settings)
        stack.push_async_callback(second.close)
        definition = linear(1, config={"variables": {"x": 1}})
        await api.workflows.publish(CALLER, {**definition, "name": "one"})
        await api.requests.execute(CALLER, "one", ExecuteOptions())
        await inbox.expect(3)
        leader, other = (first, second) if sends(first) else (second, first)
        assert sends(leader)
        assert not sends(other)
        await leader.close()
        await api.requests.execute(CALLER, "one", ExecuteOptions())
        await inbox.expect(6)
        assert (await other.checks())["kafka"].detail == "sends"
        await counted(other, {(topic, "sent"): 3})
    assert [json.loads(each.value)["status"] for each in inbox.taken] == [
        "RUNNING",
        "COMPLETED",
        "COMPLETED",
    ] * 2


async def test_the_projector_notes_why_the_request_of_an_execution_waits(
    postgresql_ledger_url: str,
) -> None:
    """Also of one that was taken where nobody knew yet that the broker was away."""
    settings = Settings(database_url=postgresql_ledger_url, kafka_brokers="127.0.0.1:1")
    async with AsyncExitStack() as stack:
        api = await open_api(settings)
        stack.push_async_callback(api.close)
        requests = Requests(
            api.ledger, api.workflows, NoRunner(), JsonSchemas(), over_kafka=lambda: None
        )
        definition = linear(1, config={"variables": {"x": 1}})
        view = (await requests.execute_inline(CALLER, definition, ExecuteOptions())).view
        assert view.error_message is None
        projector = await open_projector(settings)
        stack.push_async_callback(projector.close)
        async with asyncio.timeout(SECONDS_MAX):
            while view.error_message is None or "Kafka does not answer" not in view.error_message:
                view = await api.history.wait_changed("default", view.id, view.version, 1.0)
        assert view.status == "PENDING"
        noted = await api.history.events("default", view.id)
        assert {each.event.meta.actor for each in noted[1:]} == {"relay"}


async def counted(projector: ProjectorProcess, messages: dict[tuple[str, str], int]) -> None:
    """Return once the projector's figures have these; the broker tells its readers before it."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            figures = (await projector.observe()).relay
            if figures is not None and figures.messages == messages:
                break
            await asyncio.sleep(0.01)
    assert figures.leading


def sends(projector: ProjectorProcess) -> bool:
    assert projector.relay is not None
    return projector.relay.health().leading


async def test_a_broker_that_was_killed_finds_its_clients_again(
    letters: KeptLetters, topic: str, own_kafka: KafkaBroker
) -> None:
    """Nothing is lost and nobody is started anew; meanwhile both say why messages wait."""
    address = KafkaAddress(brokers=own_kafka.address)
    publisher, inbox = KafkaPublisher(address), Inbox()
    receiver = KafkaReceiver(address, [topic], topic, inbox, letters)
    receiver.start()
    try:
        await publisher.publish(messages(topic, 20))
        await inbox.expect(20)
        await asyncio.to_thread(own_kafka.kill)
        waiting = asyncio.create_task(publisher.publish(messages(topic, 30)[20:]))
        await until(lambda: not publisher.health().answers and not receiver.health().answers)
        assert "Kafka does not answer" in publisher.health().detail
        assert not waiting.done()
        await asyncio.to_thread(own_kafka.start)
        await waiting
        await until(lambda: len(set(inbox.values())) == 30)
        assert publisher.health().answers
    finally:
        await receiver.stop()
        await publisher.close()
