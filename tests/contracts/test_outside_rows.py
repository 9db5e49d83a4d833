"""What other programs insert into the views, how it is shown, and how executions take it over."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from application.ledger import execution_uuid
from application.outside_runs import outside_definition, outside_run
from application.ports import Append
from application.reads import ExecutionQuery
from domain.errors import Invalid
from domain.events import Event
from infrastructure.addresses import administration_engine
from infrastructure.database import Store
from infrastructure.migrations import migrate
from infrastructure.outside_rows import StoredOutsideRows
from infrastructure.projections.catalogue import PROJECTIONS, chosen
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.rebuilding import Rebuild, view_following
from infrastructure.projections.sessions import ProjectionStore, Session
from infrastructure.projections.tables import ProjectedTable
from infrastructure.projections.verification import verify
from tests.builders import Run, linear
from tests.contracts import projected as told

pytestmark = pytest.mark.anyio

UUID_RUN = "run-5f0c2f0a-6f0b-4a51-9c3e-0c8a3f8f1a11"


@pytest.fixture
def tables(store: Store, ledger_url: str) -> Iterator[ProjectionStore]:
    opened = told.projection_store(store, ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def rows(store: Store) -> StoredOutsideRows:
    return StoredOutsideRows(store.engine, store.query_threads, store.writes)


class Client:
    """Another program, with a connection of its own and nothing but SQL."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, **values: object) -> list[dict[str, Any]]:
        with self._connection.begin():
            done = self._connection.execute(sa.text(statement), values)
            return [dict(row) for row in done.mappings()] if done.returns_rows else []

    def insert(self, view: str, **values: object) -> None:
        marks = ", ".join(f":{name}" for name in values)
        self.run(f"INSERT INTO {view} ({', '.join(values)}) VALUES ({marks})", **values)

    def refused(self, statement: str, **values: object) -> str:
        with pytest.raises(sa.exc.DBAPIError) as refusal:
            self.run(statement, **values)
        return str(refusal.value.orig)

    def insert_refused(self, view: str, **values: object) -> str:
        with pytest.raises(sa.exc.DBAPIError) as refusal:
            self.insert(view, **values)
        return str(refusal.value.orig)

    def shown(self, view: str = "workflow_runs") -> list[dict[str, Any]]:
        return self.run(f"SELECT * FROM {view}")


@contextmanager
def another_program(url: str) -> Iterator[Client]:
    engine = administration_engine(url)
    with engine.connect() as connection:
        yield Client(connection)


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


async def executed(store: Store, execution_id: UUID) -> None:
    """The execution of this id, begun and ended."""
    told_of = Run(linear(2)).succeed_all().events
    events = [Event(execution_id, each.version, each.meta, each.data) for each in told_of]
    await store.log.append(Append(execution_id, events))


# ------------------------------------------------------------------------------------------ inserts


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


# ---------------------------------------------------------------------------------------- take-over


@pytest.mark.parametrize(
    "run_id",
    [
        UUID_RUN,
        UUID_RUN.upper().replace("RUN-", "run-"),
        UUID_RUN.removeprefix("run-"),
        "run-order-17",
        "ä'\"\\ {}",
    ],
)
async def test_an_execution_takes_its_row_over(
    store: Store, tables: ProjectionStore, rows: StoredOutsideRows, client: Client, run_id: str
) -> None:
    client.insert("workflow_runs", run_id=run_id, workflow_name="demo", input_data='{"a": 1}')
    client.insert("step_executions", run_id=run_id, step_id="theirs")

    execution_id, row = await outside_run(rows, "default", run_id)

    assert execution_id == execution_uuid("default", run_id)
    assert row is not None
    assert (row.run_id, row.workflow_name, row.input_data) == (run_id, "demo", {"a": 1})
    assert row.created_at.tzinfo is not None
    told.catch_up(tables)
    assert [each["run_id"] for each in client.shown()] == [run_id]  # it was only asked for

    await executed(store, execution_id)
    told.catch_up(tables)

    (shown,) = client.shown()
    assert (shown["run_id"], shown["status"]) == (f"run-{execution_id}", "COMPLETED")
    assert {each["step_id"] for each in client.shown("step_executions")} == {"s1", "s2"}
    assert await outside_run(rows, "default", run_id) == (execution_id, row)  # a repeat
    assert "inserted once" in client.insert_refused(
        "workflow_runs", run_id=run_id, workflow_name="demo"
    )


