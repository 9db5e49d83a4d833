"""What operators and tools look at: health, figures, the description of the interface."""

import json

import pytest
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry, generate_latest

from application.breakers import BreakerKey
from application.relay import RelayFigures
from domain.breaker import CLOSED, HALF_OPEN, OPEN
from interfaces.bootstrap import Observation
from interfaces.http.examples import BATCH, DEFINITION, EXECUTE, EXECUTE_INLINE
from interfaces.http.figures import Figures
from interfaces.http.problems import KINDS
from tests.interfaces.http.served import QUICK, Client
from tools.openapi import SNAPSHOT, described

pytestmark = pytest.mark.anyio


async def test_it_says_that_it_lives_and_is_ready(client: Client) -> None:
    assert (await client.http.get("/livez")).json() == {"status": "alive"}
    ready = await client.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"]["store"]["ok"]
    assert (await client.http.get("/version")).json()["name"] == "flowledger"


async def test_figures_are_those_of_the_tables(client: Client) -> None:
    view = await client.run(QUICK, {"count": 1})
    await client.get(f"/statistics?min_position={view['position']}")
    text = (await client.http.get("/metrics")).text
    assert 'flowledger_executions{status="COMPLETED"} 1.0' in text
    assert 'flowledger_projection_lag_events{projection="workflow_runs"}' in text
    assert "flowledger_events_stored_total" in text
    assert "flowledger_queue_depth 0.0" in text


def test_figures_of_agents_are_by_name() -> None:
    registry = CollectorRegistry()
    seen = Observation(
        store_answers=True,
        agent_calls={("scorer", "completed"): 7, ("scorer", "circuit_open"): 2},
        agent_breakers={
            BreakerKey("default", "scorer"): CLOSED,
            BreakerKey("other", "scorer"): HALF_OPEN,
            BreakerKey("default", "writer"): OPEN,
        },
    )
    registry.register(Figures(seen, open_streams=0))
    text = generate_latest(registry).decode()
    assert 'flowledger_agent_calls_total{agent="scorer",outcome="completed"} 7.0' in text
    assert 'flowledger_agent_calls_total{agent="scorer",outcome="circuit_open"} 2.0' in text
    assert 'flowledger_agent_breaker_state{agent="scorer"} 1.0' in text
    assert 'flowledger_agent_breaker_state{agent="writer"} 2.0' in text


def test_figures_of_the_relay_are_by_topic_and_its_lag_is_the_leader_s() -> None:
    def told(figures: RelayFigures) -> str:
        registry = CollectorRegistry()
        registry.register(Figures(Observation(store_answers=True, relay=figures), open_streams=0))
        return generate_latest(registry).decode()

    sent = {("monitoring", "sent"): 7, ("tasks", "refused"): 2}
    leader = told(RelayFigures(leading=True, waits=True, lag_events=12, messages=sent, failures=3))
    for line in (
        "flowledger_relay_leading 1.0",
        "flowledger_relay_waits 1.0",
        "flowledger_relay_lag_events 12.0",
        "flowledger_relay_failures_total 3.0",
        'flowledger_messages_sent_total{outcome="sent",topic="monitoring"} 7.0',
        'flowledger_messages_sent_total{outcome="refused",topic="tasks"} 2.0',
    ):
        assert line in leader.splitlines()
    other = told(RelayFigures(leading=False, waits=False, lag_events=None, messages={}, failures=0))
    assert "flowledger_relay_leading 0.0" in other.splitlines()
    assert "flowledger_relay_lag_events" not in other


async def test_docs_are_served_without_another_host(client: Client) -> None:
    page = await client.http.get("/docs")
    assert page.status_code == 200
    for path in ("/swagger/swagger-ui-bundle.js", "/swagger/swagger-ui.css"):
        assert path in page.text
        assert (await client.http.get(path)).status_code == 200
    assert "://" not in page.text
    assert (await client.http.get("/")).headers["location"] == "/docs"


def test_the_description_is_valid_and_is_the_one_in_the_docs() -> None:
    document = described()
    validate(json.loads(document))
    assert SNAPSHOT.read_text("utf-8") == document, "run `python -m tools.openapi`"


def test_the_description_is_complete() -> None:
    document = json.loads(described())
    operations = [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    ids = [operation["operationId"] for _, operation in operations]
    assert len(ids) == len(set(ids))
    for name, operation in operations:
        for status, answer in operation["responses"].items():
            if status.startswith("4") and "/problems/" not in name:
                schema = answer["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (name, status)
            if status == "202":
                assert "headers" in answer or "batch" in name
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            assert _has_example(document, body), name


def _has_example(document: object, body: dict[str, object]) -> bool:
    if "examples" in body or "examples" in str(body["schema"]):
        return True
    assert isinstance(document, dict)
    text = json.dumps(body["schema"])
    schemas = document["components"]["schemas"]
    used = [name for name in schemas if f'schemas/{name}"' in text]
    return any("examples" in schemas[name] for name in used)


async def test_the_examples_work(client: Client) -> None:
    assert (await client.post("/workflows/validate", DEFINITION)).json()["valid"]
    await client.publish(DEFINITION)
    answer = await client.post("/workflows/etl/execute", EXECUTE, headers={"Prefer": "wait=30"})
    assert answer.json()["status"] == "COMPLETED"
    assert (await client.post("/executions", EXECUTE_INLINE)).status_code == 202
    batch = await client.post("/executions/batch", BATCH)
    assert [each["status"] for each in batch.json()["items"]] == [202, 202]


async def test_every_kind_of_problem_can_be_looked_up(client: Client) -> None:
    for code in KINDS:
        assert (await client.http.get(f"/problems/{code}")).json()["advice"]
