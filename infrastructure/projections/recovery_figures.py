"""Recovery in figures, from `recovery_attempts` and `workflow_runs`: exact, for any choice of
executions.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from application.reads import (
    ExecutionQuery,
    RecoveryFigures,
    RecoveryMetricsView,
    StrategiesUsed,
)
from application.recovery_history import CUT_OFF, FAILED, NOTHING_TRIED, SUCCEEDED
from domain import lifecycle
from domain.recovery_stages import ALTERNATIVE, ASK, RETRY
from infrastructure.projections import recovery_attempts
from infrastructure.projections.execution_list import RUNS, Condition, chosen_runs
from infrastructure.projections.tables import StoredTime

ATTEMPTS: Final = recovery_attempts.TABLE.selectable
_MOST: Final = 0.95


class _Group(NamedTuple):
    """The attempts of one strategy and class of error.

    The `p95_...` are the smallest recovery time in this group that 95 % of the recoveries do not
    exceed: of this group, its strategy, its class of error, and of all.
    """

    strategy: str
    error_class: str
    attempts: int
    successes: int
    failures: int
    cancelled: int
    recoveries: int
    recovery_ms: int
    saved_ms: int
    p95_of_group: int | None
    p95_of_strategy: int | None
    p95_of_class: int | None
    p95_of_all: int | None


def recovery_metrics(connection: sa.Connection, query: ExecutionQuery) -> RecoveryMetricsView:
    """The figures of the executions that the query's filters leave."""
    runs = chosen_runs(connection, query)
    attempts = [ATTEMPTS.c.workspace_id == query.workspace_id]
    if len(runs) > 1:  # more than the workspace
        attempts.append(ATTEMPTS.c.run_id.in_(sa.select(RUNS.c.run_id).where(*runs)))
    groups = _groups(connection, attempts)
    total = _figures(groups, None, None, lambda group: group.p95_of_all)
    by_status = _flows(connection, runs)
    completed, failed = by_status.get(lifecycle.COMPLETED, 0), by_status.get(lifecycle.FAILED, 0)
    used = _uses(groups)
    return RecoveryMetricsView(
        total_flows=sum(by_status.values()),
        successful_flows=completed,
        failed_flows=failed,
        recovered_flows=_recovered_flows(connection, runs),
        total_recovery_time_ms=total.total_recovery_time_ms,
        average_recovery_time_ms=total.average_recovery_time_ms or 0,
        success_rate=completed / (completed + failed) if completed + failed else 0.0,
        strategies_used=StrategiesUsed(used[RETRY], used[ALTERNATIVE], used[ASK]),
        last_updated=_last_updated(connection, attempts),
        total_attempts=sum(used.values()),
        successful_recoveries=total.successes,
        failed_recoveries=total.recoveries - total.successes,
        recoveries_by_strategy=_recoveries_by_strategy(connection, attempts),
        p95_recovery_time_ms=total.p95_recovery_time_ms,
        recovered_share=total.recovered_share,
        by_strategy=[
            _figures(
                [each for each in groups if each.strategy == strategy],
                strategy,
                None,
                lambda group: group.p95_of_strategy,
            )
            for strategy in dict.fromkeys(each.strategy for each in groups)
        ],
        by_error_class=[
            _figures(
                [each for each in groups if each.error_class == error_class],
                None,
                error_class,
                lambda group: group.p95_of_class,
            )
            for error_class in sorted({each.error_class for each in groups})
        ],
        by_strategy_and_error_class=[
            _figures([each], each.strategy, each.error_class, lambda group: group.p95_of_group)
            for each in groups
        ],
    )


def _groups(connection: sa.Connection, conditions: Sequence[Condition]) -> list[_Group]:
    """Counts, sums and percentiles by strategy and class of error, in that order."""
    columns = ATTEMPTS.c
    keys = (columns.strategy, columns.error_class)
    counted = sa.select(
        *keys,
        sa.func.count(),
        *(
            sa.func.sum(sa.case((columns.outcome == outcome, 1), else_=0))
            for outcome in (SUCCEEDED, FAILED, CUT_OFF)
        ),
        sa.func.count(columns.recovery_ms),
        sa.func.coalesce(sa.func.sum(columns.recovery_ms), 0),
        sa.func.coalesce(sa.func.sum(columns.saved_ms), 0),
    ).where(*conditions)
    rows = connection.execute(counted.group_by(*keys).order_by(*keys)).all()
    slowest = _slowest(connection, conditions)
    nothing = (None,) * 4
    return [
        _Group(row[0], row[1], *map(int, row[2:]), *slowest.get((row[0], row[1]), nothing))
        for row in rows
    ]


