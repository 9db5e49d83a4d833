"""Work for several processes while something is done to them: callers who go from one process to
another until they hear something, and executions that come at a steady pace.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from domain.json_values import JsonObject
from tests.faults.clients import Clients
from tests.faults.programs import Program

WORKFLOW = "keep-on"


def definition(steps: int, wait_ms: int = 50) -> JsonObject:
    """A line of steps in the loop and in threads, one that fails at first, and a wait."""
    line: JsonObject = {}
    for number in range(1, steps + 1):
        step: JsonObject = {"action": "block" if number % 3 == 0 else "tick"}
        if number % 5 == 0:
            step = {"action": "shaky", "retry": {"attempts": 3, "base_delay_ms": 20}}
        if number == 2:
            step = {"type": "wait", "duration_ms": wait_ms}
        line[f"s{number}"] = step | {"next_step": f"s{number + 1}" if number < steps else None}
    return {"name": WORKFLOW, "start_step": "s1", "steps": line}


class Workload:
    """Executions requested so far, and how many of them were cancelled."""

    def __init__(
        self, apis: Sequence[Program], chance: random.Random, timeout_seconds: float = 10.0
    ) -> None:
        self.clients = Clients(self._address, timeout_seconds)
        self.executions: list[str] = []
        self._apis = apis
        self._chance = chance

    def _address(self) -> str:
        return self._chance.choice([each.address for each in self._apis if each.address] or [""])

    async def offer(self, seconds_between: float, *, cancelled_share: float = 0.1) -> None:
        """Request executions for ever, one every so often, whether or not the last was answered.

        What was begun is ended when this is cancelled.
        """
        asked: set[asyncio.Task[None]] = set()
        try:
            while True:
                asked.add(asyncio.create_task(self._one(cancelled_share)))
                await asyncio.sleep(seconds_between)
        finally:
            while asked:
                done, asked = await asyncio.wait(asked)
                for task in done:
                    task.result()

    async def _one(self, cancelled_share: float) -> None:
        number = len(self.executions)
        self.executions.append("")
        self.executions[number] = await self.clients.execute(WORKFLOW, number)
        if self._chance.random() < cancelled_share:
            await asyncio.sleep(self._chance.random())
            await self.clients.cancel(self.executions[number])

    async def all_ended(self) -> dict[str, int]:
        """How many ended how, once all have."""
        ends: dict[str, int] = {}
        for identifier in self.executions:
            view = await self.clients.ended(identifier)
            ends[str(view["status"])] = ends.get(str(view["status"]), 0) + 1
        return ends

    async def projected(self) -> None:
        """Return once the tables have seen all of it."""
        await self.clients.projected(self.executions[-1])


@asynccontextmanager
async def offered(workload: Workload, seconds_between: float) -> AsyncIterator[None]:
    """Executions are requested while the block lasts; a failure of the callers ends it."""
    offering = asyncio.create_task(workload.offer(seconds_between))
    try:
        yield
    finally:
        offering.cancel()
        with suppress(asyncio.CancelledError):
            await offering


@asynccontextmanager
async def working_on(
    apis: Sequence[Program], chance: random.Random, steps: int, timeout_seconds: float = 10.0
) -> AsyncIterator[Workload]:
    """A workload whose definition is published."""
    workload = Workload(apis, chance, timeout_seconds)
    try:
        await workload.clients.publish(definition(steps))
        yield workload
    finally:
        await workload.clients.close()
