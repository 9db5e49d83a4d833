"""F19, the quick form: what a killed consumer had in hand is ended by the other one."""

from pathlib import Path

import pytest

from tests.faults.consumer_killed import run
from tests.faults.report import quick

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_the_other_one_ends_everything(tmp_path: Path) -> None:
    report = await quick("F19", run, tmp_path)
    assert report.misses() == [], report.as_json()
