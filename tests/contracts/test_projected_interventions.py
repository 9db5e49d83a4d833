"""The tables of executions that were paused, settled by hand and forked: equal to the fold."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from application.reads import ExecutionQuery
from application.step_history import step_history
from application.views import summarise
from domain.events import Recorded
from infrastructure.database import Store
from infrastructure.projections.reads import ProjectionReads
from tests.builders import EXECUTION_ID, Run, linear, loop, step, workflow
from tests.contracts import projected as told
from tests.invariants import Tables, check_all

pytestmark = pytest.mark.anyio

RETRY = {"attempts": 2, "base_delay_ms": 1_000}


def runs() -> Iterator[Run]:
    """Paused for good, too long, and resumed; settled in each way; forked."""
    for ending in ("open", "too long", "resumed"):
        run = Run(linear(2))
        run.go()
        run.pause(60, "look at it")
        run.succeed("s1", {"n": 1})
        if ending == "too long":
            run.pass_time(60)
        if ending == "resumed":
            run.go_on()
            run.succeed("s2")
        yield run
    for verb in ("skip", "complete"):
        run = Run(linear(2, on_error="retry", retry=RETRY))
        run.go()
        run.fail("s1")
        run.settle_by_hand(verb, "s1", {"n": 1} if verb == "complete" else None)
        run.go()
        yield run
    run = Run(workflow({"each": loop([1, 2], ["p"], "end"), "p": step(), "end": step()}))
    run.go()
    run.settle_by_hand("complete", "each[0]/p", {"n": 1})
    run.go()
    run.settle_by_hand("skip", "each", None)
    run.go()
    yield run
    run.fail("end")
    forked = run.fork("end", {"x": 2})
    forked.go()
    forked.succeed("end")
    yield forked


@pytest.mark.parametrize("batch", [1, 1_000])
async def test_rows_equal_the_fold(store: Store, ledger_url: str, batch: int) -> None:
    stories = [told.as_another(run.events, number) for number, run in enumerate(runs())]
    await told.append_mixed(store, stories)
    tables = told.projection_store(store, ledger_url)
    try:
        told.catch_up(tables, batch=batch)
        with tables.reading() as session:
            columns = "run_id, position, status, sub_status, steps_done, steps_skipped, progress"
            rows = session.execute(f"SELECT {columns} FROM workflow_runs")
            shown = session.execute(
                "SELECT run_id, path, attempt, try_no, status, why FROM step_executions"
            )
            stays = session.execute(
                "SELECT state, duration_ms FROM state_durations WHERE path = '' AND"
                " state = 'RUNNING.paused' ORDER BY duration_ms"
            )
    finally:
        tables.close()
    log = [each for each in await store.log.read_all(limit=10_000) if isinstance(each, Recorded)]
    named = [dict(zip(columns.split(", "), row, strict=True)) for row in rows]
    steps = [
        dict(zip(("run_id", "path", "attempt", "try_no", "status"), row[:5], strict=True))
        for row in shown
    ]
    assert check_all(log, tables=Tables(runs=named, steps=steps)) == []
    expected = {
        (view.run_id, view.path, view.attempt, view.try_no, view.status, view.why)
        for story in stories
        for view in step_history(story)
    }
    assert {tuple(row) for row in shown} == expected
    assert sorted((row[1] for row in stays), key=str) == [0, 60_000, None]


async def test_forks_are_found_by_what_they_were_forked_from(store: Store, ledger_url: str) -> None:
    *_, forked = runs()
    await told.append_mixed(store, [forked.events])
    tables = told.projection_store(store, ledger_url)
    told.catch_up(tables)
    reads = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)
    try:
        for origin, expected in ((EXECUTION_ID, [str(forked.state.id)]), (UUID(int=7), [])):
            page = await reads.executions(
                ExecutionQuery(workspace_id="default", forked_from=str(origin))
            )
            assert [each.id for each in page.items] == expected
            assert page.total == len(expected)
            for view in page.items:
                assert view == summarise(forked.state, view.position)
    finally:
        tables.close()
