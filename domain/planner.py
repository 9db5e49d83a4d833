"""What comes next.

`plan(definition, state, now)` gives the facts to record, and nothing when the execution waits.

All control flow is here: order, gates, branches, waits, time-outs, automatic re-tries, the verdict.
It looks at the live paths only, so a step of a long execution costs the same as one of a short one.
`advance` repeats it until the execution waits.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Final

from domain import events as ev
from domain.beginnings import begin_step
from domain.compensation import UNDOING, compensation_first, plan_undoing
from domain.definition import (
    WAIT_FOR_EVENT,
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
    child_path,
    declared_at,
    is_aside,
    is_contained,
    owner_of,
    step_id_of,
)
from domain.draft import Draft
from domain.error_classes import STEP_TIMEOUT
from domain.execution import START, ExecutionState, StepState
from domain.fan_out import (
    fail_around,
    go_on_in_lane,
    join_conditional,
    plan_fork,
    plan_loop,
    plan_parallel,
)
from domain.json_values import Json, JsonObject, NotStorable, check_storable
from domain.lane_paths import lane_owner
from domain.lifecycle import (
    COMPLETED,
    EXECUTING,
    FAILED,
    PAUSED,
    PENDING,
    RUNNING,
    STEP_ENDED,
)
from domain.outcomes import (
    complete_composite,
    complete_step,
    fail_step,
    has_worked,
)
from domain.pausing import due_while_paused, in_flight
from domain.recovering import plan_recovering
from domain.recovery import USER_ABORT, Plan, record_all, with_recovery
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules
from domain.references import UnresolvedReference
from domain.scope import StepScope
from domain.signals import plan_wait_for_event

PAUSE_TIMEOUT: Final = "pause_timeout"
"""Why an execution fails whose pause has lasted too long."""
NO_SUCCESS: Final = "no_success"
"""Why a lenient execution fails in which nothing has worked."""


def advance(
    definition: Definition, draft: Draft, now: datetime, rules: RecoveryRules = DEFAULT_RULES
) -> None:
    """Record all that follows from the draft's state at `now`.

    Afterwards it waits for an effect, a time or a person, or has ended. What was touched last is
    looked at first, so that all live paths are looked at once, not once for each fact. A step that
    a person aborted is too: what was touched may end what is around it, and the abort with it.
    """
    steps = draft.state.steps
    near = _touched(event.data for event in draft.events)
    near |= {path for path in draft.state.live if _is_aborted(steps.get(path))}
    while facts := _plan_near(definition, draft.state, near, now, rules):
        record_all(draft, facts, now)
        near = _touched(facts)


def _touched(facts: Iterable[ev.Payload]) -> set[str]:
    """The steps that facts are about, and what is around them."""
    paths = {path for fact in facts if (path := getattr(fact, "path", START)) != START}
    if paths and not any("/" in path or "~" in path for path in paths):
        return paths | {START}  # the main line: most steps of most executions
    paths |= {owner_of(path) for path in paths}
    around = {path.rpartition("/")[0] for path in paths}
    return paths | around | {lane_owner(each) for each in around if each}


def _plan_near(
    definition: Definition,
    state: ExecutionState,
    near: AbstractSet[str],
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    """The facts of what lies near, else of anything."""
    overdue = state.deadline_at is not None and state.deadline_at <= now
    if state.state == EXECUTING and not overdue:
        facts = _plan_some(definition, state, near, now, rules)
        if facts or state.live <= near:
            return facts
    return plan(definition, state, now, rules)


def plan(
    definition: Definition,
    state: ExecutionState,
    now: datetime,
    rules: RecoveryRules = DEFAULT_RULES,
) -> Plan:
    """The next facts, or () while the execution waits or has ended."""
    if state.state == PENDING:
        return _start(definition, state, now)
    if state.state == PAUSED:
        return _plan_paused(definition, state, now, rules)
    if state.state in UNDOING and (facts := plan_undoing(definition, state, now)) is not None:
        return facts
    if state.state != EXECUTING and state.state not in UNDOING:
        return ()
    if state.deadline_at is not None and state.deadline_at <= now:
        return (compensation_first(state, _timed_out(state, definition)),)
    return _plan_some(definition, state, state.live, now, rules)


def _plan_paused(
    definition: Definition, state: ExecutionState, now: datetime, rules: RecoveryRules
) -> Plan:
    """What time and outcomes make of the steps in flight; the walk stands still."""
    if state.pause is not None and state.pause.due_at is not None and state.pause.due_at <= now:
        message = f"The execution was paused until {state.pause.due_at.isoformat()} at most."
        ended = ev.Failed(state.attempt, PAUSE_TIMEOUT, "timeout", PAUSE_TIMEOUT, "", message)
        return (compensation_first(state, ended),)
    for path in sorted(in_flight(state)):
        if facts := _plan_path(definition, state, path, now, rules):
            return facts
    return ()


def _plan_some(
    definition: Definition,
    state: ExecutionState,
    paths: AbstractSet[str],
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    """The facts of the first of `paths` that is live and does not rest.

    A step that a person aborted comes before what is around it: the whole execution ends with it.
    """
    steps = state.steps
    moving = [path for path in paths & state.live if not _rests(state, steps.get(path), now)]
    if len(moving) > 1:
        moving.sort(key=lambda each: (not _is_aborted(steps.get(each)), each))
    for path in moving:
        facts = _plan_path(definition, state, path, now, rules)
        if facts:
            return _undone_first(state, facts)
    return ()


def _rests(state: ExecutionState, step: StepState | None, now: datetime) -> bool:
    """Whether a live step only waits for its effect, a person or a later time."""
    return (
        step is not None
        and step.state == RUNNING
        and not step.is_around
        and step.action != "conditional"
        and (not state.signals or step.action != WAIT_FOR_EVENT)
        and (step.due_at is None or step.due_at > now)
        and (step.deadline_at is None or step.deadline_at > now)
    )


def _is_aborted(step: StepState | None) -> bool:
    return step is not None and step.state == FAILED and step.why == USER_ABORT


def _undone_first(state: ExecutionState, facts: Plan) -> Plan:
    """A failure of the whole execution comes after what it undoes."""
    last = facts[-1]
    return (*facts[:-1], compensation_first(state, last)) if isinstance(last, ev.Failed) else facts


def next_due(state: ExecutionState) -> datetime | None:
    """The earliest time at which `plan` has something new to say by itself.

    None when only others can move it.
    """
    if state.state == PENDING:
        return state.start_at or state.created_at
    if state.state == PAUSED:
        return due_while_paused(state)
    due = [state.deadline_at] if state.deadline_at is not None and state.live else []
    for path in state.live:
        step = state.steps.get(path)
        if step is not None:
            due += [each for each in (step.due_at, step.deadline_at) if each is not None]
    due += [lane.deadline_at for lane in state.lanes.values() if lane.deadline_at is not None]
    return min(due, default=None)


def running_actions(definition: Definition, state: ExecutionState) -> list[str]:
    """Paths of the live tries whose effect a worker has to perform, in order."""
    found = []
    for path in sorted(state.live):
        step = state.steps.get(path)
        if step is None or step.state != RUNNING:
            continue
        if step.child_id is not None:
            continue  # the execution that it runs is claimed for itself
        if step.dispatched is not None:
            continue  # somebody outside has it, and answers, or the step times out
        declared = declared_at(definition, path)
        if isinstance(declared, ActionStep | ValidateStep | SubWorkflowStep):
            found.append(path)
    return found


def _start(definition: Definition, state: ExecutionState, now: datetime) -> Plan:
    if state.start_at is not None and state.start_at > now:
        return ()
    seconds = definition.timeout_seconds
    deadline = None if seconds is None else now + timedelta(seconds=seconds)
    return (ev.Started(state.attempt, deadline),)


def _plan_path(
    definition: Definition, state: ExecutionState, path: str, now: datetime, rules: RecoveryRules
) -> Plan:
    if path == START:
        return _go_on(definition, state, definition.start_step, START, now)
    step = state.steps[path]
    declared = declared_at(definition, path, step.action)
    if step.state in STEP_ENDED:
        return _after(definition, state, path, step, now)
    if step.state != RUNNING:
        return plan_recovering(definition, state, path, now, rules)
    if isinstance(declared, WaitForEventStep):
        return plan_wait_for_event(definition, state, path, declared, now, rules)
    if step.deadline_at is not None and step.deadline_at <= now and not _waited(step):
        failed = fail_step(
            state, path, STEP_TIMEOUT, "timeout", _too_slow(declared, step), retryable=True
        )
        return with_recovery(definition, state, failed, now, rules)
    return _plan_running(definition, state, path, declared, now, rules)


def _plan_running(
    definition: Definition,
    state: ExecutionState,
    path: str,
    declared: Step,
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    match declared:
        case WaitStep():
            return _plan_wait(state, path, state.steps[path], now)
        case ConditionalStep():
            return _plan_conditional(definition, state, path, declared, now, rules)
        case ParallelStep():
            return plan_parallel(definition, state, path, declared, now, rules)
        case LoopStep():
            return plan_loop(definition, state, path, declared, now, rules)
        case ForkJoinStep():
            return plan_fork(definition, state, path, declared, now, rules)
        case (
            HumanTaskStep() | ActionStep() | ValidateStep() | SubWorkflowStep() | WaitForEventStep()
        ):
            return ()


def _too_slow(declared: Step, step: StepState) -> str:
    begun, deadline, seconds = step.started_at, step.deadline_at, declared.timeout_seconds
    if begun is None or deadline is None or seconds is None:
        return "The step did not end within the time that was left for its recovery."
    if deadline - begun >= timedelta(seconds=seconds):
        return f"The step did not end within {seconds:g} seconds."
    return "The step did not end within the time that was left for its recovery."


def _waited(step: StepState) -> bool:
    """Whether a wait was over before its time-out, though nobody was there to see it."""
    due, deadline = step.due_at, step.deadline_at
    return due is not None and deadline is not None and due <= deadline


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
    declared: ConditionalStep,
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    step = state.steps[path]
    if step.branch is None:
        return tuple(_take_branch(state, path, declared))
    if step.child is None:
        return (complete_composite(state, path, _branch_output(declared, step, None)),)
    child, inside = state.steps.get(step.child), declared_at(definition, step.child)
    if child is None or child.state == PENDING:
        return tuple(begin_step(inside, state, step.child, path, now))
    if child.state not in STEP_ENDED or _is_aborted(child):
        return ()
    if child.state == FAILED and inside.critical and is_contained(definition, declared):
        return fail_around(definition, state, path, now, rules)
    if _is_fatal(inside, state, child):
        return ()
    if child.joined:
        frame = _branch_output(declared, step, None)
        return join_conditional(state, path, frame)
    return (complete_composite(state, path, _branch_output(declared, step, child.output)),)


def _take_branch(
    state: ExecutionState, path: str, declared: ConditionalStep
) -> Iterator[ev.Payload]:
    found = declared.gate.condition.evaluate(StepScope(state, path))
    taken, other = declared.then_step, declared.else_step
    if not found.value:
        taken, other = other, taken
    attempt = state.attempt
    branch = "then" if found.value else "else"
    child = None if taken is None else child_path(path, taken)
    yield ev.BranchTaken(path, attempt, branch, child, found.error, _small(found.actual))
    if other is None:
        return
    passed_by = state.steps.get(child_path(path, other))
    if passed_by is None or passed_by.state == PENDING:
        yield ev.StepSkipped(child_path(path, other), attempt, path, "branch_not_taken", None)


def _small(value: Json) -> Json:
    """The value a condition looked at, where it is worth keeping in the log."""
    return (
        value
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 256)
        else None
    )


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


def _after(
    definition: Definition, state: ExecutionState, path: str, step: StepState, now: datetime
) -> Plan:
    """`path` has ended: the execution fails with it, or the next step begins."""
    if is_aside(path):
        return ()  # the step that it was done for looks at it
    if _is_aborted(step):
        return (_failed_with(state, step, path),)
    declared = definition.steps[step_id_of(path)]
    around = definition.steps.get(declared.parent)
    if isinstance(around, LoopStep | ForkJoinStep):
        return go_on_in_lane(definition, state, path, around, now)
    if around is not None and is_contained(definition, declared):
        return ()  # its composite is live too and looks at its children
    if _is_fatal(declared, state, step):
        return (_failed_with(state, step, path),)
    if around is not None:
        return ()
    return _go_on(definition, state, declared.next_step, path, now)


def _is_fatal(declared: Step, state: ExecutionState, step: StepState) -> bool:
    if step.state != FAILED:
        return False
    return _is_aborted(step) or (declared.critical and state.atomic_mode != "lenient")


def _go_on(
    definition: Definition, state: ExecutionState, step_id: str | None, after: str, now: datetime
) -> Plan:
    """Begin `step_id` of the main line, or what follows it where an earlier attempt finished it."""
    while step_id is not None and (step := state.steps.get(step_id)) is not None:
        if step.state == PENDING:
            break
        step_id = definition.steps[step_id].next_step
    if step_id is None:
        return (_verdict(definition, state),)
    return tuple(begin_step(definition.steps[step_id], state, step_id, after, now))


def _timed_out(state: ExecutionState, definition: Definition) -> ev.Failed:
    message = f"The execution did not end within {definition.timeout_seconds:g} seconds."
    path = min((each for each in state.live if each != START), default="")
    return ev.Failed(state.attempt, "timeout", "timeout", "execution_timeout", path, message)


def _failed_with(state: ExecutionState, step: StepState, path: str) -> ev.Failed:
    error = step.error
    code, error_class, message = (
        (error.code, error.error_class, error.message) if error else ("step_failed", "unknown", "")
    )
    reason = USER_ABORT if _is_aborted(step) else "critical_step"
    return ev.Failed(state.attempt, reason, error_class, code, path, message)


def _verdict(definition: Definition, state: ExecutionState) -> ev.Payload:
    """The main line has ended.

    Nothing failed is COMPLETED, also when all was skipped; lenient needs one success.
    """
    if state.atomic_mode == "lenient" and state.steps_failed and not has_worked(definition, state):
        message = "No step succeeded. Look at the steps' errors, then retry the execution."
        return ev.Failed(state.attempt, NO_SUCCESS, "unknown", NO_SUCCESS, "", message)
    partial = state.steps_failed > 0 or any(
        step.fan is not None and step.fan.flawed > 0 for step in state.steps.values()
    )
    try:
        output, path = _output(definition, state)
    except (UnresolvedReference, NotStorable) as error:
        return ev.Failed(state.attempt, "bad_output", "permanent", "bad_output", "", str(error))
    return ev.Completed(state.attempt, partial, output, path)


def _output(definition: Definition, state: ExecutionState) -> tuple[Json, str | None]:
    """The output, or null and the path of the composite that has it."""
    if definition.output is not None:
        return check_storable(definition.output.resolve(StepScope(state, ""))), None
    for step_id in reversed(tuple(definition.main_line())):
        step = state.steps.get(step_id)
        if step is not None and step.state == COMPLETED:
            return (None, step_id) if step.joined else (step.output, None)
    return None, None
