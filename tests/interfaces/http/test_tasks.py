"""The routes of workers that ask for work."""

import asyncio
from typing import Any

import httpx2
import pytest

from domain.json_values import PAYLOAD_BYTES_MAX
from interfaces.bootstrap import Services
from tests.interfaces.http.served import Client, action, flow, problem_of

pytestmark = pytest.mark.anyio

SCORING = flow(
    "scoring",
    score={
        "agent_name": "scorer",
        "input_mapping": {"application": "${workflow.input.application}"},
        "next_step": "after",
    },
    after=action(),
)
ASK = {"agents": ["scorer"], "worker_id": "w1", "wait_seconds": 20}


async def begin(client: Client) -> Any:
    """An execution that has, or gets, a task for the agent `scorer`."""
    known = await client.get("/agents/scorer")
    if known.status_code == 404:
        await client.post("/agents", {"name": "scorer", "transport": "pull"})
        await client.publish(SCORING)
    begun = await client.post("/workflows/scoring/execute", {"input_data": {"application": "A"}})
    return begun.json()


async def take(client: Client, **ask: Any) -> Any:
    answer = await client.post("/tasks/poll", ASK | ask)
    assert answer.status_code == 200, answer.text
    (task,) = answer.json()["tasks"]
    return task


async def ended(client: Client, execution: Any) -> Any:
    path = f"/executions/{execution['id']}"
    return (await client.get(path, headers={"Prefer": "wait=30"})).json()


async def test_a_task_goes_out_and_its_result_comes_back(client: Client) -> None:
    execution = await begin(client)
    task = await take(client)
    assert set(task) == {
        "task_id",
        "correlation_id",
        "execution_id",
        "run_id",
        "workflow_name",
        "path",
        "step_id",
        "agent_name",
        "attempt",
        "try_no",
        "delivery",
        "epoch",
        "idempotency_key",
        "input_data",
        "lease_until",
        "deadline_at",
    }
    assert (task["execution_id"], task["input_data"]) == (execution["id"], {"application": "A"})
    own, epoch = f"/tasks/{task['task_id']}", {"epoch": task["epoch"]}
    shown = (await client.get(own)).json()
    assert (shown["status"], shown["worker_id"], shown["delivery"]) == ("OPEN", "w1", 1)
    assert shown["lease_until"] == task["lease_until"]
    longer = await client.post(f"{own}/heartbeat", epoch | {"lease_seconds": 600})
    assert longer.json()["lease_until"] > task["lease_until"]
    told = await client.post(f"{own}/progress", epoch | {"progress": {"percent": 50}})
    assert told.json()["task_id"] == task["task_id"]
    done = await client.post(f"{own}/complete", epoch | {"output_data": {"score": 7}})
    body = done.json()
    assert (body["recorded"], body["repeated"], body["why"]) == (True, False, None)
    repeated = await client.post(f"{own}/complete", epoch | {"output_data": {"score": 7}})
    assert repeated.json() == body | {"repeated": True}
    view = await ended(client, execution)
    assert view["status"] == "COMPLETED"
    listed = await client.get(
        f"/tasks?execution_id={view['id']}&status=DONE&min_position={view['position']}"
    )
    assert [each["task_id"] for each in listed.json()["items"]] == [task["task_id"]]
    assert listed.json()["items"][0]["lease_until"] is None


async def test_a_failure_says_what_and_whether_again(client: Client) -> None:
    execution = await begin(client)
    task = await take(client)
    failed = await client.post(
        f"/tasks/{task['task_id']}/fail",
        {"epoch": task["epoch"], "message": "no such person", "error_class": "permanent"},
    )
    assert failed.json()["recorded"]
    view = await ended(client, execution)
    assert view["status"] == "FAILED"
    assert (view["error"]["code"], view["error"]["class"]) == ("agent_error", "permanent")


async def test_what_comes_after_a_cancel_is_told_to_be_late(client: Client) -> None:
    execution = await begin(client)
    task = await take(client)
    await client.post(f"/executions/{execution['id']}/cancel", {})
    own, epoch = f"/tasks/{task['task_id']}", {"epoch": task["epoch"]}
    problem_of(await client.post(f"{own}/heartbeat", epoch), 409, "task_ended")
    problem_of(await client.post(f"{own}/progress", epoch | {"progress": 1}), 409, "task_ended")
    late = await client.post(f"{own}/complete", epoch | {"output_data": 1})
    assert (late.status_code, late.json()["recorded"]) == (200, False)
    assert "cancelled" in late.json()["why"]


async def test_another_epoch_is_refused(client: Client) -> None:
    await begin(client)
    task = await take(client)
    own, epoch = f"/tasks/{task['task_id']}", {"epoch": task["epoch"] - 1}
    for verb, more in (
        ("heartbeat", {}),
        ("progress", {"progress": 1}),
        ("complete", {"output_data": 1}),
        ("fail", {"message": "no"}),
    ):
        refused = problem_of(await client.post(f"{own}/{verb}", epoch | more), 409, "lease_lost")
        assert "/tasks/poll" in refused["detail"]
    unknown = "/tasks/task-a-00000000"
    problem_of(await client.post(f"{unknown}/complete", epoch), 404, "not_found")
    problem_of(await client.get(unknown), 404, "not_found")


async def test_an_output_too_large_leaves_the_task_to_its_worker(client: Client) -> None:
    execution = await begin(client)
    task = await take(client)
    path, epoch = f"/tasks/{task['task_id']}/complete", {"epoch": task["epoch"]}
    large = "x" * PAYLOAD_BYTES_MAX
    refused = problem_of(await client.post(path, epoch | {"output_data": large}), 413, "too_large")
    assert refused["errors"][0]["pointer"].startswith("/output_data")
    page = await client.post(path, content="<html>", headers={"content-type": "text/html"})
    problem_of(page, 415, "unsupported_media_type")
    assert (await client.post(path, epoch | {"output_data": "x"})).status_code == 200
    assert (await ended(client, execution))["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"agents": []}, "/agents"),
        ({"agents": ["a/b"]}, "/agents/0"),
        ({"agents": ["nobody"]}, "/agents/0"),
        ({"agents": ["scorer", "caller"]}, "/agents/1"),
        ({"worker_id": ""}, "/worker_id"),
        ({"worker_id": "a b"}, "/worker_id"),
        ({"max_tasks": 101}, "/max_tasks"),
        ({"max_tasks": "1"}, "/max_tasks"),
        ({"wait_seconds": 31}, "/wait_seconds"),
        ({"lease_seconds": 4}, "/lease_seconds"),
        ({"lease_seconds": 3_601}, "/lease_seconds"),
        ({"agent": "scorer"}, "/agent"),
    ],
)
async def test_a_wrong_question_is_refused_at_its_place(
    client: Client, wrong: Any, pointer: str
) -> None:
    await client.post("/agents", {"name": "scorer", "transport": "pull"})
    await client.post("/agents", {"name": "caller", "url": "https://caller.example/"})
    answer = await client.post("/tasks/poll", ASK | wrong)
    refused = problem_of(answer, 422, "invalid_request")
    assert refused["errors"][0]["pointer"] == pointer


async def test_nobody_waits_for_a_process_that_stops(client: Client, services: Services) -> None:
    await client.post("/agents", {"name": "scorer", "transport": "pull"})
    waiting = asyncio.create_task(client.post("/tasks/poll", ASK | {"wait_seconds": 30}))
    await asyncio.sleep(0)
    services.finish_requests()
    answer: httpx2.Response = await waiting
    assert answer.json() == {"tasks": []}
