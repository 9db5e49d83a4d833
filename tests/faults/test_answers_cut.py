"""Answers of PostgreSQL that are cut off after the commit."""

from pathlib import Path

import pytest

from tests.faults import answers_cut
from tests.faults.report import quick

pytestmark = pytest.mark.anyio


async def test_a_lost_answer_is_no_conflict_and_no_second_event(tmp_path: Path) -> None:
    report = await quick("F3", answers_cut.run, tmp_path)
    assert report.misses() == [], report.as_json()
