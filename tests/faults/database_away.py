"""F21. PostgreSQL is away while messages go on to come over Kafka: the consumer commits nothing,
and takes them when it is back; nothing is lost and nothing taken twice.

`python -m tests.faults F21`: three times ten seconds on a real broker; the quick form uses the mock
cluster. Its control drops what it cannot record.
"""

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.kafka_traffic import AGENT, Traffic, register
from tests.faults.kafka_wire import Wire, kafka, sending, tasks_of
from tests.faults.one_outcome import all_ended, other_than_once
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.processes_killed import seconds_to_the_last_end
from tests.faults.programs import running
from tests.faults.report import Options, Report, main

STEPS: Final = 3
BUG: Final = "dropped-without-a-store"
SETTLED_SECONDS: Final = 1.0
"""After this time, the commits of what was recorded before have come to the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often and how long it is away, while executions come at a pace (seconds)."""

    outages: int
    away_seconds: float
    executions: int
    seconds_between: float = 0.05
    patience_seconds: float = 60.0


QUICK: Final = Plan(outages=1, away_seconds=3.0, executions=120)
FULL: Final = Plan(outages=3, away_seconds=10.0, executions=900, seconds_between=0.07)
CONTROL: Final = Plan(outages=1, away_seconds=2.0, executions=80, patience_seconds=6.0)


async def run(options: Options, report: Report) -> None:
    """The campaign, and one whose consumer drops messages."""
    plan = QUICK if options.quick else FULL
    async with kafka(options) as brokers:
        async with owned_postgres() as postgres:
            report.violations += await _campaign(postgres, brokers, options, report, plan)
        report.now("the control")
        control = Report(fault="F21", seed=options.seed, quick=True)
        async with owned_postgres() as postgres:
            broken = await _campaign(postgres, brokers, options, control, CONTROL, BUG)
        report.control(BUG, broken)


async def _campaign(
    postgres: OwnedPostgres,
    brokers: str,
    options: Options,
    report: Report,
    plan: Plan,
    bug: str = "",
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    wire, chance = Wire(brokers), random.Random(options.seed)
    await asyncio.to_thread(wire.make)
    fleet = Fleet(url, options.place(bug or "away"), bug=bug, settings=wire.settings())
    server = fleet.server()
    broken: list[str] = []
    async with running(server, fleet.consumer()), sending(wire) as sender:
        await register(server, {"name": AGENT, "transport": "kafka"})
        traffic = Traffic(sender.once, chance, STEPS, at_a_time=plan.executions, action="tick")
        async with tasks_of(wire, traffic.answer):
            report.now(traffic.told)
            asking = asyncio.create_task(traffic.ask(plan.executions, plan.seconds_between))
            while not traffic.tasks:  # noqa: ASYNC110 - counted elsewhere
                await asyncio.sleep(0.05)
            for _ in range(plan.outages):
                await asyncio.sleep(chance.uniform(1.0, 2.0))
                broken += await _outage(postgres, wire, traffic, plan.away_seconds, report)
            back = datetime.now(UTC)
            await asking
            await all_ended(url, plan.executions, plan.patience_seconds, report)
        report.now("judging")
        log, found = await judge(url, [], effects=fleet.effects)
    broken += found
    broken += other_than_once(log, traffic.asked, STEPS)
    keep(options, f"F21-{bug or 'away'}", log, [])
    report.figures |= {
        "executions": len(traffic.asked),
        "tasks": len(traffic.tasks),
        "events": len(log),
        "seconds_from_the_return_to_the_last_end": round(seconds_to_the_last_end(log, back), 2),
    }
    return broken


async def _outage(
    postgres: OwnedPostgres, wire: Wire, traffic: Traffic, seconds: float, report: Report
) -> list[str]:
    """The database is gone for so long; what the consumer committed meanwhile is a violation."""
    await asyncio.to_thread(postgres.kill)
    await asyncio.sleep(SETTLED_SECONDS)
    asked, before = len(traffic.asked), await asyncio.to_thread(wire.committed)
    await asyncio.sleep(seconds - SETTLED_SECONDS)
    report.bit("message while the database was away", len(traffic.asked) - asked)
    after = await asyncio.to_thread(wire.committed)
    report.bit("database away")
    await postgres.revive()
    return [
        f"{topic}/{number}: committed {before[topic, number]}, then {offset}, without a store"
        for (topic, number), offset in after.items()
        if before[topic, number] != offset
    ]


if __name__ == "__main__":
    main("F21", run)
