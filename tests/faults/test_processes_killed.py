"""F4, the quick form: killed processes leave nothing behind that others do not end."""

from pathlib import Path

import pytest

from tests.faults.processes_killed import run
from tests.faults.report import Options, live_through

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_others_go_on(tmp_path: Path) -> None:
    report = await live_through("F4", run, Options(quick=True, seed=1, folder=tmp_path))

    assert report.misses() == [], report.as_json()
