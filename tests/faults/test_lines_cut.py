"""F9, the quick form: cut lines and silent lines heal without help."""

from pathlib import Path

import pytest

from tests.faults.lines_cut import run
from tests.faults.report import Options, live_through

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_the_line_heals(tmp_path: Path) -> None:
    report = await live_through("F9", run, Options(quick=True, seed=1, folder=tmp_path))

    assert report.misses() == [], report.as_json()
