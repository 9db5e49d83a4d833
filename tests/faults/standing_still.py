"""F8: what writes or holds the append lock stands still (SIGSTOP), and later goes on as if nothing
had been.

In turn: a server longer than its leases, whose executions another takes over; the process of
PostgreSQL that stores its appends; a session that holds the lock in an open transaction. Others are
answered or told 503 meanwhile, and what wakes up records nothing that is not its own any more. The
control takes the check of epochs out of the database: there an old result must be recorded.
"""

import asyncio
import json
import os
import random
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from domain.events import StepRedelivered
from domain.json_values import JsonObject
from tests.e2e.programs import ROOT
from tests.faults.clients import Clients
from tests.faults.judging import judge, keep, prepared
from tests.faults.programs import Program, running
from tests.faults.report import Options, Report, main, tell
from tests.postgres_server import running_postgres

LEASE_SECONDS = 2
ANSWER_SECONDS_MAX = 5.0
STEPS = 6
WORKFLOW = "standing"
LOCK_HELD = 7017281934620001
BUG, BUG_SEEDS = "no-epoch-check", "1-400"
COMMITTERS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND query LIKE '%flowledger_append_v2%' AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each kind stands still, and how many executions go on meanwhile."""

    rounds: int
    executions: int


FULL = Plan(7, 40)
QUICK = Plan(1, 8)


async def run(options: Options, report: Report) -> None:
    """Rounds of the three kinds; the verdict; the control."""
    plan = QUICK if options.quick else FULL
    chance = random.Random(options.seed)
    with running_postgres() as server:
        url = server.create_database(prepared)
        settings = {"FLOWLEDGER_LEASE_SECONDS": str(LEASE_SECONDS)}
        one, two = (
            Program(url, options.folder, name=name, settings=settings) for name in ("one", "two")
        )
        async with running(one, two):
            clients = Clients(lambda: two.address, timeout_seconds=60)
            executions = await _campaign(url, (one, two), clients, plan, chance, report)
            for identifier in executions:
                await clients.ended(identifier)
            await clients.projected(executions[-1])
            await clients.close()
        log, broken = await judge(url, clients.history, effects=one.effects)
        report.violations += broken
        keep(options, "F8", log, clients.history)
    taken_over = sum(isinstance(each.event.data, StepRedelivered) for each in log)
    report.bit("take-over", taken_over)
    heard = clients.heard
    report.figures |= {
        "acknowledged": heard.acknowledged,
        "told_busy": heard.busy,
        "slowest_answer_seconds": round(heard.slowest_seconds, 2),
        "events": len(log),
    }
    if not options.quick:
        slow = heard.slowest_seconds
        report.demand(slow <= ANSWER_SECONDS_MAX, f"an answer took {slow:.1f} s")
    report.control(f"the simulation with the bug {BUG}", await _control())


async def _campaign(
    url: str,
    servers: tuple[Program, Program],
    clients: Clients,
    plan: Plan,
    chance: random.Random,
    report: Report,
) -> list[str]:
    await clients.publish(_definition())
    executions: list[str] = []
    first = 0
    for number in range(plan.rounds):
        for stop in (_stop_server, _stop_committer, _stop_lock_holder):
            # The one that is to stand still works on them; the other one answers.
            helper = Clients(lambda: servers[0].address)
            numbers = range(first, first + plan.executions)
            executions += await asyncio.gather(*(helper.execute(WORKFLOW, n) for n in numbers))
            clients.history += helper.history
            await helper.close()
            first += plan.executions
            stopping = asyncio.create_task(stop(url, servers[0], chance, report))
            while not stopping.done():
                executions.append(await clients.execute(WORKFLOW, first))
                first += 1
                await asyncio.sleep(0.05)
            await stopping
        tell(f"{number + 1} rounds, {len(executions)} executions")
    return executions


async def _stop_server(url: str, server: Program, chance: random.Random, report: Report) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(LEASE_SECONDS * chance.uniform(1.5, 2.0))
    server.signal(signal.SIGCONT)
    report.bit("server that stood still")


async def _stop_committer(url: str, server: Program, chance: random.Random, report: Report) -> None:
    with psycopg.connect(url) as connection:
        found = [int(row[0]) for row in connection.execute(COMMITTERS)]
    chosen = chance.choice(found)
    os.kill(chosen, signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(1.0, 3.0))
    with suppress(ProcessLookupError):
        os.kill(chosen, signal.SIGCONT)
    report.bit("process of PostgreSQL that stood still")


async def _stop_lock_holder(
    url: str, server: Program, chance: random.Random, report: Report
) -> None:
    """As a process that stands still within its transaction: the server ends its session."""
    with psycopg.connect(url) as holder:
        holder.execute("SET idle_in_transaction_session_timeout = '2s'")
        holder.execute(f"SELECT pg_advisory_xact_lock({LOCK_HELD})")
        await asyncio.sleep(chance.uniform(1.0, 3.0))
        with suppress(psycopg.Error):
            holder.rollback()
    report.bit("holder of the lock that stood still")


async def _control() -> list[str]:
    """What the simulation breaks when the database checks no epochs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.simulation", "--json", "--bug", BUG, "--seeds", BUG_SEEDS),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    told, _ = await process.communicate()
    return [f"{each['invariant']}: {each}"[:300] for each in json.loads(told)["failures"]]


def _definition() -> JsonObject:
    steps: JsonObject = {
        f"s{number}": {"action": "tick", "next_step": f"s{number + 1}" if number < STEPS else None}
        for number in range(1, STEPS + 1)
    }
    return {"name": WORKFLOW, "start_step": "s1", "steps": steps}


if __name__ == "__main__":
    main("F8", run)
