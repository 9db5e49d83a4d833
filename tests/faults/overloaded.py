"""F14. Far more callers than the server has connections, and a database that goes away for a while:
nobody hears anything but 2xx, 429 and 503, and everybody hears it soon.

`python -m tests.faults F14`: 500 callers over 30 s, and 30 s more in which the database is stopped;
who is refused comes again at some moment of the time that he was told to wait. Health and cancel
stay responsive, and all is normal again 5 s after the database is back.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.programs import running
from tests.faults.report import Options, Report, main
from tests.faults.wire import API, Caller, Heard, calling
from tests.faults.workload import WORKFLOW, definition
from tests.invariants import Answer

ANSWER_SECONDS_MAX: Final = 2.0
HEALTH_SECONDS_MAX: Final = 0.25
CANCEL_SECONDS_MAX: Final = 1.0
RECOVERY_SECONDS_MAX: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many callers for how long; a quick run asserts no times."""

    callers: int
    load_seconds: float
    outage_seconds: float
    timed: bool
    append_queue: int = 200


QUICK: Final = Plan(callers=30, load_seconds=0.5, outage_seconds=1.5, timed=False, append_queue=10)
FULL: Final = Plan(callers=500, load_seconds=30.0, outage_seconds=30.0, timed=True)
CONTROL: Final = Plan(callers=4, load_seconds=0.2, outage_seconds=1.5, timed=False)