async def test_a_row_that_comes_after_its_request_is_not_shown_beside_it(
    store: Store, tables: ProjectionStore, rows: StoredOutsideRows, client: Client
) -> None:
    execution_id, row = await outside_run(rows, "default", "order-17")
    assert row is None
    client.insert("workflow_runs", run_id="order-17", workflow_name="demo")
    await executed(store, execution_id)
    told.catch_up(tables)

    assert [each["run_id"] for each in client.shown()] == [f"run-{execution_id}"]
    own = client.insert_refused("workflow_runs", run_id=f"run-{execution_id}", workflow_name="x")
    assert "inserted once" in own


@pytest.mark.parametrize("run_id", ["", " ", "r" * 201, "a\x00b", "\ud800"])
async def test_a_run_id_that_no_row_can_have_is_refused(
    rows: StoredOutsideRows, run_id: str
) -> None:
    with pytest.raises(Invalid, match="run_id"):
        await outside_run(rows, "default", run_id)


async def test_rows_are_their_workspace_s(rows: StoredOutsideRows, client: Client) -> None:
    client.insert("workflow_runs", run_id="r1", workflow_name="demo", workspace_id="other")
    assert (await outside_run(rows, "default", "r1"))[1] is None
    assert (await outside_run(rows, "other", "r1"))[1] is not None


async def test_the_definition_of_a_run_is_found_as_the_row_names_it(
    rows: StoredOutsideRows, client: Client
) -> None:
    for version in (1, 2):
        data = json.dumps({"number": version})
        client.insert("workflow_definitions", id=f"d{version}", name="de-mo", workflow_data=data)

    async def found(run_id: str, **named: str) -> str | None:
        client.insert("workflow_runs", run_id=run_id, **({"workflow_name": "de-mo"} | named))
        _, run = await outside_run(rows, "default", run_id)
        assert run is not None
        definition = await outside_definition(rows, "default", run)
        assert definition is None or definition.workflow_data == {"number": definition.version}
        return None if definition is None else definition.id

    assert await found("r1") == "d2"
    assert await found("r2", workflow_id="wf-de-mo-1") == "d1"
    assert await found("r3", workflow_definition_id="d1", workflow_id="wf-de-mo-2") == "d1"
    assert await found("r4", workflow_definition_id="gone", workflow_id="wf-de-mo-7") == "d2"
    assert await found("r5", workflow_name="unknown") is None


async def test_a_published_workflow_takes_the_place_of_definitions_of_its_name(
    store: Store, tables: ProjectionStore, client: Client
) -> None:
    client.insert("workflow_definitions", id="d1", name="demo", workflow_data="{}", version=7)
    client.insert("workflow_definitions", id="d2", name="kept", workflow_data="{}")
    await told.append_mixed(store, [told.published("demo", 2)])
    told.catch_up(tables)

    shown = {(each["name"], each["version"]) for each in client.shown("workflow_definitions")}
    assert shown == {("demo", 1), ("demo", 2), ("kept", 1)}
    said = client.insert_refused("workflow_definitions", name="demo", workflow_data="{}")
    assert "POST /api/v1/workflows" in said


# -------------------------------------------------------------------------- beside the projections


