"""Messages as other programs write them, and as they read them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from application.messages import (
    AgentResult,
    AgentTask,
    CancellationRequest,
    ExecutionRequest,
    Fact,
    Message,
    MonitoringUpdate,
    Poison,
    Topics,
)
from domain.json_values import NotStorable, check_storable
from interfaces.kafka.reading import read_request, read_result, read_task
from interfaces.kafka.shapes import Shapes

TOPICS = Topics(
    executions="workflow.execution.requests",
    cancellations="workflow.cancellation.requests",
    tasks="orchestrator.tasks.http",
    results="results.topic",
    monitoring="workflow.monitoring.updates",
)
AT = datetime(2025, 1, 1, tzinfo=UTC)
PLAN: dict[str, Any] = {
    "workflow_id": "wf-demo-1",
    "name": "demo",
    "version": "1",
    "start_step": "step1",
    "steps": {
        "step1": {
            "id": "step1",
            "agent_name": "test-agent",
            "next_step": None,
            "input_mapping": {"test_input": "$.workflow_input.test_value"},
        }
    },
}


def incoming(body: object, **headers: bytes) -> Message:
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = tuple((name.replace("_", "-"), each) for name, each in headers.items())
    return Message(topic="any", key=None, value=value, headers=named)


def request(**changes: object) -> dict[str, Any]:
    """What a client sends, to the letter."""
    return {
        "run_id": "run-5f0c",
        "workflow_plan": PLAN,
        "input_data": {"test_value": "integration_test"},
        "timestamp": "2025-01-01T00:00:00",
        "message_type": "execution_request",
        **changes,
    }


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def test_an_execution_request_is_read_as_clients_send_it() -> None:
    expected = ExecutionRequest(
        run_id="run-5f0c", plan=PLAN, input={"test_value": "integration_test"}, at=AT
    )
    assert read_request(incoming(request())) == expected
    assert read_request(incoming(without(request(), "message_type"))) == expected
    older = without(request(workflow_input=request()["input_data"]), "input_data", "message_type")
    assert read_request(incoming(older)) == expected
    assert read_request(incoming(request(extra=1, timestamp="2025-01-01T01:00:00+01:00"))) == (
        expected
    )


def test_a_request_without_time_and_input_is_one() -> None:
    read = read_request(incoming({"run_id": "my own id", "workflow_plan": {}}))
    assert read == ExecutionRequest(run_id="my own id", plan={}, input=None, at=None)


def test_a_cancellation_is_told_by_its_type_or_by_having_no_plan() -> None:
    expected = CancellationRequest(run_id="run-1", cancelled_by="me", reason=None, at=None)
    body = {"run_id": "run-1", "cancelled_by": "me", "reason": None}
    assert read_request(incoming(body)) == expected
    assert read_request(incoming({**body, "message_type": "cancellation_request"})) == expected


def test_a_structured_cloudevent_is_unwrapped() -> None:
    wrapped = {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data": request()}
    kind = b"application/cloudevents+json; charset=utf-8"
    assert read_request(incoming(wrapped, content_type=kind)) == read_request(incoming(request()))


def test_a_task_may_have_bare_ids_and_no_time() -> None:
    name = "0198f3d2-8f3e-7c4d-9f0a-6b8f2f0f8a11"
    body = {
        "run_id": name,
        "task_id": name,
        "agent_name": "a",
        "input_data": {"x": 1},
        "correlation_id": name,
    }
    assert read_task(incoming(body)) == AgentTask(
        run_id=name, task_id=name, agent_name="a", input={"x": 1}, correlation_id=name, at=None
    )


def test_a_result_may_hold_more_than_can_be_stored() -> None:
    """That the output is too large is an outcome of the step, so the message is none to refuse."""
    body = {
        "run_id": "r",
        "task_id": "t",
        "status": "SUCCESS",
        "output_data": {"text": "x" * 500_000},
        "correlation_id": "c",
        "error_message": None,
    }
    read = read_result(incoming(body))
    assert read.succeeded
    assert read.output == body["output_data"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body"),
        (b"<html>", "the body"),
        (b'{"run_id": "a", "run_id": "b"}', "run_id"),
        (b"[]", "the body is not a JSON object"),
        (b'{"run_id": "\\ud800"}', "/run_id"),
        (b'{"x": NaN}', "/x: NaN"),
        (without(request(), "run_id"), "/run_id: it is missing"),
        (request(run_id=""), "/run_id: an id is 1 to 200"),
        (request(run_id="x" * 201), "/run_id: an id is 1 to 200"),
        (request(run_id="a\nb"), "/run_id: an id is 1 to 200"),
        (request(run_id=5), "/run_id: it is a number, not a text"),
        (request(workflow_plan="[]"), "/workflow_plan: it is a text, not a JSON object"),
        (request(input_data=[1]), "/input_data: it is an array, not a JSON object"),
        (request(input_data={"x": "y" * 300_000}), "/input_data"),
        (request(timestamp="yesterday"), "/timestamp: a time is written like"),
        (request(message_type="greeting"), "/message_type: 'greeting' is not known"),
        (request(input_data={"x": "y" * 1_100_000}), "the body"),
    ],
)
def test_what_can_never_be_a_request_says_where_and_why(body: object, text: str) -> None:
    with pytest.raises(Poison) as refused:
        read_request(incoming(body))
    assert text in str(refused.value)


def test_a_result_may_hold_what_cannot_be_stored() -> None:
    """As of a service whose ids have 64 bits: that is its step's outcome, too."""
    body = {
        "run_id": "r",
        "task_id": "t",
        "status": "SUCCESS",
        "output_data": {"id": 2**60, "text": "a\0b"},
        "correlation_id": "c",
    }
    read = read_result(incoming(body))
    assert (read.run_id, read.task_id, read.correlation_id) == ("r", "t", "c")
    with pytest.raises(NotStorable, match="an integer beyond"):
        check_storable(read.output)
    wrapped = read_result(incoming({"data": body}, content_type=b"application/cloudevents+json"))
    assert wrapped == read
    with pytest.raises(Poison, match="/run_id: the text holds a NUL character"):
        read_result(incoming(body | {"run_id": "a\0b"}))
    with pytest.raises(Poison, match="/status: the object names this member twice"):
        read_result(incoming(json.dumps(body).replace("{", '{"status": "FAILURE", ', 1).encode()))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Traceback " + "x" * 10_000, "Traceback " + "x" * 9_989 + "…"),
        ("bytes: \0\ud800", "bytes: \N{REPLACEMENT CHARACTER}?"),
    ],
)
def test_a_failure_is_one_whatever_is_said_about_it(said: str, told: str) -> None:
    body = {
        "run_id": "r",
        "task_id": "t",
        "correlation_id": "c",
        "status": "FAILURE",
        "error_message": said,
    }
    assert read_result(incoming(body)).error_message == told


