"""What a long log costs: executions per second, lists, memory, projections and rebuilds.

With 10,000, 100,000 and 1,000,000 finished executions in the log (--quick: without the last; made
as `benchmarks/long_log.py` tells): executions of three steps per second in process with 64 in
flight, in turns with an empty database; the first page of the list filtered by status; memory of a
server that executes on it. Then the projections alone, of a log that they have not seen: all
together as they run in a server, and a rebuild of `workflow_runs`.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from application.reads import ExecutionQuery
from benchmarks.executions import ACTIONS, in_process, over_http
from benchmarks.harness import (
    Databases,
    Figures,
    Report,
    as_served,
    databases,
    option_parser,
    options_of,
    percentile,
    progress,
)
from benchmarks.long_log import Log, make_log
from infrastructure.settings import Settings
from interfaces.bootstrap import open_services, rebuild_projection
from interfaces.garbage_collection import tune_process

SIZES = (10_000, 100_000, 1_000_000)
EVENTS_PER_EXECUTION = 9
IN_FLIGHT = 64
RATE = "executions_per_second"
STATUSES = ("COMPLETED", "FAILED", "RUNNING")
LIST_P95_MS_MAX = 50.0
SHARE_MIN = 0.9
LIVE_MIN = 25_000.0
REBUILD_MIN = 60_000.0
LIMIT_SECONDS = 3_600


async def list_latencies(url: str, queries: int) -> Figures:
    """Latencies of the first page for each of the statuses in turn, and of the very first call."""
    services = await open_services(Settings(database_url=url, worker_slots=0))
    latencies = []
    for n in range(queries):
        wanted = ExecutionQuery(workspace_id="default", statuses=(STATUSES[n % len(STATUSES)],))
        started = time.perf_counter()
        await services.reads.executions(wanted)
        latencies.append((time.perf_counter() - started) * 1000)
    await services.close()
    return {
        "list_first_ms": latencies[0],
        "list_p50_ms": percentile(latencies, 0.5),
        "list_p95_ms": percentile(latencies, 0.95),
    }


async def live(url: str, log: Log) -> Figures:
    """Events per second of all projections together, run as in a server that has fallen behind."""
    cpu, started = time.process_time(), time.perf_counter()
    services = await open_services(Settings(database_url=url, worker_slots=0))
    if not await services.reads.wait_for(log.events, LIMIT_SECONDS):
        raise RuntimeError("the projections did not catch up within an hour")
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    await services.close()
    events = log.events - log.projected
    return {"events_per_second": events / took, "cpu_us_per_event": cpu / events * 1e6}


async def rebuild(url: str) -> Figures:
    """Events per second of a rebuild of `workflow_runs` from the whole log."""
    cpu, started = time.process_time(), time.perf_counter()
    settings = Settings(database_url=url)
    events = await rebuild_projection(settings, "workflow_runs", lambda position, head: None)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"events_per_second": events / took, "cpu_us_per_event": cpu / events * 1e6}


def _grown(report: Report, bases: Databases, backend: str, folder: Path, size: int) -> None:
    actions = folder / "bench_actions.py"
    row, empty = f"{backend}, {size:,} executions in the log", f"{backend}, empty log"
    many = 2_560 if report.options.quick else 6_400
    url = bases.fresh(backend)
    started = time.perf_counter()
    log = make_log(url, folder, size)
    report.add(f"{row}, made by copies", {"seconds": time.perf_counter() - started})
    progress(f"{row}: {log.events:,} events made")
    for _ in range(report.options.repetitions):
        for name, where in ((empty, bases.fresh(backend)), (row, url)):
            figures = as_served(in_process(where, actions, many, IN_FLIGHT))
            report.add(f"{name} ({size:,})" if name is empty else name, figures)
            progress(f"{name}: {figures[RATE]:,.0f}/s")
        report.add(row, asyncio.run(list_latencies(url, 300)))
    served = as_served(over_http(url, actions, many, IN_FLIGHT))
    report.add(row, {"server_memory_peak_mb": served["server_memory_peak_mb"]})
    share = report.ratio((row, RATE), (f"{empty} ({size:,})", RATE))
    p95 = report.median(row, "list_p95_ms")
    if size == max(SIZES):
        report.judge(f"{row}, executions/s / empty log", share, least=SHARE_MIN)
        report.judge(f"{row}, list p95 in ms", p95, LIST_P95_MS_MAX)
    else:
        report.notes[f"{row}, executions/s / empty log"] = round(share, 2)


def _projected(report: Report, bases: Databases, backend: str, folder: Path, events: int) -> None:
    executions = -(-events // EVENTS_PER_EXECUTION // 1_000) * 1_000
    live_row = f"{backend}, all projections live, {events:,} events"
    rebuild_row = f"{backend}, rebuild of workflow_runs, {events:,} events"
    for _ in range(report.options.repetitions):
        url = bases.fresh(backend)
        log = make_log(url, folder, executions, projected=False)
        progress(f"{backend}: {events:,} events made at {datetime.now(UTC):%H:%M:%S}")
        for row, work in ((live_row, live(url, log)), (rebuild_row, rebuild(url))):
            figures = asyncio.run(work)
            report.add(row, figures)
            progress(f"{row}: {figures['events_per_second']:,.0f} events/s")
    for row, least in ((live_row, LIVE_MIN), (rebuild_row, REBUILD_MIN)):
        rate = report.median(row, "events_per_second")
        report.judge(f"{row}, events/s", rate, least=least)


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure the chosen parts and print the report."""
    parser = option_parser(__doc__ or "")
    parser.add_argument("--size", type=int, action="append", help="executions; default all sizes")
    parser.add_argument("--events", type=int, help="of the log that the projections take in")
    parser.add_argument("--part", choices=("log", "projections"), action="append")
    given = parser.parse_args(arguments)
    report = Report("growth", options_of(given))
    sizes = given.size or (SIZES[:2] if report.options.quick else SIZES)
    events = given.events or (90_000 if report.options.quick else 1_000_000)
    parts = given.part or ("log", "projections")
    with databases() as bases, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench_actions.py").write_text(ACTIONS)
        tune_process()
        for backend in report.options.backends:
            for size in sizes if "log" in parts else ():
                _grown(report, bases, backend, folder, size)
            if "projections" in parts:
                _projected(report, bases, backend, folder, events)
    report.show()
    return report


if __name__ == "__main__":
    main()
