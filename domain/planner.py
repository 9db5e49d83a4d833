"""What comes next: `plan(definition, state, now)` gives the facts to record, and nothing when the execution waits.

All control flow is here: order, gates, branches, waits, time-outs, automatic re-tries, the verdict. It looks at the live paths only, so
a step of a long execution costs the same as one of a short one. `advance` repeats it until the execution waits.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from domain import events as ev
from domain.definition import (
    ActionStep,
    ConditionalStep,
    Definition,
    HumanTaskStep,
    Step,
    WaitStep,
    child_path,
    parent_path,
    step_id_of,
)
from domain.draft import Draft
from domain.execution import START, ExecutionState, StepState
from domain.json_values import (
    PAYLOAD_BYTES_MAX,
    Json,
    JsonObject,
    NotStorable,
    check_storable,
)
from domain.lifecycle import COMPLETED, FAILED, RETRYING, RUNNING, SKIPPED, STEP_ENDED
from domain.recovery import after_failure
from domain.references import UnresolvedReference
from domain.scope import StepScope

Plan = tuple[ev.Payload, ...]
DELIVERIES_MAX: Final = 3
OUTPUT_BYTES_MAX: Final = 32 * 1024 * 1024
_ENCODER: Final = msgspec.json.Encoder()


def advance(definition: Definition, draft: Draft, now: datetime) -> None:
    """Record everything that follows from the draft's state at `now`, until it waits for an effect, a time or a person."""
    while facts := plan(definition, draft.state, now):
        for fact in facts:
            draft.record(fact)


def plan(definition: Definition, state: ExecutionState, now: datetime) -> Plan:
    """The next facts, or () while the execution waits or has ended."""
    if state.state == "PENDING":
        return _start(definition, state, now)
    if not state.live:
        return ()
    if state.deadline_at is not None and state.deadline_at <= now:
        return (_timed_out(state, definition),)
    for path in state.live if len(state.live) == 1 else sorted(state.live):
        facts = _plan_path(definition, state, path, now)
        if facts:
            return facts
    return ()


def next_due(state: ExecutionState) -> datetime | None:
    """The earliest time at which `plan` has something new to say by itself; None when only others can move it."""
    if state.state == "PENDING":
        return state.start_at or state.created_at
    due = [state.deadline_at] if state.deadline_at is not None and state.live else []
    for path in state.live:
        step = state.steps.get(path)
        if step is not None:
            due += [each for each in (step.due_at, step.deadline_at) if each is not None]
    return min(due, default=None)


def running_actions(definition: Definition, state: ExecutionState) -> tuple[str, ...]:
    """Paths of the live tries whose effect a worker has to perform."""
    return tuple(
        path
        for path in state.live
        if (step := state.steps.get(path)) is not None
        and step.state == RUNNING
        and isinstance(definition.steps[step_id_of(path)], ActionStep)
    )


def redeliver(definition: Definition, state: ExecutionState, path: str, epoch: int, now: datetime) -> Plan:
    """A try whose worker was lost: hand it over again, or give it up when it has cost too many workers."""
    step = state.steps[path]
    if step.delivery >= DELIVERIES_MAX:
        message = (
            f"The worker was lost {step.delivery} times while it ran this step; it is not tried again. "
            "Look at the handler's memory and exits, then retry the execution."
        )
        return (fail_step(state, path, "worker_lost", "permanent", message, retryable=False, epoch=epoch),)
    deadline = _deadline(definition.steps[step_id_of(path)], now)
    return (
        ev.StepRedelivered(path, step.attempt, step.try_no, step.delivery + 1, epoch, deadline),
    )


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


def complete_step(state: ExecutionState, path: str, output: Json, *, epoch: int = 0) -> ev.Payload:
    """The success of the present try, or its failure when the output cannot be stored."""
    step = state.steps[path]
    size = _size(output)
    if size > PAYLOAD_BYTES_MAX:
        message = f"The output has {size} bytes; one step's output is limited to {PAYLOAD_BYTES_MAX}."
        return fail_step(state, path, "output_not_storable", "permanent", message, retryable=False, epoch=epoch)
    if state.output_bytes + size > OUTPUT_BYTES_MAX:
        message = f"The outputs of one execution are limited to {OUTPUT_BYTES_MAX} bytes; store large results elsewhere."
        return fail_step(state, path, "outputs_too_large", "permanent", message, retryable=False, epoch=epoch)
    return ev.StepCompleted(path, step.attempt, step.try_no, epoch, size, output)


def with_recovery(definition: Definition, failed: ev.StepFailed, now: datetime) -> Plan:
    """A failure and what its step's policy makes of it."""
    retry = after_failure(definition.steps[step_id_of(failed.path)].retry, failed, now)
    return (failed,) if retry is None else (failed, retry)


# -------------------------------------------------------------------------------------------------- one path


def _start(definition: Definition, state: ExecutionState, now: datetime) -> Plan:
    if state.start_at is not None and state.start_at > now:
        return ()
    seconds = definition.timeout_seconds
    deadline = None if seconds is None else now + timedelta(seconds=seconds)
    return (ev.Started(state.attempt, deadline),)


