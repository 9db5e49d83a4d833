"""Dispatched tasks and what comes back: recorded once, with what follows, by whoever carries it."""

import asyncio
from typing import Any

import pytest

from application.agent_results import TaskAnswer
from application.views import ExecutionView
from domain import events as ev
from domain.dispatching import TaskResult
from domain.errors import Invalid, InvalidDefinition, NotFound
from domain.json_values import Json, JsonObject
from tests.engine import Process, asked, definition, process, step

PULLED = {"puller": "pull", "topic": "kafka", "caller": "http"}


async def tasks(engine: Process, execution: ExecutionView, count: int = 1) -> list[ev.TaskDispatched]:
    """The tasks of an execution, once there are `count` of them."""
    found: list[ev.TaskDispatched] = []

    def enough(view: ExecutionView) -> bool:
        return len(view.waiting_on) > 0

    while len(found) < count:
        view = await engine.until(execution, enough)
        facts = await engine.facts(execution)
        found = [fact for fact in facts if isinstance(fact, ev.TaskDispatched)]
        if len(found) < count:
            await engine.history.wait_changed("default", view.id, view.version, 1.0)
    return found


async def answer(
    engine: Process, execution: ExecutionView, task: ev.TaskDispatched, **fields: Any
) -> TaskAnswer:
    result = TaskResult(correlation_id=task.correlation_id, **fields)
    return await engine.results.record("default", execution.run_id, task.task_id, result)


async def test_a_result_from_outside_ends_the_step(url: str) -> None:
    async with process(url, agents=PULLED) as engine:
        execution = await engine.run(definition(a=asked("puller"), b=asked("topic")))
        (task,) = await tasks(engine, execution)
        assert task.transport == "pull"
        assert (await answer(engine, execution, task, output={"n": 1})).accepted
        *_, second = await tasks(engine, execution, 2)
        await answer(engine, execution, second, output={"n": 2})
        ended = await engine.ended(execution)
        assert (ended.status, ended.output) == ("COMPLETED", {"n": 2})
        assert await engine.topics(execution) == [
            "requested",
            "started",
            "step_started",
            "task_dispatched",
            "step_completed",
            "step_started",
            "task_dispatched",
            "step_completed",
            "completed",
        ]
        assert await engine.commands(execution) == 4
        assert await engine.store.queue.row(__import__("uuid").UUID(execution.id)) is None
