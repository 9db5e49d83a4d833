"""O1, the quick form: processes are stopped and started in turn, and no caller is let down."""

from pathlib import Path

import pytest

from tests.faults.report import Options, live_through
from tests.faults.rolling_restarts import run

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_no_caller_is_let_down(tmp_path: Path) -> None:
    report = await live_through("O1", run, Options(quick=True, seed=1, folder=tmp_path))

    assert report.misses() == [], report.as_json()
