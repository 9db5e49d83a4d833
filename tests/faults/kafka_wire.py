"""Kafka as a fault sees it: topics of its own, messages sent to them, tasks taken from them."""

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)

from domain.json_values import JsonObject
from tests.faults.report import Options
from tests.kafka.broker import SILENT, running_kafka
from tests.kafka.mock import mock_cluster

TOPICS: Final = ("execution", "cancellation", "task", "result", "monitoring")
CONSUMED: Final = ("execution", "cancellation", "result")
POLL_SECONDS: Final = 0.01
MAKE_TRIES_MAX: Final = 100
SESSION_MS: Final = 6_000
"""After this time the group gives what a killed member had to the others."""


@asynccontextmanager
async def kafka(options: Options) -> AsyncIterator[str]:
    """The address of a broker: the mock cluster for a quick run, a real one for a full run."""
    with ExitStack() as stack:
        entered = mock_cluster() if options.quick else running_kafka()
        yield await asyncio.to_thread(stack.enter_context, entered)


Send = Callable[[str, str, JsonObject, str], None]
"""Sends a message: one of TOPICS, key, body, and what the sender calls it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a message came to stand, and when it was sent (Unix seconds)."""

    topic: str
    partition: int
    offset: int
    at: float


class Wire:
    """Topics on a broker which nobody else uses."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers
        self._prefix = uuid4().hex[:8]

    def topic(self, kind: str) -> str:
        """One of TOPICS as it is called here."""
        return f"{self._prefix}.{kind}"

    @property
    def group(self) -> str:
        """The group of the consumers."""
        return f"{self._prefix}-consumers"

    def make(self) -> None:
        """Let the broker make the topics: else the first who ask for them wait for seconds."""
        producer = Producer({"bootstrap.servers": self.brokers, **SILENT})
        for kind in TOPICS:
            for _ in range(MAKE_TRIES_MAX):
                if producer.list_topics(self.topic(kind), 30).topics[self.topic(kind)].partitions:
                    break
                threading.Event().wait(0.1)

    def settings(self) -> dict[str, str]:
        """Of the processes on it."""
        return {
            "FLOWLEDGER_KAFKA_BROKERS": self.brokers,
            "FLOWLEDGER_KAFKA_GROUP_ID": self.group,
            "FLOWLEDGER_KAFKA_BRIDGE_GROUP_ID": f"{self._prefix}-bridges",
            "FLOWLEDGER_KAFKA_OPTIONS": json.dumps({"session.timeout.ms": SESSION_MS}),
            "FLOWLEDGER_OUTBOUND_ALLOW": "127.0.0.1",
            **{f"FLOWLEDGER_KAFKA_{kind.upper()}_TOPIC": self.topic(kind) for kind in TOPICS},
        }

    def reader(self, kind: str) -> Consumer:
        """Of all messages of a topic, from the first one on; a member of no group."""
        consumer = self._member(uuid4().hex)
        partitions = consumer.list_topics(self.topic(kind), 30).topics[self.topic(kind)].partitions
        consumer.assign(
            [TopicPartition(self.topic(kind), each, OFFSET_BEGINNING) for each in partitions]
        )
        return consumer

    def committed(self) -> dict[tuple[str, int], int]:
        """How far the consumers are, as the broker knows it: topic and partition, offset."""
        member = self._member(self.group)
        try:
            found = member.committed(self._partitions(member), 30)
            return {(each.topic, each.partition): max(each.offset, 0) for each in found}
        finally:
            member.close()

    def ends(self) -> dict[tuple[str, int], int]:
        """Where the topics of the consumers end now."""
        member = self._member(self.group)
        try:
            return {
                (each.topic, each.partition): member.get_watermark_offsets(each, 30)[1]
                for each in self._partitions(member)
            }
        finally:
            member.close()

    def _partitions(self, member: Consumer) -> list[TopicPartition]:
        topics = [self.topic(kind) for kind in CONSUMED]
        return [
            TopicPartition(topic, number)
            for topic in topics
            for number in member.list_topics(topic, 30).topics[topic].partitions
        ]

    def _member(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.brokers,
                "group.id": group,
                "enable.auto.commit": False,
                **SILENT,
            }
        )


class Sender:
    """Sends messages in the event loop, and knows where they came to stand."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting = 0
        self._producer = Producer(
            {"bootstrap.servers": wire.brokers, "linger.ms": 1, "message.timeout.ms": 0, **SILENT}
        )

    def send(
        self,
        kind: str,
        key: str,
        body: JsonObject | bytes,
        stands: Callable[[Sent], None] = lambda _: None,
    ) -> None:
        """`stands` is called once the broker has it."""
        at = time.time()
        value = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._waiting += 1

        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            self._waiting -= 1
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert partition is not None
            assert offset is not None
            stands(Sent(topic, partition, offset, at))

        self._producer.produce(self._wire.topic(kind), value, key.encode(), on_delivery=delivered)

    def once(self, kind: str, key: str, body: JsonObject, name: str) -> None:
        """See Send."""
        self.send(kind, key, body)

    async def keep_polling(self) -> None:
        """Hear of deliveries, for ever."""
        while True:
            self._producer.poll(0)
            await asyncio.sleep(POLL_SECONDS)

    async def all_stand(self) -> None:
        """Return once the broker has everything."""
        while self._waiting:  # noqa: ASYNC110 - counted elsewhere
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def sending(wire: Wire) -> AsyncIterator[Sender]:
    """A sender that works while the block lasts."""
    sender = Sender(wire)
    polling = asyncio.create_task(sender.keep_polling())
    try:
        yield sender
    finally:
        polling.cancel()