def test_a_status_that_is_not_known_is_refused() -> None:
    body = {"run_id": "r", "task_id": "t", "correlation_id": "c", "status": "MAYBE"}
    with pytest.raises(Poison, match="/status: 'MAYBE' is not known"):
        read_result(incoming(body))


FACTS: list[tuple[Fact, str, bytes, dict[str, Any]]] = [
    (
        ExecutionRequest(run_id="run-1", plan=PLAN, input={"a": 1}, at=AT),
        "workflow.execution.requests",
        b"run-1",
        {
            "run_id": "run-1",
            "workflow_plan": PLAN,
            "input_data": {"a": 1},
            "timestamp": "2025-01-01T00:00:00Z",
            "message_type": "execution_request",
        },
    ),
    (
        CancellationRequest(run_id="run-1", cancelled_by="me", reason="late", at=AT),
        "workflow.cancellation.requests",
        b"run-1",
        {
            "run_id": "run-1",
            "cancelled_by": "me",
            "reason": "late",
            "timestamp": "2025-01-01T00:00:00Z",
            "message_type": "cancellation_request",
        },
    ),
    (
        AgentTask(
            run_id="run-1",
            task_id="task-step1-0a1b2c3d",
            agent_name="test-agent",
            input={"test_input": "integration_test"},
            correlation_id="corr-run-1-step1-4e5f6a7b",
            at=AT,
            idempotency_key="e:1:step1",
            attempt=1,
            try_no=2,
        ),
        "orchestrator.tasks.http",
        b"run-1",
        {
            "run_id": "run-1",
            "task_id": "task-step1-0a1b2c3d",
            "agent_name": "test-agent",
            "input_data": {"test_input": "integration_test"},
            "correlation_id": "corr-run-1-step1-4e5f6a7b",
            "timestamp": "2025-01-01T00:00:00Z",
        },
    ),
    (
        AgentResult(
            run_id="run-1",
            task_id="t",
            succeeded=False,
            output=None,
            correlation_id="c",
            error_message="HTTP 503: away",
            at=AT,
        ),
        "results.topic",
        b"c",
        {
            "run_id": "run-1",
            "task_id": "t",
            "status": "FAILURE",
            "output_data": None,
            "correlation_id": "c",
            "error_message": "HTTP 503: away",
            "timestamp": "2025-01-01T00:00:00Z",
        },
    ),
    (
        MonitoringUpdate(
            run_id="run-1",
            step_id="workflow",
            step_name="workflow",
            status="FAILED",
            at=AT,
            failed_step="step1",
            error="HTTP 503: away",
        ),
        "workflow.monitoring.updates",
        b"run-1",
        {
            "run_id": "run-1",
            "step_id": "workflow",
            "step_name": "workflow",
            "status": "FAILED",
            "timestamp": "2025-01-01T00:00:00Z",
            "metadata": {
                "failed_step": "step1",
                "error": "HTTP 503: away",
                "error_message": "HTTP 503: away",
            },
        },
    ),
]


