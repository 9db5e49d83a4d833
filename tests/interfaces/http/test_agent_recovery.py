"""Over REST: what a registered agent says of failure is shown, pinned and carried out."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from tests.infrastructure.effects.local_servers import Received, http_server, json_answer
from tests.infrastructure.effects.local_servers import answer as plain_answer
from tests.interfaces.http.served import API, Client, flow, problem_of

pytestmark = pytest.mark.anyio

FLOW = flow("asked", a={"agent_name": "busy", "input_mapping": {"n": 1}})
RETRY_TWICE = {"max_retries": 2, "initial_delay_ms": 100, "backoff_multiplier": 1}


@pytest.fixture
async def services(sqlite_ledger_url: str, anyio_backend: str) -> AsyncIterator[Services]:
    """The real services, with leave to call this machine."""
    opened = await open_services(
        Settings(database_url=sqlite_ledger_url, outbound_allow="127.0.0.1")
    )
    try:
        yield opened
    finally:
        await opened.close()


def serve(received: Received) -> bytes:
    """At /busy an agent that is down, at /spare one that works."""
    if received.target == "/busy":
        return plain_answer(503)
    task = json.loads(received.body)
    done = {"task_id": task["task_id"], "status": "success", "output": task["input"]}
    return json_answer(json.dumps(done).encode())


async def register(client: Client, name: str, url: str, **members: Any) -> None:
    described = {"name": name, "url": f"{url}/{name}", "protocol": "simple", **members}
    made = await client.post("/agents", described)
    assert made.status_code == 201, made.text


async def change(client: Client, name: str, **members: Any) -> None:
    changed = await client.http.put(f"{API}/agents/{name}", json=members)
    assert changed.status_code == 200, changed.text


async def stages(client: Client) -> list[Any]:
    """What publishing would make of the step's recovery, in short."""
    verdict = (await client.post("/workflows/validate", FLOW)).json()
    assert verdict["valid"], verdict
    return [
        (each["attempts"], each["base_delay_ms"], each["multiplier"], each["max_delay_ms"])
        if each["kind"] == "retry"
        else each["do"]["agent"]
        for each in verdict["definition"]["steps"]["a"]["recovery"]
    ]


async def execute(client: Client, version: int) -> Any:
    answer = await client.post(
        f"/workflows/wf-asked-{version}/execute", {}, headers={"Prefer": "wait=30"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_version_recovers_as_the_agent_said_when_it_was_published(client: Client) -> None:
    async with http_server(serve) as server:
        await register(client, "busy", server.url, retry_config={"max_retries": 0})
        await register(client, "spare", server.url)
        assert await stages(client) == [(0, 1_000, 2.0, 30_000)]
        await client.publish(FLOW)

        to_spare = {"on_failure": "FALLBACK", "fallback_agent": "spare"}
        await change(client, "busy", retry_config=RETRY_TWICE, recovery=to_spare)
        assert await stages(client) == [(2, 100, 1.0, 30_000), "spare"]
        assert (await client.publish(FLOW))["version"] == 2

        assert (await execute(client, 1))["status"] == "FAILED"
        assert [each.target for each in server.received] == ["/busy"]
        ended = await execute(client, 2)
        assert (ended["status"], ended["output"]) == ("COMPLETED", {"n": 1})
        assert [each.target for each in server.received] == ["/busy"] * 4 + ["/spare"]

        await change(client, "busy", recovery={"on_failure": "FAIL"})
        assert await stages(client) == [(0, 100, 1.0, 30_000)]


async def test_a_fallback_that_may_not_be_used_is_told_with_the_agent_that_names_it(
    client: Client,
) -> None:
    to_nobody = {"on_failure": "FALLBACK", "fallback_agent": "nobody"}
    await register(client, "busy", "https://busy.example", recovery=to_nobody)
    verdict = (await client.post("/workflows/validate", FLOW)).json()
    assert (verdict["valid"], verdict["definition"]) == (False, None)
    problem = problem_of(await client.post("/workflows", FLOW), 422, "invalid_definition")
    (told,) = problem["errors"]
    assert (told["pointer"], told["code"]) == ("/steps/a/agent_name", "unknown_agent")
    assert told["message"].startswith("'busy' falls back to 'nobody'. There is no agent 'nobody'")
