"""F14, the quick form: a crowd and an outage hear 2xx, 429 and 503, and nothing else."""

from pathlib import Path

import pytest

from tests.faults.overloaded import run
from tests.faults.report import Options, live_through

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_it_says_that_it_is_busy_or_away(tmp_path: Path) -> None:
    report = await live_through("F14", run, Options(quick=True, seed=1, folder=tmp_path))

    assert report.misses() == [], report.as_json()
