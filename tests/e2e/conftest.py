"""Which walks `make test` leaves out: those through four programs and a real broker take long."""

from pathlib import Path

import pytest

OVER_BROKERS = frozenset({"test_kafka.py", "test_kafka_agent.py"})


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave them to `make test-kafka`, which CI runs, too."""
    long = collection_path.name in OVER_BROKERS and not config.getoption("--processes-too")
    return True if long else None