def _plan_path(definition: Definition, state: ExecutionState, path: str, now: datetime) -> Plan:
    if path == START:
        return tuple(_begin(definition, state, definition.start_step, START, now))
    step, declared = state.steps[path], definition.steps[step_id_of(path)]
    if step.state in STEP_ENDED:
        return _after(definition, state, path, step, now)
    if step.state == RETRYING:
        if step.due_at is None or step.due_at > now:
            return ()
        return _try_again(declared, step, path, now)
    if step.deadline_at is not None and step.deadline_at <= now:
        message = f"The step did not end within {declared.timeout_seconds:g} seconds."
        failed = fail_step(state, path, "step_timeout", "timeout", message, retryable=True)
        return with_recovery(definition, failed, now)
    match declared:
        case WaitStep():
            return _plan_wait(state, path, step, now)
        case ConditionalStep():
            return _plan_conditional(definition, state, path, step, declared, now)
        case HumanTaskStep() | ActionStep():
            return ()


def _plan_wait(state: ExecutionState, path: str, step: StepState, now: datetime) -> Plan:
    if step.due_at is None or step.due_at > now:
        return ()
    given = step.input
    duration = given["duration_ms"] if isinstance(given, dict) else 0
    return (complete_step(state, path, {"waited": True, "durationMs": duration}),)


def _plan_conditional(
    definition: Definition,
    state: ExecutionState,
    path: str,
    step: StepState,
    declared: ConditionalStep,
    now: datetime,
) -> Plan:
    if step.branch is None:
        return tuple(_take_branch(state, path, declared))
    if step.child is None:
        return (complete_step(state, path, _branch_output(declared, step, None)),)
    child = state.steps.get(step.child)
    if child is None:
        return tuple(_begin(definition, state, step_id_of(step.child), path, now))
    if child.state in (COMPLETED, SKIPPED, FAILED):
        return (complete_step(state, path, _branch_output(declared, step, child.output)),)
    return ()


def _take_branch(state: ExecutionState, path: str, declared: ConditionalStep) -> Iterator[ev.Payload]:
    found = declared.gate.condition.evaluate(StepScope(state, path))
    taken, other = declared.then_step, declared.else_step
    if not found.value:
        taken, other = other, taken
    attempt = state.attempt
    branch = "then" if found.value else "else"
    child = None if taken is None else child_path(path, taken)
    yield ev.BranchTaken(path, attempt, branch, child, found.error, _small(found.actual))
    if other is not None and child_path(path, other) not in state.steps:
        yield ev.StepSkipped(child_path(path, other), attempt, path, "branch_not_taken", None)


def _small(value: Json) -> Json:
    """The value a condition looked at, where it is worth keeping in the log."""
    return value if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 256) else None


def _branch_output(declared: ConditionalStep, step: StepState, output: Json) -> JsonObject:
    result: JsonObject = {
        "condition_result": step.branch == "then",
        "branch_taken": step.branch,
        "branch_step_id": None if step.child is None else step_id_of(step.child),
        "branch_output": output,
    }
    source = declared.gate.source
    if "field" in source:
        result |= {
            "conditionMet": step.branch == "then",
            "field": source["field"],
            "operator": source["operator"],
            "value": source["value"],
            "actualValue": step.actual,
        }
    return result


def _try_again(declared: Step, step: StepState, path: str, now: datetime) -> Plan:
    return (
        ev.StepStarted(
            path=path,
            attempt=step.attempt,
            try_no=step.try_no + 1,
            action=step.action,
            after=step.after,
            due_at=_wait_until(step.input, now) if isinstance(declared, WaitStep) else None,
            deadline_at=_deadline(declared, now),
            input=step.input,
        ),
    )


def _after(definition: Definition, state: ExecutionState, path: str, step: StepState, now: datetime) -> Plan:
    """`path` has ended: the execution fails with it, its composite goes on, or the next step begins."""
    declared = definition.steps[step_id_of(path)]
    if step.state == FAILED and declared.critical and state.atomic_mode != "lenient":
        return (_failed_with(state, step, path),)
    if parent_path(path):
        return ()  # its composite is live too and looks at its children
    if declared.next_step is None:
        return (_verdict(definition, state),)
    return tuple(_begin(definition, state, declared.next_step, path, now))


# ------------------------------------------------------------------------------------------------- beginnings


def _begin(
    definition: Definition, state: ExecutionState, step_id: str, after: str, now: datetime
) -> Iterator[ev.Payload]:
    """The facts that begin `step_id`; steps that an earlier attempt finished are passed over."""
    inside = after if after != START and definition.steps[step_id].parent == step_id_of(after) else parent_path(after)
    path = child_path(inside, step_id)
    while path in state.steps:
        following = definition.steps[step_id].next_step
        if following is None:
            yield _verdict(definition, state)
            return
        step_id, path = following, child_path(inside, following)
    declared = definition.steps[step_id]
    scope = StepScope(state, path)
    for gate in declared.conditions:
        found = gate.condition.evaluate(scope)
        if not found.value:
            detail = found.error or gate.condition.text
            yield ev.StepSkipped(path, state.attempt, after, "condition", detail)
            return
    yield from _first_try(declared, state, path, after, scope, now)


