"""Why an execution does not move, what it waits for, what each verb would do: in plain English.

All sentences are made of the state, its queue row and the `now` that the caller gives. The
verbs are told in `application/verb_effects.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from application.diagram_style import time_text
from application.plain_words import clean, count, names, step_words, when
from application.ports import QueueRow
from application.verb_effects import VerbEffect, verb_effects
from application.views import WaitView, waiting_on
from domain.agent_names import AGENT, KAFKA, agent_of
from domain.compensation import undone_paths
from domain.definition import Definition, step_id_of
from domain.execution import ExecutionState
from domain.execution_state import Pause
from domain.lifecycle import CANCELLING, COMPENSATING
from domain.verbs import allowed_actions

_WAITED_FOR: Final = {
    "human_task": "a person",
    "question": "a person",
    "signal": "a signal",
    "child": "an execution that it runs",
    AGENT: "an agent",
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing it waits for. `kind`, `path` and `until` as in WaitView; `sentence` says it."""

    kind: str
    path: str
    until: datetime | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`why_not_moving` is None while a worker is busy with it."""

    summary: str
    why_not_moving: str | None
    waiting_on: Sequence[Waiting]
    verbs: Sequence[VerbEffect]


def explain(
    state: ExecutionState, definition: Definition, queue_row: QueueRow | None, now: datetime
) -> Explanation:
    """The explanation as of `now`; `queue_row` None when the execution has none."""
    return Explanation(
        summary=_summary(state),
        why_not_moving=_why_not_moving(state, queue_row, now),
        waiting_on=[_waiting(state, wait, now) for wait in waiting_on(state)],
        verbs=verb_effects(state, definition),
    )


# ---------------------------------------------------------------------------------------- the state


def _summary(state: ExecutionState) -> str:
    attempt = f" in attempt {state.attempt}" if state.attempt > 1 else ""
    steps = _steps_done(state)
    match state.state:
        case "PENDING":
            return f"The execution has not started{attempt or ' yet'}."
        case "COMPLETED" if state.partial:
            return (
                f"The execution completed{attempt}{when(state.completed_at)}, although "
                f"{count(state.steps_failed, 'step') if state.steps_failed else 'steps'} "
                "that may fail did."
            )
        case "COMPLETED":
            return f"The execution completed{attempt}{when(state.completed_at)}."
        case "FAILED":
            failed = f"The execution failed{attempt}{when(state.completed_at)}"
            return f"{failed}; {steps}. {_cause(state)}"
        case "CANCELLED":
            reason = f": {clean(state.cancel_reason)}" if state.cancel_reason else "."
            by = f" by {clean(state.cancelled_by)}" if state.cancelled_by else ""
            return (
                f"The execution was cancelled{attempt}{by}{when(state.cancelled_at)}; "
                f"{steps}{reason}"
            )
    if state.state == COMPENSATING:
        return f"The execution failed{attempt} and undoes what it has done. {_cause(state)}"
    if state.state == CANCELLING:
        return f"The execution is being cancelled{attempt} and undoes what it has done."
    if state.pause is not None:
        return f"The execution is paused{attempt}{_paused(state.pause)}; {steps}."
    return f"The execution is running{attempt}; {steps}."


def _steps_done(state: ExecutionState) -> str:
    counted = f"{state.steps_done} of {state.steps_total} steps"
    undone = sorted(undone_paths(state))
    if not undone:
        return f"{counted} are done"
    verb = "are" if len(undone) > 1 else "is"
    return f"{counted} were done, but {names(undone)} {verb} undone again"


def _paused(pause: Pause) -> str:
    reason = f" ({clean(pause.reason)})" if pause.reason else ""
    return f" by {clean(pause.by)} since {time_text(pause.since)}{reason}"


def _cause(state: ExecutionState) -> str:
    error = state.error
    if error is None:
        return "No cause is recorded."
    where = f"Step {step_id_of(error.path)!r}" if error.path else "The execution"
    return f"{where}: {error.code} ({error.error_class}). {clean(error.message)}"


def _why_not_moving(state: ExecutionState, row: QueueRow | None, now: datetime) -> str | None:
    if state.terminal:
        again = "retry" in allowed_actions(state)
        verb = "Only a retry can move it again." if again else "It stays as it is."
        return f"It has ended: {state.status}. {verb}"
    if state.pause is not None:
        return f"It is paused{_paused(state.pause)}. Nothing new begins until it is resumed."
    if row is None:
        return (
            "It has no row in the work queue, so no worker can find it. That is a fault of the "
            "queue, not of the workflow: `flowledger doctor` looks for it."
        )
    if row.leased and row.lease_until is not None and row.lease_until <= now:
        return (
            f"The worker that had it has not been heard of since its lease ended at "
            f"{time_text(row.lease_until)}. The next free worker takes it over."
        )
    if row.leased:
        return None
    if row.ready_at is not None and row.ready_at <= now:
        return (
            f"It has been ready since {time_text(row.ready_at)} and no worker has taken it yet. "
            "If that lasts, look whether a worker runs and has room."
        )
    return _nothing_due(state, row)


def _nothing_due(state: ExecutionState, row: QueueRow) -> str:
    kinds = {wait.kind for wait in waiting_on(state)}
    if kinds & _WAITED_FOR.keys():
        first = min(kinds & _WAITED_FOR.keys())
        return f"It waits for {_WAITED_FOR[first]}." + _next_look(
            row, " At the latest it moves at {}."
        )
    return "Nothing is due now." + _next_look(row, " It goes on by itself at {}.")


def _next_look(row: QueueRow, sentence: str) -> str:
    return "" if row.ready_at is None else sentence.format(time_text(row.ready_at))


# ----------------------------------------------------------------------------- what it waits for


def _waiting(state: ExecutionState, wait: WaitView, now: datetime) -> Waiting:
    return Waiting(wait.kind, wait.path, wait.until, _wait_sentence(state, wait, now))


def _wait_sentence(state: ExecutionState, wait: WaitView, now: datetime) -> str:
    match wait.kind:
        case "start":
            return f"Its start{_until(wait, now)}." if wait.until else "A worker that starts it."
        case "resume":
            ends = f"; without that it fails at {time_text(wait.until)}" if wait.until else ""
            return f"A person who resumes it{ends}."
        case "question" | "signal" | "child" | "human_task" | "agent":
            return _others_turn(state, wait)
    return _engines_turn(state, wait, now)


def _engines_turn(state: ExecutionState, wait: WaitView, now: datetime) -> str:
    step = step_words(wait.path)
    match wait.kind:
        case "timer":
            return f"{step} waits{_until(wait, now)}."
        case "retry":
            coming = state.steps[wait.path].try_no + 1
            cause = f" The last try failed: {clean(wait.detail)}" if wait.detail else ""
            return f"{step} is tried again (try {coming}){_until(wait, now)}.{cause}"
        case "alternative":
            return f"{step} failed; its alternative {clean(wait.detail)!r} is about to begin."
        case "compensation":
            return f"{step} is about to be undone."
    agent = agent_of(wait.detail)
    done_by = clean(wait.detail) if agent is None else f"a worker calls agent {clean(agent)!r}"
    what = f"{done_by}{_try_words(state, wait.path)}"
    return f"{step} has begun ({what}) and has not ended yet{_limit(wait)}."


def _others_turn(state: ExecutionState, wait: WaitView) -> str:
    step, limit = step_words(wait.path), _limit(wait)
    match wait.kind:
        case "question":
            asked = _question_sentence(state, wait)
            return f"{step} failed and a person is asked what to do{limit}. {asked}"
        case "signal":
            return f"{step} waits for the signal {clean(wait.detail)!r}{limit}."
        case "child":
            return f"{step} waits for child {wait.detail}{_child_name(state, wait)}{limit}."
        case "agent":
            who = f"agent {clean(wait.detail)!r}"
            return f"{step} waits for {who}{limit}{_task_words(state, wait)}."
    return f"{step} waits for a person{limit}. {_task_sentence(state, wait)}"


def _task_words(state: ExecutionState, wait: WaitView) -> str:
    """How the task reached the agent, and since when it is out."""
    task = state.steps[wait.path].dispatched
    if task is None:
        return ""
    if task.transport == KAFKA:
        way = "is out over Kafka, and its result is to come back the same way"
    else:
        way = "is there for one of its workers to take"
    tries = _try_words(state, wait.path)
    return f": task {task.task_id}{tries} {way}, since {time_text(task.since)}"


def _child_name(state: ExecutionState, wait: WaitView) -> str:
    names = [c.workflow_name for c in state.children.values() if str(c.id) == wait.detail]
    return f" of workflow {clean(names[0])!r}" if names else ""


def _task_sentence(state: ExecutionState, wait: WaitView) -> str:
    task = state.tasks.get(wait.detail or "")
    if task is None:
        return ""
    who = f", assigned to {clean(task.assigned_to)}" if task.assigned_to else ""
    way = f"POST /api/v1/human-tasks/{task.id}/complete"
    return f"Task {task.id} ({clean(task.title)}{who}) ends with {way}."


def _question_sentence(state: ExecutionState, wait: WaitView) -> str:
    question = state.questions.get(wait.detail or "")
    if question is None:
        return ""
    options = ", ".join(clean(each) for each in question.options)
    return f"Question {question.id} takes one of {options}, or a text."


def _try_words(state: ExecutionState, path: str) -> str:
    step = state.steps[path]
    words = f", try {step.try_no}" if step.try_no > 1 else ""
    return words + (f", delivery {step.delivery}" if step.delivery > 1 else "")


def _until(wait: WaitView, now: datetime) -> str:
    if wait.until is None:
        return ""
    if wait.until <= now:
        return f" since {time_text(wait.until)}, which has passed: it is a worker's turn"
    return (
        f" until {time_text(wait.until)}"
        if wait.kind != "retry"
        else f" at {time_text(wait.until)}"
    )


def _limit(wait: WaitView) -> str:
    return f", at the latest until {time_text(wait.until)}" if wait.until is not None else ""
