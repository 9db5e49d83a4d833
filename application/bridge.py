"""Calls agents for the tasks of a topic and sends back what came of them.

One call per task: the engine decides about another try. A task whose bridge ended in the middle
comes again; its agent knows it by the idempotency key, and its second result is ignored.
"""

import asyncio
from itertools import count
from typing import Final, Protocol

from msgspec import structs

from application.callers import DEFAULT_WORKSPACE
from application.messages import (
    AgentResult,
    AgentTask,
    BrokerAway,
    MessagePublisher,
    Spelling,
    Undeliverable,
)
from application.ports import Clock, Report, StoreUnavailable
from application.steps import Failed, StepOutcome, Succeeded

RETRY_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
NOT_LOOKED_UP: Final = "registry_unavailable"


class TaskCaller(Protocol):
    """Calls one agent for one task."""

    async def call_for(self, workspace_id: str, task: AgentTask) -> StepOutcome | None:
        """What came of it; None when the agent takes its tasks from the topic itself. Raises
        nothing but `asyncio.CancelledError`.
        """


class Bridge:
    """The use case of a process that only calls agents."""

    def __init__(
        self,
        caller: TaskCaller,
        publisher: MessagePublisher,
        spell: Spelling,
        clock: Clock,
        report: Report,
        *,
        calls_max: int,
        retries: int = 0,
        workspace_id: str = DEFAULT_WORKSPACE,
    ) -> None:
        """It makes at most `calls_max` calls at a time. `retries` is for a bridge that serves
        another engine, which does not try again.
        """
        self._caller = caller
        self._publisher = publisher
        self._spell = spell
        self._clock = clock
        self._report = report
        self._room = asyncio.Semaphore(calls_max)
        self._retries = retries
        self._workspace = workspace_id

    async def perform(self, task: AgentTask) -> None:
        """Call the agent and send the result; the broker has it when this returns. A task of an
        agent that takes its tasks itself is passed over.

        Raises StoreUnavailable while nobody can look the agent up.
        """
        outcome = await self._outcome(task)
        if outcome is None:
            return
        try:
            await self._send(task, outcome)
        except Undeliverable as error:
            refused = Failed(
                "result_not_sendable",
                f"the result of the agent {task.agent_name!r} could not be sent: {error}",
                "permanent",
                retryable=False,
            )
            await self._send(task, refused)

    async def _outcome(self, task: AgentTask) -> StepOutcome | None:
        tries = 0
        while True:
            async with self._room:
                outcome = await self._caller.call_for(self._workspace, task)
            if not isinstance(outcome, Failed):
                return outcome
            if outcome.code == NOT_LOOKED_UP:
                raise StoreUnavailable(outcome.message)
            if not outcome.retryable or tries >= self._retries:
                return outcome
            await self._pause(tries)
            tries += 1

    async def _send(self, task: AgentTask, outcome: StepOutcome) -> None:
        """Again and again until the broker takes it: what the agent did is done, and a task that
        came anew would be another call.
        """
        message = self._spell(self._result(task, outcome), None)
        for tries in count():
            try:
                await self._publisher.publish([message])
            except BrokerAway as error:
                if not tries:
                    self._report("result_waits", {"task_id": task.task_id, "cause": str(error)})
                await self._pause(tries)
            else:
                return

    async def _pause(self, tries: int) -> None:
        await self._clock.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])

    def _result(self, task: AgentTask, outcome: StepOutcome) -> AgentResult:
        result = AgentResult(
            run_id=task.run_id,
            task_id=task.task_id,
            succeeded=isinstance(outcome, Succeeded),
            output=outcome.output,
            correlation_id=task.correlation_id,
            error_message=None,
            at=self._clock.now(),
        )
        if isinstance(outcome, Succeeded):
            return result
        return structs.replace(
            result,
            error_message=outcome.message,
            error_code=outcome.code,
            error_class=outcome.error_class,
            retryable=outcome.retryable,
        )
