"""Absurd: `absurd_run.py URL EXECUTIONS IN_FLIGHT`, in the peers' environment.

A task that runs three steps. Each of up to eight clients, on a connection of its own, spawns its
share of the tasks in flight and works off as many with the documented `work_batch`, so that nothing
waits for a poll (a worker polls every 250 ms, a waiting caller every 50 ms and more). 64 clients of
one task each were slower, for claims get into each other's way.
"""

import sys
import threading
from typing import Any

import psycopg
from absurd_sdk import Absurd
from absurdctl import BUNDLED_SCHEMA_SQL
from workload import INPUT, OUTPUT, answer, by_threads

QUEUE = "bench"
CLIENTS_MAX = 8


def task(params: dict[str, Any], context: Any) -> dict[str, Any]:
    """Three steps that do nothing."""
    context.step("a", lambda: OUTPUT)
    context.step("b", lambda: OUTPUT)
    return context.step("c", lambda: OUTPUT)


def _client(url: str) -> Absurd:
    app = Absurd(url, queue_name=QUEUE)
    app.register_task(name="bench")(task)
    return app


def main() -> None:
    """Measure once."""
    url, executions, in_flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(BUNDLED_SCHEMA_SQL)
    _client(url).create_queue(QUEUE)
    local = threading.local()

    clients = min(CLIENTS_MAX, in_flight)
    share = in_flight // clients

    def run() -> None:
        app = getattr(local, "app", None)
        if app is None:
            app = local.app = _client(url)
        for _ in range(share):
            app.spawn("bench", INPUT)
        app.work_batch(batch_size=share)

    figures = by_threads(run, executions // share, clients)
    with psycopg.connect(url) as connection:
        row = connection.execute(
            f"SELECT count(*) FILTER (WHERE state = 'completed'), count(*) FROM absurd.t_{QUEUE}"
        ).fetchone()
    done, spawned = row or (0, 1)
    # A claim may find its rows locked by another and take none: such tasks are not counted.
    figures["executions_per_second"] *= share * done / spawned
    figures["cpu_us_per_execution"] /= share * done / spawned
    answer(figures)


if __name__ == "__main__":
    main()
