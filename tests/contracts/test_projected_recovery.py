"""The tables of recoveries on both back ends: questions, attempts, and the sums over them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from application.question_views import question_views
from application.recovery_history import RecoveryAttempt
from infrastructure.database import Store
from infrastructure.projections.catalogue import chosen
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.projections.verification import verify
from tests import recoveries
from tests.builders import Run
from tests.contracts import projected as told
from tests.e2e.programs import ROOT

pytestmark = pytest.mark.anyio

SUMS = """
SELECT workspace_id, strategy, error_class, count(*),
    sum(CASE WHEN outcome = 'succeeded' THEN 1 ELSE 0 END),
    sum(CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END),
    sum(CASE WHEN outcome = 'cancelled' THEN 1 ELSE 0 END),
    count(recovery_ms), coalesce(sum(recovery_ms), 0), sum(delay_ms), coalesce(sum(saved_ms), 0)
FROM recovery_attempts GROUP BY workspace_id, strategy, error_class
ORDER BY workspace_id, strategy, error_class
"""
METRICS = """
SELECT workspace_id, strategy, error_class, attempts, successes, failures, cancelled, recoveries,
    recovery_ms_sum, delay_ms_sum, saved_ms_sum
FROM recovery_metrics ORDER BY workspace_id, strategy, error_class
"""


@pytest.fixture
def tables(store: Store, ledger_url: str) -> Iterator[ProjectionStore]:
    opened = told.projection_store(store, ledger_url)
    yield opened
    opened.close()


async def filled(store: Store, tables: ProjectionStore, batch: int = 1_000) -> list[Run]:
    """All stories in the tables, and their runs in the order of their numbers."""
    await told.append_mixed(store, told.recovery_stories())
    told.catch_up(tables, batch=batch)
    return list(recoveries.all_of_them())


def run_id(number: int) -> str:
    return f"run-{told.story_id(number)}"


def same_time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


@pytest.mark.parametrize("batch", [1, 3, 1_000])
async def test_rows_of_attempts_are_what_the_events_tell(
    store: Store, tables: ProjectionStore, batch: int
) -> None:
    runs = await filled(store, tables, batch)
    columns = (
        "path, attempt, recovery_version, number, strategy, alternative, question_id, error_class,"
        " code, outcome, reason, delay_ms, duration_ms, recovery_ms, worked_ms, saved_ms"
    )
    names = columns.split(", ")
    with tables.reading() as session:
        rows = session.execute(
            f"SELECT run_id, started_version, started_at, ended_at, {columns}"
            " FROM recovery_attempts"
        )
    found = {(row[0], row[1]): row[2:] for row in rows}

    expected = {
        (run_id(number), each.started_version): each
        for number, run in enumerate(runs)
        for each in recoveries.attempts_of(run)
    }
    assert found.keys() == expected.keys()
    for key, (started_at, ended_at, *others) in found.items():
        attempt = expected[key]
        assert (same_time(started_at), same_time(ended_at)) == (
            attempt.started_at,
            attempt.ended_at,
        )
        assert others == [getattr(attempt, name) for name in names]


@pytest.mark.parametrize("batch", [1, 1_000])
async def test_no_try_is_under_way_in_what_has_ended(
    store: Store, tables: ProjectionStore, batch: int
) -> None:
    await filled(store, tables, batch)
    with tables.reading() as session:
        left = session.execute(
            "SELECT s.run_id, s.path, s.try_no, s.status, s.sub_status FROM step_executions s"
            " JOIN workflow_runs r ON r.run_id = s.run_id"
            " WHERE r.status IN ('COMPLETED', 'FAILED', 'CANCELLED')"
            " AND (s.status IN ('RUNNING', 'RECOVERING') OR s.completed_at IS NULL)"
        )
    assert list(left) == []


@pytest.mark.parametrize("batch", [1, 2, 1_000])
async def test_metrics_are_the_sums_over_the_attempts(
    store: Store, tables: ProjectionStore, batch: int
) -> None:
    await filled(store, tables, batch)
    with tables.reading() as session:
        sums = [tuple(map(_plain, row)) for row in session.execute(SUMS.strip())]
        kept = [tuple(map(_plain, row)) for row in session.execute(METRICS.strip())]
        means = session.execute(
            "SELECT strategy, recovery_ms_mean FROM recovery_metrics WHERE error_class ="
            " 'transient' AND strategy IN ('retry', 'none') ORDER BY strategy"
        )
    assert kept == sums
    assert {row[1] for row in kept} == {"retry", "alternative_flow", "user_fulfillment", "none"}
    # Re-tries ended recoveries of 4500, 1000 (no time left) and 10 ms (the second attempt's).
    assert [(name, float(mean)) for name, mean in means] == [("none", 0.0), ("retry", 5_510 / 3)]


def _plain(value: Any) -> Any:
    """PostgreSQL sums integers to numerics."""
    return value if isinstance(value, str) else int(value)


@pytest.mark.parametrize("batch", [1, 4, 1_000])
async def test_rows_of_questions_are_what_callers_read(
    store: Store, tables: ProjectionStore, batch: int
) -> None:
    runs = await filled(store, tables, batch)
    columns = (
        "question_id, step_id, path, attempt, status, on_timeout, kind, alternative, read_as,"
        " answer, answered_by"
    )
    with tables.reading() as session:
        rows = session.execute(
            f"SELECT run_id, asked_at, due_at, answered_at, {columns} FROM questions"
        )

    expected = {
        (
            *(run_id(number), view.asked_at, view.due_at, view.answered_at),
            *(getattr(view, name) for name in columns.split(", ")),
        )
        for number, run in enumerate(runs)
        for view in question_views(run.state)
    }
    found = {(row[0], *map(same_time, row[1:4]), *row[4:]) for row in rows}
    assert found == expected
    assert {row[8] for row in found} == {"OPEN", "ANSWERED", "CLOSED"}


async def test_sub_states_are_columns(store: Store, tables: ProjectionStore) -> None:
    runs = (recoveries.swap(), recoveries.rerouted(), recoveries.asked())
    await told.append_mixed(store, [told.as_another(r.events, n) for n, r in enumerate(runs)])
    told.catch_up(tables)
    wanted = {
        (run_id(number), state)
        for number, state in enumerate(("retrying", "rerouted", "awaiting_answer"))
    }
    with tables.reading() as session:
        executions = session.execute("SELECT run_id, sub_status FROM workflow_runs")
        steps = session.execute(
            "SELECT run_id, sub_status FROM step_executions WHERE status = 'RECOVERING'"
        )
        stays = session.execute(
            "SELECT run_id, substr(state, 12) FROM state_durations"
            " WHERE state LIKE 'RECOVERING.%' AND left_at IS NULL"
        )
    assert {tuple(row) for row in executions} == wanted
    assert {tuple(row) for row in steps} == wanted
    assert {tuple(row) for row in stays} == wanted


async def test_executions_know_their_recovered_steps(store: Store, tables: ProjectionStore) -> None:
    runs = await filled(store, tables)
    with tables.reading() as session:
        rows = dict(session.execute("SELECT run_id, steps_recovered FROM workflow_runs"))
    assert rows == {run_id(n): run.state.steps_recovered for n, run in enumerate(runs)}
    assert set(rows.values()) == {0, 1}


async def test_the_documented_query_tells_what_saves_most_time_for_which_error(
    store: Store, tables: ProjectionStore
) -> None:
    runs = await filled(store, tables)
    page = (ROOT / "docs/explanation/recovery.md").read_text("utf-8")
    query = page.partition("Which strategy saves most time for which error:")[2]
    with tables.reading() as session:
        rows = session.execute(query.split("```sql\n")[1].split("```")[0].strip())

    ended: dict[tuple[str, str, str], list[RecoveryAttempt]] = {}
    for run in runs:
        for each in recoveries.attempts_of(run):
            if each.recovery_ms is not None:
                ended.setdefault((each.error_class, each.code, each.strategy), []).append(each)
    expected = [
        (
            *key,
            sum(each.outcome == "succeeded" for each in group),
            len(group),
            sum(each.saved_ms or 0 for each in group),
            pytest.approx(sum(took) / len(took)),
            took[-(-95 * len(took) // 100) - 1],
        )
        for key, group in ended.items()
        if (took := sorted(each.recovery_ms or 0 for each in group))
    ]
    expected.sort(key=lambda row: (row[0], row[1], -row[5], row[2]))
    assert [(*row[:3], *map(float, row[3:])) for row in rows] == expected
    assert len({row[2] for row in rows}) == 4


@pytest.mark.parametrize(
    ("name", "statement", "column"),
    [
        ("questions", "UPDATE questions_v1 SET status = 'OPEN' WHERE run_id = ?", "status"),
        (
            "recovery_attempts",
            "UPDATE recovery_attempts_v1 SET saved_ms = 9 WHERE run_id = ? AND number = 4",
            "saved_ms",
        ),
        ("recovery_attempts", "DELETE FROM recovery_attempts_v1 WHERE run_id = ?", None),
    ],
)
async def test_verify_finds_what_the_events_do_not_say(
    store: Store, tables: ProjectionStore, name: str, statement: str, column: str | None
) -> None:
    await filled(store, tables)
    tables.write(lambda session: session.execute(statement, (run_id(2),)))
    (verdict,) = verify(tables, chosen(name))
    assert verdict.difference is not None
    assert verdict.difference.column == column
