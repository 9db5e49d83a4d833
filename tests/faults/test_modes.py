"""The same scenarios in every mode."""

from pathlib import Path

import pytest

from tests.faults import modes
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_every_mode_ends_in_the_same_state(tmp_path: Path) -> None:
    report = await quick("F17", modes.run, tmp_path)
    assert report.misses() == [], report.as_json()
