"""The tests' own databases: what one test leaves behind, the next one does not see."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.ledger_databases import LedgerDatabases, may_switch_triggers_off
from tests.postgres_server import PostgresServer

INSERT = (
    "INSERT INTO ledger_events (originator_id, originator_version, topic, state)"
    " VALUES (gen_random_uuid(), 1, 'x', '{}') RETURNING notification_id"
)


@pytest.fixture
def databases(postgres_server: PostgresServer) -> Iterator[LedgerDatabases]:
    opened = LedgerDatabases(postgres_server)
    yield opened
    opened.drop_idle()


def test_rows_positions_and_connections_are_gone(databases: LedgerDatabases) -> None:
    url = databases.lend()
    left_open = psycopg.connect(url, autocommit=True)
    for position in (1, 2):
        assert left_open.execute(INSERT).fetchone() == (position,)
    databases.take_back(url)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")

    lent = databases.lend()
    with psycopg.connect(lent) as again:
        # Without the right to switch triggers off, a new one is made each time.
        assert (lent == url) == may_switch_triggers_off(again)
        assert again.execute("SELECT count(*) FROM ledger_events").fetchone() == (0,)
        assert again.execute(INSERT).fetchone() == (1,)
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            again.execute("DELETE FROM ledger_events")
    databases.take_back(lent)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE ledger_events DISABLE TRIGGER ALL",
        "CREATE TABLE theirs (figure integer)",
        "DROP VIEW execution_events",
        "ALTER TABLE workflow_runs_v1 ADD COLUMN figure integer",
        "GRANT SELECT ON workflow_runs TO PUBLIC",
        "UPDATE alembic_version SET version_num = '9999'",
        "ALTER ROLE CURRENT_USER IN DATABASE {} SET synchronous_commit = off",
        "ALTER FUNCTION ledger_events_append_only COST 7",
        "ANALYZE projection_checkpoints, ledger_events, pg_class",
    ],
)
def test_a_database_that_was_changed_is_not_lent_again(
    databases: LedgerDatabases, change: str
) -> None:
    url = databases.lend()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(change.format(connection.info.dbname).encode())
    databases.take_back(url)
    another = databases.lend()
    assert another != url
    databases.take_back(another)
