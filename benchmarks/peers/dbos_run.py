"""DBOS Transact: `dbos_run.py URL EXECUTIONS IN_FLIGHT`, in the peers' environment.

A decorated workflow that calls three decorated steps, called directly, as its documentation does
for a workflow whose result the caller waits for; not through its queues, which poll. From threads
(coroutines were a quarter slower) and with its default pool of 20 connections (64 were no faster).
"""

import os
import sys
from typing import Any

from dbos import DBOS, DBOSConfig
from workload import INPUT, OUTPUT, answer, by_threads


@DBOS.step()
def step(given: dict[str, Any]) -> dict[str, Any]:
    """Does nothing."""
    return OUTPUT


@DBOS.workflow()
def workflow(given: dict[str, Any]) -> dict[str, Any]:
    """Three steps, each with the output of the one before."""
    return step(step(step(given)))


def main() -> None:
    """Measure once."""
    url, executions, in_flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": url,
        "log_level": "WARNING",
        "application_version": "1",
        "executor_id": "bench",
    }
    DBOS(config=config)
    DBOS.launch()
    answer(by_threads(lambda: workflow(INPUT), executions, in_flight))
    os._exit(0)  # without waiting for its background threads


if __name__ == "__main__":
    main()
