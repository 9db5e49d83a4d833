"""The older names: the same executions as runs."""

import pytest

from tests.interfaces.http.served import API, FAILING, QUICK, WAITING, Client, problem_of

pytestmark = pytest.mark.anyio


async def test_a_run_is_the_execution_with_its_run_id(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    run = (await client.get(f"/runs/{view['run_id']}")).json()
    assert run == view | {"id": view["run_id"]}
    assert (await client.get(f"/runs/{view['id']}")).json() == run
    listed = (await client.get(f"/runs?min_position={view['position']}")).json()
    assert listed["items"] == [run]
    problem_of(await client.get("/runs/run-none"), 404, "not_found")


async def test_steps_and_logs_are_bare_arrays(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    (step,) = (await client.get(f"/runs/{view['run_id']}/steps")).json()
    assert step["id"] == f"{view['id']}:1:first:1"
    assert step["step_name"] == "first"
    lines = (await client.get(f"/runs/{view['run_id']}/logs")).json()
    assert len(lines) == view["version"]
    assert lines[-1].split()[1] == "completed"


async def test_cancel_answers_200_or_400(client: Client) -> None:
    view = await client.begin(WAITING)
    answer = await client.post(f"/runs/{view['run_id']}/cancel", {"reason": "late"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["id"], body["status"]) == (view["run_id"], "CANCELLED")
    assert body["message"] == "Run cancelled"
    assert answer.headers["location"] == f"{API}/runs/{view['run_id']}"
    done = await client.run(QUICK, {"count": 1})
    refused = await client.post(f"/runs/{done['run_id']}/cancel")
    assert problem_of(refused, 400, "run_illegal")["current_status"] == "COMPLETED"


async def test_retry_keeps_the_run(client: Client) -> None:
    view = await client.run(FAILING)
    answer = await client.post(f"/runs/{view['run_id']}/retry", {})
    assert answer.status_code == 202
    body = answer.json()
    assert body["new_run_id"] == body["original_run_id"] == body["id"] == view["run_id"]
    assert body["retry_count"] == 1
    waiting = await client.begin(WAITING)
    refused = await client.post(f"/runs/{waiting['run_id']}/retry", {})
    problem_of(refused, 400, "run_illegal")


async def test_runs_are_sorted_and_filtered_in_the_older_form(client: Client) -> None:
    first = await client.run(QUICK, {"count": 1})
    second = await client.run(QUICK, {"count": 2})
    seen = f"min_position={second['position']}"
    body = (await client.get(f"/runs?sort_by=created_at&sort_order=asc&{seen}")).json()
    assert [each["id"] for each in body["items"]] == [first["run_id"], second["run_id"]]
    by_id = f"workflow_definition_id={first['workflow_definition_id']}"
    assert (await client.get(f"/runs?{by_id}&{seen}")).json()["total"] == 2
    assert (await client.get(f"/runs?status=FAILED&{seen}")).json()["total"] == 0
