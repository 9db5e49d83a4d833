"""The relay over the log on both back ends: what it sends, and that nothing is lost on the way."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from msgspec import structs
from uuid_utils.compat import uuid7

from application.dead_letters import DeadLetterOffice
from application.dispatch_notes import DispatchNotes
from application.ledger import Ledger, execution_uuid
from application.messages import (
    AgentTask,
    BrokerAway,
    Message,
    Topics,
    TransportHealth,
    Undeliverable,
)
from application.outside_runs import outside_run
from application.relay import CheckpointMoved, Relay
from application.relay_facts import Telling
from application.requests import ExecuteOptions, Requests
from domain.dispatching import TaskResult
from domain.events import TaskDispatched
from domain.json_values import Json, JsonObject
from infrastructure.database import Store
from infrastructure.dead_letters import DeadLetterTable
from infrastructure.input_schema import JsonSchemas
from infrastructure.outside_rows import StoredOutsideRows
from infrastructure.relay_log import LedgerRelayLog
from infrastructure.settings import Settings
from infrastructure.store_health import StoreThreads
from interfaces.kafka.shapes import Shapes
from interfaces.processes.store_parts import dead_letter_table, projection_store
from tests.builders import Run, linear
from tests.contracts.conftest import OpenStore
from tests.contracts.projected import append_mixed, as_another, stories, story_id
from tests.engine import CALLER, asked, definition, process, step

pytestmark = pytest.mark.anyio

TOPICS = Topics(executions="e", cancellations="c", tasks="t", results="r", monitoring="m")
SECONDS_MAX = 60


class Broker:
    """A publisher that keeps what it is given, or does what a broker does on a bad day."""

    def __init__(self) -> None:
        self.stored: list[Message] = []
        self.down = asyncio.Event()
        self.refuse: Callable[[Message], bool] = lambda _: False
        self.asked = 0
        self.cut_after: int | None = None
        """It stores so many of a batch and is away then, once."""

    async def publish(self, messages: Sequence[Message]) -> None:
        self.asked += 1
        if self.cut_after is not None:
            stored, self.cut_after = self.cut_after, None
            self.stored += messages[:stored]
            raise BrokerAway("the connection is lost")
        refused = [each for each in messages if self.refuse(each)]
        self.stored += [each for each in messages if each not in refused]
        if refused:
            raise Undeliverable(refused[0], "the message is too large")

    def health(self) -> TransportHealth:
        return TransportHealth(True, "answers")

    async def close(self) -> None:
        pass

    def bodies(self, topic: str = "m") -> list[dict[str, Any]]:
        return [json.loads(each.value) for each in self.stored if each.topic == topic]

    def positions(self) -> list[int]:
        return [int(each.header("flowledger-position") or b"") for each in self.stored]

    def told(self, execution: object) -> list[tuple[str, str]]:
        """What was told of one execution, repeats left out."""
        found = [
            (each["step_id"], each["status"])
            for each in self.bodies()
            if each["run_id"] == f"run-{execution}"
        ]
        return list(dict.fromkeys(found))


class Relaying:
    """A relay, its parts, and waiting for it."""

    def __init__(self, relay: Relay, log: LedgerRelayLog, store: Store) -> None:
        self.relay = relay
        self.log = log
        self.store = store

    async def caught_up(self) -> None:
        head = await self.store.log.head()
        self.relay.wake()
        await until(lambda: self.relay.health().position >= head)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(SECONDS_MAX * 100):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to that")


Start = Callable[..., "Relaying"]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def letters(store: Store, ledger_url: str) -> AsyncIterator[DeadLetterTable]:
    made = dead_letter_table(Settings(database_url=ledger_url), store)
    yield made
    await made.close()


@pytest.fixture
def office(letters: DeadLetterTable, store: Store) -> DeadLetterOffice:
    return DeadLetterOffice(letters, store.clock, None)


@pytest.fixture
async def begin(
    store: Store, ledger_url: str, broker: Broker, office: DeadLetterOffice
) -> AsyncIterator[Start]:
    """Start a relay over a store, as a process does."""
    async with AsyncExitStack() as stack:

        def start(over: Store = store, publisher: Broker = broker) -> Relaying:
            log = relay_log(over, ledger_url)
            notes = DispatchNotes(Ledger(over.log, over.clock, uuid7, 1_000_000))
            relay = Relay(
                log, publisher, Shapes(TOPICS), office, over.clock, lambda event, facts: None, notes
            )
            stack.push_async_callback(relay.stop)
            relay.start()
            return Relaying(relay, log, over)

        yield start


def relay_log(store: Store, url: str) -> LedgerRelayLog:
    projected = projection_store(Settings(database_url=url), store, relay=True)
    return LedgerRelayLog(projected, StoreThreads("relay", 1, store.health))


@pytest.fixture
async def set_up(store: Store, ledger_url: str) -> None:
    """Kafka is set up before anything happens."""
    log = relay_log(store, ledger_url)
    await log.begin()
    await log.close()


async def test_steps_and_the_end_are_told_in_order(
    store: Store, begin: Start, broker: Broker, set_up: None
) -> None:
    told = as_another(Run(linear(2)).succeed_all().events, 1)
    await append_mixed(store, [told])
    await begin().caught_up()
    assert broker.told(story_id(1)) == [
        ("s1", "RUNNING"),
        ("s1", "COMPLETED"),
        ("s2", "RUNNING"),
        ("s2", "COMPLETED"),
        ("workflow", "COMPLETED"),
    ]
    first = broker.bodies()[0]
    assert first["metadata"] == {"step_execution_id": f"{story_id(1)}:1:s1:1"}
    assert first["timestamp"].endswith("Z")
    assert broker.positions() == sorted(broker.positions())
    assert {each.key for each in broker.stored} == {f"run-{story_id(1)}".encode()}


async def test_a_failure_is_told_under_both_names(
    store: Store, begin: Start, broker: Broker, set_up: None
) -> None:
    run = Run(linear(2))
    run.go()
    run.fail("s1", "permanent", retryable=False)
    await append_mixed(store, [as_another(run.events, 1)])
    await begin().caught_up()
    assert broker.told(story_id(1)) == [
        ("s1", "RUNNING"),
        ("s1", "FAILED"),
        ("workflow", "FAILED"),
    ]
    end = broker.bodies()[-1]["metadata"]
    assert end["failed_step"] == "s1"
    assert end["error"] == end["error_message"] != ""


async def test_a_cancellation_is_told_with_who_and_why(
    store: Store, begin: Start, broker: Broker, set_up: None
) -> None:
    run = Run(linear(2))
    run.go()
    run.cancel("no longer wanted")
    await append_mixed(store, [as_another(run.events, 1)])
    await begin().caught_up()
    (body,) = broker.bodies("c")
    assert (body["run_id"], body["cancelled_by"], body["reason"]) == (
        f"run-{story_id(1)}",
        "ann",
        "no longer wanted",
    )
    assert broker.told(story_id(1))[-1] == ("workflow", "CANCELLED")


async def test_others_hear_of_a_run_under_the_id_they_gave_it(
    store: Store, begin: Start, broker: Broker, set_up: None
) -> None:
    rows = StoredOutsideRows(store.engine, store.query_threads, store.writes)
    execution_id = execution_uuid("default", "order 7")
    await outside_run(rows, "default", "order 7")
    events = [
        structs.replace(each, execution_id=execution_id)
        for each in Run(linear(1)).succeed_all().events
    ]
    await append_mixed(store, [events])
    await begin().caught_up()
    assert {each["run_id"] for each in broker.bodies()} == {"order 7"}
    assert {each.key for each in broker.stored} == {b"order 7"}


async def test_a_task_of_an_agent_on_a_topic_goes_out_once_it_is_recorded(
    ledger_url: str, begin: Start, broker: Broker, set_up: None
) -> None:
    async with process(ledger_url, agents={"topic": "kafka", "puller": "pull"}) as engine:
        asked_for = {"test_input": "integration_test"}
        execution = await engine.run(
            definition(a=asked("topic", input_mapping=asked_for), b=asked("puller"))
        )
        relaying = begin(engine.store)
        await until(lambda: bool(broker.bodies("t")))
        (task,) = broker.bodies("t")
        assert task["run_id"] == execution.run_id
        assert task["agent_name"] == "topic"
        assert task["input_data"] == asked_for
        (running,) = broker.bodies("m")
        assert (running["step_id"], running["status"]) == ("a", "RUNNING")
        assert running["metadata"]["task_id"] == task["task_id"]
        result = TaskResult(correlation_id=task["correlation_id"], output={"ok": True})
        await engine.results.record("default", task["run_id"], task["task_id"], result)
        await relaying.caught_up()
        assert broker.told(execution.id) == [
            ("a", "RUNNING"),
            ("a", "COMPLETED"),
            ("b", "RUNNING"),
        ]
        assert len(broker.bodies("t")) == 1, "the task of the other agent is not for the topic"
        await relaying.relay.stop()


async def test_a_task_has_the_input_of_a_start_that_was_sent_long_before(
    ledger_url: str, store: Store, set_up: None
) -> None:
    """Both may be in different batches; then the log is asked."""
    async with process(ledger_url, agents={"topic": "kafka"}) as engine:
        execution = await engine.run(definition(a=asked("topic", input_mapping={"x": 1})))
        while not any(isinstance(f, TaskDispatched) for f in await engine.facts(execution)):
            await engine.history.wait_changed("default", execution.id, 1, 0.05)
        log = relay_log(engine.store, ledger_url)
        events = [each.event for each in await engine.store.log.read_all(limit=1_000)]
        (dispatched,) = [each for each in events if isinstance(each.data, TaskDispatched)]
        ((_, told),) = await Telling(log).facts([dispatched])
        assert isinstance(told, AgentTask)
        assert told.input == {"x": 1}
        await log.close()


async def test_what_starts_by_its_request_is_asked_for_with_its_plan(
    ledger_url: str, begin: Start, broker: Broker, set_up: None
) -> None:
    async with process(ledger_url) as engine:
        requests = Requests(
            engine.ledger, engine.workflows, engine.worker, JsonSchemas(), over_kafka=lambda: None
        )
        plan = {**definition(a=step(config={"n": 1})), "name": "known", "x-mine": True}
        await engine.workflows.publish(CALLER, plan)
        options = ExecuteOptions(input_data={"test_value": "integration_test"})
        first = (await requests.execute(CALLER, "known", options)).view
        second = (await requests.execute_inline(CALLER, definition(b=step()), options)).view
        own = await engine.run(definition(c=step()))
        await engine.ended(own)
        await begin(engine.store).caught_up()
        published, inline = broker.bodies("e")
        assert published == {
            "run_id": first.run_id,
            "workflow_plan": {**plan, "workflow_id": "wf-known-1", "version": "1"},
            "input_data": {"test_value": "integration_test"},
            "timestamp": published["timestamp"],
            "message_type": "execution_request",
        }
        assert inline["run_id"] == second.run_id
        assert inline["workflow_plan"]["steps"].keys() == {"b"}
        keys = [each.key for each in broker.stored if each.topic == "e"]
        assert keys == [first.run_id.encode(), second.run_id.encode()]


class Away(Broker):
    """A broker that takes nothing until it is back."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> None:
        await self.back.wait()
        await super().publish(messages)

    def health(self) -> TransportHealth:
        return TransportHealth(self.back.is_set(), "Kafka is away")


