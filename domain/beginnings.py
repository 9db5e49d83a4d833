"""How a step begins: its gates, its input, its time-out, and the question to a person."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from domain import events as ev
from domain.definition import (
    ITEMS_MAX,
    PRIORITIES,
    SUB_WORKFLOW,
    ActionStep,
    ConditionalStep,
    Definition,
    ForkJoinStep,
    HumanTaskStep,
    LoopStep,
    ParallelStep,
    Step,
    SubWorkflowStep,
    ValidateStep,
    WaitForEventStep,
    WaitStep,
    alternative_path,
    declared_at,
)
from domain.execution import ExecutionState, StepState
from domain.input_changes import changed_input
from domain.json_values import PAYLOAD_BYTES_MAX, Json, JsonObject, NotStorable
from domain.mistakes import SECONDS_MAX, is_number
from domain.outcomes import bytes_of, deadline_of
from domain.recovery import other_action, time_left
from domain.recovery_rules import RecoveryRules, strategies_of
from domain.recovery_stages import Alternative
from domain.references import UnresolvedReference
from domain.scope import StepScope
from domain.simulation import simulated_output


def begin_step(
    declared: Step, state: ExecutionState, path: str, after: str, now: datetime
) -> Iterator[ev.Payload]:
    """The first facts of the step at `path`; `after` is the path whose end led here."""
    scope = StepScope(state, path)
    for gate in declared.conditions:
        found = gate.condition.evaluate(scope)
        if not found.value:
            detail = found.error or gate.condition.text
            yield ev.StepSkipped(path, state.attempt, after, "condition", detail)
            return
    given: Json = None
    due_at, problem = None, None
    before = state.steps.get(path)
    try:
        if before is not None and before.fan is not None:
            given = before.input  # what is finished in it belongs to these items
        else:
            given = _input(declared, state, scope)
        due_at = _due_at(declared, given, now)
    except (UnresolvedReference, NotStorable, ValueError) as error:
        given, problem = None, str(error)
    started = ev.StepStarted(
        path,
        state.attempt,
        1 if before is None else before.try_no + 1,
        _action_name(declared),
        after,
        due_at,
        deadline_of(declared, now),
        given,
        declared.compensate_with if state.atomic_mode == "strict" else None,
    )
    if problem is not None:
        yield started
        yield _bad_input(started, problem)
        return
    yield started
    if isinstance(declared, HumanTaskStep):
        yield from _ask_person(state, started)
    elif isinstance(declared, WaitForEventStep) and state.simulate:
        yield _done(started, simulated_output(started.action, started.input))


def try_again(
    declared: Step, state: ExecutionState, path: str, step: StepState, now: datetime
) -> Iterator[ev.Payload]:
    """The next try of a step whose earlier one failed, with the same input."""
    started = ev.StepStarted(
        path=path,
        attempt=step.attempt,
        try_no=step.try_no + 1,
        action=step.action,
        after=step.after,
        due_at=_due_at(declared, step.input, now),
        deadline_at=deadline_of(declared, now, time_left(state, path, now)),
        input=step.input,
        compensate_with=step.compensate_with,
    )
    yield started
    if isinstance(declared, HumanTaskStep):
        yield from _ask_person(state, started)


def begin_alternative(
    definition: Definition, state: ExecutionState, owner: str, now: datetime, rules: RecoveryRules
) -> Iterator[ev.Payload]:
    """The alternative that was chosen for the step at `owner`: its input with the changes."""
    step = state.steps[owner]
    chosen_id = step.via or ""
    path = alternative_path(owner, chosen_id)
    known = strategies_of(definition, state, owner, rules).alternatives(rules)
    chosen = known.get(chosen_id)
    given: Json = None
    problem = None
    try:
        if chosen is None:
            raise ValueError(f"the server has no alternative {chosen_id!r} any more.")
        given = _bounded(_other_input(step, chosen))
    except ValueError as error:
        problem = str(error)
    before = state.steps.get(path)
    action = step.action if chosen is None else other_action(step, chosen)
    declared = declared_at(definition, path, action)
    started = ev.StepStarted(
        path=path,
        attempt=state.attempt,
        try_no=1 if before is None else before.try_no + 1,
        action=action,
        after=owner,
        due_at=None,
        deadline_at=deadline_of(declared, now, time_left(state, path, now)),
        input=given,
    )
    yield started
    if problem is not None:
        yield _bad_input(started, problem)


def _other_input(step: StepState, chosen: Alternative) -> Json:
    """The step's input with the changes; of a sub_workflow step, what it gives to the other."""
    call = step.input if step.action == SUB_WORKFLOW and isinstance(step.input, dict) else None
    given = changed_input(step.input if call is None else call["input"], chosen.changes)
    if chosen.workflow is not None:
        return call_of(chosen.workflow, None, True, given)
    if call is None or chosen.action is not None:
        return given
    return {**call, "input": given}


def call_of(workflow: str, version: int | None, wait: bool, given: Json) -> JsonObject:
    """The input of a step that runs another workflow."""
    return {"workflow_id": workflow, "version": version, "wait": wait, "input": given}


