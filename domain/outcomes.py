"""How a try of a step ends: the facts for success, failure, recovery and a lost worker."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from domain import events as ev
from domain.control_evolution import BY_HAND
from domain.definition import COMPOSITES, Definition, Step, declared_at, is_aside
from domain.execution import ExecutionState, StepState
from domain.json_values import PAYLOAD_BYTES_MAX, Json
from domain.lifecycle import COMPLETED
from domain.recovery import Plan, time_left, with_recovery
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules

DELIVERIES_MAX: Final = 3
OUTPUT_BYTES_MAX: Final = 32 * 1024 * 1024
"""What all outputs of one execution may have together."""
_ENCODER: Final = msgspec.json.Encoder()


def fail_step(
    state: ExecutionState,
    path: str,
    code: str,
    error_class: str,
    message: str,
    *,
    retryable: bool,
    epoch: int = 0,
    output: Json = None,
) -> ev.StepFailed:
    """The failure of the present try of `path`."""
    step = state.steps[path]
    return ev.StepFailed(
        path, step.attempt, step.try_no, epoch, error_class, code, retryable, message, output
    )


def complete_step(
    state: ExecutionState, path: str, output: Json, *, epoch: int = 0
) -> ev.StepCompleted | ev.StepFailed:
    """The success of the present try, or its failure when the output is too large to keep."""
    step = state.steps[path]
    size = bytes_of(output)
    if size > PAYLOAD_BYTES_MAX:
        code = "output_not_storable"
        message = f"The output has {size} bytes; one step's output has at most {PAYLOAD_BYTES_MAX}."
    elif state.output_bytes + size > OUTPUT_BYTES_MAX:
        code = "outputs_too_large"
        message = (
            f"The outputs of one execution have at most {OUTPUT_BYTES_MAX} bytes; "
            "keep large results elsewhere and return where they are."
        )
    else:
        return ev.StepCompleted(path, step.attempt, step.try_no, epoch, size, output)
    return fail_step(state, path, code, "permanent", message, retryable=False, epoch=epoch)


def complete_composite(state: ExecutionState, path: str, output: Json = None) -> ev.StepCompleted:
    """The success of a step whose output is made of those inside: they are counted already.

    One that was joined has its output by then and gives none.
    """
    step = state.steps[path]
    return ev.StepCompleted(path, step.attempt, step.try_no, 0, 0, output)


def redeliver(
    definition: Definition,
    state: ExecutionState,
    path: str,
    epoch: int,
    now: datetime,
    rules: RecoveryRules = DEFAULT_RULES,
) -> Plan:
    """A try whose worker was lost: handed over again, or given up when it cost too many workers."""
    step = state.steps[path]
    if step.delivery >= DELIVERIES_MAX:
        message = (
            f"The worker was lost {step.delivery} times while it ran this step; it is not tried "
            "again. Look at the handler's memory and exits, then retry the execution."
        )
        failed = fail_step(
            state, path, "worker_lost", "permanent", message, retryable=False, epoch=epoch
        )
        return with_recovery(definition, state, failed, now, rules)
    declared = declared_at(definition, path, step.action)
    deadline = deadline_of(declared, now, time_left(state, path, now))
    return (
        ev.StepRedelivered(path, step.attempt, step.try_no, step.delivery + 1, epoch, deadline),
    )


def deadline_of(declared: Step, now: datetime, left: timedelta | None = None) -> datetime | None:
    """When a try that begins now times out; `left` is what its recovery may still take."""
    seconds = declared.timeout_seconds
    if seconds is None:
        return None if left is None else now + left
    whole = timedelta(seconds=seconds)
    return now + (whole if left is None else min(whole, left))


def has_worked(definition: Definition, state: ExecutionState) -> bool:
    """Whether a step that does something itself has succeeded; a composite only wraps others,
    unless a person has completed it.
    """
    return any(
        _has_worked(definition, path, step)
        for path, step in state.steps.items()
        if not is_aside(path)
    )


def _has_worked(definition: Definition, path: str, step: StepState) -> bool:
    if step.state == COMPLETED and (step.why or "").startswith(BY_HAND):
        return True
    if step.fan is not None:
        return step.fan.done > 0
    return step.state == COMPLETED and not isinstance(declared_at(definition, path), COMPOSITES)


def bytes_of(value: Json) -> int:
    """Size as JSON."""
    return len(_ENCODER.encode(value))
