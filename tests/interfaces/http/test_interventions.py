"""Pause, resume, skip, complete, fork and lineage over REST."""

from typing import Any

import pytest

from tests.interfaces.http.served import (
    ASKING,
    FAILING,
    QUICK,
    WAITING,
    Client,
    action,
    flow,
    problem_of,
)

pytestmark = pytest.mark.anyio

ACTOR = {"X-Actor": "olga"}
STUCK = flow(
    "stuck",
    first=action({"n": 7}, "pause"),
    pause={"type": "wait", "duration_ms": 3_600_000, "next_step": "last"},
    last=action({"n": "${first.output.n}"}),
)


async def started(client: Client, definition: Any = WAITING) -> str:
    """Address of an execution that waits at its step."""
    await client.publish(definition)
    view = (await client.post(f"/workflows/{definition['name']}/execute", {})).json()
    where = f"/executions/{view['id']}"
    while not any(wait["kind"] not in ("start", "action") for wait in view["waiting_on"]):
        wanted = {"Prefer": "wait=5", "If-None-Match": f'"{view["version"]}"'}
        view = (await client.get(where, headers=wanted)).json()
    return where


async def test_pause_and_resume(client: Client) -> None:
    where = await started(client)
    body = {"reason": "look at it", "max_pause_duration_seconds": 3600}
    answer = await client.post(f"{where}/pause", body, headers=ACTOR)
    view = answer.json()
    assert (answer.status_code, view["status"], view["sub_status"]) == (200, "RUNNING", "paused")
    first, second = view["waiting_on"]
    assert (first["kind"], first["detail"]) == ("resume", "paused by olga: look at it")
    assert second["kind"] == "timer"
    assert view["allowed_actions"] == ["cancel", "resume", "fork", "skip", "complete"]
    assert view["links"]["resume"].endswith("/resume")
    assert view["links"]["skip"].endswith("/steps/skip")

    again = await client.post(f"{where}/pause")
    assert (again.status_code, again.json()["version"]) == (200, view["version"])
    explained = (await client.get(f"{where}/explain")).json()
    assert "paused by olga" in explained["why_not_moving"]
    diagram = await client.get(f"{where}/diagram")
    assert "paused" in diagram.text
    events = (await client.get(f"{where}/events")).json()["items"]
    assert (events[-1]["type"], events[-1]["actor"], events[-1]["reason"]) == (
        *("paused", "olga"),
        "look at it",
    )
    listed = (
        await client.get(f"/executions?sub_status=paused&min_position={view['position']}")
    ).json()
    assert [each["id"] for each in listed["items"]] == [view["id"]]
    waiting = (await client.get("/executions?waiting_on=resume")).json()
    assert waiting["total"] == 1

    resumed = await client.post(f"{where}/resume", {"reason": "seen"})
    assert (resumed.status_code, resumed.json()["sub_status"]) == (200, "executing")
    assert (await client.post(f"{where}/resume")).json()["version"] == resumed.json()["version"]


