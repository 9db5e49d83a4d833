"""F4. Processes that answer and processes that work are killed: what they had in hand goes on
elsewhere within a lease and five seconds, each outcome is recorded once, under one key.

`python -m tests.faults F4`: 100 workers and 50 API processes, over 2,000 executions with leases of
three seconds, and six workers with leases of 15 s.
"""

import asyncio
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg

from domain.events import Cancelled, Completed, Failed, Recorded, StepRedelivered
from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.programs import Program, running
from tests.faults.report import Options, Report, main
from tests.faults.workload import Workload, offered, working_on

MORE_SECONDS: Final = 5.0
ENDS: Final = (Cancelled, Completed, Failed)
STALE: Final = """
SELECT count(*) FROM work_queue WHERE lease_until > 0 AND lease_owner IS NOT NULL
 AND greatest(lease_until, ready_at) < flowledger_now() - %s"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is run and killed; a quick run asserts no times."""

    executions: int
    worker_kills: int
    api_kills: int
    workers: int = 3
    apis: int = 2
    steps: int = 12
    lease_seconds: float = 3.0
    seconds_between: float = 0.1
    timed: bool = True


QUICK: Final = Plan(
    executions=20,
    worker_kills=2,
    api_kills=1,
    workers=2,
    apis=1,
    lease_seconds=1.0,
    seconds_between=0.05,
    timed=False,
)
FULL: Final = Plan(executions=2_000, worker_kills=100, api_kills=50, seconds_between=0.15)
SHIPPED: Final = Plan(executions=150, worker_kills=6, api_kills=0, lease_seconds=15.0)
"""With the lease that the product comes with."""
CONTROL: Final = Plan(
    executions=10, worker_kills=1, api_kills=0, workers=1, apis=1, lease_seconds=1.0, timed=False
)


async def run(options: Options, report: Report) -> None:
    """The campaign, and one in which a key is that of a delivery and not of the step."""
    async with owned_postgres() as postgres:
        report.bit("worker killed", 0)
        report.bit("API killed", 0)
        plan = QUICK if options.quick else FULL
        report.violations += await _campaign(postgres, options, report, plan, "killed")
        if not options.quick:
            shipped = Report(fault="F4", seed=options.seed, quick=False)
            report.now("leases of 15 s")
            report.violations += await _campaign(postgres, options, shipped, SHIPPED, "shipped")
            taken = shipped.bites["work taken over"]
            report.bit("work taken over after a lease of 15 s", taken)
            report.figures["with a lease of 15 s"] = shipped.figures
        report.now("the control")
        forgotten = Report(fault="F4", seed=options.seed, quick=True)
        bug = "key-of-a-delivery"
        broken = await _campaign(postgres, options, forgotten, CONTROL, bug, bug)
        report.control(bug, [each for each in broken if each.startswith("I7")])


async def _campaign(
    postgres: OwnedPostgres, options: Options, report: Report, plan: Plan, name: str, bug: str = ""
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    folder = options.place(name)
    fleet = Fleet(url, folder, lease_seconds=plan.lease_seconds, bug=bug)
    apis = [fleet.api(f"api-{each}") for each in range(plan.apis)]
    workers = [fleet.worker(f"worker-{each}") for each in range(plan.workers)]
    chance = random.Random(options.seed)
    projector = fleet.projector()
    async with (
        running(*apis, *workers, projector),
        working_on(apis, chance, plan.steps) as workload,
    ):
        watch = asyncio.create_task(_stuck(url, plan.lease_seconds))
        report.now(lambda: f"{name}: {len(workload.executions)} of {plan.executions} executions")
        await Killer(report, chance, workload, plan).kill_all(apis, workers)
        last = datetime.now(UTC)
        report.now(f"{name}: waiting for what was begun to end")
        report.figures["ends"] = await workload.all_ended()
        watch.cancel()
        await workload.projected()
        stuck = watch.result() if watch.done() and not watch.cancelled() else []
        report.now(f"{name}: judging")
        log, broken = await judge(url, workload.clients.history, effects=fleet.effects)
    keep(options, f"F4-{name}", log, workload.clients.history)
    gaps = list(takeovers(log))
    report.figures["seconds_to_the_last_end"] = round(seconds_to_the_last_end(log, last), 2)
    report.bit("work taken over", len(gaps))
    heard = workload.clients.heard
    report.figures |= {
        "executions": len(workload.executions),
        "acknowledged": heard.acknowledged,
        "answers_lost": heard.answers_lost,
        "events": len(log),
        "slowest_takeover_seconds": round(max(gaps, default=0.0), 2),
    }
    return [*broken, *stuck, *(_late(report, plan) if plan.timed else ())]


class Killer:
    """Kills processes while executions come, a worker and an API process at a time, and starts
    each again.
    """

    def __init__(
        self, report: Report, chance: random.Random, workload: Workload, plan: Plan
    ) -> None:
        self._report = report
        self._chance = chance
        self._workload = workload
        self._plan = plan

    async def kill_all(self, apis: Sequence[Program], workers: Sequence[Program]) -> None:
        """Every kill of the plan, while its executions are offered."""
        plan = self._plan
        kills = max(1, plan.worker_kills + plan.api_kills)
        async with offered(self._workload, plan.seconds_between):
            await self._until(plan.executions // (kills + 1) or 1)
            await asyncio.gather(
                self._one_after_the_other(workers, plan.worker_kills, "worker killed"),
                self._one_after_the_other(apis, plan.api_kills, "API killed"),
            )
            await self._until(plan.executions)

    async def _one_after_the_other(
        self, programs: Sequence[Program], times: int, what: str
    ) -> None:
        for _ in range(times):
            await self._kill(self._chance.choice(programs))
            self._report.bit(what)

    async def _kill(self, program: Program) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, 0.5))
        await program.end(signal.SIGKILL)
        await program.start()

    async def _until(self, executions: int) -> None:
        while len(self._workload.executions) < executions:  # noqa: ASYNC110 - counted elsewhere
            await asyncio.sleep(0.05)


def takeovers(log: Sequence[Recorded]) -> Iterator[float]:
    """Seconds between the last event of an execution and its being taken up by another."""
    newest: dict[UUID, Recorded] = {}
    for each in log:
        before = newest.get(each.event.execution_id)
        if before is not None and isinstance(each.event.data, StepRedelivered):
            yield (each.event.meta.at - before.event.meta.at).total_seconds()
        newest[each.event.execution_id] = each


def seconds_to_the_last_end(log: Sequence[Recorded], since: datetime) -> float:
    """How long after the last kill, or after the last was offered, the last execution ended."""
    ends = [each.event.meta.at for each in log if isinstance(each.event.data, ENDS)]
    return max(0.0, (max(ends, default=since) - since).total_seconds())


def _late(report: Report, plan: Plan) -> Iterator[str]:
    limit = plan.lease_seconds + MORE_SECONDS
    for name in ("slowest_takeover_seconds", "seconds_to_the_last_end"):
        if report.figures[name] > limit:
            yield f"I12 {name} is {report.figures[name]}, the limit is {limit}"


async def _stuck(url: str, lease_seconds: float) -> list[str]:
    """I12, each second: something due whose lease ran out long ago; ends when it is found."""
    microseconds = int((lease_seconds + MORE_SECONDS) * 1_000_000)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            row = await (await connection.execute(STALE, [microseconds])).fetchone()
            if row and row[0]:
                return [f"I12 {row[0]} executions were due and nobody had them"]
            await asyncio.sleep(1.0)


if __name__ == "__main__":
    main("F4", run)
