"""A recovery that asks a person: the question, its answer, and what is refused."""

from typing import Any

import pytest

from tests.interfaces.http.served import Client, problem_of

pytestmark = pytest.mark.anyio

UNSURE: dict[str, Any] = {
    "name": "unsure",
    "start_step": "call",
    "steps": {
        "call": {
            "action": "call_api",
            "config": {"url": "http://127.0.0.1:9/"},
            "critical": False,
            "recovery": [{"kind": "ask"}],
        }
    },
}


async def asked(client: Client) -> tuple[str, dict[str, Any]]:
    """An execution that waits for an answer, and its question."""
    await client.publish(UNSURE)
    started = (await client.post("/workflows/unsure/execute", {})).json()
    where = f"/executions/{started['id']}"
    for _ in range(100):
        found = (await client.get(f"{where}/questions")).json()["items"]
        if found:
            return where, found[0]
        await client.get(where, headers={"Prefer": "wait=1", "If-None-Match": '"1"'})
    raise AssertionError("nobody was asked")


async def test_a_question_is_answered_once(client: Client) -> None:
    where, question = await asked(client)
    assert question["status"] == "OPEN"
    assert "retry" in question["options"]
    assert (await client.get(where)).json()["sub_status"] == "awaiting_answer"

    answer = await client.post(f"{where}/answers", {"answer": "skip"})

    assert answer.status_code in (200, 202)
    ended = (await client.get(where, headers={"Prefer": "wait=30"})).json()
    assert (ended["status"], ended["partial"]) == ("COMPLETED", True)
    (settled,) = (await client.get(f"{where}/questions")).json()["items"]
    assert (settled["status"], settled["kind"]) == ("ANSWERED", "skip")
    other = await client.post(f"{where}/answers", {"answer": "retry"})
    problem_of(other, 409, "illegal_transition")


async def test_an_answer_nobody_waits_for_is_refused(client: Client) -> None:
    where, _ = await asked(client)
    unknown = await client.post(f"{where}/answers", {"answer": "retry", "question_id": "q-none-1"})
    assert 400 <= unknown.status_code < 500
    problem_of(await client.post(f"{where}/answers", {"answer": ""}), 422, "invalid_request")


async def test_a_question_that_was_never_asked_is_not_the_execution(client: Client) -> None:
    where, _ = await asked(client)
    body = {"answer": "retry", "question_id": "nope"}
    answer = problem_of(await client.post(f"{where}/answers", body), 404, "not_found")
    (mistake,) = answer["errors"]
    assert (mistake["pointer"], mistake["in"]) == ("/question_id", "body")


async def test_the_recovery_of_an_execution_is_read_strictly(client: Client) -> None:
    await client.publish(UNSURE)
    refused = await client.post(
        "/workflows/unsure/execute",
        {"recovery": {"retry_attempts": -1, "backoff": 2}},
    )
    found = problem_of(refused, 422, "invalid_request")
    assert {each["pointer"] for each in found["errors"]} == {
        "/recovery/retry_attempts",
        "/recovery/backoff",
    }
    taken = await client.post("/workflows/unsure/execute", {"recovery": {"retry_attempts": 0}})
    assert taken.status_code == 202


async def test_questions_of_all_executions_are_listed(client: Client) -> None:
    _, question = await asked(client)
    position = (await client.get(f"/executions/{question['execution_id']}")).json()["position"]
    path = f"/questions?min_position={position}"
    page = (await client.get(f"{path}&status=OPEN")).json()
    assert page["items"] == [question]
    assert (page["total"], page["page"], page["total_pages"]) == (1, 1, 1)
    assert question["workflow_name"] == "unsure"
    assert (await client.get(f"{path}&status=CLOSED")).json()["items"] == []
    listed = (await client.get("/executions?waiting_on=question")).json()["items"]
    assert [each["id"] for each in listed] == [question["execution_id"]]


async def test_a_recovery_is_seen_wherever_one_looks(client: Client) -> None:
    where, question = await asked(client)
    view = (await client.get(where)).json()
    assert (view["status"], view["sub_status"]) == ("RUNNING", "awaiting_answer")
    assert view["waiting_on"][0] | {"kind": "question", "path": "call"} == view["waiting_on"][0]
    (step,) = (await client.get(f"{where}/steps")).json()["items"]
    assert (step["status"], step["sub_status"]) == ("RECOVERING", "awaiting_answer")
    listed = f"/executions?sub_status=awaiting_answer&min_position={view['position']}"
    assert [each["id"] for each in (await client.get(listed)).json()["items"]] == [view["id"]]
    nodes = (await client.get(f"{where}/diagram?format=json")).json()["nodes"]
    assert "awaiting_answer" in str(nodes)
    assert "question" in str((await client.get(f"{where}/explain")).json()["waiting_on"])

    await client.post(f"{where}/answers", {"answer": "skip", "reason": "it is down"})
    await client.get(where, headers={"Prefer": "wait=30"})
    told = ["recovery_started", "question_asked", "question_answered", "recovery_exhausted"]
    events = (await client.get(f"{where}/events")).json()["items"]
    assert [each["type"] for each in events if each["type"] in told] == told
    (answered,) = [each for each in events if each["type"] == "question_answered"]
    assert answered["reason"] == "it is down"
    stream = (await client.get(f"{where}/stream")).text
    streamed = [line.removeprefix("event: ") for line in stream.splitlines() if "event: " in line]
    assert [each for each in streamed if each in told] == told
    past = [each["version"] for each in events if each["type"] == "question_asked"]
    then = (await client.get(f"{where}?as_of={past[0]}")).json()
    assert then["sub_status"] == "awaiting_answer"
    assert question["asked_at"] == then["updated_at"]


async def test_recovery_has_figures(client: Client) -> None:
    where, _ = await asked(client)
    await client.post(f"{where}/answers", {"answer": "skip"})
    ended = (await client.get(where, headers={"Prefer": "wait=30"})).json()
    assert ended["steps_recovered"] == 0
    path = f"/metrics/recovery?min_position={ended['position']}"
    found = (await client.get(path)).json()

    assert found["strategies_used"]["user_fulfillment_used"] == 1
    assert (found["total_flows"], found["recovered_flows"]) == (1, 0)
    assert (found["failed_recoveries"], found["recovered_share"]) == (1, 0.0)
    (figures,) = found["by_strategy"]
    assert (figures["strategy"], figures["failures"]) == ("user_fulfillment", 1)
    assert found["last_updated"].endswith("Z")
    for filters in (
        "workflow_id=unsure",
        f"workflow_id={ended['workflow_definition_id']}",
        f"created_after={ended['created_at']}",
        "created_before=2090-01-01T00:00:00Z",
    ):
        assert (await client.get(f"{path}&{filters}")).json() == found
    for filters in (
        "workflow_id=another",
        f"created_before={ended['created_at']}",
        "created_after=2090-01-01T00:00:00Z",
    ):
        assert (await client.get(f"{path}&{filters}")).json()["total_attempts"] == 0


async def test_figures_of_no_time_are_refused(client: Client) -> None:
    span = "created_after=2026-02-01T00:00:00Z&created_before=2026-01-01T00:00:00Z"
    refused = await client.get(f"/metrics/recovery?{span}")
    (mistake,) = problem_of(refused, 422, "invalid_request")["errors"]
    assert (mistake["code"], mistake["in"]) == ("contradiction", "query")
