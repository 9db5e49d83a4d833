"""Executions that another system requests over Kafka, and an agent of one line for their tasks."""

import asyncio
import random
from typing import Final
from uuid import UUID

from domain.json_values import JsonObject
from tests.faults.clients import Clients
from tests.faults.kafka_wire import Send, plan_of, request, result_of
from tests.faults.programs import Program

AGENT: Final = "of-one-line"
PATIENCE_SECONDS: Final = 60.0


class Traffic:
    """What was requested and answered; every message goes through `send`."""

    def __init__(
        self,
        send: Send,
        chance: random.Random,
        steps: int,
        *,
        at_a_time: int,
        action: str | None = None,
    ) -> None:
        """`steps` in a line; with `action`, every second one is the engine's own, and the last one
        must be a task. No more than `at_a_time` executions are begun and not over.
        """
        self.asked: list[UUID] = []
        self.tasks: set[str] = set()
        self.steps = steps
        self.send = send
        self._plan = plan_of(AGENT, steps, action)
        self._chance = chance
        self._room = asyncio.Semaphore(at_a_time)

    def told(self) -> str:
        """For the lines of progress."""
        return f"{len(self.asked)} executions requested, {len(self.tasks)} tasks answered"

    async def ask(self, executions: int, seconds_between: float = 0.0) -> None:
        """Request so many. Raises TimeoutError when there is no room for long."""
        for number in range(executions):
            await asyncio.wait_for(self._room.acquire(), PATIENCE_SECONDS)
            execution = UUID(int=self._chance.getrandbits(128), version=4)
            self.asked.append(execution)
            run_id = f"run-{execution}"
            self.send("execution", run_id, request(run_id, self._plan, number), run_id)
            await asyncio.sleep(seconds_between)

    def answer(self, task: JsonObject) -> None:
        """Answer a task as often as it comes."""
        name = str(task["correlation_id"])
        if name not in self.tasks:
            self.tasks.add(name)
            if f"-s{self.steps}-" in name:
                self._room.release()
            self.first(task, name)
        self.send("result", name, result_of(task), name)

    def first(self, task: JsonObject, name: str) -> None:
        """A task came that was not there before; for those who do more with it."""


async def register(server: Program, agent: JsonObject) -> None:
    """Tell a server of an agent."""
    clients = Clients(lambda: server.address)
    try:
        answer = await clients.call("POST", "/agents", f"register-{agent['name']}", agent)
        assert answer.status_code == 201, answer.text
    finally:
        await clients.close()
