"""The tables of executions with loops and forks: rows equal the fold of the events."""

from collections.abc import Iterator

import pytest

from application.step_history import step_history
from application.views import summarise
from domain.events import Recorded
from infrastructure.database import Store
from infrastructure.projections.workflow_runs import run_row
from tests.builders import Run, fork, loop, step, workflow
from tests.contracts import projected as told
from tests.invariants import Tables, check_all

pytestmark = pytest.mark.anyio


def runs() -> Iterator[Run]:
    """A loop of forks: a branch that is not needed, a failed iteration; and how it ended."""
    steps = {
        "each": loop("${workflow.input.items}", ["split"], execution_mode="parallel"),
        "split": fork({"left": ["p"], "right": ["q"]}, None, "any"),
        "p": step(),
        "q": step(),
    }
    for ending in ("failed", "open", "cancelled", "retried"):
        run = Run(workflow(steps), {"items": [1, 2]})
        run.go()
        run.succeed("each[0]/split/right/q", "right")
        run.fail("each[1]/split/right/q", "permanent")
        if ending in ("failed", "retried"):
            run.fail("each[1]/split/left/p", "permanent")
        if ending == "cancelled":
            run.cancel()
        if ending == "retried":
            run.retry()
            run.succeed_all()
        yield run


@pytest.mark.parametrize("batch", [1, 1_000])
async def test_rows_equal_the_fold(store: Store, ledger_url: str, batch: int) -> None:
    stories = [told.as_another(run.events, number) for number, run in enumerate(runs())]
    await told.append_mixed(store, stories)
    tables = told.projection_store(store, ledger_url)
    try:
        told.catch_up(tables, batch=batch)
        with tables.reading() as session:
            columns = "run_id, position, status, sub_status, steps_done, steps_failed, progress"
            rows = session.execute(f"SELECT {columns} FROM workflow_runs")
            steps = "run_id, path, attempt, try_no, status, output_data"
            shown = session.execute(f"SELECT {steps} FROM step_executions")
    finally:
        tables.close()
    log = [
        recorded
        for recorded in await store.log.read_all(limit=10_000)
        if isinstance(recorded, Recorded)
    ]
    named = [dict(zip(columns.split(", "), row, strict=True)) for row in rows]
    assert check_all(log, tables=Tables(runs=named)) == []
    expected = {
        (view.run_id, view.path, view.attempt, view.try_no, view.status)
        for story in stories
        for view in step_history(story)
    }
    assert {tuple(row[:5]) for row in shown} == expected


def test_a_retried_execution_is_complete() -> None:
    *_, retried = runs()
    row = run_row(summarise(retried.state, 1))
    assert (row.status, row.steps_done, row.attempt) == ("COMPLETED", 1, 2)
    assert row.output == {
        "iterations": [{"left": None, "right": "right"}, {"left": {"ok": True}, "right": None}],
        "total_count": 2,
    }
