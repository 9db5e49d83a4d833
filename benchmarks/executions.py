"""Whole executions: three no-op steps each, every projection running, from the request to
COMPLETED.

In process (`Requests.execute`, then the state) and over HTTP (one POST with `Prefer: wait=10`),
with 1 and 64 in flight. Also the projections' lag while it runs and how long they need to catch
up. On PostgreSQL with 64 in flight also with `flowledger projector` beside the process.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from application.callers import Caller
from application.requests import ExecuteOptions
from benchmarks.harness import Figures, Report, as_served, databases, percentile, read_options
from benchmarks.http_load import cpu_seconds, memory_peak_mb, post
from domain.json_values import JsonObject
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.garbage_collection import tune_process

Measure = Callable[[str, Path, int, int], Coroutine[Any, Any, Figures]]
"""Of a database, with actions, so many executions, so many in flight."""

IN_FLIGHT = 64
DEFINITION: JsonObject = {
    "name": "bench",
    "start_step": "a",
    "steps": {
        "a": {"action": "noop", "config": {"rows": "${workflow.input.rows}"}, "next_step": "b"},
        "b": {"action": "noop", "config": {"rows": "${a.output.rows}"}, "next_step": "c"},
        "c": {"action": "noop", "config": {"rows": "${b.output.rows}"}, "next_step": None},
    },
}
INPUT: JsonObject = {"source": "s3://bucket/data.csv", "rows": 1000, "flags": ["a", "b"]}
COMPLETED = b'"status":"COMPLETED"'
ACTIONS = '''
async def noop(config, context):
    """Does nothing, at once."""
    return {"uri": "s3://bucket/out.parquet", "rows": 998, "ok": True}
'''


async def in_process(url: str, actions: Path, executions: int, in_flight: int) -> Figures:
    """Executions per second, latencies in ms, CPU of the whole process per execution."""
    services = await open_services(Settings(database_url=url, actions=str(actions)))
    tune_process()
    caller = Caller(actor="bench")
    await services.workflows.publish(caller, DEFINITION)
    latencies: list[float] = []

    async def client(count: int) -> None:
        for _ in range(count):
            started = time.perf_counter()
            options = ExecuteOptions(input_data=INPUT)
            answer = await services.requests.execute(caller, "bench", options)
            view = await services.history.wait_ended("default", str(answer.state.id), 30)
            if view.status != "COMPLETED":
                raise RuntimeError(f"execution {view.id} is {view.status}")
            latencies.append((time.perf_counter() - started) * 1000)

    await client(20)
    latencies.clear()
    lags: list[float] = []
    watcher = asyncio.create_task(_watch_lag(services, lags))
    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(executions // in_flight) for _ in range(in_flight)))
    took = time.perf_counter() - started
    watcher.cancel()
    head = await services.store.log.head()
    caught_up = time.perf_counter()
    if not await services.reads.wait_for(head, 60):
        raise RuntimeError("the projections did not catch up within a minute")
    figures = {
        "executions_per_second": len(latencies) / took,
        "p50_ms": percentile(latencies, 0.5),
        "p99_ms": percentile(latencies, 0.99),
        "cpu_us_per_execution": (time.process_time() - cpu) / len(latencies) * 1e6,
        "projection_lag_max_seconds": max(lags, default=0.0),
        "projections_caught_up_after_seconds": time.perf_counter() - caught_up,
    }
    await services.close()
    return figures


async def _watch_lag(services: Services, lags: list[float]) -> None:
    while True:
        await asyncio.sleep(0.25)
        lags.append(max(each.lag_seconds for each in await services.reads.projections()))


async def over_http(url: str, actions: Path, executions: int, in_flight: int) -> Figures:
    """The same through a server of its own process; this process is the client."""
    async with _server(url, actions) as (host, port, process):
        await post(host, port, "/api/v1/workflows", DEFINITION, 1, 1)
        path = "/api/v1/workflows/bench/execute"
        body: JsonObject = {"input_data": INPUT}
        await post(host, port, path, body, 20, 1, wanted=COMPLETED)
        before, started = cpu_seconds(process), time.perf_counter()
        latencies = await post(host, port, path, body, executions, in_flight, wanted=COMPLETED)
        took = time.perf_counter() - started
        return {
            "executions_per_second": len(latencies) / took,
            "p50_ms": percentile(latencies, 0.5),
            "p99_ms": percentile(latencies, 0.99),
            "server_cpu_us_per_execution": (cpu_seconds(process) - before) / len(latencies) * 1e6,
            "server_memory_peak_mb": memory_peak_mb(process),
        }


def beside_a_projector(measure: Measure) -> Measure:
    """The same with the tables filled by a process of their own."""

    async def beside(url: str, actions: Path, executions: int, in_flight: int) -> Figures:
        async with _process("projector", "--database", url):
            return await measure(url, actions, executions, in_flight)

    return beside


@asynccontextmanager
async def _server(url: str, actions: Path) -> AsyncIterator[tuple[str, int, int]]:
    arguments = ("serve", "--port", "0", "--database", url)
    async with _process(*arguments, FLOWLEDGER_ACTIONS=str(actions)) as (line, process):
        address = next(word for word in line.split() if word.startswith("http://"))
        parts = urlsplit(address)
        yield parts.hostname or "127.0.0.1", parts.port or 80, process


@asynccontextmanager
async def _process(*arguments: str, **variables: str) -> AsyncIterator[tuple[str, int]]:
    """A process of the product that is ready: what it said then, and its number."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "flowledger"),
        *arguments,
        env={**os.environ, "FLOWLEDGER_LOG_LEVEL": "warning", **variables},
        stdout=subprocess.PIPE,
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the process has no output")
        yield (await process.stdout.readline()).decode(), process.pid
    finally:
        process.terminate()
        await process.wait()


def _measurements(backend: str) -> Iterator[tuple[str, int, Measure]]:
    for in_flight in (IN_FLIGHT, 1):
        for name, measure in (("in process", in_process), ("HTTP", over_http)):
            yield name, in_flight, measure
            if backend == "postgresql" and in_flight > 1:
                yield f"{name} beside a projector", in_flight, beside_a_projector(measure)


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure on the chosen back ends and print the report."""
    options = read_options(__doc__ or "", arguments)
    report = Report("executions", options)
    many, few = (1_280, 100) if options.quick else (12_800, 500)
    with databases() as bases, tempfile.TemporaryDirectory() as folder:
        actions = Path(folder) / "bench_actions.py"
        actions.write_text(ACTIONS)
        for backend in options.backends:
            for _ in range(options.repetitions):
                for name, in_flight, measure in _measurements(backend):
                    count = many if in_flight > 1 else few
                    work = measure(bases.fresh(backend), actions, count, in_flight)
                    report.add(f"{backend}, {name}, {in_flight} in flight", as_served(work))
    report.show()
    return report


if __name__ == "__main__":
    main()
