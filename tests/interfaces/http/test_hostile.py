"""The hostile corpus: always refused with a pointer, nothing stored, no 5xx, lists still answer."""

import httpx2
import pytest

from tests.interfaces.http.corpus import (
    agents,
    definitions,
    expressions,
    headers,
    identifiers,
    interventions,
    json_bodies,
    markup,
    queries,
    sql,
    yaml_bodies,
)
from tests.interfaces.http.corpus.case import Case
from tests.interfaces.http.served import WAITING, Client

pytestmark = pytest.mark.anyio

CLASSES: dict[str, tuple[Case, ...]] = {
    module.__name__.rpartition(".")[2]: module.CASES
    for module in (
        agents,
        definitions,
        expressions,
        headers,
        identifiers,
        interventions,
        json_bodies,
        markup,
        queries,
        sql,
        yaml_bodies,
    )
}
LISTS = (
    *("/executions", "/runs", "/workflows", "/human-tasks", "/agents", "/tasks", "/dead-letters"),
    *("/events", "/statistics"),
)


def test_each_class_has_enough_cases() -> None:
    assert {name: len(cases) for name, cases in CLASSES.items() if len(cases) < 25} == {}


@pytest.mark.parametrize("name", CLASSES)
async def test_hostile_requests_are_refused(client: Client, name: str) -> None:
    await client.publish(WAITING | {"name": "victim"})
    await client.post("/agents", {"name": "worker", "transport": "pull"})
    await client.post("/agents", {"name": "called", "url": "https://called.example"})
    before = (await client.get("/events")).json()
    wrong = [
        f"{case.label}: {fault}" for case in CLASSES[name] if (fault := await _fault(client, case))
    ]
    assert wrong == []
    assert (await client.get("/events")).json() == before
    for path in LISTS:
        assert (await client.get(path)).status_code == 200


async def _fault(client: Client, case: Case) -> str | None:
    """What is wrong with the answer, None when it is a proper refusal."""
    request = client.http.build_request(
        case.method, case.url, content=case.content or None, headers=list(case.headers)
    )
    answer = await client.http.send(request)
    if not 400 <= answer.status_code < 500:
        return f"{answer.status_code} {answer.text[:200]}"
    return _malformed(answer)


def _malformed(answer: httpx2.Response) -> str | None:
    if answer.headers["content-type"] != "application/problem+json":
        return f"{answer.status_code} {answer.headers['content-type']}"
    body = answer.json()
    if not body["errors"] or not all("pointer" in each for each in body["errors"]):
        return f"{answer.status_code} without a pointer: {body['detail'][:200]}"
    if "Traceback" in answer.text or "site-packages" in answer.text:
        return "it shows the inside"
    return None


async def test_values_are_only_values_to_the_database(client: Client) -> None:
    """A label may hold any text; as a filter it selects what has it and nothing else."""
    await client.publish(WAITING)
    position = 0
    for text in sql.STRINGS:
        answer = await client.post("/workflows/waiting/execute", {"labels": {"note": text}})
        position = answer.json()["position"]
    for text in sql.STRINGS:
        found = await client.get(
            "/executions", params={"label.note": text, "min_position": position}
        )
        assert [each["labels"] for each in found.json()["items"]] == [{"note": text}]