@dataclass(slots=True)
class Ear:
    """What the callers of one kind heard in one phase."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def note(self, heard: Heard) -> None:
        """Take in an answer; what is neither 2xx, 429 nor an honest 503 is bad."""
        self.statuses[heard.status] += 1
        self.seconds.append(heard.seconds)
        told = heard.trouble or heard.body[:160].decode(errors="replace")
        if heard.status in (429, 503):
            if "retry-after" not in heard.headers:
                self.bad.append(f"{heard.status} without Retry-After: {told}")
        elif not 200 <= heard.status < 300:
            self.bad.append(f"{heard.status} after {heard.seconds:.1f} s: {told}")

    def slowest(self, share: float = 1.0) -> float:
        """The time that this share of the answers stayed below."""
        ranked = sorted(self.seconds)
        return round(ranked[max(0, int(len(ranked) * share) - 1)], 3) if ranked else 0.0


class Crowd:
    """Callers who execute, cancel and look after the health, all at once."""

    def __init__(self, address: str, chance: random.Random) -> None:
        self.history: list[Answer] = []
        self.executions: list[str] = []
        self.ears: dict[str, Ear] = {}
        self.phase = "load"
        self._address = address
        self._chance = chance
        self._numbers = itertools.count()

    def ear(self, kind: str) -> Ear:
        """That of the present phase."""
        return self.ears.setdefault(f"{self.phase}: {kind}", Ear())

    @asynccontextmanager
    async def shouting(self, callers: int) -> AsyncIterator[None]:
        """So many callers execute for as long as the block lasts; others cancel and watch."""
        work = [self._execute() for _ in range(callers)]
        work += [self._watch(), self._watch(), self._cancel()]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def _execute(self) -> None:
        async with calling(self._address, seconds_max=60.0) as caller:
            while True:
                key = f"execute-{next(self._numbers)}"
                path, ear = f"{API}/workflows/{WORKFLOW}/execute", self.ear("execute")
                heard = await caller.post(path, {"input_data": {}}, key)
                ear.note(heard)
                if heard.status == 202:
                    view = heard.json()
                    identifier, version = str(view["id"]), int(view["version"])
                    self.executions.append(identifier)
                    command = UUID(identifier)
                    self.history.append(Answer(identifier, command, "done", "execute", version))
                else:
                    seconds = float(heard.headers.get("retry-after", "0.2"))
                    await asyncio.sleep(self._chance.uniform(0.0, seconds))

    async def _watch(self) -> None:
        async with calling(self._address, seconds_max=60.0) as caller:
            while True:
                self.ear("livez").note(await caller.get("/livez"))
                ear = self.ear("readyz")
                ready = await caller.get("/readyz")
                ear.seconds.append(ready.seconds)
                ear.statuses[ready.status] += 1
                await asyncio.sleep(0.02)

    async def _cancel(self) -> None:
        async with calling(self._address, seconds_max=60.0) as caller:
            while True:
                await asyncio.sleep(0.05)
                if not self.executions:
                    continue
                path = f"{API}/executions/{self.executions[-1]}/cancel"
                ear = self.ear("cancel")
                heard = await caller.post(path, {"reason": "too much"})
                if heard.status == 409:
                    heard = heard._replace(status=200)  # it had ended: an answer like another
                ear.note(heard)


async def run(options: Options, report: Report) -> None:
    """The crowd and the outage; the control is a server whose waits nobody bounds."""
    async with owned_postgres() as postgres:
        plan = QUICK if options.quick else FULL
        report.violations += await _overloaded(postgres, options, report, plan, "overloaded")
        report.now("the control")
        unbounded = Report(fault="F14", seed=options.seed, quick=True)
        bug = "outages-are-defects"
        broken = await _overloaded(postgres, options, unbounded, CONTROL, bug, bug)
        report.control(bug, broken)


async def _overloaded(
    postgres: OwnedPostgres, options: Options, report: Report, plan: Plan, name: str, bug: str = ""
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    folder = options.place(name)
    fleet = Fleet(url, folder, bug=bug)
    server = fleet.server(FLOWLEDGER_APPEND_QUEUE=str(plan.append_queue))
    async with running(server):
        async with calling(server.address) as caller:
            published = await caller.post(f"{API}/workflows", definition(3), "publish")
            assert published.status == 201, published
        crowd = Crowd(server.address, random.Random(options.seed))
        report.now(lambda: f"{name}: {crowd.phase}, {len(crowd.executions)} executions taken")
        async with crowd.shouting(plan.callers):
            await asyncio.sleep(plan.load_seconds)
            crowd.phase = "outage"
            await asyncio.to_thread(postgres.kill)
            await asyncio.sleep(plan.outage_seconds)
            await postgres.revive()
            crowd.phase = "return"
            await asyncio.sleep(RECOVERY_SECONDS_MAX if plan.timed else 0.2)
            crowd.phase = "after"
            await asyncio.sleep(1.0 if plan.timed else 0.2)
        async with calling(server.address) as caller:
            report.now(f"{name}: waiting for what was taken to end")
            await _settled(caller, crowd)
        report.now(f"{name}: judging")
        log, broken = await judge(url, crowd.history, effects=fleet.effects)
    keep(options, f"F14-{name}", log, crowd.history)
    _count(report, crowd)
    bad = [f"{kind}: {each}" for kind, ear in crowd.ears.items() for each in ear.bad[:5]]
    return [*bad, *(_slow(crowd) if plan.timed else ()), *broken]


def _count(report: Report, crowd: Crowd) -> None:
    for kind, ear in crowd.ears.items():
        report.figures[kind] = {
            "answers": dict(ear.statuses),
            "p99_seconds": ear.slowest(0.99),
            "slowest_seconds": ear.slowest(),
        }
    outage = crowd.ears.get("outage: execute", Ear())
    report.bit("refused in the outage", outage.statuses[503])
    report.figures["executions"] = len(crowd.executions)


def _slow(crowd: Crowd) -> list[str]:
    """Answers that came too late, by what was asked and when."""
    ears = crowd.ears
    limits: Sequence[tuple[str, float, float]] = (
        ("outage: execute", 1.0, ANSWER_SECONDS_MAX),
        ("outage: cancel", 1.0, ANSWER_SECONDS_MAX),
        ("outage: readyz", 1.0, ANSWER_SECONDS_MAX),
        ("load: cancel", 0.99, CANCEL_SECONDS_MAX),
        *((f"{phase}: livez", 0.99, HEALTH_SECONDS_MAX) for phase in ("load", "outage", "after")),
    )
    late = [
        f"{kind}: {ears[kind].slowest(share)} s, the limit is {limit} s"
        for kind, share, limit in limits
        if kind in ears and ears[kind].slowest(share) > limit
    ]
    if not ears.get("after: execute", Ear()).statuses[202]:
        late.append(f"nothing was taken {RECOVERY_SECONDS_MAX} s after the database was back")
    return late


async def _settled(caller: Caller, crowd: Crowd) -> None:
    """Return once all that was acknowledged has ended and the tables know it."""
    position = 0
    for identifier in crowd.executions:
        while True:
            heard = await caller.get(f"{API}/executions/{identifier}")
            if heard.status == 200 and heard.json()["completed_at"]:
                position = max(position, int(heard.json()["position"]))
                break
            await asyncio.sleep(0.05)
    await caller.get(f"{API}/executions?page_size=1&min_position={position}")


if __name__ == "__main__":
    main("F14", run)
