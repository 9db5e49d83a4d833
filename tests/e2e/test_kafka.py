"""Requests and agents over a real broker: serve, consumer, bridge and an agent as four programs."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from confluent_kafka import Consumer, Producer

from tests.e2e.fleet import API, PATIENCE_LOOKS, get
from tests.e2e.programs import COMMAND, Server, program
from tests.kafka.broker import KafkaBroker

AGENT = Path(__file__).with_name("echo_agent.py")
TOPICS = {
    "FLOWLEDGER_KAFKA_EXECUTION_TOPIC": "executions",
    "FLOWLEDGER_KAFKA_CANCELLATION_TOPIC": "cancellations",
    "FLOWLEDGER_KAFKA_TASK_TOPIC": "tasks",
    "FLOWLEDGER_KAFKA_RESULT_TOPIC": "results",
    "FLOWLEDGER_KAFKA_MONITORING_TOPIC": "monitoring",
}
CLIENT = {"log_level": 0}
pytestmark = pytest.mark.timeout(300)
INPUT = {"input_data": {"test_value": "integration_test"}}


class Installation:
    """Programs on one database and one broker, with topics of their own."""

    def __init__(self, stack: ExitStack, database: str, brokers: str, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._brokers = brokers
        prefix = uuid4().hex[:8]
        self.topics = {name: f"{prefix}.{kind}" for name, kind in TOPICS.items()}
        self._settings = {
            "FLOWLEDGER_DATABASE_URL": database,
            "FLOWLEDGER_KAFKA_BROKERS": brokers,
            "FLOWLEDGER_KAFKA_GROUP_ID": f"{prefix}-consumers",
            "FLOWLEDGER_KAFKA_BRIDGE_GROUP_ID": f"{prefix}-bridges",
            "FLOWLEDGER_START": "kafka",
            "FLOWLEDGER_AGENT_TRANSPORT": "kafka",
            "FLOWLEDGER_OUTBOUND_ALLOW": "127.0.0.1",
            **self.topics,
        }

    def start(self, kind: str, *options: str) -> Server:
        """`flowledger KIND`, ready."""
        return self._program([str(COMMAND), kind, *options])

    def agent(self) -> Server:
        """An agent that answers with what it is sent."""
        return self._program([sys.executable, str(AGENT)])

    def _program(self, command: list[str]) -> Server:
        folder = self._folder / uuid4().hex
        folder.mkdir()
        return self._stack.enter_context(program(command, cwd=folder, more=self._settings))

    def send(self, topic: str, key: str, body: dict[str, Any]) -> None:
        """A message of another system."""
        producer = Producer({"bootstrap.servers": self._brokers, **CLIENT})
        producer.produce(self.topics[topic], json.dumps(body).encode(), key.encode())
        assert producer.flush(30) == 0

    def received(self, topic: str, enough: int) -> list[dict[str, Any]]:
        """The bodies of the messages of a topic, once there are `enough`."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._brokers,
                "group.id": uuid4().hex,
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 1_000,
                **CLIENT,
            }
        )
        consumer.subscribe([self.topics[topic]])
        found: list[dict[str, Any]] = []
        try:
            for _ in range(PATIENCE_LOOKS):
                message = consumer.poll(0.1)
                if message is not None and message.error() is None:
                    found.append(json.loads(message.value() or b""))
                if len(found) >= enough:
                    return found
        finally:
            consumer.close()
        raise AssertionError(f"{topic} has {found}")


@pytest.fixture
def breakable(postgres_dsn: str, own_kafka: KafkaBroker, tmp_path: Path) -> Iterator[Installation]:
    """Its broker can be killed."""
    with ExitStack() as stack:
        yield Installation(stack, postgres_dsn, own_kafka.address, tmp_path)


@pytest.fixture
def installation(postgres_dsn: str, real_kafka: str, tmp_path: Path) -> Iterator[Installation]:
    with ExitStack() as stack:
        yield Installation(stack, postgres_dsn, real_kafka, tmp_path)


