"""How a step begins: its gates, its input, its time-out, and the question to a person."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from domain import events as ev
from domain.definition import (
    ITEMS_MAX,
    PRIORITIES,
    ActionStep,
    ConditionalStep,
    ForkJoinStep,
    HumanTaskStep,
    LoopStep,
    ParallelStep,
    Step,
    ValidateStep,
    WaitStep,
)
from domain.execution import ExecutionState, StepState
from domain.json_values import PAYLOAD_BYTES_MAX, Json, JsonObject, NotStorable
from domain.mistakes import SECONDS_MAX, is_number
from domain.outcomes import bytes_of, deadline_of
from domain.references import UnresolvedReference
from domain.scope import StepScope


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
    )
    if problem is not None:
        yield started
        yield ev.StepFailed(
            path,
            state.attempt,
            started.try_no,
            0,
            "permanent",
            "bad_step_input",
            False,
            problem,
            None,
        )
        return
    yield started
    if isinstance(declared, HumanTaskStep):
        yield from _ask_person(state, started)


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
        deadline_at=deadline_of(declared, now),
        input=step.input,
    )
    yield started
    if isinstance(declared, HumanTaskStep):
        yield from _ask_person(state, started)


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
        case ValidateStep():
            return "validate"
        case ParallelStep():
            return "parallel"
        case LoopStep():
            return "loop"
        case ForkJoinStep():
            return "fork_join"


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
        output: JsonObject = {
            "simulated": True,
            "wouldExecute": "create_task",
            "config": given,
        }
        yield _done(started, output)
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
