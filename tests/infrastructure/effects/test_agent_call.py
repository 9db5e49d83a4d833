"""Calls of agents over HTTP against a real server, with breakers in a real store."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from msgspec import structs

from application.breakers import Breakers
from application.messages import AgentTask
from application.steps import Failed, Succeeded
from domain.breaker import CLOSED, OPEN, BreakerSettings
from domain.errors import NotReady, StateConflict
from infrastructure.breaker_store import open_breaker_store
from infrastructure.database import Store, StoreOptions, open_store
from infrastructure.effects.agent_call import AgentCall, HttpAgentCaller
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.outbound_addresses import OutboundAllow
from infrastructure.effects.secrets import Secrets
from infrastructure.migrations import migrate
from tests.infrastructure.effects.called_agents import Ahead, Book, Calls
from tests.infrastructure.effects.local_servers import (
    Received,
    answer,
    http_server,
    json_answer,
    step_context,
)

pytestmark = pytest.mark.anyio

SECRET = "canary/secret+1"
SECRETS = Secrets({"AGENT": SECRET})
NUMBERS = count(1)


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'ledger.db'}"
    migrate.upgrade(url)
    store = open_store(url, StoreOptions(environment={}))
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def calls(store: Store) -> AsyncIterator[Calls]:
    outbound = Outbound(OutboundAllow.parse("127.0.0.1"))
    breakers = Breakers(open_breaker_store(store), store.clock)
    book = Book()
    yield Calls(
        book,
        breakers,
        HttpAgentCaller(book, breakers, outbound, store.clock, SECRETS),
        f"agent-{next(NUMBERS)}",
    )
    await outbound.aclose()


def replying(**result: Any) -> Callable[[Received], bytes]:
    """An agent that completes each task."""

    def reply(request: Received) -> bytes:
        asked = json.loads(request.body)
        whole = {"status": {"state": "completed"}, **result}
        return json_answer(
            json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": whole}).encode()
        )

    return reply


# -------------------------------------------------------------------------------------- one call


async def test_a_step_is_one_request_and_its_result_is_the_output(calls: Calls) -> None:
    async with http_server(replying(data={"n": 1.5}, metadata={"m": [1]})) as server:
        calls.register(server.url + "/a2a")
        outcome = await calls.call({"query": "who?"}, path="each[3]/p")
    assert isinstance(outcome, Succeeded)
    assert isinstance(outcome.output, dict)
    assert (outcome.output["data"], outcome.output["metadata"]) == ({"n": 1.5}, {"m": [1]})
    (request,) = server.received
    assert (request.method, request.target) == ("POST", "/a2a")
    body = json.loads(request.body)
    task = body["id"]
    assert task.startswith("task-p-")
    assert len(task) == len("task-p-") + 16
    assert body["params"]["message"]["messageId"] == f"msg-{task}"
    assert body["params"]["message"]["parts"] == [{"kind": "text", "text": "who?"}]
    context = step_context(path="each[3]/p")
    expected = {
        "content-type": "application/json",
        "accept": "application/json",
        "x-correlation-id": f"corr-run-{context.execution_id}-p-{task[-16:]}",
        "idempotency-key": context.idempotency_key,
        "x-flowledger-attempt": "1",
        "x-flowledger-try": "2",
        "x-flowledger-epoch": "7",
    }
    assert {name: request.headers.get(name) for name in expected} == expected
    assert "authorization" not in request.headers


async def test_the_ids_are_those_of_the_try(calls: Calls) -> None:
    contexts = [
        step_context(),
        structs.replace(step_context(), delivery=2, epoch=8),
        structs.replace(step_context(), try_no=3),
        structs.replace(step_context(), attempt=2),
        step_context(path="other"),
    ]
    async with http_server(replying()) as server:
        calls.register(server.url)
        for context in contexts:
            await calls.caller.call(calls.name, {}, context)
        first, again, *others = [json.loads(request.body)["id"] for request in server.received]
    assert first == again
    assert len({first, *others}) == 4


async def test_the_simple_form(calls: Calls) -> None:
    def reply(request: Received) -> bytes:
        asked = json.loads(request.body)
        told = {"task_id": asked["task_id"], "status": "success", "output": asked["input"]}
        return json_answer(json.dumps(told).encode())

    async with http_server(reply) as server:
        calls.register(server.url, protocol="simple")
        assert await calls.call({"n": [1.0, None]}) == Succeeded({"n": [1.0, None]})


async def test_a_task_that_came_with_its_names_keeps_them(calls: Calls) -> None:
    async with http_server(replying()) as server:
        calls.register(server.url)
        task = AgentCall(
            workspace_id="default",
            agent=calls.name,
            task_id="0190b5a4-bare-uuid",
            correlation_id="corr-x",
            idempotency_key="key-x",
            input={"text": "t"},
        )
        outcome = await calls.caller.perform(task)
    assert isinstance(outcome, Succeeded)
    (request,) = server.received
    assert json.loads(request.body)["id"] == "0190b5a4-bare-uuid"
    assert (request.headers["x-correlation-id"], request.headers["idempotency-key"]) == (
        "corr-x",
        "key-x",
    )


@pytest.mark.parametrize(
    ("settings", "header", "sent"),
    [
        ({"auth_type": "bearer"}, "authorization", f"Bearer {SECRET}"),
        ({"auth_type": "apikey"}, "x-api-key", SECRET),
        ({"auth_type": "apikey", "header_name": "X-Team"}, "x-team", SECRET),
    ],
)
async def test_the_credential_is_sent_and_never_comes_back(
    calls: Calls, settings: dict[str, Any], header: str, sent: str
) -> None:
    async with http_server(replying(echo=[sent, {SECRET: 1}])) as server:
        calls.register(server.url, credential=SECRET, **settings)
        outcome = await calls.call()
        assert server.received[0].headers[header] == sent
    assert isinstance(outcome, Succeeded)
    assert SECRET not in json.dumps(outcome.output)
    async with http_server(lambda _: json_answer(json.dumps({"t": sent}).encode(), 500)) as server:
        calls.register(server.url, **settings)
        failed = await calls.failure()
    assert failed.message == 'HTTP 500: {"t": "' + sent.replace(SECRET, "[secret]") + '"}'
    assert SECRET not in json.dumps([failed.message, failed.output, failed.detail])


async def test_a_credential_may_be_a_secret_s_name(calls: Calls) -> None:
    async with http_server(replying(echo=SECRET)) as server:
        calls.register(server.url, auth_type="bearer", credential="${secret.AGENT}")
        outcome = await calls.call()
        assert server.received[0].headers["authorization"] == f"Bearer {SECRET}"
        calls.register(server.url, auth_type="bearer", credential="${secret.OTHER}")
        assert (await calls.failure()).code == "secret_missing"
    assert isinstance(outcome, Succeeded)
    assert SECRET not in json.dumps(outcome.output)


# ---------------------------------------------------------------------- what never reaches anybody


async def test_what_cannot_be_called_is_explained(calls: Calls) -> None:
    unknown = await calls.failure()
    assert (unknown.code, unknown.retryable) == ("unknown_agent", False)
    calls.register("http://127.0.0.1:9/")
    calls.book.agents[calls.name] = replace(calls.book.agents[calls.name], status="inactive")
    assert (await calls.failure()).code == "agent_inactive"
    calls.register(None)
    assert (await calls.failure()).code == "agent_without_url"
    calls.register("http://127.0.0.1:9/", auth_type="bearer")
    assert (await calls.failure()).code == "agent_credential_missing"
    for unusable in ("short", "line\r\nX-Other: 1", "canary-ü"):
        calls.register("http://127.0.0.1:9/", auth_type="bearer", credential=unusable)
        failed = await calls.failure()
        assert failed.code == "agent_credential_unusable"
        assert unusable not in failed.message
    calls.register("http://10.0.0.1/")
    refused = await calls.failure()
    assert (refused.code, refused.retryable) == ("outbound_refused", False)
    assert "FLOWLEDGER_OUTBOUND_ALLOW" in refused.message
    assert await calls.state() == CLOSED


async def test_tasks_of_agents_that_read_the_topic_themselves_are_passed_over(calls: Calls) -> None:
    """A bridge reads the same topic as they do, and must not answer for them."""
    task = AgentTask(
        run_id="run-1",
        task_id="task-1",
        agent_name=calls.name,
        input={},
        correlation_id="corr-1",
        at=None,
    )
    for transport, url in (("kafka", None), ("kafka", "http://127.0.0.1:9/"), ("pull", None)):
        calls.register(url, transport=transport)
        assert await calls.caller.call_for("default", task) is None
    calls.register("http://10.0.0.1/")
    called = await calls.caller.call_for("default", task)
    assert isinstance(called, Failed)
    assert called.code == "outbound_refused"
    unknown = await calls.caller.call_for("default", structs.replace(task, agent_name="nobody"))
    assert isinstance(unknown, Failed)
    assert unknown.code == "unknown_agent"


async def test_a_registry_that_fails_is_an_outcome_too(calls: Calls) -> None:
    calls.register("http://127.0.0.1:9/")
    calls.book.failure = NotReady("The store does not answer; try again.")
    lost = await calls.failure()
    assert (lost.code, lost.error_class) == ("registry_unavailable", "transient")
    assert "try again" in lost.message
    calls.book.failure = StateConflict("No key.", current_status="active")
    sealed = await calls.failure()
    assert (sealed.code, sealed.message) == ("illegal_transition", "No key.")
    assert not sealed.retryable
    calls.book.failure = ValueError(f"broken by {SECRET}")
    broken = await calls.failure()
    assert (broken.code, SECRET in broken.message) == ("agent_call_broken", False)


# ------------------------------------------------------------------------- what comes back is bad


@pytest.mark.parametrize(
    ("reply", "code", "error_class", "message"),
    [
        (answer(503, b"overloaded"), "http_status", "transient", "HTTP 503: overloaded"),
        (answer(429), "http_status", "transient", "HTTP 429"),
        (answer(404), "http_status", "permanent", "HTTP 404: Reason404"),
        (answer(302, location="http://10.0.0.1/x"), "agent_redirects", "permanent", "10.0.0.1/x"),
        (answer(200, b"<html>", content_type="text/html"), "bad_agent_reply", "permanent", "HTML"),
        (json_answer(b'{"a": "\xff"}'), "bad_agent_reply", "permanent", "UTF-8"),
        (json_answer(b"[" * 5_000), "bad_agent_reply", "permanent", "cannot be read"),
        (json_answer(b"1" * 1_000_001), "body_too_large", "permanent", "1000000 bytes"),
        (answer(200, b"x", content_encoding="br"), "bad_content_encoding", "permanent", "gzip"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "network_error", "transient", ""),
        (b"no HTTP at all\r\n\r\n", "network_error", "transient", ""),
    ],
)
async def test_a_bad_answer_is_one_explained_failure_after_one_call(
    calls: Calls, reply: bytes, code: str, error_class: str, message: str
) -> None:
    async with http_server(lambda _: reply, closes=True) as server:
        calls.register(server.url)
        failed = await calls.failure()
        assert len(server.received) == 1
    assert (failed.code, failed.error_class) == (code, error_class)
    assert failed.retryable is (error_class == "transient")
    assert message in failed.message
    assert calls.caller.calls == {(calls.name, code): 1}


async def test_an_answer_too_large_to_keep_is_a_failure(calls: Calls) -> None:
    async with http_server(replying(data="x" * 300_000)) as server:
        calls.register(server.url)
        failed = await calls.failure()
    assert (failed.code, failed.retryable, failed.output) == ("output_not_storable", False, None)
    assert "262144" in failed.message
    assert await calls.state() == CLOSED


async def test_a_failure_too_large_to_keep_is_kept_without_its_output(calls: Calls) -> None:
    def reply(request: Received) -> bytes:
        told = {"code": -32000, "message": "m" * 300_000}
        body = {"jsonrpc": "2.0", "id": json.loads(request.body)["id"], "error": told}
        return json_answer(json.dumps(body).encode())

    async with http_server(reply) as server:
        calls.register(server.url)
        failed = await calls.failure()
    assert (failed.code, failed.output) == ("agent_error", None)
    assert failed.message.startswith("JSON-RPC Error -32000: mmm")
    assert len(failed.message) < 3_000


async def test_nobody_who_listens_is_a_network_error(calls: Calls) -> None:
    async with http_server() as server:
        url = server.url
    calls.register(url)
    failed = await calls.failure()
    assert (failed.code, failed.error_class) == ("network_error", "transient")


@pytest.mark.parametrize("limits", [{"timeout_ms": 50}, {}])
async def test_no_answer_is_a_timeout(calls: Calls, limits: dict[str, int]) -> None:
    async with http_server(lambda _: b"") as server:
        calls.register(server.url, **limits)
        failed = await calls.failure(timeout_seconds=20.0 if limits else 0.05)
    assert (failed.code, failed.error_class) == ("timeout", "timeout")


# ------------------------------------------------------------------------------------ the breaker


async def test_an_agent_that_fails_is_called_no_more(calls: Calls) -> None:
    async with http_server(lambda _: answer(503)) as server:
        calls.register(server.url)
        for _ in range(5):
            assert (await calls.failure()).code == "http_status"
        refused = [await calls.failure() for _ in range(10)]
        assert len(server.received) == 5
    assert await calls.state() == OPEN
    for failed in refused:
        assert failed.message == f"Circuit breaker is OPEN for agent '{calls.name}'"
        assert (failed.code, failed.error_class, failed.retryable) == (
            "circuit_open",
            "transient",
            True,
        )
        assert isinstance(failed.detail, dict)
        assert str(failed.detail["retry_at"]).endswith("Z")
    assert calls.caller.calls == {
        (calls.name, "http_status"): 5,
        (calls.name, "circuit_open"): 10,
    }


async def test_an_agent_that_answers_503_for_30_seconds_gets_nothing_but_probes(
    calls: Calls, store: Store
) -> None:
    """Four callers, each with a call every half second of a virtual clock."""
    clock = Ahead(store.clock.now())
    begun = clock.now()
    settings = BreakerSettings(timeout_seconds=10)

    def reply(request: Received) -> bytes:
        is_up = clock.now() - begun >= timedelta(seconds=30)
        return replying()(request) if is_up else answer(503)

    async with http_server(reply) as server:
        calls.register(server.url, circuit_breaker_config=settings)
        outbound = Outbound(OutboundAllow.parse("127.0.0.1"))
        breakers = Breakers(open_breaker_store(store), clock)
        caller = HttpAgentCaller(calls.book, breakers, outbound, clock, SECRETS)
        received: list[int] = []
        while clock.now() - begun < timedelta(seconds=30):
            before = len(server.received)
            await asyncio.gather(*(caller.call(calls.name, {}, step_context()) for _ in range(4)))
            received.append(len(server.received) - before)
            await clock.sleep(0.5)
        assert sum(received[:2]) <= settings.failure_threshold + 3, "until it opened"
        later = [count for count in received[2:] if count]
        assert len(later) == 2, "half-open after 10 and after 20 seconds"
        assert max(later) <= settings.half_open_max_calls
        await clock.sleep(10)
        outcomes = [await caller.call(calls.name, {}, step_context()) for _ in range(4)]
        await outbound.aclose()
    assert [type(outcome) for outcome in outcomes] == [Succeeded] * 4
    assert await calls.state() == CLOSED


async def test_an_agent_that_says_no_works(calls: Calls) -> None:
    def reply(request: Received) -> bytes:
        told = {"code": -32000, "message": "no"}
        body = {"jsonrpc": "2.0", "id": json.loads(request.body)["id"], "error": told}
        return json_answer(json.dumps(body).encode())

    async with http_server(reply) as server:
        calls.register(server.url)
        assert {(await calls.failure()).code for _ in range(10)} == {"agent_error"}
    async with http_server(lambda _: answer(400)) as server:
        calls.register(server.url)
        assert {(await calls.failure()).code for _ in range(10)} == {"http_status"}
    assert await calls.state() == CLOSED


@pytest.mark.parametrize(("passed_seconds", "state"), [(80.0, CLOSED), (95.0, OPEN)])
async def test_a_call_that_is_given_up_counts_when_its_time_was_nearly_over(
    calls: Calls, store: Store, passed_seconds: float, state: str
) -> None:
    arrived = asyncio.Event()
    clock = Ahead(store.clock.now())

    def reply(_: Received) -> bytes:
        arrived.set()
        return b""

    async with http_server(reply) as server:
        once = BreakerSettings(failure_threshold=1)
        calls.register(server.url, timeout_ms=300_000, circuit_breaker_config=once)
        outbound = Outbound(OutboundAllow.parse("127.0.0.1"))
        caller = HttpAgentCaller(calls.book, calls.breakers, outbound, clock, SECRETS)
        given_up = asyncio.create_task(
            caller.call(calls.name, {}, step_context(timeout_seconds=100.0))
        )
        await arrived.wait()
        await clock.sleep(passed_seconds)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await outbound.aclose()
    assert await calls.state() == state
