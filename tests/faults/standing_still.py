"""F8: what writes or holds the append lock stands still (SIGSTOP), and later goes on as if nothing
had been.

In turn: a server longer than its leases, whose executions another takes over; the process of
PostgreSQL that stores its appends; a session that holds the lock in an open transaction. Others are
answered or told 503 meanwhile, and what wakes up records nothing that is not its own any more. Then
a server stands still in the middle of long steps, which end as soon as it wakes up, while another
does them again. The control is the same with servers, and a database, which do not look at epochs:
there an old result must be recorded.
"""

import asyncio
import os
import random
import signal
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from domain.events import StepRedelivered
from domain.json_values import JsonObject
from tests.faults.clients import Clients
from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.programs import Program, running
from tests.faults.report import Options, Report, main, tell
from tests.infrastructure.event_store.tailing import APPEND
from tests.postgres_server import PostgresServer, running_postgres

LEASE_SECONDS = 2
ANSWER_SECONDS_MAX = 5.0
STEPS = 6
WORKFLOW = "standing"
LOCK_HELD = 7017281934620001
LONG_STEP_SECONDS = 3.0
LONG_STEPS = 4
BUG = "epochs-ignored"
CHECK = "RAISE EXCEPTION USING ERRCODE = 'FL001', MESSAGE = 'the lease is gone';"
LONG: JsonObject = {
    "name": "long",
    "start_step": "a",
    "steps": {
        "a": {
            "action": "end_somehow",
            "config": {"seconds": LONG_STEP_SECONDS, "fails": False},
            "next_step": None,
        }
    },
}
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
        report.now("long steps")
        report.violations += await _woken_in_a_step(server, options, "long")
        broken = await _woken_in_a_step(server, options, BUG, BUG)
        report.control(BUG, [each for each in broken if each.startswith("I8")])
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


async def _woken_in_a_step(
    postgres: PostgresServer, options: Options, name: str, bug: str = ""
) -> list[str]:
    """What is broken when a server stands still beyond its leases and wakes up before the other
    one has ended the steps which it took over.
    """
    url = postgres.create_database(prepared)
    if bug:
        _without_the_check(url)
    fleet = Fleet(url, options.place(name), lease_seconds=LEASE_SECONDS, bug=bug)
    one, two = fleet.server("one"), fleet.server("two")
    async with running(one, two):
        clients, asked = Clients(lambda: two.address), Clients(lambda: one.address)
        await clients.publish(LONG)
        executions = [await asked.execute("long", number) for number in range(LONG_STEPS)]
        await asyncio.sleep(LONG_STEP_SECONDS / 6)
        one.signal(signal.SIGSTOP)
        # Taken over after the lease at most; the steps of the other one end a step's time later.
        await asyncio.sleep(LEASE_SECONDS + LONG_STEP_SECONDS / 2)
        one.signal(signal.SIGCONT)
        for identifier in executions:
            await clients.ended(identifier)
        await clients.projected(executions[-1])
        history = asked.history + clients.history
        await asked.close()
        await clients.close()
    log, broken = await judge(url, history)
    keep(options, f"F8-{name}", log, history)
    if not any(isinstance(each.event.data, StepRedelivered) for each in log):
        broken.append("void: no long step was taken over")
    return broken


def _without_the_check(url: str) -> None:
    """The database stores what is written under a lease that is gone."""
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT pg_get_functiondef('{APPEND}'::regproc)").fetchone()
        assert row is not None
        assert CHECK in row[0]
        connection.execute(row[0].replace(CHECK, "NULL;").encode())


def _definition() -> JsonObject:
    steps: JsonObject = {
        f"s{number}": {"action": "tick", "next_step": f"s{number + 1}" if number < STEPS else None}
        for number in range(1, STEPS + 1)
    }
    return {"name": WORKFLOW, "start_step": "s1", "steps": steps}


if __name__ == "__main__":
    main("F8", run)