async def test_executions_say_why_their_request_waits(
    ledger_url: str, store: Store, office: DeadLetterOffice, set_up: None
) -> None:
    """Also those that were taken when nobody knew yet that the broker was away."""
    async with process(ledger_url) as engine:
        requests = Requests(
            engine.ledger, engine.workflows, engine.worker, JsonSchemas(), over_kafka=lambda: None
        )
        asked_for = await requests.execute_inline(CALLER, definition(b=step()), ExecuteOptions())
        view, broker = asked_for.view, Away()
        relay = Relay(
            relay_log(engine.store, ledger_url),
            broker,
            Shapes(TOPICS),
            office,
            engine.store.clock,
            lambda event, facts: None,
            DispatchNotes(engine.ledger),
        )
        relay.start()
        try:
            seen = await engine.until(view, lambda each: each.error_message is not None)
            assert (seen.status, seen.error_message) == (
                "PENDING",
                "Kafka is away",
            )
            row = await engine.store.queue.row(UUID(view.id))
            assert row is not None
            assert row.ready_at is None
            broker.back.set()
            await until(lambda: len(broker.bodies("e")) == 1)
        finally:
            await relay.stop()
        assert (await engine.topics(view)).count("dispatch_failed") == 1


async def test_what_happened_before_kafka_was_set_up_is_told_to_nobody(
    store: Store, ledger_url: str, begin: Start, broker: Broker
) -> None:
    await append_mixed(store, [as_another(Run(linear(1)).succeed_all().events, 1)])
    log = relay_log(store, ledger_url)
    await log.begin()
    await log.close()
    await append_mixed(store, [as_another(Run(linear(1)).succeed_all().events, 2)])
    await begin().caught_up()
    assert broker.told(story_id(1)) == []
    assert broker.told(story_id(2))[-1] == ("workflow", "COMPLETED")


