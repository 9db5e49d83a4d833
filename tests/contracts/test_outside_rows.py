"""How rows of other programs are shown, how executions take them over, and what a rebuild keeps."""

import json
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from application.ledger import execution_uuid
from application.outside_runs import outside_definition, outside_run
from application.ports import Append
from application.reads import ExecutionQuery
from domain.errors import Invalid
from domain.events import Event
from infrastructure.database import Store
from infrastructure.outside_rows import StoredOutsideRows
from infrastructure.projections.catalogue import PROJECTIONS, chosen
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.rebuilding import Rebuild, view_following
from infrastructure.projections.sessions import ProjectionStore, Session
from infrastructure.projections.tables import ProjectedTable
from infrastructure.projections.verification import verify
from tests.builders import Run, linear
from tests.contracts import projected as told
from tests.contracts.outside_client import UUID_RUN, Client, another_program

pytestmark = pytest.mark.anyio


@pytest.fixture
def tables(store: Store, ledger_url: str) -> Iterator[ProjectionStore]:
    opened = told.projection_store(store, ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def rows(store: Store) -> StoredOutsideRows:
    return StoredOutsideRows(store.engine, store.query_threads, store.writes)


@pytest.fixture
def client(ledger_url: str) -> Iterator[Client]:
    with another_program(ledger_url) as opened:
        yield opened


async def executed(store: Store, execution_id: UUID) -> None:
    """The execution of this id, begun and ended."""
    told_of = Run(linear(2)).succeed_all().events
    events = [Event(execution_id, each.version, each.meta, each.data) for each in told_of]
    await store.log.append(Append(execution_id, events))


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
