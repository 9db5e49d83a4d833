"""The database itself refuses to change what happened."""

import sqlite3

import psycopg
import pytest

from infrastructure.addresses import SQLiteAddress, parse_address
from tests.contracts.appends import append
from tests.infrastructure.event_store.conftest import OpenAt

pytestmark = pytest.mark.anyio

CHANGES = (
    "UPDATE ledger_events SET topic = 'x'",
    "UPDATE ledger_events SET topic = 'x' WHERE false",
    "DELETE FROM ledger_events",
    "TRUNCATE ledger_events",
)


def sqlite_connection(url: str) -> sqlite3.Connection:
    address = parse_address(url)
    assert isinstance(address, SQLiteAddress)
    return sqlite3.connect(address.path)


@pytest.mark.parametrize("change", CHANGES)
async def test_postgresql_refuses_every_change(
    postgresql_ledger_url: str, open_at: OpenAt, change: str
) -> None:
    store = await open_at(postgresql_ledger_url)
    await store.log.append(append())
    with (
        psycopg.connect(postgresql_ledger_url) as connection,
        pytest.raises(psycopg.errors.RestrictViolation, match="append-only"),
    ):
        connection.execute(change.encode())
    assert len(await store.log.read_all()) == 1


async def test_postgresql_lets_retention_remove_under_its_permit(
    postgresql_ledger_url: str, open_at: OpenAt
) -> None:
    store = await open_at(postgresql_ledger_url)
    await store.log.append(append())
    with psycopg.connect(postgresql_ledger_url) as connection:
        connection.execute("SET LOCAL flowledger.purge_permit = 'purge 17'")
        connection.execute("DELETE FROM ledger_events")
        connection.commit()
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute("DELETE FROM ledger_events")
    assert await store.log.read_all() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_events SET topic = 'x'",
        "DELETE FROM ledger_events",
        "INSERT OR REPLACE INTO ledger_events SELECT * FROM ledger_events",
        "REPLACE INTO ledger_events (originator_id, originator_version, topic, state)"
        " SELECT originator_id, originator_version, 'x', state FROM ledger_events",
    ],
)
async def test_sqlite_refuses_every_change(
    sqlite_ledger_url: str, open_at: OpenAt, change: str
) -> None:
    store = await open_at(sqlite_ledger_url)
    await store.log.append(append())
    before = await store.log.read_all()
    connection = sqlite_connection(sqlite_ledger_url)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(change)
    connection.close()
    assert await store.log.read_all() == before


async def test_sqlite_never_gives_a_position_twice(sqlite_ledger_url: str, open_at: OpenAt) -> None:
    store = await open_at(sqlite_ledger_url)
    purged = (await store.log.append(append(count=3))).position
    connection = sqlite_connection(sqlite_ledger_url)
    with connection:
        connection.execute("INSERT INTO purge_permit VALUES ('purge 17')")
        connection.execute("DELETE FROM ledger_events")
        connection.execute("DELETE FROM purge_permit")
    connection.close()

    assert (await store.log.append(append())).position == purged + 1
