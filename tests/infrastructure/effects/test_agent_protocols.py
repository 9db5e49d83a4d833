"""What agents are asked and what their replies become, without a network."""

import json
from typing import Any

import pytest

from application.steps import StepFailure
from domain.json_values import Json, JsonObject
from infrastructure.effects.agent_protocols import output_of, request_body
from infrastructure.effects.outbound import OutboundAnswer
from infrastructure.effects.secrets import Mask

TASK = "task-step1-0a1b2c3d"
COMPLETED: JsonObject = {"state": "completed"}
SECRET = "canary/secret+1"


def answered(
    body: bytes, status: int = 200, content_type: str = "application/json", **headers: str
) -> OutboundAnswer:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    url = "http://agent.test/a2a"
    return OutboundAnswer(status, "Reason", {"content-type": content_type} | headers, body, url)


def output(body: bytes, protocol: str = "jsonrpc", **how: Any) -> Any:
    return output_of(protocol, TASK, answered(body, **how), Mask((SECRET,)))


def failure(body: bytes, protocol: str = "jsonrpc", **how: Any) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        output(body, protocol, **how)
    return caught.value


def reply(result: Json = None, **members: Json) -> bytes:
    whole: JsonObject = {"jsonrpc": "2.0", "id": TASK}
    return json.dumps(whole | ({} if result is None else {"result": result}) | members).encode()


def completed(*parts: JsonObject, **members: Json) -> bytes:
    return reply({"status": COMPLETED, "artifacts": [{"parts": [*parts]}]} | members)


# ------------------------------------------------------------------------------------- requests


def test_the_request_is_json_rpc_as_clients_know_it() -> None:
    body = request_body("jsonrpc", TASK, {"test_input": "integration_test"})
    assert json.loads(body) == {
        "jsonrpc": "2.0",
        "id": "task-step1-0a1b2c3d",
        "method": "message/send",
        "params": {
            "message": {
                "role": "user",
                "messageId": "msg-task-step1-0a1b2c3d",
                "parts": [{"kind": "text", "text": '{"test_input": "integration_test"}'}],
            }
        },
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"text": "hello", "query": "no"}, "hello"),
        ({"query": "who?", "limit": 3}, "who?"),
        ({"text": None, "query": "who?"}, "who?"),
        ({"text": ""}, ""),
        ({"text": {"a": [1]}}, '{"a": [1]}'),
        ({"limit": 3, "ü": "é"}, '{"limit": 3, "ü": "é"}'),
        ({}, "{}"),
    ],
)
def test_the_text_is_text_or_query_or_all_of_the_input(given: JsonObject, text: str) -> None:
    body = json.loads(request_body("jsonrpc", TASK, given))
    assert body["params"]["message"]["parts"] == [{"kind": "text", "text": text}]


def test_the_simple_form_has_the_input_as_it_is() -> None:
    body = request_body("simple", TASK, {"text": "x", "n": [1, None]})
    assert json.loads(body) == {"task_id": TASK, "input": {"text": "x", "n": [1, None]}}


# ----------------------------------------------------------------------------- outputs of JSON-RPC


def test_the_output_is_the_whole_result_and_what_was_found_in_it() -> None:
    result: JsonObject = {
        "id": "agent-task-9",
        "contextId": "c-1",
        "status": COMPLETED,
        "artifacts": [
            {"parts": [{"kind": "text", "text": "one"}, {"kind": "data", "data": {"n": 1.5}}]},
            {"parts": [{"kind": "text", "text": "two"}]},
        ],
        "history": [
            {"role": "user", "parts": [{"kind": "text", "text": "do it"}]},
            {"role": "agent", "parts": [{"kind": "text", "text": "at once"}]},
            {"role": "agent", "parts": [{"kind": "text", "text": "done"}]},
        ],
        "data": {"rows": [1, 2, None], "ok": True},
        "metadata": {"cost": 0.25},
    }
    assert output(reply(result)) == result | {
        "text": "one\ntwo",
        "response": "done",
        "context_id": "c-1",
        "task_id": "agent-task-9",
        "parts": [
            {"kind": "text", "text": "one"},
            {"kind": "data", "data": {"n": 1.5}},
            {"kind": "text", "text": "two"},
        ],
        "json": {"n": 1.5},
    }


