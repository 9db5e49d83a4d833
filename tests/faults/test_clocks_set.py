"""F11, the quick form: clocks that jump move nothing."""

from pathlib import Path

import pytest

from tests.faults.clocks_set import run
from tests.faults.report import Options, live_through

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_clocks_move_nothing(tmp_path: Path) -> None:
    report = await live_through("F11", run, Options(quick=True, seed=1, folder=tmp_path))

    assert report.misses() == [], report.as_json()
