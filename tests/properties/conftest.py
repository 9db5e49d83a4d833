"""Hypothesis profiles: `fast` for every run of the suite, `deep` with `--heavy`."""

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a slow machine is no mistake of the code.
settings.register_profile(
    "fast",
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep", settings.get_profile("fast"), max_examples=3_000, stateful_step_count=60
)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("deep" if config.getoption("--heavy") else "fast")
