"""Loops of 100 and of 10,000 items, all projections running: what an item costs in time and memory,
and how long the large execution takes to load from the log.

Each figure comes from a process of its own. Time and memory are measured in different ones, for
`tracemalloc`, which counts every byte that Python allocates, makes everything slower.
"""

import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from application.callers import Caller
from application.requests import ExecuteOptions
from benchmarks.harness import Figures, Report, as_served, databases, read_options
from domain.json_values import JsonObject
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.garbage_collection import tune_process

SMALL: Final = 100
LARGE: Final = 10_000
MODES: Final = (("sequential", 1), ("parallel", 20))
"""With how many iterations run at a time."""
TIMES_MAX: Final = 1.5
LOAD_SECONDS_MAX: Final = 1.0
KIB: Final = 1_024
ACTIONS: Final = '''
async def priced(config, context):
    """Does nothing, at once."""
    return {"sku": config["sku"], "price": 998, "ok": True}
'''


class Job(NamedTuple):
    """What one process measures. `parallelism` 1 runs the items one after the other."""

    url: str
    actions: str
    items: int
    executions: int
    parallelism: int


def definition(parallelism: int) -> JsonObject:
    """A loop with one step in its body."""
    loop: JsonObject = {"collection": "${workflow.input.items}", "loop_body": ["price"]}
    if parallelism > 1:
        loop |= {"execution_mode": "parallel", "max_parallelism": parallelism}
    price: JsonObject = {"action": "priced", "config": {"sku": "${loop.item.sku}"}}
    return {
        "name": "fanout",
        "start_step": "each",
        "steps": {
            "each": {"type": "loop", "loop_config": loop, "next_step": None},
            "price": price,
        },
    }


async def _run(job: Job, services: Services) -> list[str]:
    """Run the executions one after the other; their ids."""
    caller = Caller(actor="bench")
    items: JsonObject = {"items": [{"sku": f"sku-{number:05}"} for number in range(job.items)]}
    ids = []
    for _ in range(job.executions):
        options = ExecuteOptions(input_data=items)
        answer = await services.requests.execute(caller, "fanout", options)
        view = await services.history.wait_ended("default", answer.view.id, 600)
        if view.status != "COMPLETED":
            raise RuntimeError(f"execution {view.id} is {view.status}")
        ids.append(view.id)
    return ids


async def _opened(job: Job) -> Services:
    settings = Settings(database_url=job.url, actions=job.actions)
    services = await open_services(settings)
    tune_process()
    await services.workflows.publish(Caller(actor="bench"), definition(job.parallelism))
    await _run(job._replace(items=SMALL, executions=1), services)
    return services


async def time_per_item(job: Job) -> Figures:
    """Microseconds from the request to COMPLETED, and of CPU, per item."""
    services = await _opened(job)
    cpu, started = time.process_time(), time.perf_counter()
    await _run(job, services)
    took = time.perf_counter() - started
    items = job.items * job.executions
    figures = {
        "us_per_item": took / items * 1e6,
        "cpu_us_per_item": (time.process_time() - cpu) / items * 1e6,
    }
    await services.close()
    return figures


async def memory_per_item(job: Job) -> Figures:
    """KiB that Python had allocated at the most while one execution ran, per item, and what the
    process took from the system for it.
    """
    services = await _opened(job)
    before_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    await _run(job, services)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_peak
    await services.close()
    return {"kib_per_item": peak / KIB / job.items, "rss_growth_mib": grown / KIB}


async def run_once(job: Job) -> Figures:
    """Leave one execution in the database, projected, and its id beside the actions."""
    services = await _opened(job)
    Path(job.actions).with_suffix(".id").write_text((await _run(job, services))[-1])
    if not await services.reads.wait_for(await services.store.log.head(), 60):
        raise RuntimeError("the projections did not catch up within a minute")
    await services.close()
    return {}


async def load_seconds(job: Job) -> Figures:
    """Seconds to load the execution that `run_once` left from the log, in a process that has not
    seen it.
    """
    execution_id = Path(job.actions).with_suffix(".id").read_text()
    services = await open_services(Settings(database_url=job.url, actions=job.actions))
    tune_process()
    started = time.perf_counter()
    entry = await services.ledger.find("default", execution_id)
    took = time.perf_counter() - started
    if entry.state.steps["each"].state != "COMPLETED":
        raise RuntimeError(f"the loop is {entry.state.steps['each'].state}")
    await services.close()
    return {"load_seconds": took, "events": float(entry.state.version)}


MEASURES: Final = {
    "time": time_per_item,
    "memory": memory_per_item,
    "run": run_once,
    "load": load_seconds,
}


def _measured(name: str, job: Job) -> Figures:
    return as_served(MEASURES[name](job))


def in_fresh_process(name: str, job: Job) -> Figures:
    """One of MEASURES in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, name, job).result()


def measure(report: Report, row: str, large: int, fresh: Callable[[], Job]) -> None:
    """One repetition for one back end and mode; each process gets a fresh database."""
    for items in (SMALL, large):
        times = max(1, min(10, large // items // 2))
        timed = in_fresh_process("time", fresh()._replace(items=items, executions=times))
        held = in_fresh_process("memory", fresh()._replace(items=items))
        report.add(f"{row}, {items} items", {**timed, **held})
    kept = fresh()._replace(items=large)
    in_fresh_process("run", kept)
    loaded = in_fresh_process("load", kept)
    report.add(f"{row}, {large} items", loaded)


def judge(report: Report, row: str, large: int) -> None:
    """How often the large loop pays, per item, what the small one does; and the load."""
    for figure in ("us_per_item", "cpu_us_per_item", "kib_per_item"):
        small = report.median(f"{row}, {SMALL} items", figure)
        times = report.median(f"{row}, {large} items", figure) / small
        report.judge(f"{row}: {figure}, {large} / {SMALL} items", times, TIMES_MAX)
    seconds = report.median(f"{row}, {large} items", "load_seconds")
    report.judge(f"{row}: load_seconds", seconds, LOAD_SECONDS_MAX)


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure on the chosen back ends and print the report."""
    options = read_options(__doc__ or "", arguments)
    report = Report("fanout", options)
    large = 1_000 if options.quick else LARGE
    with databases() as bases, tempfile.TemporaryDirectory() as folder:
        actions = Path(folder) / "bench_actions.py"
        actions.write_text(ACTIONS)
        for backend, (mode, parallelism) in product(options.backends, MODES):

            def fresh(backend: str = backend, parallelism: int = parallelism) -> Job:
                return Job(bases.fresh(backend), str(actions), SMALL, 1, parallelism)

            for _ in range(options.repetitions):
                measure(report, f"{backend}, {mode}", large, fresh)
            judge(report, f"{backend}, {mode}", large)
    report.show()
    return report


if __name__ == "__main__":
    main()
