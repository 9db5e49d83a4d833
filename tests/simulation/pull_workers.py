"""Workers that ask for tasks: they keep them, go silent, answer late, twice, or for another."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid5

from application.tasks import Ask, OfferedTask, TaskSettled
from domain.errors import FlowledgerError, TaskEnded
from domain.json_values import JsonObject
from domain.workflow import NAMESPACE
from tests.simulation.agents import (
    AGAIN_SECONDS,
    ASKED_TIMES_MAX,
    CALLED,
    LONG_SECONDS,
    PATIENCE_SECONDS,
    PULLED,
    TASK_LEASE_SECONDS,
    TASK_SECONDS,
    TOLD,
    Agents,
    Call,
    Result,
    TaskOf,
    Told,
    unjust,
)
from tests.simulation.effects import Deed

WORKSPACE: Final = "default"
ALL: Final = (PULLED, TOLD, CALLED)
"""A worker asks for all of them: how work gets to an agent may change."""


class PullWorker:
    """One of them, for ever."""

    def __init__(self, name: str, agents: Agents) -> None:
        self._name = name
        self._agents = agents
        self._weather = agents.world.weather
        self._chance = agents.chance
        self._mood = agents.world.theme.mood

    async def run(self) -> None:
        """Ask for tasks, again and again."""
        while True:
            wait = self._chance.choice((0.0, 2.0, 6.0, 6.0))
            for task in await self._poll(wait):
                asyncio.get_running_loop().create_task(self._work(task))
            await asyncio.sleep(AGAIN_SECONDS * self._chance.random())

    async def _poll(self, wait: float) -> Sequence[OfferedTask]:
        left = False

        async def gone() -> bool:
            return left

        some = self._weather.stormy and self._chance.random() < 0.7
        ask = Ask(
            agents=(PULLED,) if some else ALL,
            worker_id=self._name,
            max_tasks=self._chance.choice((1, 1, 3)),
            wait_seconds=wait,
            lease_seconds=TASK_LEASE_SECONDS,
        )
        patience = wait + PATIENCE_SECONDS
        told = await self._agents.ask(lambda each: each.tasks.poll(WORKSPACE, ask, gone), patience)
        left = True
        if told is None or isinstance(told, FlowledgerError):  # one of them gets it another way
            await asyncio.sleep(AGAIN_SECONDS)
            return ()
        offered: Sequence[OfferedTask] = told
        return offered

    async def _work(self, offered: OfferedTask) -> None:
        self._begin(offered)
        task = TaskOf(offered.run_id, offered.task_id, offered.correlation_id, offered.epoch)
        if self._weather.strikes("agent vanishes", self._mood.vanishes):
            return
        if await self._keep(task):
            await self._end(task)

    def _begin(self, offered: OfferedTask) -> None:
        self._agents.world.deeds.done.append(
            Deed(
                offered.execution_id,
                offered.path,
                offered.attempt,
                offered.try_no,
                offered.epoch,
                offered.idempotency_key,
                offered.delivery,
            )
        )

    async def _keep(self, task: TaskOf) -> bool:
        """Work, and tell that it does; False when it stops because it was told to."""
        chance, weather = self._chance, self._weather
        seconds = chance.random() * TASK_SECONDS
        if weather.strikes("agent is slow", self._mood.slow):
            seconds += chance.random() * LONG_SECONDS
        silent = weather.strikes("agent is silent", 0.3)
        while seconds > 0:
            pause = min(seconds, TASK_LEASE_SECONDS / 3)
            await asyncio.sleep(pause)
            seconds -= pause
            if silent:
                continue
            told = await self._agents.ask(self._sign_of_life(task))
            if isinstance(told, FlowledgerError):
                self._judge(task, told)
                if not weather.strikes("agent goes on all the same", 0.5):
                    return False
        return True

    def _sign_of_life(self, task: TaskOf) -> Call:
        if self._chance.random() < 0.3:
            value: JsonObject = {"at": self._chance.randrange(3)}
            return lambda each: each.tasks.progress(WORKSPACE, task.task_id, task.epoch, value)
        return lambda each: each.tasks.heartbeat(
            WORKSPACE, task.task_id, task.epoch, TASK_LEASE_SECONDS
        )

    async def _end(self, task: TaskOf) -> None:
        weather = self._weather
        if weather.strikes("wrong epoch", 0.05):
            wrong = task._replace(epoch=max(0, task.epoch + self._chance.choice((-1, 1_000_000))))
            await self._send(self._agents.result(task), wrong, fair=False)
        if weather.strikes("wrong task", 0.05):
            digits = uuid5(NAMESPACE, task.task_id).hex[:16]
            wrong = task._replace(task_id=f"task-wrong-{digits}")
            await self._send(self._agents.result(task), wrong, fair=False)
        result = self._agents.result(task)
        several = [self._send(result, task)]
        if weather.strikes("result sent twice at once", 0.1):
            several.append(self._send(result, task))
        if weather.strikes("two results at once", 0.1):
            several.append(self._send(self._agents.result(task), task))
        await asyncio.gather(*several)
        if weather.strikes("result sent again", 0.1):
            await self._send(result, task)
        if weather.strikes("another result late", 0.1):
            await asyncio.sleep(self._chance.random() * 2 * TASK_LEASE_SECONDS)
            await self._send(self._agents.result(task), task)

    async def _send(self, result: Result, names: TaskOf, *, fair: bool = True) -> None:
        """Until there is an answer or patience is over."""
        for _ in range(ASKED_TIMES_MAX):
            result.fair |= fair and self._has(names)
            told = await self._agents.ask(_sending(result, names))
            if told is None:
                if self._weather.strikes("agent vanishes unheard", 0.4):
                    return
                continue
            if not fair:
                self._judge_wrong(names, told)
            elif isinstance(told, TaskSettled):
                result.heard(told.answer)
            else:
                self._judge(names, told)
            return

    def _has(self, task: TaskOf) -> bool:
        """Whether nobody was given the task since."""
        found = self._agents.world.leases.leases(WORKSPACE, task.task_id)
        return any(each.epoch == task.epoch for each in found)

    def _judge(self, task: TaskOf, told: Told) -> None:
        found = self._agents.world.leases.leases(WORKSPACE, task.task_id)
        newest = any(each.epoch == task.epoch and not each.settled for each in found)
        if unjust(told, newest=newest, awaited=self._agents.awaited(task)):
            self._agents.complain(task, f"epoch {task.epoch} was told {told!r}")

    def _judge_wrong(self, task: TaskOf, told: Any) -> None:
        if not isinstance(told, FlowledgerError) or isinstance(told, TaskEnded):
            self._agents.complain(task, f"the wrong epoch {task.epoch} or task was told {told!r}")


def _sending(result: Result, names: TaskOf) -> Call:
    if not result.error_class:
        return lambda each: each.tasks.complete(
            WORKSPACE, names.task_id, names.epoch, result.output
        )
    return lambda each: each.tasks.fail(
        WORKSPACE,
        names.task_id,
        names.epoch,
        code="agent_failed",
        message=f"It did not work: {result.number}.",
        error_class=result.error_class,
        retryable=result.retryable,
        output=result.output,
    )
