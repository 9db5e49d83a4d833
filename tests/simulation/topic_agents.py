"""Agents that hear of their tasks from a topic, and whose results come back on another.

What an agent does not answer comes to it again.
"""

import asyncio
from typing import Final

from application.messages import AgentTask
from tests.simulation.agents import LONG_SECONDS, TASK_SECONDS, Agents, TaskOf
from tests.simulation.consumers import SPREAD_SECONDS, Consumers

COMES_AGAIN_SECONDS: Final = 3.0


class TopicAgents:
    """All of them. `tasks` are those that came."""

    def __init__(self, agents: Agents, consumers: Consumers) -> None:
        self._consumers = consumers
        self.tasks: list[AgentTask] = []
        self._agents = agents
        self._weather = agents.world.weather
        self._chance = agents.chance
        self._mood = agents.world.theme.mood

    def take(self, task: AgentTask) -> None:
        """The broker has a task."""
        self.tasks.append(task)
        for _ in range(1 + self._weather.strikes("task doubled", 0.15)):
            self._deliver(task, self._chance.random() * SPREAD_SECONDS)

    def _deliver(self, task: AgentTask, seconds: float) -> None:
        asyncio.get_running_loop().create_task(self._work(task, seconds))

    async def _work(self, sent: AgentTask, seconds: float) -> None:
        chance, weather = self._chance, self._weather
        await asyncio.sleep(seconds + chance.random() * TASK_SECONDS)
        if weather.strikes("agent vanishes", self._mood.vanishes):
            self._deliver(sent, chance.random() * COMES_AGAIN_SECONDS)
            return
        if weather.strikes("agent is slow", self._mood.slow):
            await asyncio.sleep(chance.random() * LONG_SECONDS)
        task = TaskOf(sent.run_id, sent.task_id, sent.correlation_id)
        if weather.strikes("wrong task", 0.05):
            wrong = task._replace(task_id=f"{task.task_id}0")
            await self._consumers.record(self._agents.result(task), wrong, fair=False)
        if weather.strikes("wrong correlation id", 0.05):
            wrong = task._replace(correlation_id=f"{task.correlation_id}0")
            await self._consumers.record(self._agents.result(task), wrong, fair=False)
        result = self._agents.result(task)
        several = [self._consumers.record(result, task)]
        if weather.strikes("result sent twice at once", 0.15):
            several.append(self._consumers.record(result, task))
        if weather.strikes("two results at once", 0.1):
            several.append(self._consumers.record(self._agents.result(task), task))
        await asyncio.gather(*several)
        if weather.strikes("another result late", 0.1):
            await asyncio.sleep(chance.random() * LONG_SECONDS)
            await self._consumers.record(self._agents.result(task), task)