def _bad_input(started: ev.StepStarted, problem: str) -> ev.StepFailed:
    return ev.StepFailed(
        path=started.path,
        attempt=started.attempt,
        try_no=started.try_no,
        epoch=0,
        error_class="permanent",
        code="bad_step_input",
        retryable=False,
        message=problem,
        output=None,
    )


def _action_name(declared: Step) -> str:
    return declared.action if isinstance(declared, ActionStep) else declared.ACTION


def _input(declared: Step, state: ExecutionState, scope: StepScope) -> Json:
    match declared:
        case ActionStep():
            return _bounded(declared.input.resolve(scope))
        case HumanTaskStep():
            return _checked_task(_bounded(declared.input.resolve(scope)))
        case WaitStep():
            duration = 0 if state.simulate else declared.duration_ms.resolve(scope)
            return {"duration_ms": _milliseconds(duration)}
        case ValidateStep():
            return _bounded(_to_validate(declared, scope))
        case SubWorkflowStep():
            given = declared.input.resolve(scope)
            return _bounded(call_of(declared.workflow, declared.version, declared.wait, given))
        case WaitForEventStep():
            wanted = declared.filter.resolve(scope)
            return _bounded({"signal": declared.signal, "filter": wanted})
        case LoopStep():
            return _bounded({"collection": _items(declared, scope)})
        case ConditionalStep() | ParallelStep() | ForkJoinStep():
            return None


def _to_validate(declared: ValidateStep, scope: StepScope) -> JsonObject:
    """Assertions are judged here, where references are known; the schema by the worker."""
    judged: list[Json] = []
    for gate in declared.assertions:
        found = gate.condition.evaluate(scope)
        judged.append({"assertion": gate.source, "holds": bool(found.value), "error": found.error})
    return {
        "data": declared.data.resolve(scope),
        "validation_schema": declared.schema,
        "assertions": judged,
        "validation_mode": declared.mode,
    }


def _items(declared: LoopStep, scope: StepScope) -> list[Json]:
    found = declared.collection.resolve(scope)
    if not isinstance(found, list):
        shown = _KINDS.get(type(found), "a number")
        raise ValueError(f"the collection resolved to {shown}; a loop needs a list.")
    items = found[: declared.iterations_max]
    if len(items) > ITEMS_MAX:
        raise ValueError(
            f"the collection has {len(items)} items; a loop takes at most {ITEMS_MAX}. Give "
            "max_iterations to run the first of them only."
        )
    return items


_KINDS: Final = {
    type(None): "null",
    str: "text",
    bool: "a boolean",
    dict: "a JSON object",
}


def _bounded(given: Json) -> Json:
    """What was resolved, if it is not too large. Its parts were checked when they came in."""
    size = bytes_of(given)
    if size > PAYLOAD_BYTES_MAX:
        raise ValueError(f"the input has {size} bytes; a step takes at most {PAYLOAD_BYTES_MAX}.")
    return given


def _milliseconds(value: Json) -> float:
    if is_number(value) and 0 <= value <= SECONDS_MAX * 1_000:
        return value
    shown = str(value) if is_number(value) else f"a {type(value).__name__}"
    raise ValueError(
        f"duration_ms resolved to {shown}; it must be a number of milliseconds from 0 to one year."
    )


def _due_at(declared: Step, given: Json, now: datetime) -> datetime | None:
    if not isinstance(declared, WaitStep) or not isinstance(given, dict):
        return None
    return now + timedelta(milliseconds=_milliseconds(given["duration_ms"]))


def _checked_task(given: Json) -> Json:
    """The settings of a human task after its references were filled in."""
    task = given if isinstance(given, dict) else {}
    if not isinstance(task.get("title"), str) or not task["title"]:
        raise ValueError("title resolved to no text; a person must know what to do.")
    if task.get("priority", "MEDIUM") not in PRIORITIES:
        raise ValueError(f"priority resolved to none of {', '.join(PRIORITIES)}.")
    return given


def _ask_person(state: ExecutionState, started: ev.StepStarted) -> Iterator[ev.Payload]:
    given = started.input if isinstance(started.input, dict) else {}
    title, task_id = str(given["title"]), f"ht-{state.id.hex}-{len(state.tasks) + 1}"
    if state.simulate:
        yield _done(started, simulated_output(started.action, started.input))
        return
    wait = given.get("wait") is True
    yield ev.HumanTaskCreated(
        task_id=task_id,
        path=started.path,
        attempt=started.attempt,
        priority=str(given.get("priority", "MEDIUM")),
        wait=wait,
        title=title,
        description=_text(given.get("description")),
        assigned_to=_text(given.get("assignedTo", given.get("assigned_to"))),
    )
    if not wait:
        yield _done(started, {"taskId": task_id, "title": title, "status": "TODO"})


def _done(started: ev.StepStarted, output: Json) -> ev.StepCompleted:
    size = bytes_of(output)
    return ev.StepCompleted(started.path, started.attempt, started.try_no, 0, size, output)


def _text(value: Json) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
