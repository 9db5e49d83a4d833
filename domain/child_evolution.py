"""What the events of children and signals make of an execution. Only assignments."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import structs

from domain import events as ev
from domain.execution_state import Child, ExecutionState, Signal

Changes = dict[str, object]


def _child_started(state: ExecutionState, data: ev.ChildStarted, meta: ev.Meta) -> Changes:
    child = Child(
        id=data.child_id,
        path=data.path,
        attempt=data.attempt,
        try_no=data.try_no,
        workflow_id=data.workflow_id,
        workflow_name=data.workflow_name,
        workflow_version=data.workflow_version,
        definition_id=data.definition_id,
        sha256=data.sha256,
        steps_total=data.steps_total,
        wait=data.wait,
    )
    step = structs.replace(state.steps[data.path], child_id=data.child_id)
    return {
        "children": state.children.set(data.child_id, child),
        "steps": state.steps.set(data.path, step),
    }


def _child_ended(state: ExecutionState, data: ev.ChildEnded, meta: ev.Meta) -> Changes:
    known = data.child_id in state.children
    return {"children": state.children.delete(data.child_id)} if known else {}


def _signal_received(state: ExecutionState, data: ev.SignalReceived, meta: ev.Meta) -> Changes:
    signal = Signal(data.number, data.name, data.payload, meta.at)
    return {"signals": (*state.signals, signal), "signals_received": data.number}


def _signal_consumed(state: ExecutionState, data: ev.SignalConsumed, meta: ev.Meta) -> Changes:
    return {"signals": tuple(each for each in state.signals if each.number != data.number)}


# Any: each function takes the payload that is its key, which a dict cannot say.
APPLY: Final[dict[type[ev.Payload], Callable[[ExecutionState, Any, ev.Meta], Changes]]] = {
    ev.ChildStarted: _child_started,
    ev.ChildEnded: _child_ended,
    ev.SignalReceived: _signal_received,
    ev.SignalConsumed: _signal_consumed,
}
