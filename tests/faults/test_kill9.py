"""The server is killed while executions run: nothing acknowledged is lost, and all ends."""

from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.kill9 import Plan, campaign

pytestmark = pytest.mark.anyio


@pytest.mark.timeout(900)
async def test_killed_at_random_points_it_goes_on(
    database_url: str, tmp_path: Path, *, heavy: bool
) -> None:
    plan = Plan(executions=20, kills=3, kills_in_flight=2)
    if heavy:
        plan = Plan(executions=200, kills=20, kills_in_flight=15)

    figures = await campaign(database_url, tmp_path, plan)

    assert figures.violations == [], asdict(figures)
    assert figures.executions >= plan.executions
    assert sum(figures.statuses.values()) == figures.executions
    assert figures.kills_in_flight >= plan.kills_in_flight
    assert figures.redelivered > 0
    # A step that was hit three times is given up; nothing else may fail.
    assert figures.failures.keys() <= {"worker_lost"}