class Scrambler:
    """Sends every message three times, each copy at a time of its own: all of them are shuffled."""

    COPIES: Final = 3

    def __init__(self, sender: Sender, chance: random.Random, spread_seconds: float) -> None:
        self.copies = 0
        self.firsts: dict[str, Sent] = {}
        """By what was told of it: the copy that was sent first."""
        self._sender = sender
        self._chance = chance
        self._spread = spread_seconds

    def send(self, kind: str, key: str, body: JsonObject, name: str) -> None:
        """Three copies, some time soon; `name` is for `firsts`."""
        loop = asyncio.get_running_loop()

        def stands(sent: Sent) -> None:
            self.copies += 1
            known = self.firsts.get(name)
            if known is None or sent.at < known.at:
                self.firsts[name] = sent

        for _ in range(self.COPIES):
            later = self._chance.uniform(0.0, self._spread)
            loop.call_later(later, self._sender.send, kind, key, body, stands)


@asynccontextmanager
async def tasks_of(wire: Wire, take: Callable[[JsonObject], None]) -> AsyncIterator[None]:
    """Every task of the topic is given to `take`, in the event loop, while the block lasts."""
    loop = asyncio.get_running_loop()
    stopping = threading.Event()

    def read() -> None:
        consumer = wire.reader("task")
        while not stopping.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                loop.call_soon_threadsafe(take, json.loads(message.value() or b""))
        consumer.close()

    reading = asyncio.create_task(asyncio.to_thread(read))
    try:
        yield
    finally:
        stopping.set()
        await reading


def result_of(task: Mapping[str, Any], **output: Any) -> JsonObject:
    """What a trivial agent sends back."""
    names = {name: task[name] for name in ("run_id", "task_id", "correlation_id")}
    return {**names, "status": "SUCCESS", "output_data": {"ok": True, **output}}


def request(run_id: str, plan: JsonObject, number: int) -> JsonObject:
    """The request of another system."""
    return {
        "run_id": run_id,
        "workflow_plan": plan,
        "input_data": {"n": number},
        "message_type": "execution_request",
    }


def plan_of(agent: str, steps: int, action: str | None = None) -> JsonObject:
    """Tasks of one agent in a line; with `action`, every second step is one of the engine's own."""
    line: JsonObject = {}
    for number in range(1, steps + 1):
        own = action is not None and number % 2 == 0
        step: JsonObject = {"action": action} if own else {"agent_name": agent}
        line[f"s{number}"] = step | {"next_step": f"s{number + 1}" if number < steps else None}
    return {"name": "over-kafka", "start_step": "s1", "steps": line}
