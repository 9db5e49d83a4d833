"""F18, the quick form: a real broker is killed while executions are asked for."""

from functools import partial
from pathlib import Path

import pytest

from tests.faults.broker_killed import run_on
from tests.faults.report import quick
from tests.kafka.broker import KafkaBroker

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


async def test_everything_goes_on_when_the_broker_is_back(
    own_kafka: KafkaBroker, tmp_path: Path
) -> None:
    report = await quick("F18", partial(run_on, own_kafka), tmp_path)
    assert report.misses() == [], report.as_json()
