"""PostgreSQL is killed while callers write; nothing they were told is lost."""

from pathlib import Path

import pytest

from tests.faults import database_killed
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_nothing_acknowledged_is_lost_when_postgresql_is_killed(tmp_path: Path) -> None:
    report = await quick("F1", database_killed.run, tmp_path)
    assert report.misses() == [], report.as_json()