def test_the_smallest_reply_has_all_members_too() -> None:
    assert output(reply({"status": COMPLETED})) == {
        "status": COMPLETED,
        "text": "",
        "response": "",
        "context_id": None,
        "task_id": TASK,
        "parts": [],
        "json": None,
    }


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([{"kind": "text", "text": '{"score": 0.75, "ok": true}'}], {"score": 0.75, "ok": True}),
        ([{"kind": "text", "text": " [1, 2]\n"}], [1, 2]),
        ([{"kind": "text", "text": "see:"}, {"kind": "text", "text": "[1]"}], [1]),
        ([{"kind": "data", "data": [1]}, {"kind": "data", "data": {"a": 2}}], [[1], {"a": 2}]),
        ([{"kind": "text", "text": "done"}], None),
        ([{"kind": "text", "text": "42"}], None),
        ([{"kind": "text", "text": "{not json}"}], None),
        ([{"kind": "text", "text": '{"a": 1, "a": 2}'}], None),
        ([{"kind": "text", "text": "[" * 64 + "]" * 64}], None),
        ([{"kind": "text", "text": 7}, "no part"], None),
    ],
)
def test_json_in_a_reply_is_parsed(parts: list[Any], found: Json) -> None:
    assert output(completed(*parts))["json"] == found


def test_members_of_the_result_are_not_hidden_by_what_was_not_found() -> None:
    found = output(reply({"status": COMPLETED, "json": {"mine": 1}, "text": "t", "parts": []}))
    assert (found["json"], found["text"], found["parts"]) == ({"mine": 1}, "t", [])


def test_the_message_of_the_status_is_the_response_without_a_history() -> None:
    status: JsonObject = {
        "state": "completed",
        "message": {"role": "agent", "parts": [{"kind": "text", "text": "fine"}]},
    }
    assert output(reply({"status": status}))["response"] == "fine"


def test_a_message_instead_of_a_task_is_a_result() -> None:
    parts: list[Json] = [{"kind": "text", "text": "hi"}]
    found = output(reply({"kind": "message", "role": "agent", "parts": parts}))
    assert (found["text"], found["parts"]) == ("hi", parts)


# ------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            reply(error={"code": -32000, "message": "no capacity"}),
            "agent_error",
            "JSON-RPC Error -32000: no capacity",
        ),
        (
            reply(error={"code": -32700, "message": "parse error"}, id=None),
            "agent_error",
            "JSON-RPC Error -32700: parse error",
        ),
        (reply(error="odd"), "agent_error", "JSON-RPC Error null: odd"),
        (reply({"status": {"state": "failed"}}), "task_not_completed", "Task state: failed"),
        (
            reply({"status": {"state": "input-required"}}),
            "task_not_completed",
            "Task state: input-required",
        ),
        (
            reply(
                {
                    "status": {
                        "state": "failed",
                        "message": {"parts": [{"kind": "text", "text": "disk full"}]},
                    }
                }
            ),
            "task_not_completed",
            "Task state: failed: disk full",
        ),
        (reply({"status": COMPLETED}, id="other"), "wrong_reply_id", 'answered for "other"'),
        (reply({"status": COMPLETED}, id=None), "wrong_reply_id", "answered for null"),
        (reply(error={"code": 1}, id="other"), "wrong_reply_id", 'answered for "other"'),
        (reply({"status": COMPLETED}, jsonrpc="1.0"), "bad_agent_reply", '"jsonrpc": "2.0"'),
        (reply({"status": "completed"}), "bad_agent_reply", "without status.state"),
        (reply({}), "bad_agent_reply", "without status.state"),
        (reply([]), "bad_agent_reply", "without result and without error"),
        (reply(), "bad_agent_reply", "without result and without error"),
        (b"[]", "bad_agent_reply", "not an object"),
        (b"", "bad_agent_reply", "without a body"),
        (b"<!doctype html><p>Sign in", "bad_agent_reply", "a page in HTML"),
        (b'{"a": "\xff"}', "bad_agent_reply", "UTF-8"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "bad_agent_reply", "nested deeper"),
        (b"[" * 100_000, "bad_agent_reply", "cannot be read as JSON"),
        (b'{"jsonrpc": "2.0", "jsonrpc": "2.0"}', "bad_agent_reply", "twice"),
        (b'{"a": NaN}', "bad_agent_reply", "cannot be read as JSON"),
    ],
)
def test_a_bad_reply_is_final_and_says_what_is_wrong(body: bytes, code: str, message: str) -> None:
    error = failure(body)
    assert (error.code, error.error_class, error.retryable) == (code, "permanent", False)
    assert message in str(error)


