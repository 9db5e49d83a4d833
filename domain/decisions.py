"""What a command makes of an execution.

One function per command, each records facts in a draft or refuses.

Legality comes from the table in `domain/lifecycle.py`, consequences from the planner. Source:
docs/explanation/architecture.md.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from msgspec import Struct, to_builtins

from domain import events as ev
from domain.answering import question_for, require_open
from domain.compensation import UNDOING, cancel_first, undone_paths
from domain.definition import Definition, step_id_of
from domain.draft import Draft
from domain.error_classes import ErrorLists, classify, status_of_failure
from domain.errors import Invalid, NotFound, StateConflict, TooManySignals
from domain.execution import ExecutionState, evolve
from domain.execution_state import HumanTask, Parent
from domain.json_values import Json, JsonObject
from domain.lane_paths import top_of
from domain.lifecycle import (
    CANCELLED,
    CANCELLING,
    PAUSED,
    RUNNING,
)
from domain.mistakes import Mistake
from domain.outcomes import complete_step, fail_step, has_worked, redeliver
from domain.planner import NO_SUCCESS, advance, running_actions
from domain.questions import ANSWER_CHARACTERS_MAX, understand
from domain.recovery import Plan, after_answer, record_all, with_recovery
from domain.recovery_config import RecoveryConfig, config_as_json
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules, strategies_of
from domain.reopening import around_failures, main_line_step, require_reached, undone_by_retry
from domain.signals import SIGNALS_KEPT_MAX
from domain.verbs import allowed_actions, require


class Request(Struct, frozen=True, kw_only=True):
    """What a new execution is made of. `definition` is set for an inline definition only."""

    workflow_id: str
    workflow_name: str
    workflow_version: int
    definition_id: UUID
    sha256: str
    steps_total: int
    input: JsonObject
    atomic_mode: str = "strict"
    priority: int = 5
    labels: dict[str, str] = {}
    start_at: datetime | None = None
    simulate: bool = False
    definition: JsonObject | None = None
    recovery: RecoveryConfig | None = None
    parent: Parent | None = None
    starts_by: str = "queue"


class Outcome(Struct, frozen=True):
    """How one try ended. `error_class` "" means success; then only `output` counts."""

    path: str
    attempt: int
    try_no: int
    epoch: int
    output: Json = None
    error_class: str = ""
    code: str = ""
    message: str = ""
    retryable: bool = True


def request(execution_id: UUID, wanted: Request, meta: ev.Meta) -> tuple[ExecutionState, ev.Event]:
    """The first event of an execution: it is PENDING from then on."""
    data = ev.Requested(
        workflow_id=wanted.workflow_id,
        workflow_name=wanted.workflow_name,
        workflow_version=wanted.workflow_version,
        definition_id=wanted.definition_id,
        sha256=wanted.sha256,
        steps_total=wanted.steps_total,
        atomic_mode=wanted.atomic_mode,
        priority=wanted.priority,
        labels=wanted.labels,
        start_at=wanted.start_at,
        simulate=wanted.simulate,
        definition=wanted.definition,
        input=wanted.input,
        recovery=None if wanted.recovery is None else config_as_json(wanted.recovery),
        parent=None if wanted.parent is None else to_builtins(wanted.parent),
        starts_by=wanted.starts_by,
    )
    event = ev.Event(execution_id, 1, meta, data)
    return evolve(None, event), event


def cancel(draft: Draft, reason: str | None) -> None:
    """CANCELLED at once, or, in strict mode, once what has finished is undone.

    Nothing to do when it already is, or is about to be.
    """
    if draft.state.state in (CANCELLED, CANCELLING):
        return
    require(draft.state, "cancel")
    draft.record(ev.CancelRequested(reason))
    draft.record(cancel_first(draft.state))


def retry(
    draft: Draft,
    definition: Definition,
    resume_from: str | None,
    reason: str | None,
    start_at: datetime | None = None,
) -> None:
    """The next attempt: what is finished stays, from `resume_from` on everything is done again."""
    state = draft.state
    require(state, "retry")
    undone = frozenset[str]()
    if resume_from is not None:
        undone = _reachable(definition, state, resume_from)
    if _nothing_worked(definition, state):
        undone |= around_failures(state)
    for path in state.steps:
        if path.endswith("~undo"):
            undone |= {path}
    for path in undone_paths(state):  # again, with all after it
        undone |= _reachable(definition, state, step_id_of(path))
    reset, reopened = undone_by_retry(state, undone)
    draft.record(ev.Retried(state.attempt + 1, reset, start_at, reason, reopened))


def _nothing_worked(definition: Definition, state: ExecutionState) -> bool:
    """Looked at, for an action may call its own failure so too."""
    ended_so = state.error is not None and state.error.code == NO_SUCCESS
    return ended_so and not has_worked(definition, state)


def resume(
    draft: Draft,
    definition: Definition,
    held: Iterable[str],
    epoch: int,
    now: datetime,
    rules: RecoveryRules = DEFAULT_RULES,
) -> None:
    """A worker took the execution over.

    Tries that no living worker runs (`held` are its own) are delivered again.
    """
    held = frozenset(held)
    state = draft.state
    overdue = state.deadline_at is not None and state.deadline_at <= now
    if state.state != PAUSED and not overdue:
        for path in running_actions(definition, draft.state):
            step = draft.state.steps[path]
            expired = step.deadline_at is not None and step.deadline_at <= now
            if path in held or expired:
                continue
            record_all(draft, redeliver(definition, draft.state, path, epoch, now, rules), now)
    advance(definition, draft, now, rules)


def settle(
    draft: Draft,
    definition: Definition,
    outcome: Outcome,
    now: datetime,
    *,
    go_on: bool = True,
    rules: RecoveryRules = DEFAULT_RULES,
) -> bool:
    """Record how a try ended and everything that follows; False when it came too late.

    Without `go_on` nothing new begins (a worker that shuts down): the next plan goes on from there.
    """
    state, path = draft.state, outcome.path
    step = state.steps.get(path)
    if (
        step is None
        or step.state != RUNNING
        or (step.attempt, step.try_no) != (outcome.attempt, outcome.try_no)
        or outcome.epoch < step.epoch  # the try was handed to another worker meanwhile
    ):
        draft.record(late(outcome))
        if go_on:  # with what made it late, which this worker may see now for the first time
            advance(definition, draft, now, rules)
        return False
    ended = (
        _failure(state, outcome, rules.errors)
        if outcome.error_class
        else complete_step(state, path, outcome.output, epoch=outcome.epoch)
    )
    facts: Plan = (ended,)
    if isinstance(ended, ev.StepFailed):
        facts = with_recovery(definition, state, ended, now, rules)
    record_all(draft, facts, now)
    if go_on:
        advance(definition, draft, now, rules)
    return True


def _failure(state: ExecutionState, outcome: Outcome, lists: ErrorLists) -> ev.StepFailed:
    status = status_of_failure(outcome.message, outcome.output)
    return fail_step(
        state,
        outcome.path,
        outcome.code,
        classify(outcome.error_class, outcome.message, status, lists),
        outcome.message,
        retryable=outcome.retryable,
        epoch=outcome.epoch,
        output=outcome.output,
    )


def late(outcome: Outcome) -> ev.LateResultIgnored:
    """The note that a result came too late."""
    ended = "failed" if outcome.error_class else "completed"
    if outcome.code in ("interrupted", "child_cancelled"):
        ended = outcome.code.removeprefix("child_")
    return ev.LateResultIgnored(
        outcome.path, outcome.attempt, outcome.try_no, outcome.epoch, ended, outcome.message or None
    )


def report_progress(draft: Draft, path: str, attempt: int, try_no: int, progress: Json) -> None:
    """A running try says how far it is; ignored once the try has ended."""
    step = draft.state.steps.get(path)
    if (
        step is not None
        and step.state == RUNNING
        and (step.attempt, step.try_no) == (attempt, try_no)
    ):
        draft.record(ev.StepProgressed(path, attempt, try_no, progress))


def answer(
    draft: Draft,
    definition: Definition,
    question_id: str | None,
    text: str,
    now: datetime,
    rules: RecoveryRules = DEFAULT_RULES,
    *,
    reason: str | None = None,
) -> None:
    """A person answers a question; None is the only open one. The same answer twice is no error.

    Raises NotFound, Invalid (an unknown alternative), StateConflict (answered otherwise, or nobody
    waits any more).
    """
    state = draft.state
    if len(text) > ANSWER_CHARACTERS_MAX:
        message = f"An answer has at most {ANSWER_CHARACTERS_MAX} characters."
        raise Invalid(message, [Mistake("/answer", "too_long", message)])
    question = question_for(state, question_id)
    understood = understand(text)
    if question.kind is not None and (understood.kind, understood.alternative) == (
        question.kind,
        question.alternative,
    ):
        return
    require_open(state, question, now)
    named = f"{understood.kind}:{understood.alternative}"
    if understood.alternative is not None and named not in question.options:
        message = f"The answer is one of {', '.join(question.options)}, or a text."
        raise Invalid(message, [Mistake("/answer", "bad_value", message)])
    usable = strategies_of(definition, state, question.path, rules).alternatives(rules)
    if understood.alternative is not None and understood.alternative not in usable:
        message = f"The server has no alternative {understood.alternative!r} any more."
        raise Invalid(message, [Mistake("/answer", "bad_value", message)])
    draft.record(
        ev.QuestionAnswered(question.id, question.path, question.attempt, *understood, text, reason)
    )
    follows = after_answer(definition, draft.state, question.path, understood, now, rules)
    draft.record(follows)


def signal(draft: Draft, name: str, payload: Json) -> None:
    """Somebody sends a signal; it is kept until a step takes it.

    Raises StateConflict once nothing can take it any more, TooManySignals.
    """
    state = draft.state
    if state.terminal or state.state in UNDOING:
        allowed = allowed_actions(state)
        raise StateConflict(
            f"An execution that is {state.status}"
            f"{'' if state.terminal else ' and undoes what it has done'} takes no signals.",
            current_status=state.status,
            allowed_actions=allowed,
        )
    if len(state.signals) >= SIGNALS_KEPT_MAX:
        raise TooManySignals(
            f"The execution keeps {len(state.signals)} signals that no step has taken, which is "
            "all it may."
        )
    draft.record(ev.SignalReceived(state.signals_received + 1, name, payload))


def complete_human_task(draft: Draft, task_id: str, result: Json) -> None:
    """A person did a task; a step that waits for it ends with the result.

    Raises NotFound, StateConflict, and Invalid for a result that cannot be kept.
    """
    state = draft.state
    task = state.tasks.get(task_id)
    if task is None:
        raise NotFound(
            f"There is no human task {task_id!r}. List the open ones with GET /api/v1/human-tasks."
        )
    if task.status == "DONE":
        raise StateConflict(f"Human task {task_id!r} is done already.", current_status="DONE")
    step = state.steps.get(task.path)
    waits = (
        step is not None
        and step.task_id == task_id
        and step.state == RUNNING
        and not state.terminal
    )
    if task.wait and not waits:
        raise StateConflict(
            f"The execution, {state.status}, does not wait for human task {task_id!r} any more.",
            current_status=state.status,
            allowed_actions=allowed_actions(state),
        )
    ended = _task_done(state, task, result) if waits else None
    draft.record(ev.HumanTaskCompleted(task_id, task.path, task.attempt, result))
    if ended is not None:
        record_all(draft, (ended,), draft.meta.at)


def _task_done(state: ExecutionState, task: HumanTask, result: Json) -> ev.StepCompleted:
    """The success of the step that waits. What cannot be kept is refused while somebody is there
    who can send less; taken, it would fail the step.
    """
    output: JsonObject = {
        "taskId": task.id,
        "title": task.title,
        "status": "DONE",
        "result": result,
    }
    ended = complete_step(state, task.path, output)
    if isinstance(ended, ev.StepFailed):
        raise Invalid(ended.message, [Mistake("/result", "too_large", ended.message)])
    return ended


def _reachable(definition: Definition, state: ExecutionState, step_id: str) -> frozenset[str]:
    """Paths of `step_id` and of everything after it on the main line, with what they hold."""
    require_reached(definition, state, step_id, "resume_from_step")
    line = list(definition.main_line())
    after = set(line[line.index(main_line_step(definition, step_id)) :])
    return frozenset(path for path in state.steps if top_of(path) in after)