def post(server: Server, path: str, body: dict[str, Any], status: int) -> Any:
    answer = httpx2.post(f"{server.address}{API}{path}", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()


def plan(*steps: str) -> dict[str, Any]:
    """Agents one after the other; exactly what a client sends: no type, a version of text."""
    following = [*steps[1:], None]
    return {
        "workflow_id": "wf-demo-1",
        "name": "demo",
        "version": "1",
        "start_step": steps[0],
        "steps": {
            step: {
                "id": step,
                "agent_name": "test-agent",
                "next_step": after,
                "input_mapping": {"test_input": "$.workflow_input.test_value"},
            }
            for step, after in zip(steps, following, strict=True)
        },
    }


def test_the_walk_of_a_run_over_kafka(installation: Installation) -> None:
    serve = installation.start("serve", "--port", "0")
    agent = installation.agent()
    post(serve, "/agents", {"name": "test-agent", "url": agent.address}, 201)
    definition = plan("step1")
    del definition["workflow_id"], definition["version"]
    workflow = post(serve, "/workflows", definition, 201)
    asked = post(serve, f"/workflows/{workflow['id']}/execute", INPUT, 202)
    assert asked["status"] == "PENDING"
    (request,) = installation.received("FLOWLEDGER_KAFKA_EXECUTION_TOPIC", 1)
    assert (request["run_id"], request["message_type"]) == (asked["run_id"], "execution_request")
    assert request["workflow_plan"]["steps"]["step1"]["agent_name"] == "test-agent"
    # Nobody consumes yet: it waits, whoever else works on the database.
    run = f"{API}/runs/{asked['run_id']}"
    assert get(serve, run).json()["status"] == "PENDING"
    consumer = installation.start("consumer", "--health-port", "0")
    (task,) = installation.received("FLOWLEDGER_KAFKA_TASK_TOPIC", 1)
    assert get(serve, run).json()["status"] == "RUNNING"
    assert task["run_id"] == asked["run_id"]
    assert task["task_id"].startswith("task-step1-")
    assert task["correlation_id"].startswith(f"corr-{asked['run_id']}-step1-")
    assert task["input_data"] == {"test_input": "integration_test"}
    bridge = installation.start("bridge", "--health-port", "0")
    ended = get(serve, f"{API}/executions/{asked['id']}", wait=60).json()
    assert ended["status"] == "COMPLETED", ended["error_message"]
    (result,) = installation.received("FLOWLEDGER_KAFKA_RESULT_TOPIC", 1)
    assert (result["status"], result["error_message"]) == ("SUCCESS", None)
    assert result["correlation_id"] == task["correlation_id"]
    (step,) = get(serve, f"{run}/steps").json()
    assert (step["step_id"], step["agent_name"]) == ("step1", "test-agent")
    assert (step["status"], step["output_data"]["text"]) == (
        "COMPLETED",
        '{"test_input": "integration_test"}',
    )
    updates = installation.received("FLOWLEDGER_KAFKA_MONITORING_TOPIC", 3)
    assert [(each["step_id"], each["status"]) for each in updates] == [
        ("step1", "RUNNING"),
        ("step1", "COMPLETED"),
        ("workflow", "COMPLETED"),
    ]
    assert updates[0]["metadata"] == {
        "step_execution_id": step["id"],
        "task_id": task["task_id"],
    }
    figures = get(bridge, "/metrics").text
    assert 'flowledger_agent_calls_total{agent="test-agent",outcome="completed"} 1.0' in figures
    assert 'outcome="taken"' in get(consumer, "/metrics").text


def test_a_request_from_outside_and_what_is_wrong_with_others(installation: Installation) -> None:
    serve = installation.start("serve", "--port", "0")
    agent = installation.agent()
    post(serve, "/agents", {"name": "test-agent", "url": agent.address}, 201)
    installation.start("consumer")
    installation.start("bridge")
    run_id = "run-5f0c-not-a-uuid"
    body = {
        "run_id": run_id,
        "workflow_plan": plan("one", "two"),
        **INPUT,
        "timestamp": "2025-01-01T00:00:00",
        "message_type": "execution_request",
    }
    for _ in range(3):
        installation.send("FLOWLEDGER_KAFKA_EXECUTION_TOPIC", run_id, body)
    nobody = {"run_id": "run-bad", "workflow_plan": {"name": "x", "steps": {}}}
    installation.send("FLOWLEDGER_KAFKA_EXECUTION_TOPIC", "run-bad", nobody)
    updates = installation.received("FLOWLEDGER_KAFKA_MONITORING_TOPIC", 5)
    assert [(each["run_id"], each["step_id"], each["status"]) for each in updates] == [
        (run_id, "one", "RUNNING"),
        (run_id, "one", "COMPLETED"),
        (run_id, "two", "RUNNING"),
        (run_id, "two", "COMPLETED"),
        (run_id, "workflow", "COMPLETED"),
    ]
    run = get(serve, f"{API}/runs/{run_id}").json()
    assert (run["status"], run["workflow_id"], run["triggered_by"]) == (
        "COMPLETED",
        "wf-demo-1",
        "kafka",
    )
    cancel = {"run_id": "run-unknown", "cancelled_by": "tester", "reason": "no more"}
    installation.send("FLOWLEDGER_KAFKA_CANCELLATION_TOPIC", "run-unknown", cancel)
    strange = {"run_id": run_id, "task_id": "t", "correlation_id": "c", "status": "SUCCESS"}
    installation.send("FLOWLEDGER_KAFKA_RESULT_TOPIC", "c", strange)
    for _ in range(PATIENCE_LOOKS):
        letters = get(serve, f"{API}/dead-letters").json()
        if letters["total"] == 3:
            break
    causes = {each["topic"].partition(".")[2]: each["cause"] for each in letters["items"]}
    assert "start_step" in causes["executions"]
    assert "There is no execution" in causes["cancellations"]
    assert "no task with the correlation id" in causes["results"]


def test_while_kafka_is_away_executions_are_taken_and_say_so(
    breakable: Installation, own_kafka: KafkaBroker
) -> None:
    serve = breakable.start("serve", "--port", "0")
    agent = breakable.agent()
    post(serve, "/agents", {"name": "test-agent", "url": agent.address}, 201)
    breakable.start("consumer")
    breakable.start("bridge")
    definition = plan("step1", "step2")
    del definition["workflow_id"], definition["version"]
    first = post(serve, "/executions", {"definition": definition, **INPUT}, 202)
    assert get(serve, f"{API}/executions/{first['id']}", wait=60).json()["status"] == "COMPLETED"
    own_kafka.kill()
    waiting = [
        post(serve, "/executions", {"definition": definition, **INPUT}, 202) for _ in range(5)
    ]
    for each in waiting:
        for _ in range(PATIENCE_LOOKS):
            seen = get(serve, f"{API}/executions/{each['id']}").json()
            if seen["error_message"]:
                break
        assert (seen["status"], "Kafka" in seen["error_message"]) == ("PENDING", True)
    own_kafka.start()
    for each in waiting:
        ended = get(serve, f"{API}/executions/{each['id']}", wait=60).json()
        assert (ended["status"], ended["error_message"]) == ("COMPLETED", None)


def test_executions_of_a_killed_consumer_end_in_the_other_one(installation: Installation) -> None:
    """In the middle of many: all end, and each step has one recorded outcome."""
    serve = installation.start("serve", "--port", "0")
    agent = installation.agent()
    post(serve, "/agents", {"name": "test-agent", "url": agent.address}, 201)
    leases = ("--lease-seconds", "1.5", "--health-port", "0")
    consumers = [installation.start("consumer", *leases) for _ in range(2)]
    installation.start("bridge")
    definition = plan("one", "two")
    del definition["workflow_id"], definition["version"]
    items = [{"definition": definition, **INPUT} for _ in range(60)]
    answer = post(serve, "/executions/batch", {"items": items}, 202)
    ids = [each["execution"]["id"] for each in answer["items"]]
    first_that_works(consumers).process.kill()
    for each in ids:
        ended = get(serve, f"{API}/executions/{each}", wait=60).json()
        assert ended["status"] == "COMPLETED", ended["error_message"]
        steps = get(serve, f"{API}/runs/{each}/steps").json()
        assert [step["status"] for step in steps] == ["COMPLETED", "COMPLETED"]


def first_that_works(consumers: list[Server]) -> Server:
    """The one that is seen first to have claimed something."""
    for _ in range(PATIENCE_LOOKS):
        for each in consumers:
            if "flowledger_executions_claimed_total 0.0" not in get(each, "/metrics").text:
                return each
    raise AssertionError("nobody claims anything")
