"""F12, the quick form: messages that come three times, in any order, and among poison."""

from pathlib import Path

import pytest

from tests.faults.messages_shuffled import run
from tests.faults.report import quick

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_each_has_one_outcome(tmp_path: Path) -> None:
    report = await quick("F12", run, tmp_path)
    assert report.misses() == [], report.as_json()
