"""Kill the real server at random points while executions run, start it again, and look whether all
that was acknowledged is there, all ends, and the invariants hold.

Heavy form by hand: `python -m tests.faults.kill9` prints the counts as JSON for both back ends and
ends with 1 when something is violated.
"""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from domain.events import StepRedelivered
from domain.execution import ExecutionState, evolve
from domain.json_values import JsonObject
from domain.lifecycle import RUNNING
from tests.faults.clients import PATIENCE_SECONDS, Clients, as_object
from tests.faults.judging import effects_in, judge, opened, prepared, whole_log
from tests.faults.programs import Program
from tests.postgres_server import running_postgres

STEPS = 30
LEASE_SECONDS = 2
CLIENTS = 16
CANCELLED_SHARE = 0.1
WORKFLOW = "kill-me"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is run and how often the server is killed."""

    executions: int
    kills: int
    kills_in_flight: int
    seed: int = 1


@dataclass(slots=True)
class Figures:
    """What happened; `violations` must be empty."""

    back_end: str
    seed: int
    kills: int = 0
    kills_in_flight: int = 0
    tries_in_flight: list[int] = field(default_factory=list)
    executions: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    answers_lost: int = 0
    redelivered: int = 0
    effects: int = 0
    events: int = 0
    violations: list[str] = field(default_factory=list)


def definition() -> JsonObject:
    """A line of steps in the loop and in threads, with failures, re-tries and a wait."""
    steps: JsonObject = {}
    for number in range(1, STEPS + 1):
        following = f"s{number + 1}" if number < STEPS else None
        step: JsonObject = {"action": "block" if number % 3 == 0 else "tick"}
        if number % 10 == 0:
            step = {"action": "shaky", "retry": {"attempts": 3, "base_delay_ms": 20}}
        if number == 5:
            step = {"type": "wait", "duration_ms": 30}
        steps[f"s{number}"] = step | {"next_step": following}
    return {"name": WORKFLOW, "start_step": "s1", "steps": steps}


class Lot:
    """Callers who work through numbers: one execution each, some cancelled a little later."""

    def __init__(self, clients: Clients, chance: random.Random) -> None:
        self.clients = clients
        self.executions: list[str] = []
        self._chance = chance

    async def run(self, numbers: "asyncio.Queue[int]") -> None:
        """Work through `numbers` for ever."""
        while True:
            number = await numbers.get()
            identifier = await self.clients.execute(WORKFLOW, number)
            self.executions.append(identifier)
            if self._chance.random() < CANCELLED_SHARE:
                await asyncio.sleep(self._chance.random())
                await self.clients.cancel(identifier)
            numbers.task_done()


class LogReader:
    """The log as the database has it, whether or not a server runs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._states: dict[UUID, ExecutionState] = {}
        self._position = 0

    async def tries_in_flight(self) -> int:
        """How many tries of actions have begun and not ended, by what is stored."""
        async with opened(self._url) as store:
            for recorded in await whole_log(store, self._position):
                event = recorded.event
                if event.data.TOPIC.startswith("execution."):
                    known = self._states.get(event.execution_id)
                    self._states[event.execution_id] = evolve(known, event)
                self._position = recorded.position
        return sum(
            1
            for state in self._states.values()
            for path in state.live
            if (step := state.steps.get(path)) is not None
            and step.state == RUNNING
            and step.due_at is None
        )


async def campaign(url: str, folder: Path, plan: Plan) -> Figures:
    """Run the plan on an empty database; the figures tell what was seen."""
    chance = random.Random(plan.seed)
    figures = Figures(url.partition(":")[0], plan.seed)
    await asyncio.to_thread(prepared, url)
    server = Program(url, folder, settings={"FLOWLEDGER_LEASE_SECONDS": str(LEASE_SECONDS)})
    clients = Clients(lambda: server.address)
    lot = Lot(clients, chance)
    numbers: asyncio.Queue[int] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []
    try:
        await server.start()
        await clients.publish(definition())
        for number in range(plan.executions):
            numbers.put_nowait(number)
        tasks = [asyncio.create_task(lot.run(numbers)) for _ in range(CLIENTS)]
        await _kill_often(server, numbers, plan, figures, chance)
        await asyncio.wait_for(_unless_failed(numbers.join(), tasks), PATIENCE_SECONDS)
        await _all_ended(lot, figures)
        await _ask_again(lot)
        await clients.projected(lot.executions[-1])
    finally:
        for task in tasks:
            task.cancel()
        await clients.close()
        await server.end(signal.SIGTERM)
    figures.acknowledged = clients.heard.acknowledged
    figures.answers_lost = clients.heard.answers_lost
    log, broken = await judge(url, clients.history, effects=server.effects)
    figures.violations += broken
    figures.effects = len(effects_in(server.effects))
    figures.events = len(log)
    figures.redelivered = sum(isinstance(each.event.data, StepRedelivered) for each in log)
    return figures


async def _kill_often(
    server: Program,
    numbers: "asyncio.Queue[int]",
    plan: Plan,
    figures: Figures,
    chance: random.Random,
) -> None:
    reader = LogReader(server.url)
    following = plan.executions
    while figures.kills < plan.kills or figures.kills_in_flight < plan.kills_in_flight:
        assert figures.kills < 3 * plan.kills, "too few kills hit a try"
        await _work_seen(server, chance)
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await server.end(signal.SIGKILL)
        figures.kills += 1
        in_flight = await reader.tries_in_flight()
        figures.tries_in_flight.append(in_flight)
        figures.kills_in_flight += in_flight > 0
        if in_flight < plan.executions // 20:  # nearly done: there must be something to hit
            for _ in range(plan.executions // 10):
                numbers.put_nowait(following)
                following += 1
        await server.start()


async def _work_seen(server: Program, chance: random.Random) -> None:
    """Mostly return once an action has run since the start, sometimes at once."""
    before = server.effects_bytes()
    if chance.random() < 0.1:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(2 * LEASE_SECONDS + 5):
            while server.effects_bytes() == before:  # noqa: ASYNC110 - another process's file
                await asyncio.sleep(0.005)


async def _unless_failed(work: Any, tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Await `work`, or raise what ended one of the tasks that never end by themselves."""
    waiting = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for task in done:
        task.result()


async def _all_ended(lot: Lot, figures: Figures) -> None:
    figures.executions = len(lot.executions)
    statuses: defaultdict[str, int] = defaultdict(int)
    failures: defaultdict[str, int] = defaultdict(int)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for identifier in lot.executions:
            view = await lot.clients.ended(identifier)
            statuses[str(view["status"])] += 1
            if view["status"] == "FAILED":
                failures[str(as_object(view["error"])["code"])] += 1
    figures.statuses, figures.failures = dict(statuses), dict(failures)


async def _ask_again(lot: Lot) -> None:
    """Repeat every request: the same execution and the same answer must come."""
    known = list(lot.executions)
    for number in range(len(known)):
        identifier = await lot.clients.execute(WORKFLOW, number)
        assert identifier in known


def main() -> None:
    """Both back ends, the heavy form; prints one JSON object for each."""
    seed = int(os.environ.get("FAULTS_SEED", str(random.randrange(1_000_000))))
    plan = Plan(executions=200, kills=20, kills_in_flight=15, seed=seed)
    good = True
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        for url in (f"sqlite:///{folder}/ledger.db", postgres.create_database()):
            place = Path(tempfile.mkdtemp(dir=folder))
            figures = asyncio.run(campaign(url, place, plan))
            sys.stdout.write(json.dumps(asdict(figures)) + "\n")
            good = good and not figures.violations
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
