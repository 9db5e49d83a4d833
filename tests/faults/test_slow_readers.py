"""F15, the quick form: streams equal the log, whoever else does not read."""

from pathlib import Path

import pytest

from tests.faults.report import Options, live_through
from tests.faults.slow_readers import run

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_who_reads_hears_all(tmp_path: Path) -> None:
    report = await live_through("F15", run, Options(quick=True, seed=1, folder=tmp_path))

    assert report.misses() == [], report.as_json()