async def test_after_a_crash_before_the_checkpoint_messages_come_again_in_order(
    store: Store, open_ledger: OpenStore, begin: Start, broker: Broker, set_up: None
) -> None:
    """At least once: what the broker took and the checkpoint does not know is sent again."""
    await append_mixed(store, stories())
    broker.cut_after = 7
    first = begin()
    await first.caught_up()
    await first.relay.stop()
    expected = await all_told(store)
    assert len(expected) > 30
    assert broker.stored == [*expected[:7], *expected]


async def all_told(store: Store) -> list[Message]:
    """Everything that the log tells, in the order of the log."""

    class Nothing:
        async def outside_names(self, executions: object) -> dict[UUID, str]:
            return {}

        async def input_of(self, execution_id: UUID, path: str, attempt: int, try_no: int) -> Json:
            raise AssertionError("no agent is asked here")

        async def published(self, workflow: UUID, number: int) -> JsonObject:
            raise AssertionError("nothing starts by its request here")

    found = await store.log.read_all(limit=10_000)
    positions = {id(each.event): each.position for each in found}
    told = await Telling(Nothing()).facts([each.event for each in found])
    return [Shapes(TOPICS)(fact, positions[id(event)]) for event, fact in told]


async def test_one_process_sends_and_another_takes_over(
    store: Store, open_ledger: OpenStore, begin: Start, broker: Broker, set_up: None
) -> None:
    second_broker = Broker()
    first = begin()
    await until(lambda: first.relay.health().leading)
    second = begin(await open_ledger(worker="w2"), second_broker)
    await append_mixed(store, stories())
    await first.caught_up()
    assert second_broker.stored == []
    assert not second.relay.health().leading
    await first.relay.stop()
    await append_mixed(store, [as_another(Run(linear(1)).succeed_all().events, 900)])
    await second.caught_up()
    assert second_broker.told(story_id(900))[-1] == ("workflow", "COMPLETED")
    assert set(broker.positions()) & set(second_broker.positions()) == set()


