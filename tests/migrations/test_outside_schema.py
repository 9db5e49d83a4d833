"""The schema of rows of other programs: there and back, beside processes of the release before."""

import dataclasses
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import Connection, inspect, text

from infrastructure.addresses import administration_engine
from infrastructure.projections import workflow_runs
from infrastructure.projections.catalogue import PROJECTIONS
from tests.migrations.test_ledger_schema import alembic_config, older

VIEWS = ("workflow_runs", "step_executions", "workflow_definitions")
TABLES = {"outside_runs", "outside_run_ids", "outside_steps", "outside_definitions"}
BEFORE, AFTER = "0006", "0007"
INSERT = text("INSERT INTO workflow_runs (run_id, workflow_name) VALUES ('r1', 'demo')")


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A database of the release before."""
    with administration_engine(database_url).connect() as opened:
        older(opened, BEFORE)
        yield opened


def move(connection: Connection, revision: str) -> None:
    config = alembic_config(connection)
    (command.downgrade if revision < AFTER else command.upgrade)(config, revision)
    connection.commit()


def columns(connection: Connection, name: str) -> list[tuple[str, str]]:
    return [(each["name"], str(each["type"])) for each in inspect(connection).get_columns(name)]


def test_views_keep_their_columns_and_tables_are_untouched(connection: Connection) -> None:
    names = (*VIEWS, *(each.table.stored for each in PROJECTIONS))
    names = tuple(name for name in names if inspect(connection).has_table(name))
    before = {name: [each for each, _ in columns(connection, name)] for name in names}
    move(connection, AFTER)
    assert {name: [each for each, _ in columns(connection, name)] for name in names} == before
    if connection.dialect.name == "postgresql":
        stored = dict(columns(connection, "workflow_runs_v1"))
        assert dict(columns(connection, "workflow_runs")).items() >= stored.items()


def test_it_can_be_taken_back_and_done_again(connection: Connection) -> None:
    move(connection, AFTER)
    connection.execute(INSERT)
    connection.commit()
    move(connection, BEFORE)
    assert not TABLES & set(inspect(connection).get_table_names())
    assert [count(connection, view) for view in VIEWS] == [0, 0, 0]
    move(connection, AFTER)
    connection.execute(INSERT)
    assert [count(connection, view) for view in VIEWS] == [1, 0, 0]


def test_a_rebuild_of_the_release_before_loses_no_row(connection: Connection) -> None:
    """It makes the view as it knew it; the next rebuild of this release shows all again."""
    dialect = "postgresql" if connection.dialect.name == "postgresql" else "sqlite"
    table = workflow_runs.TABLE
    move(connection, AFTER)
    connection.execute(INSERT)
    for each in (dataclasses.replace(table, outside=None), table):
        before = count(connection, "workflow_runs")
        if dialect == "sqlite":
            connection.exec_driver_sql("DROP VIEW workflow_runs")
        connection.exec_driver_sql(each.view_statement(dialect, replace=dialect == "postgresql"))
        assert (before, count(connection, "workflow_runs")) == ((1, 0) if each != table else (0, 1))


def test_grants_and_views_of_others_stay(postgres_dsn: str) -> None:
    with administration_engine(postgres_dsn).connect() as opened:
        older(opened, BEFORE)
        opened.execute(text("CREATE VIEW theirs AS SELECT run_id FROM workflow_runs"))
        opened.execute(text("GRANT SELECT ON workflow_runs TO PUBLIC"))
        opened.commit()
        for revision in (AFTER, BEFORE, AFTER):
            move(opened, revision)
        opened.execute(INSERT)
        assert opened.execute(text("SELECT run_id FROM theirs")).scalar_one() == "r1"
        granted = text("SELECT has_table_privilege('public', 'workflow_runs', 'SELECT')")
        assert opened.execute(granted).scalar_one()


def count(connection: Connection, name: str) -> int:
    return int(connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one())
