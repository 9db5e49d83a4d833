"""Many waiting executions when everything is killed."""

from pathlib import Path

import pytest

from tests.faults import backlog
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_a_backlog_is_worked_off_after_a_kill_of_everything(tmp_path: Path) -> None:
    report = await quick("F13", backlog.run, tmp_path)
    assert report.misses() == [], report.as_json()
