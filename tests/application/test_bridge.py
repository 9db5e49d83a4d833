"""A bridge: one call per task, one result for it, and what it does when either is refused."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from application.bridge import Bridge
from application.messages import (
    AgentResult,
    AgentTask,
    BrokerAway,
    Message,
    Topics,
    TransportHealth,
    Undeliverable,
)
from application.ports import StoreUnavailable
from application.steps import Failed, StepOutcome, Succeeded
from domain.definition import NESTING_MAX
from interfaces.kafka.reading import read_result, read_task
from interfaces.kafka.shapes import Shapes

pytestmark = pytest.mark.anyio

TOPICS = Topics(executions="e", cancellations="c", tasks="t", results="r", monitoring="m")
TASK = AgentTask(
    run_id="run-7",
    task_id="task-a-1",
    agent_name="scorer",
    input={"text": "hello"},
    correlation_id="corr-1",
    at=None,
)
PASSING = Failed("http_status", "HTTP 503: busy", "transient")
FOR_EVER = Failed("unknown_agent", "no agent is named 'scorer'", "permanent", retryable=False)


class Clock:
    """Time that passes at once; remembers the sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def call_at(self, when: datetime, callback: Any) -> Any:
        raise AssertionError("a bridge has no timers")


class Parts:
    """A caller that has the outcomes of `outcomes`, the last one for ever, and a publisher that
    refuses what is larger than `bytes_max`.
    """

    def __init__(self, *outcomes: StepOutcome) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[AgentTask] = []
        self.at_once = 0
        self.at_once_max = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.bytes_max = 10_000
        self.away = 0
        """How often the broker refuses before it takes anything."""
        self.reports: list[str] = []
        self.sent: list[Message] = []
        self.clock = Clock()

    async def call_for(self, workspace_id: str, task: AgentTask) -> StepOutcome:
        assert workspace_id == "default"
        self.calls.append(task)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.away:
            self.away -= 1
            raise BrokerAway("Kafka did not take a message for r: no such topic")
        for message in messages:
            if len(message.value) > self.bytes_max:
                raise Undeliverable(message, "the message is too large")
            self.sent.append(message)

    def health(self) -> TransportHealth:
        return TransportHealth(True, "answers")

    async def close(self) -> None:
        pass

    def bridge(self, **options: int) -> Bridge:
        given = {"calls_max": 5, **options}
        return Bridge(self, self, Shapes(TOPICS), self.clock, self._report, **given)

    def _report(self, event: str, facts: dict[str, object]) -> None:
        self.reports.append(f"{event}: {facts['cause']}")

    def results(self) -> list[AgentResult]:
        return [read_result(each) for each in self.sent]


async def test_a_task_is_one_call_and_one_result() -> None:
    parts = Parts(Succeeded({"score": 1}))
    await parts.bridge().perform(TASK)
    assert parts.calls == [TASK]
    (message,) = parts.sent
    assert (message.topic, message.key) == ("r", b"corr-1")
    (result,) = parts.results()
    assert (result.run_id, result.task_id, result.correlation_id) == ("run-7", "task-a-1", "corr-1")
    assert (result.succeeded, result.output) == (True, {"score": 1})


@pytest.mark.parametrize("failed", [PASSING, FOR_EVER])
async def test_a_failure_is_a_result_that_says_what_is_known(failed: Failed) -> None:
    parts = Parts(failed)
    await parts.bridge().perform(TASK)
    (result,) = parts.results()
    assert len(parts.calls) == 1
    assert (result.succeeded, result.error_message) == (False, failed.message)
    told = (result.error_code, result.error_class, result.retryable)
    assert told == (failed.code, failed.error_class, failed.retryable)


async def test_a_bridge_of_another_engine_tries_again() -> None:
    parts = Parts(PASSING, PASSING, Succeeded({"n": 3}))
    await parts.bridge(retries=3).perform(TASK)
    (result,) = parts.results()
    assert (result.succeeded, len(parts.calls)) == (True, 3)
    assert parts.clock.slept == [1.0, 2.0]
    final = Parts(FOR_EVER)
    await final.bridge(retries=3).perform(TASK)
    assert (len(final.calls), len(final.sent)) == (1, 1)


async def test_while_agents_cannot_be_looked_up_the_task_waits() -> None:
    parts = Parts(Failed("registry_unavailable", "agents cannot be looked up", "transient"))
    with pytest.raises(StoreUnavailable, match="cannot be looked up"):
        await parts.bridge().perform(TASK)
    assert parts.sent == []


async def test_a_result_that_no_message_can_hold_fails_the_step() -> None:
    parts = Parts(Succeeded({"text": "x" * 20_000}))
    await parts.bridge().perform(TASK)
    (result,) = parts.results()
    assert (result.error_code, result.retryable) == ("result_not_sendable", False)
    assert "too large" in (result.error_message or "")


async def test_a_result_that_the_broker_does_not_take_now_waits_and_is_no_other_call() -> None:
    """As while the topic of results is missing: the task would be a dead letter at the third."""
    parts = Parts(Succeeded({"score": 1}))
    parts.away = 4
    await parts.bridge().perform(TASK)
    (result,) = parts.results()
    assert (len(parts.calls), result.succeeded) == (1, True)
    assert parts.clock.slept == [1.0, 2.0, 4.0, 8.0]
    assert parts.reports == ["result_waits: Kafka did not take a message for r: no such topic"]


async def test_calls_are_bounded() -> None:
    parts = Parts(Succeeded({}))
    parts.gate.clear()
    bridge = parts.bridge(calls_max=3)
    tasks = [asyncio.create_task(bridge.perform(TASK)) for _ in range(10)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert parts.at_once == 3
    parts.gate.set()
    await asyncio.gather(*tasks)
    assert (parts.at_once_max, len(parts.sent)) == (3, 10)


def test_a_task_carries_the_key_of_its_step_in_a_header() -> None:
    sent = Shapes(TOPICS)(
        AgentTask(
            run_id="run-7",
            task_id="t",
            agent_name="scorer",
            input={},
            correlation_id="c",
            at=None,
            idempotency_key="e:1:a",
        )
    )
    assert read_task(sent).idempotency_key == "e:1:a"
    deep = "e:1:" + "/".join(["n" * 128] * (2 * NESTING_MAX + 1))
    assert read_task(Shapes(TOPICS)(structs.replace(TASK, idempotency_key=deep))) == (
        structs.replace(TASK, idempotency_key=deep)
    )
    bare = Message(topic="t", key=None, value=sent.value)
    assert read_task(bare).idempotency_key is None
    spoiled = Message(
        topic="t", key=None, value=sent.value, headers=((sent.headers[-1][0], b"\r\nX: y"),)
    )
    assert read_task(spoiled).idempotency_key is None
