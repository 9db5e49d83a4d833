"""The action call_api against a real server."""

import json
from collections.abc import AsyncIterator

import pytest

from application.steps import StepFailure
from domain.json_values import Json, JsonObject
from infrastructure.effects.call_api import CallApi
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.outbound_addresses import OutboundAllow
from tests.infrastructure.effects.local_servers import (
    answer,
    http_server,
    json_answer,
    step_context,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def call_api() -> AsyncIterator[CallApi]:
    outbound = Outbound(OutboundAllow.parse("127.0.0.1"))
    yield CallApi(outbound)
    await outbound.aclose()


async def failure(call_api: CallApi, config: JsonObject) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await call_api(config, step_context())
    return caught.value


async def test_the_answer_is_the_output(call_api: CallApi) -> None:
    async with http_server(lambda _: json_answer(b'{"a": [1, null]}')) as server:
        assert await call_api({"url": server.url}, step_context()) == {
            "status": 200,
            "statusText": "Reason200",
            "data": {"a": [1, None]},
            "headers": {"content-type": "application/json"},
        }


async def test_the_request_carries_method_query_headers_body_and_the_idempotency_key(
    call_api: CallApi,
) -> None:
    context = step_context(path="each[3]/p")
    config: JsonObject = {
        "url": "",
        "method": "post",
        "query": {"q": "a b&c", "many": [1, True], "none": None},
        "headers": {"X-Api-Key": "key", "x-flowledger-try": "99"},
        "body": {"ü": 1},
    }
    async with http_server() as server:
        await call_api(config | {"url": f"{server.url}/p?fixed=1"}, context)
        request = server.received[0]
    assert request.method == "POST"
    assert request.target == "/p?fixed=1&q=a+b%26c&many=1&many=true"
    assert json.loads(request.body) == {"ü": 1}
    expected = {
        "content-type": "application/json",
        "x-api-key": "key",
        "idempotency-key": context.idempotency_key,
        "x-flowledger-attempt": "1",
        "x-flowledger-try": "2",
        "x-flowledger-epoch": "7",
    }
    assert {name: request.headers.get(name) for name in expected} == expected


async def test_text_is_sent_as_text_unless_the_author_says_what_it_is(call_api: CallApi) -> None:
    async with http_server() as server:
        config: JsonObject = {"url": server.url, "method": "PUT", "body": "<a/>"}
        await call_api(config, step_context())
        await call_api(config | {"headers": {"content-type": "text/xml"}}, step_context())
        types = [request.headers["content-type"] for request in server.received]
        assert types == ["text/plain; charset=utf-8", "text/xml"]


@pytest.mark.parametrize(
    ("reply", "data"),
    [
        (answer(200, b"plain", content_type="text/plain"), "plain"),
        (answer(200, b'{"a":1}', content_type="application/problem+json; x=y"), {"a": 1}),
        (answer(200, b"", content_type="application/json"), None),
        (answer(204), None),
        (
            answer(200, b"\x89PNG\0", content_type="image/png"),
            {"contentType": "image/png", "base64": "iVBORwA="},
        ),
    ],
)
async def test_data_is_json_or_text_or_base64(call_api: CallApi, reply: bytes, data: Json) -> None:
    async with http_server(lambda _: reply) as server:
        output = await call_api({"url": server.url}, step_context())
        assert isinstance(output, dict)
        assert output["data"] == data


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (400, "permanent"),
        (404, "permanent"),
        (410, "permanent"),
        (408, "transient"),
        (425, "transient"),
        (429, "transient"),
        (500, "transient"),
        (503, "transient"),
    ],
)
async def test_another_status_is_a_failure_that_keeps_its_output(
    call_api: CallApi, status: int, error_class: str
) -> None:
    async with http_server(lambda _: json_answer(b'{"why": "x"}', status)) as server:
        error = await failure(call_api, {"url": f"{server.url}/a?token=canary"})
        assert (error.code, error.error_class) == ("http_status", error_class)
        assert error.retryable == (error_class == "transient")
        assert error.message == f"{server.url}/a answered {status} Reason{status}"
        assert isinstance(error.output, dict)
        assert (error.output["status"], error.output["data"]) == (status, {"why": "x"})


