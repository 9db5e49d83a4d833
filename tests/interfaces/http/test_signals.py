"""Signals and children over REST."""

from typing import Any

import pytest

from domain.signals import SIGNALS_KEPT_MAX
from tests.interfaces.http.served import Client, problem_of

pytestmark = pytest.mark.anyio

WAITS: dict[str, Any] = {
    "name": "waits",
    "start_step": "paid",
    "steps": {
        "paid": {
            "type": "wait_for_event",
            "event_source": "paid",
            "event_filter": {"order": "${workflow.input.order}"},
        }
    },
}
CALLS: dict[str, Any] = {
    "name": "calls",
    "start_step": "sub",
    "steps": {
        "sub": {"type": "sub_workflow", "workflow_id": "waits", "input_mapping": {"order": 7}}
    },
}


async def started(client: Client, name: str, given: dict[str, Any] | None = None) -> str:
    body = {"input_data": given or {}}
    execution = (await client.post(f"/workflows/{name}/execute", body)).json()
    return str(execution["id"])


async def waiting(client: Client, execution_id: str, kind: str) -> dict[str, Any]:
    """The execution once it waits for something of this kind."""
    for _ in range(100):
        found = await client.get(f"/executions/{execution_id}")
        if found.status_code == 404:  # a child that is about to begin
            continue
        view = found.json()
        if any(each["kind"] == kind for each in view["waiting_on"]):
            return dict(view)
        etag = f'"{view["version"]}"'
        headers = {"Prefer": "wait=1", "If-None-Match": etag}
        await client.get(f"/executions/{execution_id}", headers=headers)
    raise AssertionError(f"it never waited for a {kind}")


async def test_a_signal_moves_the_execution(client: Client) -> None:
    await client.publish(WAITS)
    execution_id = await started(client, "waits", {"order": 7})
    view = await waiting(client, execution_id, "signal")
    assert view["waiting_on"][0]["detail"] == "paid"
    assert "signal" in view["allowed_actions"]
    told = (await client.get(f"/executions/{execution_id}/explain")).json()
    assert "the signal 'paid'" in told["waiting_on"][0]["sentence"]
    where = f"/executions/{execution_id}/signals/paid"

    other = await client.post(where, {"payload": {"order": 8}})
    taken = await client.post(where, {"payload": {"order": 7}}, headers={"Idempotency-Key": "k"})
    again = await client.post(where, {"payload": {"order": 7}}, headers={"Idempotency-Key": "k"})

    assert (other.status_code, taken.status_code) == (202, 202)
    assert again.headers["Idempotency-Replayed"] == "true"
    ended = (await client.get(f"/executions/{execution_id}", headers={"Prefer": "wait=30"})).json()
    assert (ended["status"], ended["output"]) == ("COMPLETED", {"order": 7})
    problem_of(await client.post(where, {"payload": 1}), 409, "illegal_transition")


async def test_bad_signals_are_refused(client: Client) -> None:
    await client.publish(WAITS)
    execution_id = await started(client, "waits", {"order": 7})
    where = f"/executions/{execution_id}/signals"
    problem_of(await client.post(f"{where}/a%20b", {}), 422, "invalid_request")
    problem_of(await client.post(f"{where}/paid", {"pay": 1}), 422, "invalid_request")
    problem_of(await client.post("/executions/nobody/signals/paid", {}), 404, "not_found")
    for _ in range(SIGNALS_KEPT_MAX):
        assert (await client.post(f"{where}/x", {})).status_code == 202
    problem_of(await client.post(f"{where}/x", {}), 429, "too_many_signals")


async def test_a_child_is_seen_from_its_parent_and_its_parent_from_it(client: Client) -> None:
    await client.publish(WAITS)
    await client.publish(CALLS)
    parent_id = await started(client, "calls")
    (wait,) = (await waiting(client, parent_id, "child"))["waiting_on"]
    child_id = wait["detail"]
    child = await waiting(client, child_id, "signal")
    assert child["parent"] == {
        "execution_id": parent_id,
        "path": "sub",
        "attempt": 1,
        "try_no": 1,
    }
    told = (await client.get(f"/executions/{parent_id}/explain")).json()
    assert f"waits for child {child_id} of workflow 'waits'" in told["waiting_on"][0]["sentence"]
    steps = (await client.get(f"/executions/{parent_id}/steps")).json()["items"]
    assert steps[0]["child_execution_id"] == child_id

    answer = await client.post(f"/executions/{child_id}/signals/paid", {"payload": {"order": 7}})

    ended = (await client.get(f"/executions/{parent_id}", headers={"Prefer": "wait=30"})).json()
    assert (ended["status"], ended["output"]) == ("COMPLETED", {"order": 7})
    listed = (
        await client.get(f"/executions?parent={parent_id}&min_position={answer.json()['position']}")
    ).json()
    assert [each["id"] for each in listed["items"]] == [child_id]
    assert listed["items"][0]["parent"] == child["parent"]
    assert (await client.get(f"/executions?parent={child_id}")).json()["total"] == 0


async def test_a_workflow_that_runs_itself_is_not_published(client: Client) -> None:
    def ring(name: str, other: str) -> dict[str, Any]:
        sub = {"type": "sub_workflow", "workflow_id": other}
        return {"name": name, "start_step": "sub", "steps": {"sub": sub}}

    own = problem_of(await client.post("/workflows", ring("a", "a")), 422, "invalid_definition")
    assert own["errors"][0]["pointer"] == "/steps/sub/workflow_id"
    first = await client.post("/workflows", ring("a", "b"))
    assert first.status_code == 201
    assert first.json()["warnings"][0]["code"] == "unknown_workflow"
    second = problem_of(await client.post("/workflows", ring("b", "a")), 422, "invalid_definition")
    assert "a -> b" in second["errors"][0]["message"]
    verdict = (await client.post("/workflows/validate", ring("b", "a"))).json()
    assert [each["code"] for each in verdict["errors"]] == ["cycle"]
