"""Who fills the tables on PostgreSQL: a process that does nothing else comes before others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from infrastructure.database import Store
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.projections.postgres_store import PostgresProjectionStore
from infrastructure.projections.runner import ProjectionRunner
from infrastructure.projections.verification import verify
from tests.contracts import projected as told

pytestmark = pytest.mark.anyio

IN_TIME = 30.0
Start = Callable[..., ProjectionRunner]


@pytest.fixture
async def start(store: Store, postgresql_ledger_url: str) -> AsyncIterator[Start]:
    """Starts runners as processes of their own would; ends them afterwards."""
    async with AsyncExitStack() as stack:

        def start(*, dedicated: bool, patience_seconds: float = IN_TIME) -> ProjectionRunner:
            tables = PostgresProjectionStore(postgresql_ledger_url, dedicated=dedicated)
            runner = ProjectionRunner(
                tables, store.clock.now, poll_seconds=0.02, patience_seconds=patience_seconds
            )
            runner.start()
            stack.push_async_callback(asyncio.to_thread, runner.stop)
            return runner

        yield start


async def leads(runner: ProjectionRunner) -> None:
    async with asyncio.timeout(IN_TIME):
        while not runner.leading:  # noqa: ASYNC110 - it comes true in another thread
            await asyncio.sleep(0.01)


async def test_a_projector_takes_the_tables_over_and_gives_them_back_when_it_ends(
    store: Store, start: Start, postgresql_ledger_url: str
) -> None:
    serving = start(dedicated=False)
    await leads(serving)
    stories = told.stories(3)
    appending = asyncio.create_task(told.append_mixed(store, stories))

    projector = start(dedicated=True)
    await leads(projector)
    assert not serving.leading
    await asyncio.to_thread(projector.stop)
    await leads(serving)

    assert await serving.reached(await appending, IN_TIME)
    tables = PostgresProjectionStore(postgresql_ledger_url)
    differences = [each for each in verify(tables, PROJECTIONS) if each.difference is not None]
    tables.close()
    assert differences == []


async def test_a_server_that_starts_beside_a_projector_leaves_the_tables_to_it(
    store: Store, start: Start
) -> None:
    projector = start(dedicated=True)
    await leads(projector)
    serving, standing_by = start(dedicated=False), start(dedicated=True)

    await asyncio.to_thread(projector.stop)
    await leads(standing_by)

    position = await told.append_mixed(store, told.stories())
    assert await serving.reached(position, IN_TIME)  # it sees how far the other one is
    assert not serving.leading


async def test_a_projector_that_stands_still_does_not_leave_the_tables_alone(
    store: Store, start: Start, postgresql_ledger_url: str
) -> None:
    stands_still = PostgresProjectionStore(postgresql_ledger_url, dedicated=True)
    assert not stands_still.standing().led
    serving = start(dedicated=False, patience_seconds=0.1)

    await leads(serving)
    position = await told.append_mixed(store, told.stories())

    assert await serving.reached(position, IN_TIME)
    assert serving.leading  # and does not give way again for a while
    stands_still.close()
