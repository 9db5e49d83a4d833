"""The code's idea of the tables against the migrations, and the plans that hot queries get."""

import sqlite3
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from infrastructure.addresses import administration_engine
from infrastructure.event_store.codec import Codec
from infrastructure.projections.catalogue import PROJECTIONS, UnknownProjection, chosen
from infrastructure.projections.log_reading import LogReading
from infrastructure.projections.postgres_store import PostgresProjectionStore


@pytest.fixture
def connection(ledger_url: str) -> Iterator[sa.Connection]:
    with administration_engine(ledger_url).connect() as opened:
        yield opened


def described(connection: sa.Connection, name: str) -> object:
    """Columns, key and indexes of a table, without the names that differ between generations."""
    found = sa.inspect(connection)
    columns = [
        (each["name"], str(each["type"]), each["nullable"]) for each in found.get_columns(name)
    ]
    indexes = sorted(
        (
            str(each["name"]).rpartition("_g")[0],
            each["column_names"],
            sorted(f"{key}={value}" for key, value in each.get("dialect_options", {}).items()),
        )
        for each in found.get_indexes(name)
    )
    return columns, found.get_pk_constraint(name)["constrained_columns"], indexes


def test_a_rebuilt_table_has_the_form_of_the_migrated_one(connection: sa.Connection) -> None:
    dialect = "postgresql" if connection.dialect.name == "postgresql" else "sqlite"
    for each in PROJECTIONS:
        table = each.table
        connection.exec_driver_sql(table.create_statement(dialect, "_r", 1))
        for statement in table.index_statements(dialect, "_r", 1):
            connection.exec_driver_sql(statement)
        assert described(connection, f"{table.stored}_r") == described(connection, table.stored)


def test_the_views_have_the_public_columns_in_order(connection: sa.Connection) -> None:
    for each in PROJECTIONS:
        names = [part if isinstance(part, str) else part[0] for part in each.table.public]
        found = sa.inspect(connection).get_columns(each.table.name)
        assert [column["name"] for column in found] == names


def view_text(connection: sa.Connection, name: str) -> str:
    """What the database says that a view is."""
    query = (
        "SELECT pg_get_viewdef('{}'::regclass)"
        if connection.dialect.name == "postgresql"
        else "SELECT sql FROM sqlite_master WHERE type = 'view' AND name = '{}'"
    )
    return " ".join(connection.exec_driver_sql(query.format(name)).scalar_one().split())


def test_the_views_of_a_rebuild_are_the_migrated_ones(connection: sa.Connection) -> None:
    dialect = "postgresql" if connection.dialect.name == "postgresql" else "sqlite"
    for each in PROJECTIONS:
        migrated = view_text(connection, each.table.name)
        if dialect == "sqlite":
            assert migrated == each.table.view_statement(dialect)
        else:
            connection.exec_driver_sql(each.table.view_statement(dialect, replace=True))
            assert migrated == view_text(connection, each.table.name)


def test_a_projection_is_chosen_by_name_or_all() -> None:
    assert chosen("all") == PROJECTIONS
    assert [each.table.name for each in chosen("human_tasks")] == ["human_tasks"]
    with pytest.raises(UnknownProjection, match="workflow_runs"):
        chosen("nothing")


def test_the_feed_keeps_its_plan_from_an_empty_table_on(postgresql_ledger_url: str) -> None:
    store = PostgresProjectionStore(postgresql_ledger_url)
    with store.reading() as session:
        log = LogReading(session, Codec())
        for _ in range(10):  # prepared, and with a generic plan from the sixth time on
            assert log.after(0, 1_000) == []
        with psycopg.connect(postgresql_ledger_url, autocommit=True) as other:
            other.execute(
                "INSERT INTO ledger_events (originator_id, originator_version, topic, state)"
                " SELECT gen_random_uuid(), 1, 'x', '{}' FROM generate_series(1, 20000)"
            )
            other.execute("ANALYZE ledger_events")
        (prepared,) = session.execute(
            "SELECT name FROM pg_prepared_statements"
            " WHERE statement LIKE '%notification_id > $1%' LIMIT 1"
        )
        plan = "\n".join(
            row[0] for row in session.execute(f"EXPLAIN EXECUTE {prepared[0]}(10000, 20000, 500)")
        )
    store.close()
    assert "Index Scan using ledger_events_notification_id_idx" in plan
    assert "Sort" not in plan
    assert "Bitmap" not in plan


