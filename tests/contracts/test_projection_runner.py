"""The projections' thread on both back ends: one leader, poison, waiting, rebuilds meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import pytest
from msgspec import Struct

from infrastructure.database import Store
from infrastructure.projections import checkpoints
from infrastructure.projections.catalogue import PROJECTIONS, chosen
from infrastructure.projections.folding import EXECUTIONS, Batch, Projection
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.rebuilding import Rebuild
from infrastructure.projections.runner import ProjectionRunner
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.projections.state_durations import TABLE
from infrastructure.projections.verification import verify
from tests.contracts import projected as told

pytestmark = pytest.mark.anyio

IN_TIME = 30.0
Run = Callable[..., ProjectionRunner]


class Poisonable:
    """`state_durations`, which fails at one execution while told to."""

    table = TABLE
    streams = EXECUTIONS
    details = True

    def __init__(self, poison: object) -> None:
        self.poison = poison
        (self._real,) = chosen("state_durations")

    def rows(self, batch: Batch) -> Sequence[Struct]:
        if any(change.after.id == self.poison for change in batch.executions):
            raise ZeroDivisionError("this release cannot take it")
        return self._real.rows(batch)


@pytest.fixture
async def started(store: Store, ledger_url: str) -> AsyncIterator[Run]:
    """Starts runners as processes of their own would; ends them afterwards."""
    async with AsyncExitStack() as stack:

        def start(
            projections: Sequence[Projection] = PROJECTIONS, pause_seconds: float = 0.001
        ) -> ProjectionRunner:
            runner = ProjectionRunner(
                told.projection_store(store, ledger_url),
                store.clock.now,
                projections=projections,
                poll_seconds=0.02,
                pause_seconds=pause_seconds,
                batch_max=40,
            )
            runner.start()
            stack.push_async_callback(asyncio.to_thread, runner.stop)
            return runner

        yield start


@pytest.fixture
async def tables(store: Store, ledger_url: str) -> AsyncIterator[ProjectionStore]:
    opened = told.projection_store(store, ledger_url)
    yield opened
    opened.close()


def differences(tables: ProjectionStore) -> dict[str, object]:
    return {
        verdict.name: verdict.difference
        for verdict in verify(tables, PROJECTIONS)
        if verdict.difference is not None
    }


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(IN_TIME):
        while not condition():  # noqa: ASYNC110 - it comes true in another thread
            await asyncio.sleep(0.01)


async def test_rows_follow_appends(store: Store, started: Run, tables: ProjectionStore) -> None:
    runner = started()
    stop_waking = store.feed.subscribe(runner.wake)

    position = await told.append_mixed(store, [*told.stories(3), told.published("a", 2)])

    assert await runner.reached(position, IN_TIME)
    assert runner.leading
    await until(lambda: runner.lag().events == 0)
    assert differences(tables) == {}
    stop_waking()


async def test_a_position_that_is_not_reached_ends_the_wait(started: Run) -> None:
    assert not await started().reached(10_000, 0.01)


async def test_only_one_of_two_runners_leads_and_the_other_takes_over(
    store: Store, started: Run, tables: ProjectionStore
) -> None:
    first = started()
    await until(lambda: first.leading)
    second = started()

    position = await told.append_mixed(store, told.stories())
    assert await first.reached(position, IN_TIME)
    assert await second.reached(position, IN_TIME)
    assert (first.leading, second.leading) == (True, False)

    await asyncio.to_thread(first.stop)
    await until(lambda: second.leading)
    more = [told.as_another(story, 700 + i) for i, story in enumerate(told.stories())]
    assert await second.reached(await told.append_mixed(store, more), IN_TIME)
    assert differences(tables) == {}


async def test_a_poison_event_pauses_one_projection_and_loses_nothing(
    store: Store, started: Run, tables: ProjectionStore
) -> None:
    stories = told.stories(2)
    stays = Poisonable(stories[9][0].execution_id)
    others = [each for each in PROJECTIONS if each.table.name != "state_durations"]
    runner = started([*others, stays])

    head = await told.append_mixed(store, stories)

    def positions() -> dict[str, checkpoints.Checkpoint]:
        with tables.reading() as session:
            return {key[0]: at for key, at in checkpoints.read_checkpoints(session).items()}

    await until(lambda: _all_but_stays(positions(), head))
    with tables.reading() as session:
        failure = checkpoints.read_failures(session)[("state_durations", 1)]
    assert failure.execution_id == str(stays.poison)
    assert failure.cause == "ZeroDivisionError: this release cannot take it"
    before = [
        each for each in await store.log.read_all(limit=10_000) if each.position < failure.position
    ]
    assert positions()["state_durations"].position == (before[-1].position if before else 0)
    assert runner.position < failure.position

    stays.poison = None
    tables.write(lambda session: checkpoints.resume(session, [stays]))
    assert await runner.reached(head, IN_TIME)
    assert differences(tables) == {}


def _all_but_stays(found: dict[str, checkpoints.Checkpoint], head: int) -> bool:
    running = {name for name, at in found.items() if at.state == "running" and at.position == head}
    return found["state_durations"].state == "paused" and running == found.keys() - {
        "state_durations"
    }


async def test_whoever_waits_spares_the_runner_its_pause(store: Store, started: Run) -> None:
    runner = started(pause_seconds=3_600)
    await until(lambda: runner.leading)
    for number in (900, 1_900):
        stories = [told.as_another(s, number + i) for i, s in enumerate(told.stories(1))]
        head = await told.append_mixed(store, stories)
        runner.wake()
        runner.hurry()
        await until(lambda head=head: runner.position >= head)


async def test_a_table_is_rebuilt_while_the_runner_fills_it(
    store: Store, started: Run, tables: ProjectionStore
) -> None:
    runner = started()
    stories = told.stories(4)
    await told.append_mixed(store, stories[: len(stories) // 2])

    appending = asyncio.create_task(told.append_mixed(store, stories[len(stories) // 2 :]))
    for name in ("workflow_runs", "workflow_statistics", "state_durations"):
        await asyncio.to_thread(Rebuild(tables, *chosen(name)).run)

    assert await runner.reached(await appending, IN_TIME)
    assert differences(tables) == {}


async def test_how_far_each_projection_is_can_be_read(
    store: Store, started: Run, tables: ProjectionStore
) -> None:
    reads = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)
    head = await told.append_mixed(store, told.stories())

    stopped = await reads.projections()
    runner = started()
    assert await reads.wait_for(head, IN_TIME)
    assert not await reads.wait_for(head + 1, 0.01)
    running = await reads.projections()

    assert {(view.state, view.lag_events, view.head) for view in stopped} == {
        ("stopped", head, head)
    }
    assert all(view.lag_seconds > 0 for view in stopped)
    assert {(view.state, view.lag_events, view.lag_seconds) for view in running} == {
        ("running", 0, 0.0)
    }
    assert runner.leading
