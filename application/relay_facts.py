"""What the events of the log tell other systems, as facts to send."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, Protocol
from uuid import UUID

from application.messages import (
    WHOLE_RUN,
    AgentTask,
    CancellationRequest,
    ExecutionRequest,
    Fact,
    MonitoringUpdate,
)
from application.views import step_execution_id
from domain.agent_names import KAFKA, agent_of
from domain.definition import step_id_of
from domain.dispatching import idempotency_key, task_ids
from domain.events import (
    Cancelled,
    CancelRequested,
    Completed,
    Event,
    Failed,
    Requested,
    StepCompleted,
    StepFailed,
    StepSettled,
    StepStarted,
    TaskDispatched,
)
from domain.json_values import Json, JsonObject
from domain.lifecycle import COMPLETED

NAMES_KEPT_MAX: Final = 20_000
PLANS_KEPT_MAX: Final = 200
_Step = StepStarted | StepCompleted | StepFailed | StepSettled
_Try = tuple[UUID, str, int, int]


class Earlier(Protocol):
    """Looks up what was stored before. Every call may raise StoreUnavailable."""

    async def outside_names(self, executions: Collection[tuple[str, UUID]]) -> Mapping[UUID, str]:
        """Of executions, each with its workspace, those that another system asked for by a run id
        of its own, with that.
        """

    async def input_of(self, execution_id: UUID, path: str, attempt: int, try_no: int) -> Json:
        """The input that a try began with."""

    async def published(self, workflow: UUID, number: int) -> JsonObject:
        """A version of a workflow, as it was sent."""


class Telling:
    """Turns events into facts, in their order."""

    def __init__(self, earlier: Earlier) -> None:
        self._earlier = earlier
        self._names: OrderedDict[UUID, str] = OrderedDict()
        self._inputs: dict[_Try, Json] = {}
        """Of the agents' tries that began in this batch."""
        self._plans: OrderedDict[tuple[UUID, int], JsonObject] = OrderedDict()

    async def facts(self, events: Sequence[Event]) -> list[tuple[Event, Fact]]:
        """What others are told of a batch of events."""
        self._inputs.clear()
        await self._name(events)
        return [(event, fact) for event in events for fact in await self._told(event)]

    async def _told(self, event: Event) -> Sequence[Fact]:
        match event.data:
            case Requested() as requested:
                sent = starts_by_request(event)
                return [await self._request(event, requested)] if sent else ()
            case TaskDispatched() as task:
                return [await self._task(event, task)] if task.transport == KAFKA else ()
            case CancelRequested(reason=reason):
                return [await self._cancellation(event, reason)]
            case Completed():
                return [await self._end(event, "COMPLETED")]
            case Cancelled():
                return [await self._end(event, "CANCELLED")]
            case Failed() as failed:
                return [await self._end(event, "FAILED", failed)]
            case StepStarted() | StepCompleted() | StepFailed() | StepSettled() as step:
                return await self._told_of_step(event, step)
            case _:
                return ()

    async def _told_of_step(self, event: Event, step: _Step) -> Sequence[Fact]:
        match step:
            case StepStarted():
                if agent_of(step.action) is not None:
                    self._inputs[_try(event, step)] = step.input
                return [await self._step(event, step, "RUNNING")]
            case StepFailed():
                return [await self._step(event, step, "FAILED", step.message)]
            case StepSettled() if step.state != COMPLETED:
                return ()  # left out by a person: neither word would be true
            case _:
                return [await self._step(event, step, "COMPLETED")]

    async def _request(self, event: Event, requested: Requested) -> ExecutionRequest:
        plan = requested.definition
        if plan is None:
            plan = await self._published(requested.definition_id, requested.workflow_version)
        named: JsonObject = {
            "workflow_id": requested.workflow_id,
            "name": requested.workflow_name,
            "version": str(requested.workflow_version),
        }
        return ExecutionRequest(
            run_id=self._run_id(event),
            plan={**plan, **named},
            input=requested.input,
            at=event.meta.at,
        )

    async def _published(self, workflow: UUID, number: int) -> JsonObject:
        key = (workflow, number)
        known = self._plans.get(key)
        if known is None:
            known = self._plans[key] = await self._earlier.published(workflow, number)
            if len(self._plans) > PLANS_KEPT_MAX:
                self._plans.popitem(last=False)
        return known

    async def _task(self, event: Event, task: TaskDispatched) -> AgentTask:
        key = _try(event, task)
        given = self._inputs[key] if key in self._inputs else await self._earlier.input_of(*key)
        return AgentTask(
            run_id=self._run_id(event),
            task_id=task.task_id,
            agent_name=task.agent,
            input=given if isinstance(given, dict) else {"value": given},
            correlation_id=task.correlation_id,
            at=event.meta.at,
            idempotency_key=idempotency_key(*key, per_try=task.key_per_try),
            attempt=task.attempt,
            try_no=task.try_no,
        )

    async def _step(
        self,
        event: Event,
        step: _Step,
        status: Literal["RUNNING", "COMPLETED", "FAILED"],
        error: str | None = None,
    ) -> MonitoringUpdate:
        step_id = step_id_of(step.path)
        task_id = None
        if isinstance(step, StepStarted) and agent_of(step.action) is not None:
            task_id, _ = task_ids(*_try(event, step))
        return MonitoringUpdate(
            run_id=self._run_id(event),
            step_id=step_id,
            step_name=step_id,
            status=status,
            at=event.meta.at,
            step_execution_id=step_execution_id(
                event.execution_id, step.attempt, step.path, step.try_no
            ),
            task_id=task_id,
            error=error,
        )

    async def _cancellation(self, event: Event, reason: str | None) -> CancellationRequest:
        return CancellationRequest(
            run_id=self._run_id(event),
            cancelled_by=event.meta.actor,
            reason=reason,
            at=event.meta.at,
        )

    async def _end(
        self,
        event: Event,
        status: Literal["COMPLETED", "CANCELLED", "FAILED"],
        failed: Failed | None = None,
    ) -> MonitoringUpdate:
        return MonitoringUpdate(
            run_id=self._run_id(event),
            step_id=WHOLE_RUN,
            step_name=WHOLE_RUN,
            status=status,
            at=event.meta.at,
            failed_step=step_id_of(failed.path) if failed is not None and failed.path else None,
            error=None if failed is None else failed.message,
        )

    async def _name(self, events: Sequence[Event]) -> None:
        """Find out by which names the others know the executions of a batch, all at once."""
        new: dict[UUID, str] = {}
        for event in events:
            if event.execution_id in self._names:
                self._names.move_to_end(event.execution_id)
            else:
                new[event.execution_id] = event.meta.ws
        if not new:
            return
        own = await self._earlier.outside_names([(ws, each) for each, ws in new.items()])
        self._names.update((each, own.get(each) or f"run-{each}") for each in new)
        while len(self._names) > NAMES_KEPT_MAX:  # more than any batch has
            self._names.popitem(last=False)

    def _run_id(self, event: Event) -> str:
        """By which the others know it."""
        return self._names[event.execution_id]


def starts_by_request(event: Event) -> bool:
    """Whether this is an execution's first event, and it starts when its request comes back."""
    return isinstance(event.data, Requested) and event.data.starts_by == KAFKA


def _try(event: Event, step: _Step | TaskDispatched) -> _Try:
    return event.execution_id, step.path, step.attempt, step.try_no
