"""Publishing, reading, revising and retiring workflows over HTTP."""

import pytest

from tests.interfaces.http.served import QUICK, WAITING, Client, action, flow, problem_of

pytestmark = pytest.mark.anyio


async def test_publishing_a_name_again_makes_its_next_version(client: Client) -> None:
    first = await client.post("/workflows", QUICK, headers={"X-Actor": "alice"})
    second = await client.post("/workflows", QUICK)
    assert first.status_code == second.status_code == 201
    assert [each.json()["version"] for each in (first, second)] == [1, 2]
    assert first.json()["id"] == second.json()["id"]
    assert first.json()["workflow_id"] == "wf-quick-1"
    assert first.json()["workflow_data"] == QUICK
    assert first.json()["created_by"] == "alice"
    assert first.headers["location"] == f"/api/v1/workflows/{first.json()['id']}"


async def test_a_repeated_publish_makes_no_new_version(client: Client) -> None:
    answers = [
        await client.post("/workflows", QUICK, headers={"Idempotency-Key": "p"}) for _ in range(2)
    ]
    assert [each.json()["version"] for each in answers] == [1, 1]
    assert answers[1].headers["idempotency-replayed"] == "true"
    other = await client.post(
        "/workflows", QUICK | {"description": "new"}, headers={"Idempotency-Key": "p"}
    )
    problem_of(other, 422, "idempotency_key_reused")
    renamed = await client.post(
        "/workflows", QUICK | {"name": "another"}, headers={"Idempotency-Key": "p"}
    )
    assert (renamed.status_code, renamed.json()["version"]) == (201, 1)


async def test_all_mistakes_are_told_at_once_and_nothing_is_stored(client: Client) -> None:
    broken = flow("broken", a=action(next_step="nowhere"), b={"type": "dance"})
    verdict = (await client.post("/workflows/validate", broken)).json()
    assert not verdict["valid"]
    assert len(verdict["errors"]) >= 2
    answer = await client.post("/workflows", broken)
    problem = problem_of(answer, 422, "invalid_definition")
    assert {each["pointer"] for each in problem["errors"]} == {
        each["pointer"] for each in verdict["errors"]
    }
    assert (await client.get("/events")).json()["items"] == []
    problem_of(await client.get("/workflows/broken"), 404, "not_found")


async def test_yaml_is_taken_too(client: Client) -> None:
    text = (
        "name: y\nstart_step: a\n"
        "steps:\n  a: {id: a, action: set_variables, config: {variables: {x: 1}}}\n"
    )
    yaml = {"content-type": "application/yaml"}
    verdict = await client.post("/workflows/validate", content=text, headers=yaml)
    told = verdict.json()
    assert told.pop("definition")["steps"].keys() == {"a"}
    assert told == {"valid": True, "errors": [], "warnings": []}
    answer = await client.post("/workflows", content=text, headers=yaml)
    assert answer.status_code == 201
    refused = await client.post("/workflows", content="a: &x 1\nb: *x\n", headers=yaml)
    problem_of(refused, 422, "malformed_yaml")
    elsewhere = await client.post("/workflows/y/execute", content="{}", headers=yaml)
    problem_of(elsewhere, 415, "unsupported_media_type")
    assert elsewhere.headers["accept"] == "application/json"


async def test_a_refused_media_type_is_told_those_that_the_route_takes(client: Client) -> None:
    text = {"content-type": "text/plain"}
    answer = await client.post("/workflows", content="name: y\n", headers=text)
    told = problem_of(answer, 415, "unsupported_media_type")["detail"]
    assert "send application/json or application/yaml in UTF-8" in told
    assert answer.headers["accept"] == "application/json, application/yaml"


@pytest.mark.parametrize("media", ["application/yaml", "application/x-yaml", "text/yaml"])
async def test_every_documented_name_of_yaml_is_taken(client: Client, media: str) -> None:
    described = (await client.http.get("/openapi.json")).json()["paths"]
    takers = {
        (path, method)
        for path, methods in described.items()
        for method, operation in methods.items()
        if media in str(operation.get("requestBody"))
    }
    assert takers == {
        ("/api/v1/workflows", "post"),
        ("/api/v1/workflows/validate", "post"),
        ("/api/v1/workflows/{workflow_id}", "put"),
    }
    headers = {"content-type": media}
    answer = await client.post("/workflows/validate", content="name: y\n", headers=headers)
    assert answer.json()["errors"] != []


async def test_a_change_of_steps_is_a_new_version_and_the_old_one_stays(client: Client) -> None:
    await client.publish(QUICK)
    path = "/api/v1/workflows/quick"
    changed = await client.http.put(path, json={"description": "Counts."})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert changed.json()["description"] == "Counts."
    old = await client.get("/workflows/quick/versions/1")
    assert old.json()["workflow_data"] == QUICK
    versions = (await client.get("/workflows/quick/versions?page_size=1")).json()
    assert [each["version"] for each in versions["items"]] == [2]
    assert (versions["total"], versions["total_pages"]) == (2, 2)
    problem_of(await client.get("/workflows/quick/versions/3"), 404, "not_found")


async def test_if_match_guards_a_revision(client: Client) -> None:
    await client.publish(QUICK)
    path = "/api/v1/workflows/quick"
    stale = await client.http.put(path, json={"description": "x"}, headers={"If-Match": '"7"'})
    problem_of(stale, 412, "precondition_failed")
    fresh = await client.http.put(path, json={"description": "x"}, headers={"If-Match": '"1"'})
    assert fresh.status_code == 200
    assert fresh.headers["etag"] == '"2"'


async def test_a_retired_workflow_is_gone_until_it_is_published_again(client: Client) -> None:
    await client.publish(QUICK)
    retired = await client.http.delete("/api/v1/workflows/quick")
    assert retired.status_code == 200
    assert retired.json()["data"]["status"] == "deleted"
    problem_of(await client.get("/workflows/quick"), 404, "not_found")
    problem_of(await client.http.delete("/api/v1/workflows/quick"), 404, "not_found")
    for place in ("quick", "wf-quick-1", f"{retired.json()['data']['id']}/versions"):
        problem_of(await client.get(f"/workflows/{place}"), 404, "not_found")
    activated = await client.http.put("/api/v1/workflows/quick", json={"status": "active"})
    problem_of(activated, 404, "not_found")
    assert (await client.publish(QUICK))["version"] == 2


async def test_workflows_are_listed(client: Client) -> None:
    await client.publish(WAITING)
    await client.publish(QUICK)
    position = (await client.get("/events")).json()["items"][-1]["position"]
    seen = f"min_position={position}"
    body = (await client.get(f"/workflows?{seen}")).json()
    assert [each["name"] for each in body["items"]] == ["quick", "waiting"]
    for older in ("sort_by=name&sort_order=desc", "sort_order=desc"):
        body = (await client.get(f"/workflows?{older}&{seen}")).json()
        assert [each["name"] for each in body["items"]] == ["waiting", "quick"]
    one = (await client.get(f"/workflows?name=quick&{seen}")).json()
    assert one["total"] == 1
    assert one["items"][0] == (await client.get("/workflows/quick")).json()


async def test_an_unchanged_workflow_is_not_sent_again(client: Client) -> None:
    await client.publish(QUICK)
    for path in ("/workflows/quick", "/workflows/quick/versions/1"):
        first = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
