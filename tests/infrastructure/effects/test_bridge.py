"""A bridge over the caller of agents: which tasks of the topic are its own."""

from collections.abc import AsyncIterator, Sequence

import pytest

from application.bridge import Bridge
from application.callers import Caller
from application.messages import AgentTask, Message, TransportHealth
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.kafka.reading import read_result
from interfaces.kafka.shapes import Shapes
from interfaces.processes.process import report
from tests.infrastructure.effects.local_servers import http_server, json_answer
from tests.interfaces.kafka.test_shapes import TOPICS

pytestmark = pytest.mark.anyio


class Sent:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        self.messages += messages

    def health(self) -> TransportHealth:
        return TransportHealth(True, "answers")

    async def close(self) -> None:
        pass


@pytest.fixture
async def services(sqlite_ledger_url: str) -> AsyncIterator[Services]:
    opened = await open_services(
        Settings(database_url=sqlite_ledger_url, outbound_allow="127.0.0.1")
    )
    try:
        yield opened
    finally:
        await opened.close()


def task(agent: str) -> AgentTask:
    return AgentTask(
        run_id="run-1",
        task_id="t",
        agent_name=agent,
        input={"q": 1},
        correlation_id="c",
        at=None,
        attempt=1,
        try_no=2,
    )


async def test_a_bridge_calls_agents_of_http_and_leaves_those_who_read_the_topic_alone(
    services: Services,
) -> None:
    sent, agents = Sent(), services.agent_parts
    bridge = Bridge(agents.caller, sent, Shapes(TOPICS), services.store.clock, report, calls_max=1)
    reply = b'{"status": "success", "output": 1}'
    async with http_server(lambda _: json_answer(reply)) as server:
        called = {"name": "called", "url": server.url, "protocol": "simple"}
        await agents.agents.register(Caller(), called)
        await agents.agents.register(Caller(), {"name": "reader", "transport": "kafka"})
        await bridge.perform(task("reader"))
        assert sent.messages == []
        await bridge.perform(task("called"))
    (call,) = server.received
    tried = (call.headers["x-flowledger-attempt"], call.headers["x-flowledger-try"])
    assert tried == ("1", "2")
    assert "x-flowledger-epoch" not in call.headers
    (result,) = (read_result(each) for each in sent.messages)
    assert (result.succeeded, result.output) == (True, 1)
    assert "reader" not in {name for name, _ in agents.caller.calls}


async def test_a_bridge_answers_for_an_agent_that_nobody_registered(services: Services) -> None:
    sent = Sent()
    caller = services.agent_parts.caller
    bridge = Bridge(caller, sent, Shapes(TOPICS), services.store.clock, report, calls_max=1)
    await bridge.perform(task("nobody"))
    (result,) = (read_result(each) for each in sent.messages)
    assert (result.succeeded, result.error_code) == (False, "unknown_agent")
