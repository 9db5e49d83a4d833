"""Makes a log with very many finished executions, and the tables that belong to it.

The first thousand are run by the product itself: requested, driven, projected. The others are
copies of those, made in the database by columns: a row of the log with another execution id (also
in its text), the day of its times moved into the past, and a position that goes on where the copy
before ended; a row of a projection with the same changes; the summed rows of the statistics
multiplied. So every byte is one that the product's codec and projections wrote, except ids, days
and positions, and `flowledger projections verify` finds nothing to complain of. Executions stay
interleaved as 64 in flight had left them.
"""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from application.callers import Caller
from application.requests import ExecuteOptions
from benchmarks.executions import INPUT
from benchmarks.harness import progress
from domain.json_values import JsonObject
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.projections.folding import EXECUTIONS
from infrastructure.projections.tables import Column, ProjectedTable
from infrastructure.settings import Settings
from interfaces.bootstrap import open_services

SEEDS = 1_000
FAILING = 20
"""One seed in so many ends FAILED."""
DAYS = 700
"""Over how many days the copies are spread, the seeds themselves on the present one."""
COPIES_PER_TRANSACTION = 10
SEED_ACTION = '''
async def seed(config, context):
    """Does nothing, or fails."""
    if config["fails"]:
        raise ValueError("the source does not answer")
    return {"uri": "s3://bucket/out.parquet", "rows": 998, "ok": True}
'''


class Log(NamedTuple):
    """What was made: executions and events in all, and up to where the projections are."""

    executions: int
    events: int
    projected: int


def make_log(url: str, folder: Path, executions: int, *, projected: bool = True) -> Log:
    """Fill an empty database with so many executions (in thousands).

    Without `projected` the projections have yet to take in all but the seeds.
    """
    asyncio.run(_seed(url, folder))
    copies = executions // SEEDS - 1
    with _connected(url) as database:
        seeds = _Seeds.read(database)
        for first in range(1, copies + 1, COPIES_PER_TRANSACTION):
            last = min(copies, first + COPIES_PER_TRANSACTION - 1)
            with database.transaction():
                _copy(database, seeds, range(first, last + 1), projected=projected)
            if last % 100 == 0:
                progress(f"{(last + 1) * SEEDS:,} executions made")
        with database.transaction():
            events = seeds.head + copies * seeds.events
            database.end_at(events)
            if projected:
                _sum_up(database, copies, events)
        database.settle()
    return Log((copies + 1) * SEEDS, events, events if projected else seeds.head)


async def _seed(url: str, folder: Path) -> None:
    actions = folder / "seed_actions.py"
    actions.write_text(SEED_ACTION)
    services = await open_services(Settings(database_url=url, actions=str(actions)))
    caller = Caller(actor="bench")
    await services.workflows.publish(caller, _definition())

    async def client(numbers: range) -> None:
        for number in numbers:
            given: JsonObject = {**INPUT, "fails": number % FAILING == 0}
            options = ExecuteOptions(input_data=given)
            answer = await services.requests.execute(caller, "seed", options)
            await services.history.wait_ended("default", answer.view.id, 30)

    await asyncio.gather(*(client(range(n, SEEDS, 50)) for n in range(50)))
    if not await services.reads.wait_for(await services.store.log.head(), 60):
        raise RuntimeError("the projections did not catch up within a minute")
    await services.close()


def _definition() -> JsonObject:
    config: JsonObject = {"rows": "${workflow.input.rows}", "fails": False}
    last: JsonObject = {**config, "fails": "${workflow.input.fails}"}
    return {
        "name": "seed",
        "start_step": "a",
        "steps": {
            "a": {"action": "seed", "config": config, "next_step": "b"},
            "b": {"action": "seed", "config": config, "next_step": "c"},
            "c": {"action": "seed", "config": last, "next_step": None},
        },
    }


# ------------------------------------------------------------------------------------- the copies


class _Postgres:
    """The dialect of copies on PostgreSQL."""

    position, own_id, mark = "notification_id", "id::uuid", "%s"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.transaction = connection.transaction

    def run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """One statement."""
        cursor = self._connection.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def run_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """One statement for many rows."""
        self._connection.cursor().executemany(statement.encode(), rows)

    def text_of(self, state: str) -> str:
        """A stored state as text."""
        return f"convert_from({state}, 'UTF8')"

    def state_of(self, text: str) -> str:
        """The reverse."""
        return f"convert_to({text}, 'UTF8')"

    def earlier(self, column: Column) -> str:
        """A time column, moved."""
        return f"t.{column.name} - make_interval(days => m.days)"

    def end_at(self, position: int) -> None:
        """The next event comes after `position`."""
        self.run("SELECT setval('ledger_events_notification_id_seq', %s)", (position,))

    def settle(self) -> None:
        """What autovacuum does within minutes, at once."""
        self.run("VACUUM (ANALYZE)")
        self.run("CHECKPOINT")


