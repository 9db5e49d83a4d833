"""What the pages say of agents holds: examples run as shown, answers become what a table says."""

import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer

from application.callers import Caller
from application.messages import AgentTask, Message
from application.requests import ExecuteOptions
from domain.json_values import JsonObject
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.kafka.reading import read_result
from interfaces.kafka.shapes import Shapes
from tests.documented_walks import walk_through
from tests.e2e.programs import EXAMPLES, ROOT, program
from tests.infrastructure.effects.local_servers import Received, answer, http_server, json_answer
from tests.interfaces.kafka.test_shapes import TOPICS

PAGE: Final = "docs/how-to/write-an-agent.md"
AGENTS: Final = EXAMPLES / "agents"
PROGRAMS: Final = {  # every machine has the first; CI has the others, too
    ".py": sys.executable,
    ".mjs": shutil.which("node"),
}
CALLED: Final = [
    [started, str(file)]
    for file in sorted(AGENTS.glob("http_agent.*"))
    if (started := PROGRAMS[file.suffix]) is not None
]
SECONDS_MAX: Final = 60
_RECEIVED: Final = re.compile(r"^<!-- received -->\n```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIGITS: Final = re.compile(r"(?<=task-count-)[0-9a-f]{16}")
_CELL: Final = re.compile(r"(?<!\\)\|")


def page() -> str:
    return (ROOT / PAGE).read_text("utf-8")


@pytest.mark.parametrize("command", CALLED, ids=lambda command: Path(command[1]).name)
def test_an_example_agent_does_the_step_of_the_walk(command: list[str], tmp_path: Path) -> None:
    with program([*command, "0"], cwd=tmp_path) as agent:
        said = walk_through(
            PAGE,
            tmp_path,
            {"FLOWLEDGER_OUTBOUND_ALLOW": "127.0.0.1"},
            {"http://127.0.0.1:8700": agent.address},
        )
    assert '"status":"healthy"' in said
    assert '"output":{"words":5,"longest":"ledger"}' in said
    assert '"agent_name":"counter"' in said
    assert '{"words": 5, "longest": "ledger"}' in page()


def test_the_example_agents_are_as_long_as_the_page_says() -> None:
    lines = (AGENTS / "http_agent.py").read_text("utf-8").splitlines()
    assert f"{len(lines)} lines with nothing but Python" in page()
    assert f"{len(lines)} lines of plain Python" in (ROOT / "README.md").read_text("utf-8")
    assert len(lines) <= 60
    imports = re.findall(r"^(?:from|import) (\w+)", "\n".join(lines), re.MULTILINE)
    assert set(imports) <= sys.stdlib_module_names


# --- what an agent gets and what its answers become ---


@pytest.fixture
async def services(sqlite_ledger_url: str) -> AsyncIterator[Services]:
    """A whole process that may call this machine."""
    opened = await open_services(
        Settings(database_url=sqlite_ledger_url, outbound_allow="127.0.0.1")
    )
    try:
        yield opened
    finally:
        await opened.close()


def reply(request: Received, **members: Any) -> bytes:
    asked = json.loads(request.body)["id"]
    return json_answer(json.dumps({"jsonrpc": "2.0", "id": asked, **members}).encode())


def in_state(request: Received, state: str, **members: Any) -> bytes:
    said = {"parts": [{"kind": "text", "text": "no stock"}]}
    return reply(request, result={"status": {"state": state, "message": said}, **members})


ANSWERS: Final[dict[str, Callable[[Received], bytes]]] = {
    "`result` with `status.state` `completed`": lambda asked: in_state(asked, "completed"),
    "`result` with `kind` `message`": lambda asked: reply(asked, result={"kind": "message"}),
    "`result` with another `status.state`": lambda asked: in_state(asked, "failed"),
    "`error`": lambda asked: reply(asked, error={"code": -32000, "message": "no stock"}),
    "status 5xx, 408, 425 or 429": lambda _: answer(503, b"no stock"),
    "any other status of 400 or more": lambda _: answer(404, b"no stock"),
    "a redirect": lambda _: answer(302, location="http://127.0.0.1:1/"),
    "a page in HTML": lambda _: answer(200, b"<html></html>", content_type="text/html"),
    "nothing, or no JSON": lambda _: answer(200),
    "JSON in another form": lambda _: json_answer(b'{"status": "success"}'),
    "the `id` of another request": lambda _: json_answer(
        b'{"jsonrpc": "2.0", "id": "x", "result": {"status": {"state": "completed"}}}'
    ),
    "more than 1 MB": lambda _: json_answer(b'"%s"' % (b"x" * 1_000_000)),
    "more than 256 KB of output": lambda asked: in_state(asked, "completed", blob="x" * 262_144),
    "no answer within `timeout_ms`": lambda _: b"",
}


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table under a heading of the page."""
    section = page().partition(f"### {heading}\n")[2].partition("\n#")[0]
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [each.strip() for each in _CELL.split(line)[1:-1]]


TABLE: Final = {what: (told, code, kind) for what, told, code, kind in rows("What it may answer")}


def test_the_table_has_every_answer() -> None:
    assert set(TABLE) == {*ANSWERS, "no connection", "your answer"}


@pytest.mark.anyio
@pytest.mark.parametrize("what", ANSWERS)
async def test_an_answer_becomes_what_the_table_says(services: Services, what: str) -> None:
    async with http_server(ANSWERS[what]) as server:
        event = await outcome(services, server.url)
        assert len(server.received) == 1
    check(what, event)


@pytest.mark.anyio
async def test_no_connection_becomes_what_the_table_says(services: Services) -> None:
    async with http_server() as server:
        gone = server.url
    check("no connection", await outcome(services, gone))


@pytest.mark.anyio
async def test_what_an_agent_gets_is_what_the_page_shows(services: Services) -> None:
    async with http_server(lambda asked: in_state(asked, "completed")) as server:
        await outcome(services, server.url)
        (received,) = server.received
    (shown,) = _RECEIVED.findall(page())
    assert json.loads(_DIGITS.sub("#", received.body.decode())) == json.loads(
        _DIGITS.sub("#", shown)
    )
    headers = [name for cells in rows("What it gets") for name in re.findall(r"`(.+?)`", cells[0])]
    named = {name.lower() for name in headers}
    sent = {name for name in received.headers if name not in ("host", "content-length")}
    assert sent - {"accept-encoding"} <= named
    assert named - sent == {"authorization"}


async def outcome(services: Services, url: str) -> JsonObject:
    """The event that ends the one step of an execution, done by an agent there."""
    caller = Caller(actor="alice")
    agent: JsonObject = {
        "name": f"agent-{uuid4().hex}",
        "url": url,
        "timeout_ms": 1_000,
        "retry_config": {"max_retries": 0},
    }
    await services.agent_parts.agents.register(caller, agent)
    step: JsonObject = {
        "agent_name": agent["name"],
        "input_mapping": {"text": "the ledger of every run"},
    }
    asked: JsonObject = {"name": "one", "start_step": "count", "steps": {"count": step}}
    begun = await services.requests.execute_inline(caller, asked, ExecuteOptions())
    await services.history.wait_ended("default", begun.view.id, SECONDS_MAX)
    (view,) = await services.history.steps("default", begun.view.id)
    error = view.error
    return {
        "status": view.status,
        "message": view.error_message,
        "code": "" if error is None else error.code,
        "class": view.error_class or "",
    }


def check(what: str, event: JsonObject) -> None:
    told, code, kind = TABLE[what]
    assert (event["code"], event["class"]) == (code.strip("`"), kind)
    if not code:
        assert event["status"] == told
        return
    quoted = re.match(r"`(.*?)`", told)
    for part in quoted.group(1).split("...") if quoted else ():
        assert part.strip() in str(event["message"])


# --- an agent that reads Kafka ---


def test_the_agent_that_reads_kafka_answers_each_of_its_tasks(
    mock_kafka: str, tmp_path: Path
) -> None:
    tasks, results = f"tasks.{uuid4().hex}", f"results.{uuid4().hex}"
    sent = [
        task("counter", {"text": "the ledger of every run"}),
        task("another", {"text": "not for us"}),
        task("counter", {"no": "text"}),
    ]
    command = [sys.executable, str(AGENTS / "kafka_agent.py"), mock_kafka, "counter"]
    with ExitStack() as stack:
        stack.enter_context(program([*command, tasks, results], cwd=tmp_path))
        publish(mock_kafka, tasks, [b"no task", *(spelled(each).value for each in sent)])
        read = [read_result(each) for each in received(mock_kafka, results, 2)]
    found = {each.correlation_id: each for each in read}  # each its own key: in any order
    counted, failed = (found[each.correlation_id] for each in (sent[0], sent[2]))
    assert (counted.succeeded, counted.task_id) == (True, sent[0].task_id)
    assert counted.output == {"words": 5, "longest": "ledger"}
    assert (failed.succeeded, failed.error_message) == (False, "KeyError: 'text'")


def task(agent: str, given: JsonObject) -> AgentTask:
    name = uuid4().hex[:8]
    return AgentTask(
        run_id=f"run-{name}",
        task_id=f"task-count-{name}",
        agent_name=agent,
        input=given,
        correlation_id=f"corr-run-{name}-count-{name}",
        at=None,
    )


def spelled(fact: AgentTask) -> Message:
    return Shapes(TOPICS)(fact)


def publish(brokers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": brokers})
    for value in values:
        producer.produce(topic, value, b"one key, one order")
    assert producer.flush(SECONDS_MAX) == 0


def received(brokers: str, topic: str, count: int) -> list[Message]:
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    found: list[Message] = []
    for _ in range(SECONDS_MAX):
        got = consumer.poll(1.0)
        if got is not None and got.error() is None:
            found.append(Message(topic=topic, key=got.key(), value=got.value() or b""))
        if len(found) == count:
            break
    consumer.close()
    return found
