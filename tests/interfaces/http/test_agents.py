"""Agents over HTTP: registered, read, changed, deleted; asked how they are."""

import base64
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from infrastructure.sealing import make_key
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.http.app import create_app
from tests.infrastructure.effects.local_servers import Received, http_server, json_answer
from tests.infrastructure.effects.local_servers import answer as plain_answer
from tests.interfaces.http.served import Client, problem_of

pytestmark = pytest.mark.anyio

CANARY = "canary-9d1e44b2-never-shown"
SCORER = {"name": "scorer", "url": "https://scorer.example/a2a"}
BEARER = {**SCORER, "auth_type": "bearer", "auth_config": {"token": CANARY}}


@pytest.fixture
async def services(
    sqlite_ledger_url: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Services]:
    """The real services, with a key, a secret, and leave to call this machine."""
    monkeypatch.setenv("FLOWLEDGER_SECRET_SCORER", "resolved-" + CANARY)
    opened = await open_services(
        Settings(
            database_url=sqlite_ledger_url, outbound_allow="127.0.0.1", encryption_key=make_key()
        )
    )
    try:
        yield opened
    finally:
        await opened.close()


TOPIC_AGENTS = ({"name": "listens", "transport": "kafka"}, {"name": "asks", "transport": "pull"})
ON_TOPICS = {
    "name": "on-topics",
    "start_step": "a",
    "steps": {
        "a": {"agent_name": "asks", "next_step": "b"},
        "b": {
            "agent_name": "asks",
            "recovery": [{"kind": "alternative", "id": "other", "do": {"agent": "listens"}}],
            "next_step": "c",
        },
        "c": {"agent_name": "listens"},
    },
}


async def put(client: Client, path: str, body: Any, **headers: str) -> httpx2.Response:
    return await client.http.put("/api/v1" + path, json=body, headers=headers)


async def delete(client: Client, path: str, **headers: str) -> httpx2.Response:
    return await client.http.delete("/api/v1" + path, headers=headers)


