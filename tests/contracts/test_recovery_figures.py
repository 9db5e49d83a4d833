"""Figures of recovery on both back ends, against the same figures counted by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from application.reads import ExecutionQuery, RecoveryMetricsView
from application.recovery_history import RecoveryAttempt
from infrastructure.database import Store
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.sessions import ProjectionStore
from tests import recoveries
from tests.builders import START, Run, step, workflow
from tests.contracts import projected as told

pytestmark = pytest.mark.anyio

ANY = ExecutionQuery(workspace_id="default")


@pytest.fixture
def tables(store: Store, ledger_url: str) -> Iterator[ProjectionStore]:
    opened = told.projection_store(store, ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def reads(store: Store, tables: ProjectionStore) -> ProjectionReads:
    return ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)


def by_hand(attempts: Sequence[RecoveryAttempt]) -> dict[str, Any]:
    """What the figures of these attempts are, by the definition of each."""
    ended = sorted(each.recovery_ms for each in attempts if each.recovery_ms is not None)
    outcomes = [each.outcome for each in attempts]
    successes = outcomes.count("succeeded")
    return {
        "attempts": len(attempts),
        "successes": successes,
        "failures": outcomes.count("failed"),
        "cancelled": outcomes.count("cancelled"),
        "recoveries": len(ended),
        "recovered_share": successes / len(ended) if ended else None,
        "total_recovery_time_ms": sum(ended),
        "average_recovery_time_ms": round(sum(ended) / len(ended)) if ended else None,
        "p95_recovery_time_ms": ended[-(-95 * len(ended) // 100) - 1] if ended else None,
        "total_saved_time_ms": sum(each.saved_ms or 0 for each in attempts),
    }


def check(view: RecoveryMetricsView, runs: Sequence[Run]) -> None:
    attempts = [each for run in runs for each in recoveries.attempts_of(run)]
    strategies = sorted({each.strategy for each in attempts})
    classes = sorted({each.error_class for each in attempts})
    assert [asdict(each) for each in view.by_strategy] == [
        {"strategy": name, "error_class": None}
        | by_hand([each for each in attempts if each.strategy == name])
        for name in strategies
    ]
    assert [asdict(each) for each in view.by_error_class] == [
        {"strategy": None, "error_class": name}
        | by_hand([each for each in attempts if each.error_class == name])
        for name in classes
    ]
    assert [asdict(each) for each in view.by_strategy_and_error_class] == [
        {"strategy": strategy, "error_class": error_class} | by_hand(chosen)
        for strategy in strategies
        for error_class in classes
        if (
            chosen := [
                each
                for each in attempts
                if (each.strategy, each.error_class) == (strategy, error_class)
            ]
        )
    ]
    total = by_hand(attempts)
    assert view.recovered_share == total["recovered_share"]
    assert view.p95_recovery_time_ms == total["p95_recovery_time_ms"]
    assert view.average_recovery_time_ms == total["average_recovery_time_ms"]
    assert view.total_recovery_time_ms == total["total_recovery_time_ms"]
    assert view.successful_recoveries == total["successes"]
    assert view.failed_recoveries == total["recoveries"] - total["successes"]
    assert view.total_attempts == sum(each.strategy != "none" for each in attempts)
    assert view.last_updated == max(each.ended_at or each.started_at for each in attempts)
    used = [
        {each.strategy for each in group}
        for run in runs
        for group in _by_recovery(recoveries.attempts_of(run))
    ]
    assert view.recoveries_by_strategy == {
        name: sum(name in each for each in used) for name in strategies if name != "none"
    }


def _by_recovery(attempts: Sequence[RecoveryAttempt]) -> list[list[RecoveryAttempt]]:
    versions = {each.recovery_version for each in attempts}
    return [[each for each in attempts if each.recovery_version == found] for found in versions]


async def test_figures_of_all_executions(
    store: Store, tables: ProjectionStore, reads: ProjectionReads
) -> None:
    await told.append_mixed(store, told.recovery_stories())
    told.catch_up(tables)
    runs = list(recoveries.all_of_them())
    view = await reads.recovery(ANY)

    check(view, runs)
    statuses = [run.state.status for run in runs]
    assert view.total_flows == len(runs)
    assert view.successful_flows == statuses.count("COMPLETED")
    assert view.failed_flows == statuses.count("FAILED")
    assert view.success_rate == view.successful_flows / (view.successful_flows + view.failed_flows)
    assert view.recovered_flows == 5


async def test_many_recoveries_have_an_exact_percentile(
    store: Store, tables: ProjectionStore, reads: ProjectionReads
) -> None:
    """Forty recoveries of 1 to 40 seconds: 95 % of them take at most 38."""
    runs = []
    for seconds in range(1, 41):
        run = Run(workflow({"a": step()}), recovery={"max_recovery_time_ms": 100_000})
        run.go()
        error_class = "timeout" if seconds % 2 else "transient"
        recoveries.fail(run, 0, "a", error_class=error_class)
        run.now += timedelta(seconds=seconds)
        run.succeed("a")
        runs.append(run)
    await told.append_mixed(store, [told.as_another(r.events, n) for n, r in enumerate(runs)])
    told.catch_up(tables)
    view = await reads.recovery(ANY)

    check(view, runs)
    assert view.p95_recovery_time_ms == 38_000
    assert [each.p95_recovery_time_ms for each in view.by_error_class] == [37_000, 38_000]


async def test_one_flow_recovered_by_retry_counts_as_printed(
    store: Store, tables: ProjectionStore, reads: ProjectionReads
) -> None:
    run = Run(workflow({"swap_1": step()}), recovery={})
    run.go()
    for seconds in (0, 1, 2):
        recoveries.fail(run, 0, "swap_1")
        run.pass_time(seconds)
    run.succeed("swap_1")
    await told.append_mixed(store, [told.as_another(run.events, 1)])
    told.catch_up(tables)
    view = asdict(await reads.recovery(ANY))

    assert view.pop("last_updated") == run.now
    older = {
        "total_flows": 1,
        "successful_flows": 1,
        "failed_flows": 0,
        "recovered_flows": 1,
        "total_recovery_time_ms": 3_000,
        "average_recovery_time_ms": 3_000,
        "success_rate": 1.0,
        "strategies_used": {
            "retry_attempts": 3,
            "alternative_flows_used": 0,
            "user_fulfillment_used": 0,
        },
        "total_attempts": 3,
        "successful_recoveries": 1,
        "failed_recoveries": 0,
        "recoveries_by_strategy": {"retry": 1},
    }
    assert {name: view[name] for name in older} == older


async def test_figures_of_some_executions(
    store: Store, tables: ProjectionStore, reads: ProjectionReads
) -> None:
    hour = timedelta(hours=1)
    others = [
        told.as_another(run.events, 100 + number, workflow_name="other")
        for number, run in enumerate((recoveries.recovered_by_retry(), recoveries.given_up()))
    ]
    await told.append_mixed(store, [*told.recovery_stories(), *others])
    told.catch_up(tables)

    other = await reads.recovery(ExecutionQuery(workspace_id="default", workflow="other"))
    check(other, [recoveries.recovered_by_retry(), recoveries.given_up()])
    assert (other.total_flows, other.recovered_flows) == (2, 1)
    later = ExecutionQuery(workspace_id="default", created_after=START + hour)
    nothing = await reads.recovery(later)
    assert (nothing.total_flows, nothing.total_attempts, nothing.last_updated) == (0, 0, None)
    assert (nothing.success_rate, nothing.average_recovery_time_ms) == (0.0, 0)
    assert (nothing.p95_recovery_time_ms, nothing.recovered_share) == (None, None)
    until = ExecutionQuery(
        workspace_id="default", created_after=START - hour, created_before=START + hour
    )
    assert await reads.recovery(until) == await reads.recovery(ANY)
    foreign = await reads.recovery(ExecutionQuery(workspace_id="elsewhere"))
    assert (foreign.total_flows, foreign.total_attempts) == (0, 0)


async def test_questions_are_listed_the_oldest_open_one_first(
    store: Store, tables: ProjectionStore, reads: ProjectionReads
) -> None:
    await told.append_mixed(store, told.recovery_stories())
    told.catch_up(tables)

    async def listed(**filters: Any) -> list[str]:
        given = {"status": None, "execution_id": None, "page": 1, "page_size": 100} | filters
        page = await reads.questions("default", **given)
        assert page.total >= len(page.items)
        return [each.status for each in page.items]

    every = await listed()
    order = {"OPEN": 0, "ANSWERED": 1, "CLOSED": 2}
    assert every == sorted(every, key=order.__getitem__)
    assert set(every) == set(order)
    for status in order:
        assert await listed(status=status) == [each for each in every if each == status]
    whole = await reads.questions("default", status=None, execution_id=None, page=1, page_size=100)
    asked = []
    for number in range(1, whole.total + 1):
        page = await reads.questions(
            "default", status=None, execution_id=None, page=number, page_size=1
        )
        asked += [each.asked_at for each in page.items]
    assert asked == [each.asked_at for each in whole.items]
    first = whole.items[0]
    assert first.questions[0].startswith("Retry step 'swap'?")
    assert await listed(execution_id=first.execution_id) == ["OPEN"]
    assert await listed(execution_id=f"run-{first.execution_id}") == ["OPEN"]