MONITORING = (
    "SELECT run_id, workflow_name, status, created_at FROM workflow_runs"
    " WHERE status IN ('PENDING', 'RUNNING') ORDER BY created_at DESC",
    "SELECT run_id, workflow_name, error_message, created_at FROM workflow_runs"
    " WHERE status = 'FAILED' ORDER BY created_at DESC LIMIT 10",
    "SELECT agent_name, status, COUNT(*) as count FROM step_executions"
    " GROUP BY agent_name, status ORDER BY agent_name, status",
    "SELECT status FROM workflow_runs WHERE run_id = 'run-1'",
    "SELECT status FROM workflow_definitions WHERE id = 'd1'",
)


@pytest.mark.parametrize("query", MONITORING)
def test_a_row_of_another_program_costs_a_look_into_indexes(
    sqlite_ledger_url: str, postgresql_ledger_url: str, query: str
) -> None:
    with sqlite3.connect(sqlite_ledger_url.removeprefix("sqlite:///")) as opened:
        plan = [row[3] for row in opened.execute(f"EXPLAIN QUERY PLAN {query}")]
    opened.close()
    looks = [step for step in plan if step.startswith(("SEARCH r ", "SEARCH n "))]
    assert len(looks) == (1 if "workflow_definitions" in query else 3)
    assert not [step for step in plan if step.startswith(("SCAN r", "SCAN n", "MATERIALIZE"))]

    with psycopg.connect(postgresql_ledger_url) as server:
        server.execute(
            "INSERT INTO outside_runs SELECT 'run-' || n, 'wf', 'w', 'd', 'PENDING', '{}', NULL,"
            " 'system', now(), now(), NULL, NULL, NULL, 'default' FROM generate_series(1, 500) n"
        )
        server.execute("SET enable_seqscan = off")  # as it is once the projection is large
        explained = "\n".join(row[0] for row in server.execute(f"EXPLAIN {query}".encode()))
    assert "_v1 r" in explained
    assert "Seq Scan on workflow_runs_v1 r" not in explained
    assert "Seq Scan on step_executions_v1 r" not in explained


@pytest.mark.parametrize("query", MONITORING[:2])
def test_conditions_reach_both_sides_of_the_view(sqlite_ledger_url: str, query: str) -> None:
    with sqlite3.connect(sqlite_ledger_url.removeprefix("sqlite:///")) as opened:
        plan = [row[3] for row in opened.execute(f"EXPLAIN QUERY PLAN {query}")]
    opened.close()
    assert plan[0] == "MERGE (UNION ALL)"
    assert not [step for step in plan if "workflow_runs" in step and "CO-ROUTINE" in step]


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("workspace_id = 'd'", "created"),
        ("workspace_id = 'd' AND status = 'FAILED'", "status"),
        ("workspace_id = 'd' AND workflow_name = 'w'", "workflow"),
    ],
)
def test_first_pages_come_from_an_index(sqlite_ledger_url: str, condition: str, index: str) -> None:
    with sqlite3.connect(sqlite_ledger_url.removeprefix("sqlite:///")) as opened:
        plan = opened.execute(
            f"EXPLAIN QUERY PLAN SELECT * FROM workflow_runs_v1 WHERE {condition}"
            " ORDER BY created_at DESC, run_id DESC LIMIT 21"
        ).fetchall()
    opened.close()
    assert [f"workflow_runs_v1_{index}_g0" in row[3] for row in plan] == [True]
