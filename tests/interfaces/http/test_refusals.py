"""What the door refuses, and how it says so."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from domain.json_values import JsonObject
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.http.app import create_app
from tests.interfaces.http.served import API, JSON, QUICK, WAITING, Client, problem_of

pytestmark = pytest.mark.anyio

EXECUTE = "/workflows/waiting/execute"


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
async def test_only_json_in_utf_8_is_read(client: Client, content_type: str) -> None:
    await client.publish(WAITING)
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post(EXECUTE, content=b"{}", headers=headers)
    (mistake,) = problem_of(answer, 415, "unsupported_media_type")["errors"]
    assert mistake["pointer"] == "/header/Content-Type"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=UTF-8", "APPLICATION/JSON", "application/x+json"]
)
async def test_spellings_of_json_are_read(client: Client, content_type: str) -> None:
    await client.publish(WAITING)
    answer = await client.post(EXECUTE, content=b"{}", headers={"content-type": content_type})
    assert answer.status_code == 202


async def test_compressed_bodies_are_refused(client: Client) -> None:
    answer = await client.post(EXECUTE, content=b"{}", headers=JSON | {"content-encoding": "gzip"})
    problem_of(answer, 415, "unsupported_media_type")


async def test_the_limit_of_a_body_holds_with_and_without_a_length(client: Client) -> None:
    await client.publish(WAITING)
    opening, closing = b'{"labels":{"a":"', b'"}}'
    room = 1_000_000 - len(opening) - len(closing)

    def sized(extra: int) -> bytes:
        return opening + b"x" * (room + extra) + closing

    async def chunked(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    at_limit = await client.post(EXECUTE, content=sized(0), headers=JSON)
    assert problem_of(at_limit, 422, "invalid_request")["errors"][0]["pointer"] == "/labels/a"
    for content in (sized(1), chunked(sized(1))):
        over = await client.post(EXECUTE, content=content, headers=JSON)
        problem_of(over, 413, "too_large")


async def test_the_limit_of_a_payload_holds(client: Client) -> None:
    await client.publish(WAITING)
    fits = {"input_data": {"a": "x" * (256 * 1024 - 8)}}
    assert (await client.post(EXECUTE, fits)).status_code == 202
    over = await client.post(EXECUTE, {"input_data": {"a": "x" * (256 * 1024 - 7)}})
    (mistake,) = problem_of(over, 413, "too_large")["errors"]
    assert mistake["pointer"] == "/input_data"


async def test_every_mistake_of_a_body_has_its_pointer(client: Client) -> None:
    await client.publish(WAITING)
    body = {"priority": "5", "labels": {"a/b": "x", "ok": 1}, "colour": 1, "delay_seconds": -1}
    errors = problem_of(await client.post(EXECUTE, body), 422, "invalid_request")["errors"]
    assert {each["pointer"] for each in errors} == {
        "/priority", "/labels/a~1b", "/labels/ok", "/colour", "/delay_seconds"
    }  # fmt: skip


async def test_a_body_may_be_left_out_only_where_it_is_optional(client: Client) -> None:
    view = await client.begin(WAITING)
    (mistake,) = problem_of(await client.post(EXECUTE), 422, "invalid_request")["errors"]
    assert (mistake["pointer"], mistake["in"]) == ("", "body")
    assert (await client.post(f"/executions/{view['id']}/cancel")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/executions/nope/cancel", None),
        ("/executions/nope/pause", None),
        ("/executions/nope/retry", None),
        ("/executions/nope/signals/go", {"payload": 1}),
        ("/executions/nope/answers", {"answer": "retry"}),
        ("/executions/nope/steps/skip", {"path": "a", "reason": "r"}),
    ],
)
async def test_what_there_is_not_is_called_as_the_caller_called_it(
    client: Client, path: str, body: JsonObject | None
) -> None:
    answer = problem_of(await client.post(path, body), 404, "not_found")
    assert "'nope'" in answer["detail"]
    (mistake,) = answer["errors"]
    assert (mistake["pointer"], mistake["in"]) == ("/path/execution_id", "path")


async def test_a_version_or_time_that_there_is_not_is_pointed_at(client: Client) -> None:
    view = await client.begin(WAITING)
    early = await client.get(f"/executions/{view['id']}?as_of=1999-01-01T00:00:00Z")
    version = await client.post(f"{EXECUTE}?version=9", {})
    told = [problem_of(each, 404, "not_found")["errors"] for each in (early, version)]
    assert [(each["pointer"], each["in"]) for (each,) in told] == [
        ("/query/as_of", "query"), ("/query/version", "query")
    ]  # fmt: skip
    by_id = await client.post("/workflows/wf-waiting-9/execute?version=1", {})
    (mistake,) = problem_of(by_id, 404, "not_found")["errors"]
    assert mistake["pointer"] == "/path/workflow_id"


async def test_a_missing_body_is_called_so(client: Client) -> None:
    for path in ("/workflows", "/executions"):
        answer = problem_of(await client.post(path), 422, "invalid_request")
        assert answer["detail"] == "The body is missing; send a JSON object."


async def test_an_if_match_that_names_no_version_is_not_called_one(client: Client) -> None:
    await client.publish(QUICK)
    path = f"/workflows/{QUICK['name']}"
    answer = await client.http.put(API + path, json={}, headers={"If-Match": '"zz"'})
    detail = problem_of(answer, 412, "precondition_failed")["detail"]
    assert detail.startswith('The present version is "1", which If-Match does not name;')


async def test_a_wrong_method_names_the_right_ones(client: Client) -> None:
    for path, allowed in {
        f"{API}/executions/x": "DELETE, GET, HEAD",
        f"{API}/workflows": "GET, HEAD, POST",
        f"{API}/workflows/x": "DELETE, GET, HEAD, PUT",
        f"{API}/executions/x/cancel": "POST",
        "/livez": "GET, HEAD",
    }.items():
        answer = await client.http.request("PATCH", path)
        problem_of(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed


async def test_unknown_query_parameters_are_refused(client: Client) -> None:
    answer = await client.get("/executions?statuss=FAILED")
    (mistake,) = problem_of(answer, 422, "invalid_request")["errors"]
    assert (mistake["pointer"], mistake["code"]) == ("/query/statuss", "unknown_parameter")
    twice = await client.get("/executions?page=1&page=2")
    assert problem_of(twice, 422, "invalid_request")["errors"][0]["pointer"] == "/query/page"


async def test_a_request_id_is_taken_or_given(client: Client) -> None:
    own = await client.get("/executions/none", headers={"X-Request-ID": "mine-1"})
    assert problem_of(own, 404, "not_found")["request_id"] == "mine-1"
    given = await client.get("/statistics", headers={"X-Request-ID": "has blanks"})
    assert given.headers["x-request-id"] != "has blanks"


async def test_every_problem_is_explained(client: Client) -> None:
    problem = (await client.get("/executions/none")).json()
    page = await client.http.get(problem["type"])
    assert page.json()["code"] == "not_found"
    assert (await client.http.get("/problems/none")).status_code == 404


async def test_head_is_get_without_a_body(client: Client) -> None:
    for path in ("/livez", f"{API}/executions"):
        answer = await client.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/json"


async def test_what_breaks_inside_shows_nothing_outside(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(services)

    @app.get("/break")
    async def _break() -> None:
        raise RuntimeError("password=hunter2 at /secret/path")

    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://ledger.test") as http:
        answer = await http.get("/break")
    problem_of(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert [record.message for record in caplog.records] == ["request_failed"]


async def test_a_reason_is_wanted_where_the_settings_say_so(sqlite_ledger_url: str) -> None:
    services = await open_services(Settings(database_url=sqlite_ledger_url, require_reason=True))
    try:
        transport = httpx2.ASGITransport(create_app(services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x.test") as http:
            client = Client(http)
            view = await client.begin(WAITING)
            path = f"/executions/{view['id']}/cancel"
            (mistake,) = problem_of(await client.post(path), 422, "invalid_request")["errors"]
            assert mistake["pointer"] == "/reason"
            assert (await client.post(path, {"reason": "late"})).status_code == 200
            answer = await client.post(f"/executions/{view['id']}/answers", {"answer": "retry"})
            (mistake,) = problem_of(answer, 422, "invalid_request")["errors"]
            assert mistake["pointer"] == "/reason"
    finally:
        await services.close()


async def test_a_closed_store_is_503_with_a_time_to_come_back(
    services: Services, client: Client
) -> None:
    await client.publish(QUICK)
    services.store.refuse_new_work(lambda: "the projections are too far behind")
    answer = await client.post("/workflows/quick/execute", {})
    problem_of(answer, 503, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_body_that_does_not_come_is_no_fault_of_the_server_that_stops(
    services: Services,
) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{API}/workflows",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"9")],
    }
    serving = asyncio.create_task(create_app(services)(scope, receive, send))
    await asyncio.sleep(0.05)
    serving.cancel()
    await serving
    assert [message.get("status") for message in sent] == [503, None]
    assert (b"connection", b"close") in sent[0]["headers"]
