"""Starting, cancelling and retrying over HTTP: answers, headers, repeats, preconditions."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from interfaces.bootstrap import Services
from tests.interfaces.http.served import ASKING, FAILING, QUICK, WAITING, Client, problem_of

pytestmark = pytest.mark.anyio


async def test_execute_answers_at_once_with_the_whole_execution(client: Client) -> None:
    await client.publish(WAITING)
    answer = await client.post("/workflows/waiting/execute", {"input_data": {"count": 3}})
    body = answer.json()
    assert answer.status_code == 202
    assert body["status"] == "PENDING"
    assert body["input_data"] == {"count": 3}
    assert body["run_id"] == f"run-{body['id']}"
    assert body["workflow_id"] == "wf-waiting-1"
    assert (body["parent"], body["forked_from"]) == (None, None)
    assert body["links"]["self"] == answer.headers["location"]
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["cache-control"] == "private, no-cache"


async def test_a_wait_answers_with_the_end(client: Client) -> None:
    await client.publish(QUICK)
    answer = await client.post(
        "/workflows/quick/execute", {"input_data": {"count": 3}}, headers={"Prefer": "wait=999"}
    )
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] == "COMPLETED"
    assert body["output"] == {"count": 3}
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.headers["cache-control"] == "private, max-age=60"
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("reference", ["quick", "wf-quick-1", "id"])
async def test_a_workflow_has_three_names(client: Client, reference: str) -> None:
    published = await client.publish(QUICK)
    name = published["id"] if reference == "id" else reference
    answer = await client.post(f"/workflows/{name}/execute", {}, headers={"Prefer": "wait=30"})
    assert answer.json()["workflow_version"] == 1


async def test_an_older_version_can_be_asked_for(client: Client) -> None:
    await client.publish(QUICK)
    await client.publish(QUICK)
    answer = await client.post("/workflows/quick/execute?version=1", {})
    assert answer.json()["workflow_version"] == 1
    missing = await client.post("/workflows/quick/execute?version=3", {})
    problem_of(missing, 404, "not_found")


async def test_the_same_key_gives_the_first_answer_again(client: Client) -> None:
    await client.publish(WAITING)
    key = {"Idempotency-Key": "order-1"}
    path, body = "/workflows/waiting/execute", {"input_data": {"a": 1}}
    first, second = await asyncio.gather(
        client.post(path, body, headers=key), client.post(path, body, headers=key)
    )
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    replayed = [answer.headers.get("idempotency-replayed") for answer in (first, second)]
    assert sorted(map(str, replayed)) == ["None", "true"]
    other = await client.post(path, {"input_data": {"a": 2}}, headers=key)
    problem = problem_of(other, 422, "idempotency_key_reused")
    assert problem["errors"][0]["pointer"] == "/header/Idempotency-Key"


async def test_keys_of_two_actors_are_two_keys(client: Client) -> None:
    await client.publish(WAITING)
    ids = {
        (
            await client.post(
                "/workflows/waiting/execute",
                {},
                headers={"Idempotency-Key": "k", "X-Actor": actor.encode()},
            )
        ).json()["id"]
        for actor in ("alice", "bob", "Zoë")
    }
    assert len(ids) == 3


async def test_actor_and_correlation_are_in_the_history(client: Client) -> None:
    await client.publish(WAITING)
    headers = {"X-Actor": "Zoë Ω".encode(), "X-Correlation-ID": "c-1"}
    answer = await client.post("/workflows/waiting/execute", {}, headers=headers)
    assert answer.json()["triggered_by"] == "Zoë Ω"
    events = await client.get(f"/executions/{answer.json()['id']}/events?limit=1")
    first = events.json()["items"][0]
    assert (first["actor"], first["correlation_id"]) == ("Zoë Ω", "c-1")


async def test_cancel_is_final_and_safe_to_repeat(client: Client) -> None:
    view = await client.begin(WAITING)
    path = f"/executions/{view['id']}/cancel"
    answer = await client.post(path, {"reason": "wrong input"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "CANCELLED"
    assert answer.json()["error_message"] == "Cancelled: wrong input"
    again = await client.post(path)
    assert again.status_code == 200
    assert again.json()["version"] == answer.json()["version"]


async def test_cancel_of_what_is_done_says_what_is_possible(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    answer = await client.post(f"/executions/{view['id']}/cancel")
    problem = problem_of(answer, 409, "illegal_transition")
    assert problem["current_status"] == "COMPLETED"
    assert problem["allowed_actions"] == ["fork"]


async def test_delete_is_the_old_spelling_of_cancel(client: Client) -> None:
    view = await client.begin(WAITING)
    answer = await client.http.delete(f"/api/v1/executions/{view['id']}")
    assert answer.json()["status"] == "CANCELLED"
    assert (await client.get(f"/executions/{view['id']}")).status_code == 200


async def test_if_match_guards_a_command(client: Client) -> None:
    view = await client.begin(WAITING)
    path = f"/executions/{view['id']}/cancel"
    for tag in ('"1"', 'W/"1"', '"other"'):
        answer = await client.post(path, {}, headers={"If-Match": tag})
        problem = problem_of(answer, 412, "precondition_failed")
        assert answer.headers["etag"] == f'"{view["version"]}"'
        assert problem["current_version"] == view["version"]
    right = await client.post(path, {}, headers={"If-Match": f'"{view["version"]}"'})
    assert right.status_code == 200


async def test_retry_is_the_next_attempt(client: Client) -> None:
    view = await client.run(FAILING)
    assert view["status"] == "FAILED"
    assert view["error"]["class"] == "permanent"
    assert view["allowed_actions"] == ["retry", "fork"]
    answer = await client.post(f"/executions/{view['id']}/retry", {"reason": "again"})
    assert answer.status_code == 202
    assert answer.json()["attempt"] == 2
    assert answer.headers["location"].endswith(view["id"])
    ended = await client.get(f"/executions/{view['id']}", headers={"Prefer": "wait=30"})
    assert (ended.json()["status"], ended.json()["attempt"]) == ("FAILED", 2)
    unreached = await client.post(
        f"/executions/{view['id']}/retry", {"resume_from_step": "nowhere"}
    )
    assert unreached.status_code == 409, unreached.text


async def test_a_person_completes_a_task(client: Client) -> None:
    view = await client.begin(ASKING)
    tasks = await client.get(f"/human-tasks?status=TODO&min_position={view['position']}")
    (task,) = tasks.json()["items"]
    assert task["execution_id"] == view["id"]
    for name in (view["id"], view["id"].upper(), view["id"].replace("-", ""), view["run_id"]):
        listed = await client.get("/human-tasks", params={"execution_id": name})
        assert listed.json()["items"] == [task], name
    answer = await client.post(
        f"/human-tasks/{task['id']}/complete", {"result": {"approved": True}}
    )
    assert answer.status_code == 200
    ended = await client.get(f"/executions/{view['id']}", headers={"Prefer": "wait=30"})
    assert ended.json()["status"] == "COMPLETED"
    repeated = await client.post(f"/human-tasks/{task['id']}/complete", {"result": None})
    problem_of(repeated, 409, "illegal_transition")
    unknown = await client.post("/human-tasks/ht-1/complete", {})
    problem_of(unknown, 404, "not_found")


async def test_a_definition_can_come_with_the_request(client: Client) -> None:
    answer = await client.post(
        "/executions",
        {"definition": QUICK, "input_data": {"count": 7}},
        headers={"Prefer": "wait=30"},
    )
    assert answer.status_code == 200
    assert answer.json()["output"] == {"count": 7}
    assert (await client.get("/workflows")).json()["total"] == 0
    broken = await client.post("/executions", {"definition": {"name": "x", "start_step": "a"}})
    problem = problem_of(broken, 422, "invalid_definition")
    assert all(each["pointer"].startswith("/definition/") for each in problem["errors"])


async def test_start_can_be_put_off(client: Client) -> None:
    await client.publish(QUICK)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    elsewhere = tomorrow.astimezone(timezone(timedelta(hours=5)))
    path = "/workflows/quick/execute"
    answer = await client.post(path, {"start_at": elsewhere.isoformat()})
    assert answer.status_code == 202
    assert answer.json()["start_at"] == tomorrow.isoformat().replace("+00:00", "Z")
    assert answer.headers["retry-after"] == "30"
    naive = await client.post(path, {"start_at": tomorrow.replace(tzinfo=None).isoformat()})
    assert naive.json()["start_at"] == answer.json()["start_at"]
    both = await client.post(path, {"start_at": tomorrow.isoformat(), "delay_seconds": 1})
    problem_of(both, 422, "invalid_request")
    far = await client.post(path, {"start_at": "9000-01-01T00:00:00Z"})
    assert problem_of(far, 422, "invalid_request")["errors"][0]["pointer"] == "/start_at"


async def test_input_must_fit_its_schema(client: Client) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    await client.publish(QUICK | {"input_schema": schema})
    answer = await client.post("/workflows/quick/execute", {"input_data": {"count": "x"}})
    problem = problem_of(answer, 422, "invalid_input")
    assert problem["errors"][0]["pointer"] == "/input_data/count"


async def test_an_inactive_workflow_takes_nothing(client: Client) -> None:
    await client.publish(QUICK)
    put = await client.http.put("/api/v1/workflows/quick", json={"status": "inactive"})
    assert put.json()["status"] == "inactive"
    refused = await client.post("/workflows/quick/execute", {})
    problem_of(refused, 409, "workflow_inactive")


class TestBatch:
    """Many requests, each with its own answer."""

    ITEMS: tuple[Any, ...] = (
        {"workflow_id": "quick", "idempotency_key": "one"},
        {"workflow_id": "quick", "priority": 11},
        {"workflow_id": "nobody"},
        {"definition": {"name": "x y"}},
        "text",
        {},
        {"definition": QUICK},
    )

    async def test_each_item_has_its_own_answer(self, client: Client) -> None:
        await client.publish(QUICK)
        answer = await client.post("/executions/batch", {"items": self.ITEMS})
        assert answer.status_code == 202
        items = answer.json()["items"]
        assert [item["status"] for item in items] == [202, 422, 404, 422, 422, 422, 202]
        assert items[1]["problem"]["errors"][0]["pointer"] == "/items/1/priority"
        assert items[3]["problem"]["errors"][0]["pointer"].startswith("/items/3/definition")
        assert items[4]["problem"]["errors"][0]["pointer"] == "/items/4"

    async def test_a_repeated_batch_starts_nothing_twice(self, client: Client) -> None:
        await client.publish(WAITING)
        items = [{"workflow_id": "waiting"}, {"workflow_id": "waiting", "idempotency_key": "b"}]
        key = {"Idempotency-Key": "nightly"}
        answers = [
            (await client.post("/executions/batch", {"items": items}, headers=key)).json()["items"]
            for _ in range(2)
        ]
        ids = [[item["execution"]["id"] for item in answer] for answer in answers]
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == 2
        assert [item.get("replayed") for item in answers[1]] == [True, True]

    async def test_a_batch_of_which_nothing_is_taken_is_refused(self, client: Client) -> None:
        answer = await client.post("/executions/batch", {"items": [{"workflow_id": "nobody"}]})
        problem = problem_of(answer, 422, "batch_refused")
        assert problem["items"][0]["status"] == 404
        for items in ([], [{}] * 1_001):
            refused = await client.post("/executions/batch", {"items": items})
            assert problem_of(refused, 422, "invalid_request")["errors"][0]["pointer"] == "/items"

    async def test_a_batch_that_the_store_has_no_room_for_is_to_be_sent_again(
        self, services: Services, client: Client
    ) -> None:
        await client.publish(QUICK)
        services.store.refuse_new_work(lambda: "the projections are too far behind")
        items = [{"workflow_id": "quick"}, {"workflow_id": "nobody"}]
        answer = await client.post("/executions/batch", {"items": items})
        problem_of(answer, 503, "not_ready")
        assert int(answer.headers["retry-after"]) >= 1

    async def test_an_item_is_told_what_of_it_there_is_not(self, client: Client) -> None:
        await client.publish(QUICK)
        items = [
            {"workflow_id": "nobody"},
            {"workflow_id": "quick", "version": 9},
            {"definition": QUICK, "version": 1},
            {"workflow_id": "quick"},
        ]
        answer = await client.post("/executions/batch", {"items": items})
        told = [item.get("problem", {}).get("errors") for item in answer.json()["items"]]
        assert [each and each[0]["pointer"] for each in told] == [
            "/items/0/workflow_id", "/items/1/version", "/items/2/version", None
        ]  # fmt: skip
