"""Tables after kills of PostgreSQL."""

from pathlib import Path

import pytest

from tests.faults import tables_after_faults
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_the_tables_catch_up_and_equal_the_events(tmp_path: Path) -> None:
    report = await quick("F7", tables_after_faults.run, tmp_path)
    assert report.misses() == [], report.as_json()
