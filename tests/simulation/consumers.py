"""Whoever takes what comes over topics: any process, until one has said what becomes of a message.

A broker loses nothing, so a message that a process was lost with comes to another one, also when
the first is only slow.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final

from application.messages import NOT_NOW, AgentResult, ExecutionRequest, Poison
from tests.simulation.agents import AGAIN_SECONDS, Agents, Call, Result, TaskOf

SPREAD_SECONDS: Final = 0.3
"""How far messages that were sent together come apart."""


class Consumers:
    """All of them."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._chance = agents.chance

    def start(self, wanted: ExecutionRequest) -> None:
        """An execution whose request has come back is to begin, however often it comes."""
        times = 1 + self._agents.world.weather.strikes("request doubled", 0.15)
        for _ in range(times):
            asyncio.get_running_loop().create_task(self._start(wanted))

    async def _start(self, wanted: ExecutionRequest) -> None:
        told = await self._told(lambda each: each.incoming.execute(wanted))
        if isinstance(told, Poison):
            self._agents.complaints.append((wanted.run_id.removeprefix("run-"), f"{told!r}"))

    async def record(self, result: Result, names: TaskOf, *, fair: bool = True) -> None:
        """What came of a task; under wrong names it is poison, and else it is not."""
        result.fair |= fair
        failed = bool(result.error_class)
        sent = AgentResult(
            run_id=names.run_id,
            task_id=names.task_id,
            succeeded=not failed,
            output=result.output,
            correlation_id=names.correlation_id,
            error_message=f"It did not work: {result.number}." if failed else None,
            at=None,
            error_code="agent_failed",
            error_class=result.error_class or "unknown",
            retryable=result.retryable,
        )
        told = await self._told(lambda each: each.incoming.record(sent))
        if fair is isinstance(told, Poison):
            self._agents.complain(names, f"a result was told {told!r}")

    async def _told(self, call: Call) -> Poison | bool:
        """What becomes of a message in the end."""
        await asyncio.sleep(self._chance.random() * SPREAD_SECONDS)
        while True:
            told: Poison | bool | None = await self._agents.ask(lambda each: _taken(call(each)))
            if told is not None:
                return told
            await asyncio.sleep(AGAIN_SECONDS)


async def _taken(call: Awaitable[None]) -> Poison | bool | None:
    """True for a message that needs not come again, None for one that does."""
    try:
        await call
    except Poison as error:
        return error
    except NOT_NOW:
        return None
    return True