class _SQLite:
    """The dialect of copies on SQLite."""

    position, own_id, mark = "rowid", "replace(id, '-', '')", "?"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")

    def run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """One statement."""
        return self._connection.execute(statement, parameters).fetchall()

    def run_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """One statement for many rows."""
        self._connection.executemany(statement, rows)

    def text_of(self, state: str) -> str:
        """A stored state as text."""
        return f"CAST({state} AS TEXT)"

    def state_of(self, text: str) -> str:
        """The reverse."""
        return f"CAST({text} AS BLOB)"

    def earlier(self, column: Column) -> str:
        """A time column, moved."""
        return f"replace(t.{column.name}, m.day, m.moved_day)"

    def end_at(self, position: int) -> None:
        """Nothing: the next event comes after the highest position."""

    def settle(self) -> None:
        """Statistics for the planner, as the server gathers them."""
        self.run("ANALYZE")
        self.run("PRAGMA wal_checkpoint(TRUNCATE)")


_Database = _Postgres | _SQLite


@contextmanager
def _connected(url: str) -> Iterator[_Database]:
    if url.startswith("sqlite"):
        file = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            yield _SQLite(connection)
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            yield _Postgres(connection)


class _Seeds(NamedTuple):
    """The executions that are copied: their ids, the last event, how many events, their day."""

    ids: tuple[str, ...]
    head: int
    events: int
    day: str

    @classmethod
    def read(cls, database: _Database) -> "_Seeds":
        """Raises RuntimeError when the seeds lie on two days or are not one piece of the log."""
        at = database.position
        found = database.run(
            f"SELECT originator_id, min({at}), max({at}), count(*) FROM ledger_events"
            " WHERE topic LIKE 'execution.%' GROUP BY originator_id"
        )
        first, head = min(row[1] for row in found), max(row[2] for row in found)
        events = sum(row[3] for row in found)
        days = database.run("SELECT min(created_at), max(updated_at) FROM workflow_runs")[0]
        (day, *others) = sorted({_day(value) for value in days})
        if others or head - first + 1 != events:
            raise RuntimeError("the seeds cannot be copied; run it again")
        ids = tuple(str(row[0] if isinstance(row[0], UUID) else UUID(hex=row[0])) for row in found)
        return cls(ids, head, events, day)


def _day(value: datetime | str) -> str:
    return value.astimezone(UTC).date().isoformat() if isinstance(value, datetime) else value[:10]


def _copy(database: _Database, seeds: _Seeds, copies: range, *, projected: bool) -> None:
    database.run(
        "CREATE TEMPORARY TABLE IF NOT EXISTS copied"
        " (original TEXT, id TEXT, copy INTEGER, days INTEGER, day TEXT, moved_day TEXT)"
    )
    database.run("DELETE FROM copied")
    rows = [
        (original, str(uuid7()), copy, copy % DAYS, seeds.day, _moved(seeds.day, copy % DAYS))
        for copy in copies
        for original in seeds.ids
    ]
    places = ", ".join([database.mark] * 6)
    database.run_many(f"INSERT INTO copied VALUES ({places})", rows)
    if isinstance(database, _Postgres):
        database.run("ANALYZE copied")
    _copy_events(database, seeds)
    if projected:
        for each in PROJECTIONS:
            if each.table.stream is not None and each.streams == EXECUTIONS:
                _copy_rows(database, seeds, each.table)


def _moved(day: str, days: int) -> str:
    return (datetime.fromisoformat(day) - timedelta(days=days)).date().isoformat()


def _copy_events(database: _Database, seeds: _Seeds) -> None:
    at = database.position
    original = database.own_id.replace("id", "m.original", 1)
    text = database.text_of("e.state")
    moved = f"replace(replace({text}, m.original, m.id), m.day || 'T', m.moved_day || 'T')"
    database.run(
        f"INSERT INTO ledger_events (originator_id, originator_version, topic, state, {at})"
        f" SELECT {database.own_id.replace('id', 'm.id', 1)}, e.originator_version, e.topic,"
        f" {database.state_of(moved)}, e.{at} + m.copy * {seeds.events}"
        f" FROM copied m JOIN ledger_events e ON e.originator_id = {original}"
        f" ORDER BY m.copy, e.{at}"
    )


def _copy_rows(database: _Database, seeds: _Seeds, table: ProjectedTable) -> None:
    def value(column: Column) -> str:
        if column.name == table.stream:
            return "'run-' || m.id"
        if column.name == "position":
            return f"t.position + m.copy * {seeds.events}"
        if column.kind == "timestamp":
            return database.earlier(column)
        return f"t.{column.name}"

    database.run(
        f"INSERT INTO {table.stored} ({', '.join(table.names)})"
        f" SELECT {', '.join(map(value, table.columns))}"
        f" FROM copied m JOIN {table.stored} t ON t.{table.stream} = 'run-' || m.original"
    )


def _sum_up(database: _Database, copies: int, head: int) -> None:
    for each in PROJECTIONS:
        if each.table.summed:
            sums = (f"{name} = {name} * {copies + 1}" for name in sorted(each.table.summed))
            database.run(f"UPDATE {each.table.stored} SET {', '.join(sums)}")
    database.run(f"UPDATE projection_checkpoints SET position = {database.mark}", (head,))