def _slowest(
    connection: sa.Connection, conditions: Sequence[Condition]
) -> dict[tuple[str, str], tuple[int | None, ...]]:
    """By strategy and class of error, the least time beyond 95 % of each group it belongs to."""
    columns = ATTEMPTS.c
    strategy, error_class, took = columns.strategy, columns.error_class, columns.recovery_ms
    groupings: dict[str, list[Any]] = {
        "in_group": [strategy, error_class],
        "in_strategy": [strategy],
        "in_class": [error_class],
        "in_all": [],
    }
    shares = [
        sa.func.cume_dist().over(partition_by=parts or None, order_by=took).label(name)
        for name, parts in groupings.items()
    ]
    ended = (
        sa.select(strategy, error_class, took, *shares)
        .where(*conditions, took.is_not(None))
        .subquery()
    )
    keys = (ended.c.strategy, ended.c.error_class)
    least = [
        sa.func.min(sa.case((ended.c[name] >= _MOST, ended.c.recovery_ms))) for name in groupings
    ]
    rows = connection.execute(sa.select(*keys, *least).group_by(*keys))
    return {(row[0], row[1]): tuple(row[2:]) for row in rows}


def _figures(
    groups: Sequence[_Group],
    strategy: str | None,
    error_class: str | None,
    slowest: Callable[[_Group], int | None],
) -> RecoveryFigures:
    """Several groups as one; the percentile is the least that any of them has."""
    recoveries = sum(each.recoveries for each in groups)
    successes = sum(each.successes for each in groups)
    took = sum(each.recovery_ms for each in groups)
    slow = [found for each in groups if (found := slowest(each)) is not None]
    return RecoveryFigures(
        strategy=strategy,
        error_class=error_class,
        attempts=sum(each.attempts for each in groups),
        successes=successes,
        failures=sum(each.failures for each in groups),
        cancelled=sum(each.cancelled for each in groups),
        recoveries=recoveries,
        recovered_share=successes / recoveries if recoveries else None,
        total_recovery_time_ms=took,
        average_recovery_time_ms=round(took / recoveries) if recoveries else None,
        p95_recovery_time_ms=min(slow, default=None),
        total_saved_time_ms=sum(each.saved_ms for each in groups),
    )


def _uses(groups: Sequence[_Group]) -> dict[str, int]:
    """How often each strategy was used."""
    used = dict.fromkeys((RETRY, ALTERNATIVE, ASK), 0)
    for each in groups:
        if each.strategy != NOTHING_TRIED:
            used[each.strategy] += each.attempts
    return used


def _recoveries_by_strategy(
    connection: sa.Connection, conditions: Sequence[Condition]
) -> dict[str, int]:
    """In how many recoveries each strategy was used."""
    columns = ATTEMPTS.c
    once = (
        sa.select(columns.strategy, columns.run_id, columns.recovery_version)
        .where(*conditions, columns.strategy != NOTHING_TRIED)
        .distinct()
        .subquery()
    )
    counted = sa.select(once.c.strategy, sa.func.count()).group_by(once.c.strategy)
    rows = connection.execute(counted.order_by(once.c.strategy))
    return {strategy: int(count) for strategy, count in rows}


def _last_updated(connection: sa.Connection, conditions: Sequence[Condition]) -> Any:
    """When a recovery moved last; None before the first."""
    moved = sa.func.coalesce(ATTEMPTS.c.ended_at, ATTEMPTS.c.started_at)
    latest = sa.func.max(moved, type_=StoredTime())
    return connection.execute(sa.select(latest).where(*conditions)).scalar()


def _flows(connection: sa.Connection, conditions: Sequence[Condition]) -> dict[str, int]:
    counted = sa.select(RUNS.c.status, sa.func.count()).where(*conditions)
    rows = connection.execute(counted.group_by(RUNS.c.status))
    return {status: int(count) for status, count in rows}


def _recovered_flows(connection: sa.Connection, conditions: Sequence[Condition]) -> int:
    """Executions that completed although a step of theirs had failed, because it recovered."""
    recovered = sa.exists().where(
        ATTEMPTS.c.run_id == RUNS.c.run_id, ATTEMPTS.c.outcome == SUCCEEDED
    )
    counted = (
        sa.select(sa.func.count())
        .select_from(RUNS)
        .where(*conditions, RUNS.c.status == lifecycle.COMPLETED, recovered)
    )
    return int(connection.execute(counted).scalar_one())