@pytest.mark.parametrize(("fact", "topic", "key", "body"), FACTS)
def test_facts_look_as_readers_expect(
    fact: Fact, topic: str, key: bytes, body: dict[str, Any]
) -> None:
    message = Shapes(TOPICS)(fact, 17)
    assert (message.topic, message.key) == (topic, key)
    assert json.loads(message.value) == body
    assert message.header("flowledger-position") == b"17"


def test_what_is_written_is_read_as_the_same() -> None:
    spell = Shapes(TOPICS)
    execution, cancellation, task, result = (fact for fact, *_ in FACTS[:4])
    assert read_request(spell(execution)) == execution
    assert read_request(spell(cancellation)) == cancellation
    assert read_task(spell(task)) == task
    assert read_result(spell(result)) == result


def test_a_task_tells_its_try_in_headers_that_may_be_missing() -> None:
    told = Shapes(TOPICS)(FACTS[2][0], 17)
    assert told.header("flowledger-idempotency-key") == b"e:1:step1"
    assert (told.header("flowledger-attempt"), told.header("flowledger-try")) == (b"1", b"2")
    others = structs.replace(told, headers=(("flowledger-try", b"second"),))
    assert (read_task(others).attempt, read_task(others).try_no) == (None, None)


def test_the_cloudevents_form_adds_headers_and_keeps_the_body() -> None:
    fact = FACTS[2][0]
    plain, told = Shapes(TOPICS)(fact, 17), Shapes(TOPICS, cloudevents=True)(fact, 17)
    assert told.value == plain.value
    headers = dict(told.headers)
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"flowledger.task.v1"
    assert headers["ce_source"] == b"/flowledger"
    assert headers["ce_time"] == b"2025-01-01T00:00:00Z"
    assert headers["content-type"] == b"application/json"
    again = Shapes(TOPICS, cloudevents=True)(fact, 17)
    assert dict(again.headers)["ce_id"] == headers["ce_id"]
    other = Shapes(TOPICS, cloudevents=True)(fact, 18)
    assert dict(other.headers)["ce_id"] != headers["ce_id"]
