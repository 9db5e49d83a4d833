"""What the events of dispatched work make of an execution. Only assignments."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec import structs

from domain import events as ev
from domain.execution_state import Dispatched, ExecutionState

Changes = dict[str, object]


def with_end(
    sent: Dispatched | None, at: datetime, *, timed_out: bool = False
) -> Dispatched | None:
    """The task of a try that ends by its result or by its time-out; None when it has none."""
    if sent is None:
        return None
    return structs.replace(sent, ended_at=at, timed_out=timed_out)


def _task_dispatched(state: ExecutionState, data: ev.TaskDispatched, meta: ev.Meta) -> Changes:
    dispatched = Dispatched(
        data.task_id, data.correlation_id, data.agent, data.transport, since=meta.at
    )
    # Nobody's lease: whoever answers is judged by the correlation id alone.
    step = structs.replace(state.steps[data.path], dispatched=dispatched, epoch=0)
    return {"steps": state.steps.set(data.path, step)}


def _dispatch_failed(state: ExecutionState, data: ev.DispatchFailed, meta: ev.Meta) -> Changes:
    return {"dispatch_problem": data.reason}


# Any: each function takes the payload that is its key, which a dict cannot say.
APPLY: Final[dict[type[ev.Payload], Callable[[ExecutionState, Any, ev.Meta], Changes]]] = {
    ev.TaskDispatched: _task_dispatched,
    ev.DispatchFailed: _dispatch_failed,
}
