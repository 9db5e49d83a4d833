"""F13: 100,000 executions wait when the server and PostgreSQL are killed and started anew.

The server is ready and the first step begins soon, whatever waits, in bounded memory. They are
requested through the use case, so that log, queue and tables know them. The control starts a server
without room for executions, where no step may begin.
"""

import asyncio
import itertools
import signal
import time
from dataclasses import dataclass

from benchmarks.harness import percentile
from domain.json_values import JsonObject
from tests.faults.clients import Clients
from tests.faults.inner_callers import inner_callers
from tests.faults.judging import judge, keep
from tests.faults.owned_postgres import owned_postgres
from tests.faults.programs import EFFECTS, Program, running
from tests.faults.report import Options, Report, main
from tests.invariants import Answer

READY_SECONDS_MAX = 30.0
FIRST_STEP_SECONDS_MAX = 5.0
LIST_SECONDS_MAX = 0.2
MEMORY_BYTES_MAX = 600_000_000
LISTED_AFTER_SECONDS = 20.0
WORKFLOW: JsonObject = {
    "name": "backlog",
    "start_step": "a",
    "steps": {"a": {"action": "tick", "next_step": None}},
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How many wait, and how many callers request them."""

    pending: int
    callers: int
    lists: int


FULL = Plan(100_000, 128, 50)
QUICK = Plan(60, 8, 3)


async def run(options: Options, report: Report) -> None:
    """Fill the queue, kill all, start all; then the verdict and the control."""
    plan = QUICK if options.quick else FULL
    async with owned_postgres() as server:
        url = server.create_database()
        history = await _fill(url, plan, options, report)
        report.now("a server without room")
        idle = Program(url, options.folder, settings={"FLOWLEDGER_WORKER_SLOTS": "0"})
        async with running(idle):
            await _list(idle, plan.lists)
        begun = idle.effects_bytes()
        report.control("a server without room", [] if begun else ["I18: no step begins"])
        program = Program(url, options.folder)
        report.now("killed and started anew")
        async with running(program):
            await _first_step(program)
            await program.end(signal.SIGKILL)
            await asyncio.to_thread(server.kill)
            report.bit("kill of everything")
            before = program.effects_bytes()
            began = time.monotonic()
            await server.revive()
            await program.start()
            ready = time.monotonic()
            await _first_step(program, before)
            report.figures |= {
                "pending": plan.pending,
                "ready_seconds": round(ready - began, 2),
                "first_step_seconds": round(time.monotonic() - ready, 2),
            }
            await _watch(program, plan, report)
        report.now("judging")
        log, broken = await judge(url, history, effects=program.effects)
        report.violations += broken
        report.figures["events"] = len(log)
        keep(options, "F13", log, history)


async def _fill(url: str, plan: Plan, options: Options, report: Report) -> list[Answer]:
    numbers = itertools.count(1)
    async with inner_callers(
        url, options.place("filling"), actions=str(EFFECTS), worker_slots=0
    ) as callers:
        await callers.publish(WORKFLOW)
        report.now(lambda: f"{callers.acknowledged} of {plan.pending} wait")

        async def request() -> None:
            while (number := next(numbers)) <= plan.pending:
                await callers.execute("backlog", number)

        await asyncio.gather(*(request() for _ in range(plan.callers)))
        return callers.history


async def _first_step(program: Program, before: int = 0) -> None:
    async with asyncio.timeout(120):
        while program.effects_bytes() <= before:  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.01)


async def _list(program: Program, times: int) -> float:
    """Seconds for the first page of what waits: the 95th percentile."""
    clients = Clients(lambda: program.address)
    seconds = []
    for _ in range(times):
        began = time.monotonic()
        await clients.get("/executions?status=PENDING")
        seconds.append(time.monotonic() - began)
    await clients.close()
    return percentile(seconds, 0.95)


async def _watch(program: Program, plan: Plan, report: Report) -> None:
    """Until all have ended; the full run lists meanwhile, and is held to the bars."""
    clients = Clients(lambda: program.address)
    report.now("some have ended")
    if plan is FULL:
        await asyncio.sleep(LISTED_AFTER_SECONDS)
        report.figures["list_p95_seconds"] = round(await _list(program, plan.lists), 3)
    ended = 0
    report.now(lambda: f"{ended} of {plan.pending} have ended")
    while ended < plan.pending:
        page = await clients.get("/executions?status=COMPLETED&page_size=1")
        ended = int(str(page["total"]))
        await asyncio.sleep(2.0 if plan is FULL else 0.05)
    await clients.close()
    figures = report.figures
    figures["memory_peak_bytes"] = program.memory_peak_bytes()
    if plan is FULL:
        bars = {
            "ready_seconds": READY_SECONDS_MAX,
            "first_step_seconds": FIRST_STEP_SECONDS_MAX,
            "list_p95_seconds": LIST_SECONDS_MAX,
            "memory_peak_bytes": MEMORY_BYTES_MAX,
        }
        for name, bar in bars.items():
            report.demand(figures[name] <= bar, f"{name} is {figures[name]}, at most {bar}")


if __name__ == "__main__":
    main("F13", run)