async def test_an_agent_is_registered_read_changed_and_deleted(client: Client) -> None:
    made = await client.post("/agents", BEARER, headers={"X-Actor": "alice"})
    assert made.status_code == 201, made.text
    body = made.json()
    assert made.headers["location"] == f"/api/v1/agents/{body['id']}"
    assert made.headers["etag"] == '"1"'
    assert body["status"] == "active"
    assert body["created_by"] == body["updated_by"] == "alice"
    assert body["auth_config"] == {"token": "***"}
    assert body["retry_config"] == {
        "max_retries": 3,
        "initial_delay_ms": 1000,
        "max_delay_ms": 30000,
        "backoff_multiplier": 2.0,
    }
    for ref in ("scorer", body["id"]):
        read = await client.get(f"/agents/{ref}")
        assert read.json() == body
    unchanged = await client.get("/agents/scorer", headers={"If-None-Match": '"1"'})
    assert unchanged.status_code == 304
    changed = await put(client, "/agents/scorer", {"status": "inactive"}, **{"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["status"]) == (200, "inactive")
    stale = await put(client, "/agents/scorer", {"timeout_ms": 2_000}, **{"If-Match": '"1"'})
    problem_of(stale, 412, "precondition_failed")
    gone = await delete(client, "/agents/scorer")
    assert gone.status_code == 200
    assert set(gone.json()) == {"message", "timestamp", "data"}
    assert gone.json()["data"]["status"] == "deleted"
    for again in (
        await client.get("/agents/scorer"),
        await put(client, "/agents/scorer", {"status": "active"}),
        await delete(client, "/agents/scorer"),
        await client.get("/agents/scorer/health"),
    ):
        problem_of(again, 404, "not_found")
    assert (await client.post("/agents", SCORER)).json()["version"] == 4


async def test_a_repeated_registration_gives_the_first_answer(client: Client) -> None:
    key = {"Idempotency-Key": "r"}
    first = await client.post("/agents", BEARER, headers=key)
    again = await client.post("/agents", BEARER, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    problem_of(await client.post("/agents", SCORER, headers=key), 422, "idempotency_key_reused")


async def test_a_taken_name_is_a_conflict(client: Client) -> None:
    await client.post("/agents", SCORER)
    problem_of(await client.post("/agents", SCORER), 409, "agent_exists")


async def test_every_mistake_is_told_and_no_credential_repeated(client: Client) -> None:
    wrong = {
        **BEARER,
        "name": "a/b",
        "timeout_ms": "soon",
        "auth_config": {"token": CANARY + "\n"},
        "colour": "red",
        "version": 7,
        "x-note": "passes",
    }
    answer = await client.post("/agents", wrong)
    problem = problem_of(answer, 422, "invalid_request")
    assert {each["pointer"] for each in problem["errors"]} == {
        "/name",
        "/timeout_ms",
        "/auth_config/token",
        "/colour",
    }
    assert CANARY not in answer.text
    problem_of(await client.post("/agents", [SCORER]), 422, "invalid_request")
    assert (await client.get("/events")).json()["items"] == []


async def test_the_list_has_pages_and_filters(client: Client, services: Services) -> None:
    for name in ("a", "b", "c"):
        await client.post("/agents", {**SCORER, "name": name})
    await put(client, "/agents/b", {"status": "inactive"})
    await delete(client, "/agents/c")
    head = await services.store.log.head()

    async def listed(**query: Any) -> Any:
        found = await client.get("/agents", params={"min_position": head, **query})
        assert found.status_code == 200, found.text
        return found.json()

    everything = await listed()
    assert [each["name"] for each in everything["items"]] == ["a", "b"]
    assert everything["items"][0] == (await client.get("/agents/a")).json()
    assert [each["name"] for each in (await listed(status="inactive"))["items"]] == ["b"]
    assert [each["name"] for each in (await listed(status="deleted"))["items"]] == ["c"]
    assert [each["name"] for each in (await listed(name="a"))["items"]] == ["a"]
    second = await listed(page=2, page_size=1)
    assert (second["total"], second["total_pages"]) == (2, 2)
    assert [each["name"] for each in second["items"]] == ["b"]


async def test_the_older_names_at_the_root_mask_credentials(client: Client) -> None:
    described = {
        **SCORER,
        "auth_type": "apikey",
        "auth_config": {"key": CANARY, "header_name": "X-Scorer-Key"},
        "retry_config": {"max_retries": 1},
        "recovery": {"on_failure": "FALLBACK", "fallback_agent": "other", "max_retries": 1},
    }
    await client.post("/agents", described)
    await client.post("/agents", {"name": "plain", "transport": "pull"})
    entry = await client.http.get("/agents/scorer")
    assert entry.json() == {
        "name": "scorer",
        "url": "https://scorer.example/a2a",
        "auth_config": {"type": "apikey", "key": "***", "header": "X-Scorer-Key"},
        "timeout": 30_000,
        "retry_config": {
            "max_retries": 1,
            "initial_delay_ms": 1000,
            "max_delay_ms": 30000,
            "backoff_multiplier": 2.0,
        },
        "circuit_breaker_config": {
            "failure_threshold": 5,
            "failure_rate_threshold": 0.5,
            "window_size_seconds": 120.0,
            "timeout_seconds": 60.0,
            "half_open_max_calls": 3,
        },
    }
    recovery = await client.http.get("/agents/scorer/recovery")
    assert recovery.json() == described["recovery"]
    assert (await client.http.get("/agents/plain")).json()["auth_config"] is None
    default = await client.http.get("/agents/plain/recovery")
    assert default.json() == {"on_failure": "RETRY", "fallback_agent": None, "max_retries": 3}
    for path in ("/agents/nobody", "/agents/nobody/recovery"):
        problem_of(await client.http.get(path), 404, "not_found")


async def test_a_healthy_agent_shows_its_card_and_gets_its_credential(client: Client) -> None:
    def card(received: Received) -> bytes:
        return json_answer(b'{"name": "Scorer", "skills": []}')

    async with http_server(card) as server:
        for number, (auth, sent) in enumerate(
            (
                ({"auth_type": "none"}, {}),
                (
                    {"auth_type": "bearer", "auth_config": {"token": CANARY}},
                    {"authorization": f"Bearer {CANARY}"},
                ),
                (
                    {"auth_type": "apikey", "auth_config": {"key": "${secret.SCORER}"}},
                    {"x-api-key": f"resolved-{CANARY}"},
                ),
            )
        ):
            name = f"agent-{number}"
            await client.post("/agents", {"name": name, "url": server.url + "/a2a/", **auth})
            health = (await client.get(f"/agents/{name}/health")).json()
            assert health["status"] == "healthy", health
            assert health["agent_card"] == {"name": "Scorer", "skills": []}
            assert health["timestamp"].endswith("Z")
            assert isinstance(health["response_time_ms"], int)
            request = server.received[-1]
            assert request.target == "/a2a/.well-known/agent-card.json"
            headers = {key.lower(): value for key, value in request.headers.items()}
            credentials = {
                key: headers[key] for key in ("authorization", "x-api-key") if key in headers
            }
            assert credentials == sent


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (plain_answer(503, b"busy"), "503"),
        (plain_answer(200, b"<html>hello</html>", content_type="text/html"), "JSON"),
        (json_answer(b'["a card"]'), "no object"),
        (plain_answer(302, b"", location="http://10.0.0.1/"), "FLOWLEDGER_OUTBOUND_ALLOW"),
    ],
)
async def test_an_unhealthy_agent_is_an_answer_that_says_why(
    client: Client, content: bytes, said: str
) -> None:
    async with http_server(lambda _: content) as server:
        await client.post("/agents", {**SCORER, "url": server.url})
        answer = await client.get("/agents/scorer/health")
    assert answer.status_code == 200
    health = answer.json()
    assert (health["status"], health["agent_card"]) == ("unhealthy", None)
    assert said in health["message"]


async def test_a_private_address_is_called_only_when_that_is_allowed(client: Client) -> None:
    await client.post("/agents", {**SCORER, "url": "http://10.1.2.3/a2a"})
    health = (await client.get("/agents/scorer/health")).json()
    assert health["status"] == "unhealthy"
    assert "FLOWLEDGER_OUTBOUND_ALLOW" in health["message"]


async def test_an_agent_without_an_address_is_not_asked(client: Client) -> None:
    await client.post("/agents", {"name": "puller", "transport": "pull"})
    health = (await client.get("/agents/puller/health")).json()
    assert (health["status"], health["response_time_ms"]) == ("unknown", None)


async def test_a_credential_is_in_no_answer_and_no_log_line(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the agent sends it back."""
    caplog.set_level(logging.DEBUG)

    def echo(received: Received) -> bytes:
        sent = received.headers.get("authorization") or received.headers.get("Authorization")
        return json_answer(b'{"seen": "%s"}' % str(sent).encode())

    seen = []
    async with http_server(echo) as server:
        body = {**BEARER, "url": server.url}
        seen.append(await client.post("/agents", body))
        seen.append(await client.post("/agents", body))
        seen.append(await put(client, "/agents/scorer", {"auth_config": {"token": CANARY + "2"}}))
        paths = ("/agents", "/agents/scorer", "/agents/scorer/health", "/events")
        seen += [await client.get(path) for path in paths]
        seen.append(await client.http.get("/agents/scorer"))
        seen.append(await client.http.get("/metrics"))
        seen.append(await delete(client, "/agents/scorer"))
        assert any(f"Bearer {CANARY}" in str(each.headers) for each in server.received)
    text = "\n".join(each.text + str(each.headers) for each in seen) + caplog.text
    assert "scorer" in text
    assert "[secret]" in text  # what the agent sent back
    assert CANARY not in text
    for shift in range(3):
        assert base64.b64encode(b"x" * shift + CANARY.encode()).decode()[4:-4] not in text


async def test_without_a_key_a_literal_credential_is_refused_with_what_to_do(
    sqlite_ledger_url: str, anyio_backend: str
) -> None:
    opened = await open_services(Settings(database_url=sqlite_ledger_url))
    try:
        transport = httpx2.ASGITransport(create_app(opened))
        async with httpx2.AsyncClient(transport=transport, base_url="http://ledger.test") as http:
            client = Client(http)
            answer = await client.post("/agents", BEARER)
            problem = problem_of(answer, 422, "no_encryption_key")
            assert "flowledger make-key" in problem["detail"]
            assert CANARY not in answer.text
            problem_of(await client.get("/agents/scorer"), 404, "not_found")
            kept = {**BEARER, "auth_config": {"token": "${secret.SCORER}"}}
            made = await client.post("/agents", kept)
            assert made.json()["auth_config"] == {"token": "${secret.SCORER}"}
    finally:
        await opened.close()


async def test_an_agent_that_nothing_reaches_without_kafka_is_warned_of(client: Client) -> None:
    for each in TOPIC_AGENTS:
        await client.post("/agents", each)
    published = await client.publish(ON_TOPICS)
    validated = (await client.post("/workflows/validate", ON_TOPICS)).json()
    revised = (await put(client, "/workflows/on-topics", {"description": "anew"})).json()
    for answer in (published, validated, revised):
        assert [(each["pointer"], each["code"]) for each in answer["warnings"]] == [
            ("/steps/b/recovery/0/do/agent", "no_kafka"),
            ("/steps/c/agent_name", "no_kafka"),
        ]
        for each in answer["warnings"]:
            assert "'listens'" in each["message"]
            assert "FLOWLEDGER_KAFKA_BROKERS" in each["message"]


async def test_with_kafka_there_is_nothing_to_warn_of(sqlite_ledger_url: str) -> None:
    services = await open_services(
        Settings(database_url=sqlite_ledger_url, kafka_brokers="127.0.0.1:1")
    )
    try:
        transport = httpx2.ASGITransport(create_app(services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://ledger.test") as http:
            for each in TOPIC_AGENTS:
                await Client(http).post("/agents", each)
            assert (await Client(http).publish(ON_TOPICS))["warnings"] == []
    finally:
        await services.close()