async def test_lists_verification_and_rebuild_see_the_projections_alone(
    store: Store, tables: ProjectionStore, client: Client
) -> None:
    await told.append_mixed(store, [*told.stories(), told.published("a", 2)])
    told.catch_up(tables)
    client.insert("workflow_runs", run_id="r1", workflow_name="demo")
    client.insert("step_executions", run_id="r1", step_id="s1")
    client.insert("workflow_definitions", name="demo", workflow_data="{}")

    before = {each.name: each.rows for each in verify(tables, PROJECTIONS)}
    for each in PROJECTIONS:
        Rebuild(tables, each).run()
    after = verify(tables, PROJECTIONS)

    assert [each.difference for each in after] == [None] * len(PROJECTIONS)
    assert {each.name: each.rows for each in after} == before
    reads = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)
    page = await reads.executions(ExecutionQuery(workspace_id="default", page_size=100))
    assert page.total == before["workflow_runs"] == len(client.shown()) - 1


async def test_a_rebuild_keeps_the_rows_and_the_triggers(
    store: Store, tables: ProjectionStore, rows: StoredOutsideRows, client: Client
) -> None:
    client.insert("workflow_runs", run_id="before", workflow_name="demo")
    for _ in range(2):
        for each in PROJECTIONS:
            Rebuild(tables, each).run()

    client.insert("workflow_runs", run_id="after", workflow_name="demo")
    client.insert("step_executions", run_id="after", step_id="s1")
    client.insert("workflow_definitions", name="demo", workflow_data="{}")
    assert "inserted once" in client.insert_refused(
        "workflow_runs", run_id="before", workflow_name="demo"
    )
    for view in ("workflow_runs", "step_executions", "workflow_definitions"):
        assert "changed or deleted" in client.refused(f"UPDATE {view} SET status = 'x'")
        assert "changed or deleted" in client.refused(f"DELETE FROM {view}")
    assert {each["run_id"] for each in client.shown()} == {"before", "after"}

    execution_id, _ = await outside_run(rows, "default", "before")
    await executed(store, execution_id)
    told.catch_up(tables)
    Rebuild(tables, chosen("workflow_runs")[0]).run()
    assert {each["run_id"] for each in client.shown()} == {"after", f"run-{execution_id}"}


async def test_a_switch_of_the_projection_s_version_keeps_rows_and_triggers(
    store: Store, tables: ProjectionStore, client: Client
) -> None:
    client.insert("workflow_runs", run_id="before", workflow_name="demo")
    client.insert("workflow_runs", run_id=UUID_RUN, workflow_name="demo")
    await executed(store, UUID(UUID_RUN.removeprefix("run-")))
    told.catch_up(tables)
    table = chosen("workflow_runs")[0].table
    next_version: ProjectedTable = replace(table, version=2)

    def switch(session: Session) -> None:
        session.execute(next_version.create_statement(session.dialect, "", 0))
        with view_following(session, next_version):
            session.execute(f"INSERT INTO {next_version.stored} SELECT * FROM {table.stored}")
        session.execute(f"DROP TABLE {table.stored}")

    tables.restructure(switch)

    client.insert("workflow_runs", run_id="after", workflow_name="demo")
    shown = {each["run_id"]: each["status"] for each in client.shown()}
    assert shown == {"before": "PENDING", "after": "PENDING", UUID_RUN: "COMPLETED"}
    assert "inserted once" in client.insert_refused(
        "workflow_runs", run_id=UUID_RUN, workflow_name="demo"
    )
    assert "changed or deleted" in client.refused("DELETE FROM workflow_runs")


# ----------------------------------------------------------------------------- PostgreSQL clients


async def test_clients_of_postgresql_may_send_its_types(postgres_dsn: str) -> None:
    migrate.upgrade(postgres_dsn)
    at = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    with psycopg.connect(postgres_dsn, autocommit=True) as server:
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


def test_the_second_of_two_inserts_at_once_is_refused(postgres_dsn: str) -> None:
    migrate.upgrade(postgres_dsn)
    insert = b"INSERT INTO workflow_runs (run_id, workflow_name) VALUES ('r1', 'demo')"
    with psycopg.connect(postgres_dsn) as first, psycopg.connect(postgres_dsn) as second:
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


async def test_the_right_to_insert_into_the_view_is_enough(postgres_dsn: str) -> None:
    migrate.upgrade(postgres_dsn)
    role = f"client_{uuid4().hex}"
    with psycopg.connect(postgres_dsn) as server:  # ends in a rollback
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
