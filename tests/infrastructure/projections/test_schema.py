"""The code's idea of the tables against the migrations, and the plans that hot queries get."""

import sqlite3
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from infrastructure.addresses import administration_engine
from infrastructure.event_store.codec import Codec
from infrastructure.migrations import migrate
from infrastructure.projections.catalogue import PROJECTIONS, UnknownProjection, chosen
from infrastructure.projections.log_reading import LogReading
from infrastructure.projections.postgres_store import PostgresProjectionStore


@pytest.fixture
def connection(database_url: str) -> Iterator[sa.Connection]:
    migrate.upgrade(database_url)
    with administration_engine(database_url).connect() as opened:
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


def test_a_projection_is_chosen_by_name_or_all() -> None:
    assert chosen("all") == PROJECTIONS
    assert [each.table.name for each in chosen("human_tasks")] == ["human_tasks"]
    with pytest.raises(UnknownProjection, match="workflow_runs"):
        chosen("nothing")


def test_the_feed_keeps_its_plan_from_an_empty_table_on(postgres_dsn: str) -> None:
    migrate.upgrade(postgres_dsn)
    store = PostgresProjectionStore(postgres_dsn)
    with store.reading() as session:
        log = LogReading(session, Codec())
        for _ in range(10):  # prepared, and with a generic plan from the sixth time on
            assert log.after(0, 1_000) == []
        with psycopg.connect(postgres_dsn, autocommit=True) as other:
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


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("workspace_id = 'd'", "created"),
        ("workspace_id = 'd' AND status = 'FAILED'", "status"),
        ("workspace_id = 'd' AND workflow_name = 'w'", "workflow"),
    ],
)
def test_first_pages_come_from_an_index(sqlite_url: str, condition: str, index: str) -> None:
    migrate.upgrade(sqlite_url)
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as opened:
        plan = opened.execute(
            f"EXPLAIN QUERY PLAN SELECT * FROM workflow_runs_v1 WHERE {condition}"
            " ORDER BY created_at DESC, run_id DESC LIMIT 21"
        ).fetchall()
    opened.close()
    assert [f"workflow_runs_v1_{index}_g0" in row[3] for row in plan] == [True]
