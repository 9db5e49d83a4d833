"""In which order the projections lock on PostgreSQL: checkpoint, view, table. Whoever took them in
another order would deadlock with a rebuild that changes the tables' places.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from infrastructure.database import Store
from infrastructure.event_store.codec import Codec
from infrastructure.projections.catalogue import PROJECTIONS, chosen
from infrastructure.projections.checkpoints import create_missing
from infrastructure.projections.lanes import Lane
from infrastructure.projections.postgres_store import PostgresProjectionStore
from infrastructure.projections.rebuilding import Rebuild
from tests.contracts import projected as told

pytestmark = pytest.mark.anyio

IN_TIME = 30.0
WAITED_FOR = "SELECT relation::regclass::text FROM pg_locks WHERE NOT granted"
Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def tables(store: Store, postgresql_ledger_url: str) -> Iterator[PostgresProjectionStore]:
    opened = PostgresProjectionStore(postgresql_ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def connect(postgresql_ledger_url: str) -> Iterator[Connect]:
    """Opens connections; what they hold is given back before anything else ends."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(psycopg.connect(postgresql_ledger_url))


async def waited_for(watching: psycopg.Connection) -> list[str]:
    """What somebody waits to lock: relations, by name."""
    async with asyncio.timeout(IN_TIME):
        while not (found := watching.execute(WAITED_FOR).fetchall()):
            watching.rollback()
            await asyncio.sleep(0.01)
    return [name for (name,) in found]


async def test_a_batch_that_waits_for_its_checkpoint_holds_no_table(
    store: Store, tables: PostgresProjectionStore, connect: Connect
) -> None:
    await told.append_mixed(store, told.stories())
    tables.write(lambda session: create_missing(session, PROJECTIONS))
    switching, watching = connect(), connect()
    switching.execute("SELECT name FROM projection_checkpoints FOR UPDATE")
    lane = Lane(tables, Codec(), PROJECTIONS, 0)

    batch = asyncio.create_task(asyncio.to_thread(lane.advance))
    await waited_for(watching)
    for projection in PROJECTIONS:
        table = projection.table.stored
        switching.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")

    switching.rollback()
    assert await batch > 0


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (
            "INSERT INTO workflow_runs (run_id, workflow_id, workflow_name) VALUES ('o', 'w', 'w')",
            "INSERT INTO step_executions (run_id, step_id) VALUES ('o', 's')",
        ),
        ("SELECT count(*) FROM workflow_runs", "SELECT count(*) FROM step_executions"),
    ],
    ids=["an outside program", "an analyst"],
)
async def test_a_switch_waits_for_nobody_who_uses_other_views(
    store: Store, tables: PostgresProjectionStore, connect: Connect, first: str, then: str
) -> None:
    await told.append_mixed(store, told.stories(2))
    other = connect()
    other.execute(first)

    rebuild = Rebuild(tables, *chosen("step_executions"))
    async with asyncio.timeout(IN_TIME):
        assert await asyncio.to_thread(rebuild.run) > 0

    other.execute(then)
    other.commit()


async def test_a_switch_locks_the_view_before_the_table(
    store: Store, tables: PostgresProjectionStore, connect: Connect
) -> None:
    await told.append_mixed(store, told.stories(2))
    reading, watching = connect(), connect()
    reading.execute("SELECT run_id FROM workflow_runs LIMIT 1")

    rebuild = asyncio.create_task(asyncio.to_thread(Rebuild(tables, *chosen("workflow_runs")).run))
    first = await waited_for(watching)

    reading.rollback()
    watching.rollback()
    assert await rebuild > 0
    assert first == ["workflow_runs"]