def _first_try(
    declared: Step, state: ExecutionState, path: str, after: str, scope: StepScope, now: datetime
) -> Iterator[ev.Payload]:
    action, problem = _action_name(declared), None
    given: Json = None
    due = None
    try:
        match declared:
            case ActionStep() | HumanTaskStep():
                given = declared.input.resolve(scope)
                check_storable(given)
            case WaitStep():
                given = {"duration_ms": 0 if state.simulate else _milliseconds(declared.duration_ms.resolve(scope))}
                due = _wait_until(given, now)
            case ConditionalStep():
                pass
    except (UnresolvedReference, NotStorable, ValueError) as error:
        problem, given = str(error), None
    started = ev.StepStarted(
        path, state.attempt, 1, action, after, due, _deadline(declared, now), given
    )
    yield started
    if problem is not None:
        yield ev.StepFailed(
            path, state.attempt, 1, 0, "permanent", "bad_step_input", False, problem, None
        )
    elif isinstance(declared, HumanTaskStep):
        yield from _ask_person(state, started)


def _ask_person(state: ExecutionState, started: ev.StepStarted) -> Iterator[ev.Payload]:
    given = started.input if isinstance(started.input, dict) else {}
    wait = given.get("wait") is True and not state.simulate
    task_id = f"ht-{state.id.hex}-{len(state.tasks) + 1}"
    title, priority = _text(given.get("title")) or "", _text(given.get("priority")) or "MEDIUM"
    if not state.simulate:
        yield ev.HumanTaskCreated(
            task_id=task_id,
            path=started.path,
            attempt=started.attempt,
            priority=priority,
            wait=wait,
            title=title,
            description=_text(given.get("description")),
            assigned_to=_text(given.get("assignedTo", given.get("assigned_to"))),
        )
    if not wait:
        output: JsonObject = {"taskId": task_id, "title": title, "status": "TODO"}
        if state.simulate:
            output = {"simulated": True, "wouldExecute": "create_task", "config": given}
        yield ev.StepCompleted(started.path, started.attempt, 1, 0, _size(output), output)


def _action_name(declared: Step) -> str:
    match declared:
        case ActionStep():
            return declared.action
        case HumanTaskStep():
            return "create_task"
        case WaitStep():
            return "wait"
        case ConditionalStep():
            return "conditional"


def _size(value: Json) -> int:
    return len(_ENCODER.encode(value))


def _text(value: Json) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _milliseconds(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 31_536_000_000:
        raise ValueError(f"duration_ms resolved to {value!r}; it must be milliseconds from 0 to one year.")
    return value


def _wait_until(given: Json, now: datetime) -> datetime:
    duration = given["duration_ms"] if isinstance(given, dict) else 0
    return now + timedelta(milliseconds=_milliseconds(duration))


def _deadline(declared: Step, now: datetime) -> datetime | None:
    seconds = declared.timeout_seconds
    return None if seconds is None else now + timedelta(seconds=seconds)


# ------------------------------------------------------------------------------------------------------- ends


def _timed_out(state: ExecutionState, definition: Definition) -> ev.Failed:
    message = f"The execution did not end within {definition.timeout_seconds:g} seconds."
    path = min((each for each in state.live if each != START), default="")
    return ev.Failed(state.attempt, "timeout", "timeout", "execution_timeout", path, message)


def _failed_with(state: ExecutionState, step: StepState, path: str) -> ev.Failed:
    error = step.error
    code, error_class, message = (
        (error.code, error.error_class, error.message) if error else ("step_failed", "unknown", "")
    )
    return ev.Failed(state.attempt, "critical_step", error_class, code, path, message)


def _verdict(definition: Definition, state: ExecutionState) -> ev.Payload:
    """The main line has ended. Nothing failed is COMPLETED, also when all was skipped; lenient needs one success."""
    if state.steps_failed and not state.steps_done:
        message = "No step succeeded. Look at the steps' errors, then retry the execution."
        if state.atomic_mode == "lenient":
            return ev.Failed(state.attempt, "no_success", "unknown", "no_success", "", message)
    try:
        output = _output(definition, state)
        check_storable(output)
    except (UnresolvedReference, NotStorable) as error:
        return ev.Failed(state.attempt, "bad_output", "permanent", "bad_output", "", str(error))
    return ev.Completed(state.attempt, state.steps_failed > 0, output)


def _output(definition: Definition, state: ExecutionState) -> Json:
    if definition.output is not None:
        return definition.output.resolve(StepScope(state, ""))
    for step_id in reversed(tuple(definition.main_line())):
        step = state.steps.get(step_id)
        if step is not None and step.state == COMPLETED:
            return step.output
    return None