async def test_its_figures_tell_what_it_sent_and_how_far_it_is_behind(
    store: Store, open_ledger: OpenStore, begin: Start, broker: Broker, set_up: None
) -> None:
    broker.refuse = lambda each: json.loads(each.value)["step_id"] == "s1"
    broker.cut_after = 0
    first = begin()
    await append_mixed(store, [as_another(Run(linear(2)).succeed_all().events, 1)])
    await first.caught_up()
    seen = await first.relay.figures()
    assert (seen.leading, seen.waits, seen.lag_events, seen.failures) == (True, False, 0, 1)
    assert seen.messages == {("m", "sent"): 3, ("m", "refused"): 2}
    waiting = begin(await open_ledger(worker="w2"), away := Away())
    idle = await waiting.relay.figures()
    assert (idle.leading, idle.lag_events, idle.messages) == (False, None, {})
    await first.relay.stop()
    await until(lambda: waiting.relay.health().leading)
    await append_mixed(store, [as_another(Run(linear(1)).succeed_all().events, 2)])
    behind = await store.log.head() - waiting.relay.health().position
    seen = await waiting.relay.figures()
    assert (seen.leading, seen.waits, seen.lag_events) == (True, True, behind)
    assert behind > 0
    away.back.set()
    await waiting.caught_up()
    assert (await waiting.relay.figures()).lag_events == 0


async def test_a_message_that_nobody_takes_is_put_aside_and_the_rest_is_sent(
    store: Store, begin: Start, broker: Broker, office: DeadLetterOffice, set_up: None
) -> None:
    broker.refuse = lambda each: json.loads(each.value)["step_id"] == "s1"
    await append_mixed(store, [as_another(Run(linear(2)).succeed_all().events, 1)])
    await begin().caught_up()
    assert broker.told(story_id(1)) == [
        ("s2", "RUNNING"),
        ("s2", "COMPLETED"),
        ("workflow", "COMPLETED"),
    ]
    kept = (await office.list(status="OPEN", topic="m", page=1, page_size=10)).items
    assert len(kept) == 2
    assert {each.partition for each in kept} == {-1}
    assert all("too large" in each.cause for each in kept)


async def test_a_checkpoint_moves_only_from_where_it_stands(
    store: Store, ledger_url: str, set_up: None
) -> None:
    log = relay_log(store, ledger_url)
    await log.move(0, 5)
    with pytest.raises(CheckpointMoved):
        await log.move(0, 9)
    assert await log.position() == 5
    await log.close()
