"""F21, the quick form: messages that come while the database is away."""

from pathlib import Path

import pytest

from tests.faults.database_away import run
from tests.faults.report import quick

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_they_are_taken_when_it_is_back(tmp_path: Path) -> None:
    report = await quick("F21", run, tmp_path)
    assert report.misses() == [], report.as_json()