def test_what_a_failed_task_said_is_kept() -> None:
    error = failure(reply({"status": {"state": "failed"}, "data": {"line": 7}}))
    assert isinstance(error.output, dict)
    assert error.output["data"] == {"line": 7}
    told: JsonObject = {"code": -1, "message": "m", "data": {"line": 8}}
    assert failure(reply(error=told)).output == {"error": told}


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (400, "permanent"),
        (401, "permanent"),
        (404, "permanent"),
        (429, "transient"),
        (500, "transient"),
        (502, "transient"),
        (503, "transient"),
    ],
)
def test_another_status_is_a_failure_with_its_number(status: int, error_class: str) -> None:
    error = failure(b"no\n  capacity", status=status, content_type="text/plain", retry_after="7")
    assert str(error) == f"HTTP {status}: no capacity"
    assert (error.code, error.error_class) == ("http_status", error_class)
    assert error.output == {"status": status, "body": "no capacity"}
    assert error.detail == {"status": status, "retry_after": "7"}


def test_a_page_in_html_is_not_shown_in_a_message() -> None:
    error = failure(b"<html>Bad gateway</html>", status=502, content_type="text/html")
    assert str(error) == "HTTP 502: Reason"


def test_a_redirect_is_not_followed_and_says_where_to() -> None:
    error = failure(b"", status=302, location="http://elsewhere.test/x?token=1")
    assert (error.code, error.error_class) == ("agent_redirects", "permanent")
    assert str(error) == (
        "HTTP 302: it redirects to http://elsewhere.test/x; register the address that answers"
    )


def test_what_is_secret_is_taken_out_before_anything_is_cut() -> None:
    padding = "x" * 190
    bodies = [
        (f"{padding}{SECRET}".encode(), 500),
        (f"{'word ' * 38}{SECRET}".encode(), 500),
        (reply({"status": COMPLETED}, id=f"{padding}{SECRET}"), 200),
        (reply({"status": {"state": f"{padding}{SECRET}"}}), 200),
        (reply(error={"code": f"{padding}{SECRET}", "message": SECRET}), 200),
        (reply({"status": {"state": "failed"}, SECRET: {"a": SECRET}}), 200),
    ]
    for body, status in bodies:
        error = failure(body, status=status)
        told = json.dumps([str(error), error.output, error.detail])
        assert "[secret" in told or SECRET[:4] not in told
        assert SECRET[:6] not in told
    assert SECRET[:6] not in json.dumps(output(completed({"kind": "text", "text": SECRET})))


# ------------------------------------------------------------------------------ the simple form


def test_the_output_of_the_simple_form_is_the_output() -> None:
    body = json.dumps({"task_id": TASK, "status": "success", "output": {"a": [1]}, "error": None})
    assert output(body.encode(), "simple") == {"a": [1]}
    assert output(b'{"status": "success"}', "simple") is None


@pytest.mark.parametrize(
    ("reply_of_agent", "code", "message"),
    [
        ({"status": "error", "error": "no such row"}, "agent_error", "no such row"),
        ({"status": "error", "error": {"why": 1}}, "agent_error", '{"why": 1}'),
        ({"status": "error"}, "agent_error", "without saying why"),
        ({"status": "success", "task_id": "other"}, "wrong_reply_id", 'answered for "other"'),
        ({"status": "ok"}, "bad_agent_reply", '"status": "success" or "error"'),
        ({}, "bad_agent_reply", '"status": "success" or "error"'),
    ],
)
def test_failures_of_the_simple_form(reply_of_agent: JsonObject, code: str, message: str) -> None:
    error = failure(json.dumps(reply_of_agent).encode(), "simple")
    assert (error.code, error.error_class) == (code, "permanent")
    assert message in str(error)


def test_a_reply_in_the_other_form_says_so() -> None:
    error = failure(b'{"task_id": "x", "status": "success", "output": 1}')
    assert "register it with that protocol" in str(error)
