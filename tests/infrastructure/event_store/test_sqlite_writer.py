"""The one writing connection of an SQLite file, and the jobs it does for others."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial

import pytest

from application.ports import StoreUnavailable
from infrastructure.addresses import SQLiteAddress, parse_address
from infrastructure.database import Store
from infrastructure.event_store.sqlite import SQLiteJobs
from infrastructure.small_tables import open_small_tables
from infrastructure.task_queue import open_task_queue
from tests.contracts.appends import append
from tests.infrastructure.event_store.conftest import OpenAt

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lite(sqlite_ledger_url: str, open_at: OpenAt) -> Store:
    return await open_at(sqlite_ledger_url, answer_seconds=0.1)


def jobs_of(store: Store) -> SQLiteJobs:
    assert isinstance(store.writes, SQLiteJobs)
    return store.writes


def permit(connection: sqlite3.Connection, reason: str) -> int:
    return connection.execute("INSERT INTO purge_permit VALUES (?)", (reason,)).rowcount


def permits(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT reason FROM purge_permit ORDER BY 1")]


async def test_a_job_writes_in_a_transaction_of_its_own(lite: Store) -> None:
    jobs = jobs_of(lite)
    assert await asyncio.wrap_future(jobs.run(lambda c: permit(c, "a"))) == 1
    appending = lite.log.append(append())
    assert await asyncio.wrap_future(jobs.run(permits)) == ["a"]
    await appending


async def test_a_job_that_fails_leaves_nothing_and_stops_nothing(lite: Store) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        permit(connection, "a")
        raise LookupError("on the way")

    jobs = jobs_of(lite)
    with pytest.raises(LookupError, match="on the way"):
        await asyncio.wrap_future(jobs.run(fail))
    assert await asyncio.wrap_future(jobs.run(permits)) == []
    await lite.log.append(append())


async def test_a_job_s_own_database_error_reaches_its_caller(lite: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        await asyncio.wrap_future(
            jobs_of(lite).run(lambda c: c.execute("INSERT INTO purge_permit VALUES (NULL)"))
        )


async def test_a_full_disk_is_unavailable_and_leaves_nothing(lite: Store) -> None:
    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    await asyncio.wrap_future(jobs_of(lite).run(limit))
    one = append(count=500)
    with pytest.raises(StoreUnavailable, match="full"):
        await lite.log.append(one)
    assert await lite.log.read_all() == []
    with pytest.raises(StoreUnavailable, match="full"):
        await asyncio.wrap_future(
            jobs_of(lite).run(lambda c: c.execute("CREATE TABLE t AS SELECT zeroblob(99999)"))
        )
    await lite.log.append(append())


async def test_a_damaged_file_is_unavailable_and_a_wrong_statement_is_not(
    lite: Store, sqlite_ledger_url: str
) -> None:
    """SQLite tells of both by more classes of errors than one."""
    tables = open_small_tables(lite, "t")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await tables.run("SELECT 1 FROM no_such_table")
    with pytest.raises(sqlite3.ProgrammingError, match="binding"):
        await tables.run("SELECT ?", ())
    damage(sqlite_ledger_url, "agent_breakers", "task_leases", "work_queue")
    tasks = open_task_queue(lite)
    for asked in (
        tables.run("SELECT * FROM agent_breakers"),
        tasks.claim("default", ["a"], "w", limit=1, lease_seconds=10.0),
        lite.queue.claim(1),
    ):
        with pytest.raises(StoreUnavailable, match="malformed"):
            await asked


def damage(url: str, *tables: str) -> None:
    """Let the file say of tables that they are where no page is."""
    address = parse_address(url)
    assert isinstance(address, SQLiteAddress)
    with closing(sqlite3.connect(address.path, isolation_level=None)) as other:
        other.execute("PRAGMA writable_schema = ON")
        for name in tables:
            other.execute("UPDATE sqlite_master SET rootpage = 999999 WHERE name = ?", (name,))
        (version,) = other.execute("PRAGMA schema_version").fetchone()
        other.execute(f"PRAGMA schema_version = {version + 1}")


async def test_a_cancelled_job_is_not_begun(lite: Store) -> None:
    jobs = jobs_of(lite)
    others = [jobs.run(partial(permit, reason=f"n{i}")) for i in range(3)]
    late = jobs.run(lambda c: permit(c, "late"))
    begun = not late.cancel()
    await asyncio.gather(*map(asyncio.wrap_future, others))
    assert ("late" in await asyncio.wrap_future(jobs.run(permits))) is begun


async def test_a_file_locked_by_another_program_is_unavailable_for_certain(
    lite: Store, sqlite_ledger_url: str
) -> None:
    address = parse_address(sqlite_ledger_url)
    assert isinstance(address, SQLiteAddress)
    other = sqlite3.connect(address.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await lite.log.append(append())
    with pytest.raises(StoreUnavailable, match="locked"):
        await lite.queue.claim(1)
    assert await lite.log.read_all() == []
    other.execute("ROLLBACK")
    other.close()
    await lite.log.append(append())


async def test_the_writer_is_durable_and_the_readers_cannot_write(lite: Store) -> None:
    def settings(connection: sqlite3.Connection) -> tuple[str, int]:
        return (
            connection.execute("PRAGMA journal_mode").fetchone()[0],
            connection.execute("PRAGMA synchronous").fetchone()[0],
        )

    assert await asyncio.wrap_future(jobs_of(lite).run(settings)) == ("wal", 2)
    with (
        lite.engine.connect() as connection,
        pytest.raises(Exception, match="readonly database"),
    ):
        connection.exec_driver_sql("DELETE FROM work_queue")


async def test_nothing_is_done_after_the_close(sqlite_ledger_url: str, open_at: OpenAt) -> None:
    store = await open_at(sqlite_ledger_url)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closing"):
        jobs_of(store).run(permits)
    with pytest.raises(StoreUnavailable, match="closing"):
        await store.queue.claim(1)
