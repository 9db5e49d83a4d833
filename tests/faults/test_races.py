"""F5, the quick form: cancel against complete and fail has one winner, seen alike by everybody."""

from pathlib import Path

import pytest

from tests.faults.races import run
from tests.faults.report import Options, live_through

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_one_wins_and_all_see_it(tmp_path: Path) -> None:
    report = await live_through("F5", run, Options(quick=True, seed=1, folder=tmp_path))

    assert report.misses() == [], report.as_json()
