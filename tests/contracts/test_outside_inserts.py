"""What other programs may insert into the views, what they get, and what is refused."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.contracts.outside_client import UUID_RUN, Client, another_program

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(ledger_url: str) -> Iterator[Client]:
    with another_program(ledger_url) as opened:
        yield opened


def as_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


def as_time(value: object) -> datetime:
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(when, datetime)
    return when.astimezone(UTC)


async def test_a_run_gets_what_the_client_left_out(client: Client) -> None:
    before = datetime.now(UTC)
    client.insert("workflow_runs", run_id=UUID_RUN, workflow_name="demo")
    client.insert("workflow_runs", workflow_name="nameless")

    row, nameless = sorted(client.shown(), key=lambda each: each["workflow_name"])
    assert (row["id"], row["run_id"], row["status"]) == (UUID_RUN, UUID_RUN, "PENDING")
    assert (row["triggered_by"], row["workspace_id"]) == ("system", "default")
    assert as_json(row["input_data"]) == {}
    assert row["created_at"] == row["updated_at"]
    assert abs((as_time(row["created_at"]) - before).total_seconds()) < 3600
    assert (row["workflow_id"], row["execution_id"], row["priority"]) == (None, None, None)
    assert str(UUID(nameless["run_id"].removeprefix("run-"))) == nameless["id"][4:]


async def test_a_run_keeps_all_that_the_client_gave(client: Client) -> None:
    given = {
        "id": "r1",
        "workflow_id": "wf-demo-1",
        "workflow_name": "demo",
        "workflow_definition_id": "d1",
        "status": "FAILED",
        "input_data": '{"a": [1, null]}',
        "error_message": "it broke",
        "triggered_by": "ann",
        "created_at": "2026-01-31T12:00:00Z",
        "updated_at": "2026-01-31T14:00:01.5+01:00",
        "completed_at": "2026-01-31T13:00:01.500000Z",
        "cancelled_at": "2026-01-31T13:00:02Z",
        "cancelled_by": "bob",
        "workspace_id": "default",
    }
    client.insert("workflow_runs", **given)

    (row,) = client.shown()
    for name, value in given.items():
        if name.endswith("_at"):
            assert as_time(row[name]) == datetime.fromisoformat(str(value))
        elif name == "input_data":
            assert as_json(row[name]) == {"a": [1, None]}
        else:
            assert row[name] == value
    assert row["run_id"] == "r1"


async def test_definitions_and_steps_get_what_the_client_left_out(client: Client) -> None:
    client.insert("workflow_definitions", name="demo", workflow_data='{"steps": {}}')
    client.insert("workflow_definitions", name="demo", workflow_data="{}", created_by="ann")
    client.insert("workflow_runs", run_id="r1", workflow_name="demo")
    client.insert("step_executions", run_id="r1", step_id="s1", input_data="[1]")

    first, second = sorted(client.shown("workflow_definitions"), key=lambda each: each["version"])
    assert [first[name] for name in ("version", "status", "created_by", "workflow_id")] == [
        1,
        "active",
        "system",
        "wf-demo-1",
    ]
    assert (bool(first["newest"]), bool(second["newest"])) == (False, True)
    assert (second["version"], second["updated_by"]) == (2, "ann")
    assert as_json(first["workflow_data"]) == {"steps": {}}
    (step,) = client.shown("step_executions")
    assert step["id"] == step["step_execution_id"]
    assert step["id"].startswith("r1-s1-")
    assert (step["step_name"], step["agent_name"], step["status"]) == ("s1", "", "PENDING")
    assert as_json(step["input_data"]) == [1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workflow_name": None}, "workflow_name is missing"),
        ({"status": "DONE"}, "unknown status; use PENDING"),
        ({"input_data": "{"}, "json"),
        ({"input_data": "[]"}, "input_data is not a JSON object"),
        ({"id": "another"}, "id and run_id are the same thing"),
        ({"run_id": " "}, "1 to 200 characters"),
        ({"run_id": "r" * 201}, "1 to 200 characters"),
        ({"priority": 1}, "only id, run_id"),
        ({"created_at": "yesterday at noon"}, "time"),
        ({"run_id": "there"}, "a run is inserted once"),
    ],
)
async def test_a_bad_run_is_refused_and_nothing_is_stored(
    client: Client, given: Mapping[str, object], said: str
) -> None:
    client.insert("workflow_runs", run_id="there", workflow_name="demo")
    row = {"run_id": "r1", "workflow_name": "demo"} | dict(given)
    assert said.lower() in client.insert_refused("workflow_runs", **row).lower()
    assert [each["run_id"] for each in client.shown()] == ["there"]


@pytest.mark.parametrize(
    ("view", "given", "said"),
    [
        ("step_executions", {"step_id": "s"}, "run_id or step_id is missing"),
        ("step_executions", {"run_id": "there"}, "run_id or step_id is missing"),
        ("step_executions", {"run_id": "r", "step_id": "s"}, "insert it into workflow_runs first"),
        ("step_executions", {"run_id": "there", "step_id": "s", "status": "x"}, "unknown status"),
        ("step_executions", {"run_id": "there", "step_id": "s", "output_data": "{"}, "JSON|json"),
        ("step_executions", {"run_id": "there", "step_id": "s", "attempt": 1}, "can be inserted"),
        ("step_executions", {"run_id": "there", "step_id": "s", "id": "s1"}, "inserted once"),
        ("workflow_definitions", {"name": "d"}, "name or workflow_data is missing"),
        ("workflow_definitions", {"name": "d", "workflow_data": "3"}, "not a JSON object"),
        ("workflow_definitions", {"name": "d", "workflow_data": "{}", "status": "x"}, "unknown"),
        ("workflow_definitions", {"name": "d", "workflow_data": "{}", "version": 0}, "from 1 on"),
        ("workflow_definitions", {"name": "e", "workflow_data": "{}", "version": 1}, "once"),
        ("workflow_definitions", {"name": "x", "workflow_data": "{}", "id": "e1"}, "once"),
        ("workflow_definitions", {"name": "d", "workflow_data": "{}", "newest": True}, "only id"),
    ],
)
async def test_a_bad_step_or_definition_is_refused(
    client: Client, view: str, given: Mapping[str, object], said: str
) -> None:
    client.insert("workflow_runs", run_id="there", workflow_name="demo")
    client.insert("step_executions", run_id="there", step_id="s", id="s1")
    client.insert("workflow_definitions", id="e1", name="e", workflow_data="{}")
    refusal = client.insert_refused(view, **given)
    assert any(each in refusal for each in said.split("|")), refusal
    assert len(client.shown(view)) == 1


async def test_rows_are_not_changed_or_deleted_through_the_views(client: Client) -> None:
    client.insert("workflow_runs", run_id="r1", workflow_name="demo")
    client.insert("step_executions", run_id="r1", step_id="s1")
    client.insert("workflow_definitions", name="demo", workflow_data="{}")
    calls = {
        "workflow_runs": "POST /api/v1/executions/{id}/cancel",
        "step_executions": "POST /api/v1/executions/{id}/steps/complete",
        "workflow_definitions": "PUT /api/v1/workflows/{id}",
    }
    for view, call in calls.items():
        before = client.shown(view)
        assert call in client.refused(f"UPDATE {view} SET status = 'CANCELLED'")
        assert call in client.refused(f"DELETE FROM {view}")
        assert client.shown(view) == before


async def test_on_conflict_does_not_work_on_the_views(client: Client, ledger_url: str) -> None:
    client.insert("workflow_runs", run_id="r1", workflow_name="demo")
    insert = "INSERT INTO workflow_runs (run_id, workflow_name) VALUES ('r1', 'other')"
    client.refused(f"{insert} ON CONFLICT DO NOTHING")
    client.refused(f"{insert} ON CONFLICT (run_id) DO NOTHING")
    client.refused(f"{insert} ON CONFLICT (run_id) DO UPDATE SET workflow_name = 'other'")
    if ledger_url.startswith("sqlite"):
        for way in ("INSERT OR IGNORE", "INSERT OR REPLACE", "REPLACE"):
            assert "inserted once" in client.refused(insert.replace("INSERT", way, 1))
    assert [each["workflow_name"] for each in client.shown()] == ["demo"]


# ----------------------------------------------------------------------------- PostgreSQL clients


async def test_clients_of_postgresql_may_send_its_types(postgresql_ledger_url: str) -> None:
    at = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    with psycopg.connect(postgresql_ledger_url, autocommit=True) as server:
        row = server.execute(
            "INSERT INTO workflow_runs (run_id, workflow_name, input_data, created_at)"
            " VALUES (%s, %s, %s::jsonb, %s) RETURNING id, status, input_data, updated_at",
            ("r1", "demo", '{"a": 1}', at),
        ).fetchone()
        assert row == ("r1", "PENDING", {"a": 1}, at)
        server.cursor().executemany(
            "INSERT INTO workflow_runs (run_id, workflow_name, input_data) VALUES (%s, %s, %s)",
            [(f"many-{number}", "demo", Jsonb({})) for number in range(3)],
        )
        assert server.execute("SELECT count(*) FROM workflow_runs").fetchone() == (4,)
        with pytest.raises(psycopg.errors.UniqueViolation):
            server.execute("INSERT INTO workflow_runs (run_id, workflow_name) VALUES ('r1', 'x')")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            server.execute("DELETE FROM workflow_runs WHERE run_id = 'r1'")


def test_the_second_of_two_inserts_at_once_is_refused(postgresql_ledger_url: str) -> None:
    insert = b"INSERT INTO workflow_runs (run_id, workflow_name) VALUES ('r1', 'demo')"
    with (
        psycopg.connect(postgresql_ledger_url) as first,
        psycopg.connect(postgresql_ledger_url) as second,
    ):
        first.execute(insert)

        def late() -> None:
            second.execute(insert)

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(late)
            blocked = "SELECT 1 FROM pg_locks WHERE NOT granted"
            while not waiting.done() and not first.execute(blocked).fetchone():
                wait([waiting], timeout=0.01)
            first.commit()
            with pytest.raises(psycopg.errors.UniqueViolation):
                waiting.result()


async def test_the_right_to_insert_into_the_view_is_enough(postgresql_ledger_url: str) -> None:
    role = f"client_{uuid4().hex}"
    with psycopg.connect(postgresql_ledger_url) as server:  # ends in a rollback
        server.execute(f"CREATE ROLE {role} NOLOGIN".encode())
        server.execute(f"GRANT SELECT, INSERT ON workflow_runs TO {role}".encode())
        server.execute(f"SET LOCAL ROLE {role}".encode())
        server.execute("SET LOCAL search_path = pg_catalog")
        server.execute(
            "INSERT INTO public.workflow_runs (run_id, workflow_name) VALUES ('r1', 'demo')"
        )
        shown = server.execute("SELECT run_id FROM public.workflow_runs").fetchall()
        assert shown == [("r1",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            server.execute("SELECT * FROM public.outside_runs")
        server.rollback()
