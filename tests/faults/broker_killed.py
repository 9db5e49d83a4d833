"""F18. The broker is killed (SIGKILL) and comes back, again and again, while executions are asked
for over REST and their agents called over Kafka: requests are taken meanwhile, everything ends,
each step has one outcome, and whoever watches hears of every end.

`python -m tests.faults F18`: five kills of a real broker; there is no other form of it. serve,
consumer, bridge and an agent behind HTTP. Its control sends and forgets.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain.json_values import JsonObject
from tests.faults.fleet import Fleet
from tests.faults.http_agent import HttpAgent, http_agent
from tests.faults.judging import judge, keep, prepared
from tests.faults.kafka_traffic import AGENT, register
from tests.faults.kafka_wire import Wire, plan_of
from tests.faults.one_outcome import ENDS, all_ended, other_than_once
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.processes_killed import seconds_to_the_last_end
from tests.faults.programs import running
from tests.faults.report import Options, Report, main
from tests.faults.workload import WORKFLOW, Workload
from tests.kafka.broker import KafkaBroker, own_broker

STEPS: Final = 5
BUG: Final = "sent-and-forgotten"
MONITORED_SECONDS_MAX: Final = 60.0
LAST_END_SECONDS_MAX: Final = 60.0
WHY: Final = "told why it waits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often is killed, and for how long it is away (seconds), while executions come."""

    kills: int
    away_seconds: tuple[float, float]
    between_seconds: tuple[float, float] = (1.0, 4.0)
    seconds_between: float = 0.15
    patience_seconds: float = 100.0
    timed: bool = False


QUICK: Final = Plan(kills=1, away_seconds=(2.0, 2.0), between_seconds=(1.0, 1.0))
FULL: Final = Plan(kills=5, away_seconds=(1.0, 15.0), timed=True)
CONTROL: Final = Plan(
    kills=1, away_seconds=(3.0, 3.0), between_seconds=(1.0, 1.0), patience_seconds=6.0
)
"""Less patience than after what a consumer looks for executions that nobody told it of."""


async def run(options: Options, report: Report) -> None:
    """With a broker of its own."""
    with ExitStack() as stack:
        broker = await asyncio.to_thread(stack.enter_context, own_broker())
        await run_on(broker, options, report)


async def run_on(broker: KafkaBroker, options: Options, report: Report) -> None:
    """The campaign, and one whose relay does not wait for the broker."""
    plan = QUICK if options.quick else FULL
    async with owned_postgres() as postgres:
        for bite in ("broker killed", "requested while it was away", WHY):
            report.bit(bite, 0)
        report.violations += await _campaign(postgres, broker, options, report, plan)
        report.now("the control")
        control = Report(fault="F18", seed=options.seed, quick=True)
        broken = await _campaign(postgres, broker, options, control, CONTROL, BUG)
        report.control(BUG, broken)


async def _campaign(
    postgres: OwnedPostgres,
    broker: KafkaBroker,
    options: Options,
    report: Report,
    plan: Plan,
    bug: str = "",
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    wire = Wire(broker.address)
    await asyncio.to_thread(wire.make)
    over_kafka = {"FLOWLEDGER_START": "kafka", "FLOWLEDGER_AGENT_TRANSPORT": "kafka"}
    settings = wire.settings() | over_kafka
    fleet = Fleet(url, options.place(bug or "killed"), bug=bug, settings=settings)
    server, chance = fleet.server(), random.Random(options.seed)
    with http_agent() as agent:
        async with running(server, fleet.consumer(), fleet.bridge()):
            await register(server, {"name": AGENT, "url": agent.address})
            workload = Workload([server], chance)
            plan_: JsonObject = {**plan_of(AGENT, STEPS, "tick"), "name": WORKFLOW}
            await workload.clients.publish(plan_)
            async with _offered(workload, plan.seconds_between):
                report.now(lambda: f"{len(workload.executions)} executions, {_calls(agent)}")
                for _ in range(plan.kills):
                    await asyncio.sleep(chance.uniform(*plan.between_seconds))
                    await _kill(broker, workload, chance.uniform(*plan.away_seconds), report)
                await asyncio.sleep(chance.uniform(*plan.between_seconds))
            last = datetime.now(UTC)
            asked = [UUID(each) for each in workload.executions]
            await all_ended(url, len(asked), plan.patience_seconds, report)
            report.now("judging")
            log, broken = await judge(url, workload.clients.history, effects=fleet.effects)
            broken += other_than_once(log, asked, STEPS)
            if not bug:
                ended = {
                    each.event.execution_id for each in log if isinstance(each.event.data, ENDS)
                }
                broken += await asyncio.to_thread(lambda: list(_not_told(wire, ended)))
            await workload.clients.close()
    keep(options, f"F18-{bug or 'killed'}", log, workload.clients.history)
    report.figures |= {
        "executions": len(asked),
        "events": len(log),
        "tasks": len(agent.keys()),
        "agent_calls": len(agent.calls),
        "statuses": workload.clients.heard.statuses,
        "slowest_answer_seconds": round(workload.clients.heard.slowest_seconds, 2),
        "seconds_to_the_last_end": round(seconds_to_the_last_end(log, last), 2),
    }
    if plan.timed and report.figures["seconds_to_the_last_end"] > LAST_END_SECONDS_MAX:
        broken.append(f"the last ended {report.figures['seconds_to_the_last_end']} s after the end")
    return broken


def _calls(agent: HttpAgent) -> str:
    return f"{len(agent.calls)} calls of the agent"


@asynccontextmanager
async def _offered(workload: Workload, seconds_between: float) -> AsyncIterator[None]:
    """Executions are requested while the block lasts; none is cancelled: all must complete."""
    offering = asyncio.create_task(workload.offer(seconds_between, cancelled_share=0.0))
    try:
        yield
    finally:
        offering.cancel()
        with suppress(asyncio.CancelledError):
            await offering


async def _kill(broker: KafkaBroker, workload: Workload, seconds: float, report: Report) -> None:
    """Kill it, let requests come for so long, and start it again."""
    before = len(workload.executions)
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(seconds)
    known = [each for each in workload.executions[before:] if each]
    for identifier in known[-1:]:
        view = await workload.clients.get(f"/executions/{identifier}")
        report.bit(WHY, view["status"] == "PENDING" and bool(view["error_message"]))
    report.bit("broker killed")
    report.bit("requested while it was away", len(known))
    await asyncio.to_thread(broker.start)


def _not_told(wire: Wire, ended: set[UUID]) -> Iterator[str]:
    """Executions whose end is not on the topic of those who watch."""
    missing = {f"run-{each}" for each in ended}
    consumer = wire.reader("monitoring")
    until = time.monotonic() + MONITORED_SECONDS_MAX
    while missing and time.monotonic() < until:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            told = json.loads(message.value() or b"")
            if told["step_id"] == "workflow":
                missing.discard(told["run_id"])
    consumer.close()
    for run_id in missing:
        yield f"{run_id}: nobody who watches was told of its end"


if __name__ == "__main__":
    main("F18", run)
