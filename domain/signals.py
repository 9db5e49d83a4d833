"""Signals: kept in the order in which they come, each taken once, by a step that waits for it."""

from datetime import datetime
from typing import Final

from domain import events as ev
from domain.definition import WAIT_FOR_EVENT, Definition, WaitForEventStep
from domain.execution_state import ExecutionState, Signal, StepState
from domain.json_values import Json, JsonObject
from domain.lifecycle import RUNNING
from domain.outcomes import complete_step, fail_step
from domain.recovery import Plan, with_recovery
from domain.recovery_rules import RecoveryRules

SIGNALS_KEPT_MAX: Final = 100
"""Signals of one execution that no step has taken yet."""
EVENT_TIMEOUT: Final = "event_timeout"


def plan_wait_for_event(
    definition: Definition,
    state: ExecutionState,
    path: str,
    declared: WaitForEventStep,
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    """The next facts of a step that waits for a signal; () while it waits.

    A signal that came in time counts, also where nobody looked until the time was over.
    """
    step = state.steps[path]
    until = step.deadline_at
    signal = _first(state, declared.signal, step)
    if signal is not None and (until is None or signal.received_at <= until):
        taken = ev.SignalConsumed(path, step.attempt, step.try_no, signal.number)
        return (taken, complete_step(state, path, signal.payload))
    if until is None or until > now:
        return ()
    if declared.on_timeout == "continue":
        return (complete_step(state, path, None),)
    message = f"The signal {declared.signal!r} did not come in time."
    if declared.on_timeout == "skip":
        return (ev.StepSkipped(path, step.attempt, step.after, EVENT_TIMEOUT, message),)
    failed = fail_step(state, path, EVENT_TIMEOUT, "timeout", message, retryable=True)
    return with_recovery(definition, state, failed, now, rules)


def _first(state: ExecutionState, name: str, step: StepState) -> Signal | None:
    wanted = awaited_filter(step)
    fitting = (each for each in state.signals if each.name == name and _has(each.payload, wanted))
    return next(fitting, None)


def _has(payload: Json, wanted: JsonObject) -> bool:
    """Whether every member that is wanted is there, with just this value."""
    if not wanted:
        return True
    return isinstance(payload, dict) and all(
        name in payload and _same(payload[name], value) for name, value in wanted.items()
    )


def _same(value: Json, wanted: Json) -> bool:
    # true and 1 are one number to Python, and two values in JSON, also inside of others.
    if value != wanted:
        return False
    if isinstance(value, list) and isinstance(wanted, list):
        return all(map(_same, value, wanted))
    if isinstance(value, dict) and isinstance(wanted, dict):
        return all(_same(each, wanted[name]) for name, each in value.items())
    return isinstance(value, bool) is isinstance(wanted, bool)


def awaited_signal(step: StepState) -> str | None:
    """The name of the signal that a running step waits for."""
    if step.action != WAIT_FOR_EVENT or step.state != RUNNING or not isinstance(step.input, dict):
        return None
    return str(step.input["signal"])


def awaited_filter(step: StepState) -> JsonObject:
    """The members that the signal's payload must have."""
    wanted = step.input.get("filter") if isinstance(step.input, dict) else None
    return wanted if isinstance(wanted, dict) else {}
