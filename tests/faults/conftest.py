"""Which faults `make test` makes: those of whole fleets of processes take minutes together."""

from pathlib import Path

import pytest

OF_PROCESSES = frozenset(
    {
        "test_agent_failing.py",
        "test_backlog.py",
        "test_broker_killed.py",
        "test_clocks_set.py",
        "test_consumer_killed.py",
        "test_database_away.py",
        "test_lines_cut.py",
        "test_messages_shuffled.py",
        "test_overloaded.py",
        "test_processes_killed.py",
        "test_rolling_restarts.py",
        "test_slow_readers.py",
        "test_standing_still.py",
    }
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the long ones to `make faults-quick`."""
    long = collection_path.name in OF_PROCESSES and not config.getoption("--processes-too")
    return True if long else None
