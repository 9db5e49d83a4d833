"""A disk without room under PostgreSQL."""

from pathlib import Path

import pytest

from tests.faults import disk_full
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_work_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    report = await quick("F10", disk_full.run, tmp_path)
    assert report.misses() == [], report.as_json()
