"""F20, the quick form: an agent that fails is left alone but for the probes of its breaker."""

from pathlib import Path

import pytest

from tests.faults.agent_failing import run
from tests.faults.report import quick

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_it_is_called_no_more_than_the_probes(tmp_path: Path) -> None:
    report = await quick("F20", run, tmp_path)
    assert report.misses() == [], report.as_json()
