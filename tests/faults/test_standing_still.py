"""Processes that stand still and then go on."""

from pathlib import Path

import pytest

from tests.faults import standing_still
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_what_wakes_up_late_records_nothing(tmp_path: Path) -> None:
    report = await quick("F8", standing_still.run, tmp_path)
    assert report.misses() == [], report.as_json()
