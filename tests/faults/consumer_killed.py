"""F19. Two consumers share the executions, and one is killed (SIGKILL) in the middle: the other
ends all of them, and each step has one outcome under one key.

`python -m tests.faults F19`: 1,000 executions on a real broker; the quick form uses the mock
cluster. Nobody else works: only the consumers do. Its control commits what it has only read.
"""

import asyncio
import random
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from domain.events import StepRedelivered
from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.kafka_traffic import AGENT, Traffic, register
from tests.faults.kafka_wire import Wire, kafka, sending, tasks_of
from tests.faults.one_outcome import all_ended, count_ended, other_than_once
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.processes_killed import seconds_to_the_last_end
from tests.faults.programs import running
from tests.faults.report import Options, Report, main

STEPS: Final = 3
BUG: Final = "committed-when-read"
DONE_BY: Final = "execution that the other one had to end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """So many executions, some at a time; one consumer is killed when some have ended."""

    executions: int
    killed_after: int
    at_a_time: int
    seconds_between: float = 0.0
    patience_seconds: float = 60.0


QUICK: Final = Plan(executions=80, killed_after=20, at_a_time=40)
FULL: Final = Plan(executions=1_000, killed_after=500, at_a_time=100)
CONTROL: Final = Plan(
    executions=300, killed_after=60, at_a_time=300, seconds_between=0.01, patience_seconds=15.0
)
"""At a pace, so that something has just been read whenever the kill comes."""


async def run(options: Options, report: Report) -> None:
    """The campaign, and one whose consumers commit too early."""
    plan = QUICK if options.quick else FULL
    async with owned_postgres() as postgres, kafka(options) as brokers:
        report.violations += await _campaign(postgres, brokers, options, report, plan)
        report.now("the control")
        control = Report(fault="F19", seed=options.seed, quick=True)
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
    fleet = Fleet(url, options.place(bug or "killed"), bug=bug, settings=wire.settings())
    api, victim, other = fleet.api(), fleet.consumer("consumer-1"), fleet.consumer("consumer-2")
    async with running(api, fleet.projector(), victim, other), sending(wire) as sender:
        await register(api, {"name": AGENT, "transport": "kafka"})
        traffic = Traffic(sender.once, chance, STEPS, at_a_time=plan.at_a_time, action="tick")
        async with tasks_of(wire, traffic.answer):
            report.now(traffic.told)
            asking = asyncio.create_task(traffic.ask(plan.executions, plan.seconds_between))
            while (ended := await count_ended(url)) < plan.killed_after:  # noqa: ASYNC110 - a table
                await asyncio.sleep(0.02)
            await victim.end(signal.SIGKILL)
            killed = datetime.now(UTC)
            report.bit("consumer killed")
            await asking
            await all_ended(url, plan.executions, plan.patience_seconds, report)
        report.now("judging")
        log, broken = await judge(url, [], effects=fleet.effects)
    broken += other_than_once(log, traffic.asked, STEPS)
    keep(options, f"F19-{bug or 'killed'}", log, [])
    report.bit(DONE_BY, plan.executions - ended)
    taken_over = sum(isinstance(each.event.data, StepRedelivered) for each in log)
    report.figures |= {
        "executions": len(traffic.asked),
        "tasks": len(traffic.tasks),
        "events": len(log),
        "ended_before_the_kill": ended,
        "steps_taken_over": taken_over,
        "seconds_from_the_kill_to_the_last_end": round(seconds_to_the_last_end(log, killed), 2),
    }
    return broken


if __name__ == "__main__":
    main("F19", run)
