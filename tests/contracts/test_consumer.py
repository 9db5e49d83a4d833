"""A consumer on the mock cluster and on both back ends: repeats, poison, a database that goes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from application.messages import Message
from domain.errors import NotReady
from domain.recovery_rules import DEFAULT_RULES
from infrastructure.database import open_store
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.effects.variables import SetVariables
from infrastructure.kafka.client import KafkaAddress
from infrastructure.kafka.publisher import KafkaPublisher
from infrastructure.migrations import migrate
from infrastructure.settings import Settings
from interfaces.processes.consuming import ConsumerProcess
from interfaces.processes.store_parts import store_options
from tests.builders import linear
from tests.faults.owned_postgres import owned_postgres

pytestmark = pytest.mark.anyio

SECONDS_MAX = 60
PLAN = {**linear(2, config={"variables": {"x": 1}}), "name": "two"}


class Sent:
    """Topics of a test's own, and what is written there."""

    def __init__(self, brokers: str) -> None:
        prefix = uuid4().hex[:8]
        self.brokers = brokers
        self.executions, self.cancellations = f"{prefix}.e", f"{prefix}.c"
        self.results, self.group = f"{prefix}.r", f"{prefix}.group"
        self._publisher = KafkaPublisher(KafkaAddress(brokers=brokers))

    async def __call__(self, topic: str, *bodies: dict[str, Any] | bytes) -> None:
        await self._publisher.publish(
            [
                Message(topic=topic, key=uuid4().bytes, value=value)
                for body in bodies
                for value in [body if isinstance(body, bytes) else json.dumps(body).encode()]
            ]
        )

    async def close(self) -> None:
        await self._publisher.close()

    def settings(self, url: str) -> Settings:
        return Settings(
            database_url=url,
            kafka_brokers=self.brokers,
            kafka_execution_topic=self.executions,
            kafka_cancellation_topic=self.cancellations,
            kafka_result_topic=self.results,
            kafka_group_id=self.group,
        )


@pytest.fixture
async def sent(mock_kafka: str) -> AsyncIterator[Sent]:
    made = Sent(mock_kafka)
    yield made
    await made.close()


@asynccontextmanager
async def consumer(settings: Settings) -> AsyncIterator[ConsumerProcess]:
    """One, as `flowledger consumer` opens it."""
    outbound, secrets = Outbound(settings.allow), Secrets({})
    actions = ActionRegistry([SetVariables()], secrets)
    store = open_store(settings.database_url, store_options(settings))
    process = ConsumerProcess(settings, store, outbound, actions, DEFAULT_RULES, secrets)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.close)
        await process.start()
        yield process


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not await condition():  # noqa: ASYNC110 - any condition, most tell nobody
            await asyncio.sleep(0.02)


def handled(process: ConsumerProcess, outcome: str) -> int:
    counts = process.handled.messages.items()
    return sum(count for (_, each), count in counts if each == outcome)


def request(run_id: object) -> dict[str, Any]:
    return {"run_id": str(run_id), "workflow_plan": PLAN}


async def ended(process: ConsumerProcess, run_ids: list[UUID]) -> bool:
    try:
        found = [await process.ledger.load(each) for each in run_ids]
    except NotReady:  # the database has just come back
        return False
    return all(each is not None and each.state.status == "COMPLETED" for each in found)


async def test_messages_that_come_again_and_poison(ledger_url: str, sent: Sent) -> None:
    """Every request three times in any order, among what nobody can take: one execution each."""
    run_ids = [uuid4() for _ in range(20)]
    poison = [b"not json", {"run_id": "x"}, {"run_id": "y", "workflow_plan": {"name": "z"}}]
    async with consumer(sent.settings(ledger_url)) as process:
        requests = [request(each) for each in run_ids]
        await sent(sent.executions, *requests, *poison, *reversed(requests), *requests)
        unknown = {"run_id": "run-unknown", "cancelled_by": "ann"}
        await sent(sent.cancellations, unknown)
        await until(lambda: ended(process, run_ids))

        async def all_taken() -> bool:
            return (handled(process, "taken"), handled(process, "poison")) == (60, 4)

        await until(all_taken)
        letters = await process.dead_letters.list(status=None, topic=None, page=1, page_size=10)
        causes = sorted(each.cause for each in letters.items)
        assert len(causes) == 4
        assert [each for each in causes if "run-unknown" in each]
        for each in run_ids:
            events = await process.ledger.read(each)
            kinds = [recorded.event.data.TOPIC for recorded in events]
            assert kinds.count("execution.requested.v1") == 1
            assert kinds.count("execution.step_completed.v1") == 2
        seen = await process.observe()
        assert seen.message_lag is not None
        assert set(seen.message_lag) == {sent.executions, sent.cancellations, sent.results}
        told = (await process.checks())["kafka"]
        assert told.ok
        assert told.detail == f"the topic {sent.results} does not exist yet"


async def test_a_cancellation_that_the_log_told_is_no_news(ledger_url: str, sent: Sent) -> None:
    """The run may have been retried since."""
    run_id = uuid4()
    async with consumer(sent.settings(ledger_url)) as process:
        told = json.dumps({"run_id": f"run-{run_id}", "cancelled_by": "ann"}).encode()
        own = Message(
            topic=sent.cancellations,
            key=None,
            value=told,
            headers=(("flowledger-position", b"7"),),
        )
        publisher = KafkaPublisher(KafkaAddress(brokers=sent.brokers))
        await publisher.publish([own])
        await publisher.close()

        async def taken() -> bool:
            return handled(process, "taken") == 1

        await until(taken)
        assert handled(process, "poison") == 0


async def test_while_the_database_is_away_messages_wait(sent: Sent) -> None:
    """Nothing is committed and nothing is lost; what came meanwhile is taken when it is back."""
    async with owned_postgres() as server:
        url = await asyncio.to_thread(server.create_database, migrate.upgrade)
        async with consumer(sent.settings(url)) as process:
            first = uuid4()
            await sent(sent.executions, request(first))
            await until(lambda: ended(process, [first]))
            await asyncio.to_thread(server.kill)
            run_ids = [uuid4() for _ in range(10)]
            await sent(sent.executions, *[request(each) for each in run_ids])

            async def waits() -> bool:
                return "messages wait" in process.receiver.health().detail

            await until(waits)
            assert not (await process.checks())["store"].ok
            assert handled(process, "taken") == 1
            await server.revive()
            await until(lambda: ended(process, run_ids))
            assert handled(process, "poison") == 0
