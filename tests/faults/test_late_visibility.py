"""Readers that tail the log while twelve writers append."""

from pathlib import Path

import pytest

from tests.faults import late_visibility
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_no_reader_passes_an_event_that_shows_up_later(tmp_path: Path) -> None:
    report = await quick("F6", late_visibility.run, tmp_path)
    assert report.misses() == [], report.as_json()