async def test_an_expected_status_is_a_success_and_others_are_not(call_api: CallApi) -> None:
    async with http_server(lambda _: answer(404)) as server:
        either: list[Json] = [404, [200, 404]]
        for expected in either:
            config: JsonObject = {"url": server.url, "expect_status": expected}
            output = await call_api(config, step_context())
            assert isinstance(output, dict)
            assert output["status"] == 404
    async with http_server() as server:
        error = await failure(call_api, {"url": server.url, "expect_status": 201})
        assert error.code == "http_status"


@pytest.mark.parametrize("body", [b'{"n": 9007199254740993}', b"{", b'{"a":1,"a":2}', b"NaN"])
async def test_json_that_cannot_be_kept_is_named(call_api: CallApi, body: bytes) -> None:
    async with http_server(lambda _: json_answer(body)) as server:
        error = await failure(call_api, {"url": server.url})
        assert (error.code, error.retryable) == ("output_not_storable", False)
    async with http_server(lambda _: json_answer(body, 500)) as server:
        error = await failure(call_api, {"url": server.url})
        assert (error.code, error.retryable) == ("http_status", True)
        assert isinstance(error.output, dict)
        assert error.output["data"] == body.decode()


async def test_the_retry_after_header_is_a_detail_of_the_failure(call_api: CallApi) -> None:
    async with http_server(lambda _: answer(429, retry_after="7", set_cookie="s=1")) as server:
        error = await failure(call_api, {"url": server.url})
        assert error.detail == {"status": 429, "retry_after": "7"}
        assert "s=1" not in str(error.output)


async def test_the_shorter_of_both_time_limits_ends_the_call(call_api: CallApi) -> None:
    async with http_server(lambda _: b"") as server:
        assert (await failure(call_api, {"url": server.url, "timeout_ms": 50})).code == "timeout"
        with pytest.raises(StepFailure, match=r"within 0\.05 s"):
            await call_api({"url": server.url}, step_context(timeout_seconds=0.05))


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"url": None}, "missing_field", "/c"),
        ({"url": 1}, "wrong_type", "/c/url"),
        ({"url": "ftp://x"}, "bad_value", "/c/url"),
        ({"url": "http://a:b@x/"}, "bad_value", "/c/url"),
        ({"method": "TRACE"}, "bad_value", "/c/method"),
        ({"headers": []}, "wrong_type", "/c/headers"),
        ({"headers": {"A b": "x"}}, "bad_value", "/c/headers"),
        ({"headers": {"A": "x\r\nB: y"}}, "bad_value", "/c/headers"),
        ({"headers": {"Host": "x"}}, "bad_value", "/c/headers"),
        ({"headers": {"A": None}}, "bad_value", "/c/headers"),
        ({"query": {"a": {}}}, "bad_value", "/c/query"),
        ({"query": {"a": [[]]}}, "bad_value", "/c/query"),
        ({"timeout_ms": 0}, "bad_value", "/c/timeout_ms"),
        ({"timeout_ms": True}, "wrong_type", "/c/timeout_ms"),
        ({"timeout_ms": "5"}, "wrong_type", "/c/timeout_ms"),
        ({"expect_status": [200, "x"]}, "bad_value", "/c/expect_status"),
        ({"expect_status": []}, "bad_value", "/c/expect_status"),
        ({"expect_status": 99}, "bad_value", "/c/expect_status"),
        ({"retries": 3}, "unknown_field", "/c/retries"),
    ],
)
async def test_a_mistake_is_found_at_registration_and_before_the_call(
    call_api: CallApi, change: JsonObject, code: str, pointer: str
) -> None:
    config: JsonObject = {"url": "https://example.org/", **change}
    found = list(call_api.check(config, "/c"))
    assert [(mistake.pointer, mistake.code) for mistake in found] == [(pointer, code)]
    if code != "unknown_field":
        assert (await failure(call_api, config)).code == "bad_config"


def test_values_that_hold_a_reference_are_not_judged() -> None:
    action = CallApi(Outbound(OutboundAllow()))
    config: JsonObject = {
        "url": "${workflow.input.url}",
        "method": "{{trigger.method}}",
        "headers": {"Authorization": "Bearer ${secret.TOKEN}"},
        "timeout_ms": "$.workflow_input.ms",
        "query": "$['a'].output_data",
        "expect_status": "${a.output.codes}",
    }
    assert list(action.check(config, "")) == []
