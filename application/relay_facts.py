"""What the events of the log tell other systems, as facts to send."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal, Protocol
from uuid import UUID

from application.messages import (
    WHOLE_RUN,
    CancellationRequest,
    Fact,
    MonitoringUpdate,
)
from application.views import step_execution_id
from domain.definition import step_id_of
from domain.events import (
    Cancelled,
    CancelRequested,
    Completed,
    Event,
    Failed,
    Recorded,
    Requested,
    StepCompleted,
    StepFailed,
    StepSettled,
    StepStarted,
)
from domain.lifecycle import COMPLETED

RUN_ID_LABEL: Final = "run_id"
"""Label of an execution that another system asked for under an id of its own: that id, by which
the others know it."""
NAMES_KEPT_MAX: Final = 20_000
_Step = StepStarted | StepCompleted | StepFailed | StepSettled


class Beginnings(Protocol):
    """Looks up how executions began."""

    async def beginning(self, execution_id: UUID) -> Recorded | None:
        """The first event of an execution. Raises StoreUnavailable."""


class Telling:
    """Turns events into facts, in their order."""

    def __init__(self, beginnings: Beginnings) -> None:
        self._beginnings = beginnings
        self._names: OrderedDict[UUID, str] = OrderedDict()

    async def facts(self, event: Event) -> Sequence[Fact]:
        """What others are told of an event, mostly nothing."""
        match event.data:
            case Requested() as begun:
                self._name(event.execution_id, begun)
                return ()
            case StepStarted() as step:
                return [await self._step(event, step, "RUNNING")]
            case StepCompleted() as step:
                return [await self._step(event, step, "COMPLETED")]
            case StepFailed() as step:
                return [await self._step(event, step, "FAILED", step.message)]
            case StepSettled() as step if step.state == COMPLETED:
                return [await self._step(event, step, "COMPLETED")]
            case CancelRequested(reason=reason):
                return [await self._cancellation(event, reason)]
            case Completed():
                return [await self._end(event, "COMPLETED")]
            case Cancelled():
                return [await self._end(event, "CANCELLED")]
            case Failed() as failed:
                return [await self._end(event, "FAILED", failed)]
            case _:
                return ()

    async def _step(
        self,
        event: Event,
        step: _Step,
        status: Literal["RUNNING", "COMPLETED", "FAILED"],
        error: str | None = None,
    ) -> MonitoringUpdate:
        step_id = step_id_of(step.path)
        return MonitoringUpdate(
            run_id=await self._run_id(event.execution_id),
            step_id=step_id,
            step_name=step_id,
            status=status,
            at=event.meta.at,
            step_execution_id=step_execution_id(
                event.execution_id, step.attempt, step.path, step.try_no
            ),
            error=error,
        )

    async def _cancellation(self, event: Event, reason: str | None) -> CancellationRequest:
        return CancellationRequest(
            run_id=await self._run_id(event.execution_id),
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
            run_id=await self._run_id(event.execution_id),
            step_id=WHOLE_RUN,
            step_name=WHOLE_RUN,
            status=status,
            at=event.meta.at,
            failed_step=step_id_of(failed.path) if failed is not None and failed.path else None,
            error=None if failed is None else failed.message,
        )

    async def _run_id(self, execution_id: UUID) -> str:
        known = self._names.get(execution_id)
        if known is not None:
            self._names.move_to_end(execution_id)
            return known
        first = await self._beginnings.beginning(execution_id)
        data = None if first is None else first.event.data
        return self._name(execution_id, data if isinstance(data, Requested) else None)

    def _name(self, execution_id: UUID, begun: Requested | None) -> str:
        labels = {} if begun is None else begun.labels
        name = labels.get(RUN_ID_LABEL) or f"run-{execution_id}"
        self._names[execution_id] = name
        if len(self._names) > NAMES_KEPT_MAX:
            self._names.popitem(last=False)
        return name