async def test_what_has_ended_is_neither_paused_nor_settled(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    where = f"/executions/{view['id']}"
    for verb in ("pause", "resume"):
        problem = problem_of(await client.post(f"{where}/{verb}"), 409, "illegal_transition")
        assert problem["allowed_actions"] == ["fork"]
    body = {"path": "first", "reason": "why"}
    problem_of(await client.post(f"{where}/steps/skip", body), 409, "illegal_transition")


async def test_a_stuck_step_is_completed(client: Client) -> None:
    where = await started(client, STUCK)
    headers = {"Idempotency-Key": "k1", **ACTOR}
    body = {"path": "pause", "reason": "long enough", "output": {"by": "hand"}}
    answer = await client.post(f"{where}/steps/complete", body, headers=headers)
    assert answer.status_code == 200
    ended = (await client.get(where, headers={"Prefer": "wait=30"})).json()
    assert ended["status"] == "COMPLETED"
    steps = (await client.get(f"{where}/steps")).json()["items"]
    (settled,) = [each for each in steps if each["path"] == "pause"]
    assert (settled["status"], settled["output_data"], settled["why"]) == (
        *("COMPLETED", {"by": "hand"}),
        "operator: long enough",
    )
    again = await client.post(f"{where}/steps/complete", body, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["version"] == answer.json()["version"]


async def test_a_skipped_task_is_no_task_any_more(client: Client) -> None:
    where = await started(client, ASKING)
    answer = await client.post(f"{where}/steps/skip", {"path": "ask", "reason": "obvious"})
    assert answer.status_code == 200
    ended = (await client.get(where, headers={"Prefer": "wait=30"})).json()
    assert (ended["status"], ended["progress"]["skipped"]) == ("COMPLETED", 1)
    tasks = await client.get(f"/human-tasks?min_position={ended['position']}")
    assert [each["status"] for each in tasks.json()["items"]] == ["CANCELLED"]


async def test_a_path_that_is_not_live_has_a_clear_answer(client: Client) -> None:
    where = await started(client, STUCK)
    unknown = await client.post(f"{where}/steps/skip", {"path": "nowhere", "reason": "why"})
    assert problem_of(unknown, 404, "not_found")["errors"][0]["pointer"] == "/path"
    for path in ("first", "last", "pause~alt.x"):
        refused = await client.post(f"{where}/steps/skip", {"path": path, "reason": "why"})
        problem = problem_of(refused, 409, "illegal_transition")
        assert "Can be settled now: pause" in problem["detail"]


async def test_a_fork_runs_anew_from_a_step(client: Client) -> None:
    where = await started(client, STUCK)
    await client.post(f"{where}/steps/skip", {"path": "pause", "reason": "long enough"})
    first = (await client.get(where, headers={"Prefer": "wait=30"})).json()
    body = {"from_step": "last", "input_data": {"x": 1}, "reason": "again"}
    headers = {"Idempotency-Key": "k1"}
    answer = await client.post(f"{where}/fork", body, headers=headers)
    fork = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(fork["id"])
    assert fork["forked_from"] == {
        "execution_id": first["id"],
        "version": first["version"],
        "from_step": "last",
    }
    again = await client.post(f"{where}/fork", body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, fork["id"])
    assert again.headers["Idempotency-Replayed"] == "true"

    ended = (await client.get(f"/executions/{fork['id']}", headers={"Prefer": "wait=30"})).json()
    assert (ended["status"], ended["output"], ended["input_data"]) == (
        *("COMPLETED", first["output"]),
        {"x": 1},
    )
    seen = f"min_position={ended['position']}"
    lineage = (await client.get(f"{where}/lineage?{seen}")).json()
    assert (lineage["ancestors"], [each["id"] for each in lineage["forks"]]) == ([], [fork["id"]])
    own = (await client.get(f"/executions/{fork['id']}/lineage?{seen}")).json()
    assert ([each["id"] for each in own["ancestors"]], own["forks_total"]) == ([first["id"]], 0)
    listed = (await client.get(f"/executions?forked_from={first['run_id']}")).json()
    assert [each["forked_from"] for each in listed["items"]] == [fork["forked_from"]]


async def test_a_fork_of_what_was_never_reached_is_refused(client: Client) -> None:
    where = await started(client, STUCK)
    refused = await client.post(f"{where}/fork", {"from_step": "last"})
    problem = problem_of(refused, 409, "step_not_reached")
    assert problem["errors"][0]["pointer"] == "/from_step"
    problem_of(await client.get("/executions/nobody/lineage"), 404, "not_found")


async def test_a_retry_from_a_step_runs_it_and_all_after_it(client: Client) -> None:
    failing = flow("again", first=action({"n": 1}, "call"), call=FAILING["steps"]["call"])
    view = await client.run(failing)
    where = f"/executions/{view['id']}"
    never = await client.post(f"{where}/retry", {"resume_from_step": "nowhere"})
    assert problem_of(never, 409, "step_not_reached")["errors"][0]["pointer"] == (
        "/resume_from_step"
    )
    answer = await client.post(f"{where}/retry", {"resume_from_step": "first"})
    assert answer.status_code == 202
    ended = (await client.get(where, headers={"Prefer": "wait=30"})).json()
    steps = (await client.get(f"{where}/steps")).json()["items"]
    assert ended["attempt"] == 2
    assert [(each["path"], each["attempt"]) for each in steps] == [
        ("first", 1),
        ("call", 1),
        ("first", 2),
        ("call", 2),
    ]
