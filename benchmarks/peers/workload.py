"""What every peer runs: a three-step workflow of steps that do nothing, with the same values.

Imported by programs that run in the peers' environment: the standard library only.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

INPUT: dict[str, Any] = {"source": "s3://bucket/data.csv", "rows": 1000, "flags": ["a", "b"]}
OUTPUT: dict[str, Any] = {"uri": "s3://bucket/out.parquet", "rows": 998, "ok": True}
WARM_UP = 20


def by_threads(run: Callable[[], object], calls: int, threads: int) -> dict[str, float]:
    """Figures of `calls` calls of `run` from `threads` threads, each of which waits."""
    for _ in range(WARM_UP):
        run()
    latencies: list[float] = []

    def client() -> None:
        for _ in range(calls // threads):
            started = time.perf_counter()
            run()
            latencies.append((time.perf_counter() - started) * 1000)

    clients = [threading.Thread(target=client) for _ in range(threads)]
    cpu, started = _cpu_seconds(), time.perf_counter()
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    return _figures(latencies, time.perf_counter() - started, _cpu_seconds() - cpu)


def answer(figures: dict[str, float]) -> None:
    """Hand the figures to the program that started this one: the last line of its output."""
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    sys.stdout.flush()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _figures(latencies: list[float], took: float, cpu: float) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "executions_per_second": len(ordered) / took,
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "cpu_us_per_execution": cpu / len(ordered) * 1e6,
    }
