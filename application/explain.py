"""Why an execution does not move, what it waits for, what each verb would do: in plain English.

All sentences are made of the state, its queue row and the `now` that the caller gives. Rules are
not repeated here: what retry would undo is asked of the retry decision itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from application.diagram_lanes import states_by_step
from application.diagram_style import printable, time_text
from application.ports import QueueRow
from application.views import WaitView, waiting_on
from domain.decisions import VERBS, allowed_actions, retry
from domain.definition import Definition, ForkJoinStep, is_aside, owner_of, step_id_of
from domain.draft import Draft
from domain.events import Meta, Retried
from domain.execution import ExecutionState, StepState
from domain.lane_paths import iteration_around
from domain.lifecycle import (
    CANCELLED,
    CANCELLING,
    COMPENSATING,
    COMPLETED,
    FAILED,
    SKIPPED,
    STEP_ENDED,
)
from domain.reopening import was_reached

_WAITED_FOR: Final = {
    "human_task": "a person",
    "question": "a person",
    "signal": "a signal",
    "child": "an execution that it runs",
}
NAMES_MAX: Final = 12
MESSAGE_MAX: Final = 300
_STAYS: Final = frozenset({COMPLETED, SKIPPED})
"""How something has ended that a retry does not begin anew."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing it waits for. `kind`, `path` and `until` as in WaitView; `sentence` says it."""

    kind: str
    path: str
    until: datetime | None
    sentence: str


@dataclass(frozen=True, slots=True)
class VerbEffect:
    """What a verb would do, or why it is not possible now."""

    verb: str
    allowed: bool
    effect: str


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
        verbs=[
            *(_verb(state, definition, verb) for verb in VERBS),
            *(_signalling(each) for each in waiting_on(state) if each.kind == "signal"),
        ],
    )


# ---------------------------------------------------------------------------------------- the state


def _summary(state: ExecutionState) -> str:
    attempt = f" in attempt {state.attempt}" if state.attempt > 1 else ""
    steps = f"{state.steps_done} of {state.steps_total} steps are done"
    match state.state:
        case "PENDING":
            return f"The execution has not started{attempt or ' yet'}."
        case "COMPLETED" if state.partial:
            return (
                f"The execution completed{attempt}{_when(state.completed_at)}, although "
                f"{_count(state.steps_failed, 'step') if state.steps_failed else 'steps'} "
                "that may fail did."
            )
        case "COMPLETED":
            return f"The execution completed{attempt}{_when(state.completed_at)}."
        case "FAILED":
            failed = f"The execution failed{attempt}{_when(state.completed_at)}"
            return f"{failed}; {steps}. {_cause(state)}"
        case "CANCELLED":
            reason = f": {_clean(state.cancel_reason)}" if state.cancel_reason else "."
            by = f" by {_clean(state.cancelled_by)}" if state.cancelled_by else ""
            return (
                f"The execution was cancelled{attempt}{by}{_when(state.cancelled_at)}; "
                f"{steps}{reason}"
            )
    if state.state == COMPENSATING:
        return f"The execution failed{attempt} and undoes what it has done. {_cause(state)}"
    if state.state == CANCELLING:
        return f"The execution is being cancelled{attempt} and undoes what it has done."
    return f"The execution is running{attempt}; {steps}."


def _cause(state: ExecutionState) -> str:
    error = state.error
    if error is None:
        return "No cause is recorded."
    where = f"Step {step_id_of(error.path)!r}" if error.path else "The execution"
    return f"{where}: {error.code} ({error.error_class}). {_clean(error.message)}"


def _why_not_moving(state: ExecutionState, row: QueueRow | None, now: datetime) -> str | None:
    if state.terminal:
        verb = "Only a retry can move it again." if allowed_actions(state) else "It stays as it is."
        return f"It has ended: {state.status}. {verb}"
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
    step = _step_words(wait.path)
    match wait.kind:
        case "start":
            return f"Its start{_until(wait, now)}." if wait.until else "A worker that starts it."
        case "timer":
            return f"{step} waits{_until(wait, now)}."
        case "retry":
            coming = state.steps[wait.path].try_no + 1
            cause = f" The last try failed: {_clean(wait.detail)}" if wait.detail else ""
            return f"{step} is tried again (try {coming}){_until(wait, now)}.{cause}"
        case "alternative":
            return f"{step} failed; its alternative {_clean(wait.detail)!r} is about to begin."
        case "compensation":
            return f"{step} is about to be undone."
        case "question":
            return (
                f"{step} failed and a person is asked what to do{_limit(wait)}. "
                f"{_question_sentence(state, wait)}"
            )
        case "signal":
            return f"{step} waits for the signal {_clean(wait.detail)!r}{_limit(wait)}."
        case "child":
            return f"{step} waits for child {wait.detail}{_child_name(state, wait)}{_limit(wait)}."
        case "human_task":
            return f"{step} waits for a person{_limit(wait)}. {_task_sentence(state, wait)}"
    what = f"{_clean(wait.detail)}{_try_words(state, wait.path)}"
    return f"{step} has begun ({what}) and has not ended yet{_limit(wait)}."


def _step_words(path: str) -> str:
    """The step, or what is done in its place or to undo it."""
    name, aside = _name(owner_of(path)), path.partition("~")[2]
    if aside == "undo":
        return f"The compensation of step {name!r}"
    return f"Alternative {aside[4:]!r} of step {name!r}" if aside else f"Step {name!r}"


def _child_name(state: ExecutionState, wait: WaitView) -> str:
    names = [c.workflow_name for c in state.children.values() if str(c.id) == wait.detail]
    return f" of workflow {_clean(names[0])!r}" if names else ""


def _task_sentence(state: ExecutionState, wait: WaitView) -> str:
    task = state.tasks.get(wait.detail or "")
    if task is None:
        return ""
    who = f", assigned to {_clean(task.assigned_to)}" if task.assigned_to else ""
    return (
        f"Task {task.id} ({_clean(task.title)}{who}) ends with "
        f"POST /human-tasks/{task.id}/complete."
    )


def _question_sentence(state: ExecutionState, wait: WaitView) -> str:
    question = state.questions.get(wait.detail or "")
    if question is None:
        return ""
    options = ", ".join(_clean(each) for each in question.options)
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


# ------------------------------------------------------------------------- what verbs would do


def _verb(state: ExecutionState, definition: Definition, verb: str) -> VerbEffect:
    allowed = verb in allowed_actions(state)
    if verb == "cancel":
        return VerbEffect(verb, allowed, _cancelling(state, definition, allowed))
    return VerbEffect(verb, allowed, _retrying(state, definition, allowed))


def _signalling(wait: WaitView) -> VerbEffect:
    effect = f"{_step_words(wait.path)} takes the signal {_clean(wait.detail)!r} and goes on."
    return VerbEffect("signal", True, effect)


def _cancelling(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    if state.state in (CANCELLED, CANCELLING):
        already = "cancelled" if state.state == CANCELLED else "being cancelled"
        return f"It is {already} already; asking again changes nothing."
    if not allowed:
        return f"It is {state.status}; only what has not ended can be cancelled."
    live = _in_order(definition, (path for path in state.live if _is_open(state, path)))
    parts = []
    if live:
        parts.append(f"Interrupts {_names(live)}; a result that still comes is ignored.")
    never = _never_reached(state, definition)
    if never:
        parts.append(f"Never runs {_names(never)}.")
    undone = list(reversed(state.to_undo))
    parts.append(
        f"First undoes {_names(undone)}, in this order. A retry can reopen it."
        if undone
        else "Finished steps are not undone. A retry can reopen it."
    )
    return " ".join(parts)


def _is_open(state: ExecutionState, path: str) -> bool:
    step = state.steps.get(path)
    return step is not None and step.state not in STEP_ENDED and not step.is_around


def _retrying(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    if not allowed:
        return f"It is {state.status}; only FAILED and CANCELLED executions can be retried."
    reset = _reset_by_retry(state, definition)
    again = [path for path in reset if state.steps[path].state in (COMPLETED, FAILED, CANCELLED)]
    anew = [path for path in reset if state.steps[path].state == SKIPPED]
    kept = _in_order(
        definition,
        (p for p, step in state.steps.items() if p not in reset and step.state == COMPLETED),
    )
    return " ".join(
        (f"Starts attempt {state.attempt + 1}.", *_retry_sentences(state, definition, again, anew))
        + ((f"Keeps the results of {_names(kept)}.",) if kept else ())
    )


def _retry_sentences(
    state: ExecutionState, definition: Definition, again: list[str], anew: list[str]
) -> Iterator[str]:
    if again:
        yield f"Runs {_names(again)} again."
    if anew:
        yield f"Decides anew about {_names(anew)}."
    never = _never_reached(state, definition, retried=True)
    if never:
        yield f"Then comes, for the first time, {_names(never)}."


def _reset_by_retry(state: ExecutionState, definition: Definition) -> list[str]:
    """The paths that a plain retry would undo."""
    draft = Draft(state, Meta(state.updated_at, "explain", "explain"))
    retry(draft, definition, None, None)
    (event,) = draft.events
    return _in_order(definition, event.data.reset if isinstance(event.data, Retried) else ())


def _in_order(definition: Definition, paths: Iterable[str]) -> list[str]:
    """Paths in the order in which the definition lists their steps."""
    place = {step_id: number for number, step_id in enumerate(definition.steps)}
    own = (path for path in paths if not is_aside(path))
    return sorted(own, key=lambda path: place[step_id_of(path)])


def _never_reached(
    state: ExecutionState, definition: Definition, *, retried: bool = False
) -> list[str]:
    """Steps without a record that still could run, or could after a retry."""
    undoing = {declared.compensate_with for declared in definition.steps.values()}
    shown = {step_id: step for step_id, (_, step) in states_by_step(state).items()}
    return [
        step_id
        for step_id in definition.steps
        if step_id not in shown
        and step_id not in undoing
        and not _is_closed(definition, shown, step_id, _STAYS if retried else STEP_ENDED)
        and not was_reached(definition, state, step_id)
    ]


def _is_closed(
    definition: Definition,
    shown: Mapping[str, StepState],
    step_id: str,
    ended: AbstractSet[str],
) -> bool:
    """Whether something around a step has ended, or the branch that it lies in."""
    while parent := definition.steps[step_id].parent:
        around, declared = shown.get(parent), definition.steps[parent]
        if around is not None and around.state in ended:
            return True
        if around is not None and around.fan is not None and isinstance(declared, ForkJoinStep):
            branch = next(each.name for each in declared.branches if step_id in each.steps)
            end = around.fan.ends.get(branch)
            if end is not None and end.state in ended:
                return True
        step_id = parent
    return False


# -------------------------------------------------------------------------------------------- words


def _names(paths: Sequence[str]) -> str:
    shown = [repr(_name(path)) for path in paths[:NAMES_MAX]]
    if len(paths) > NAMES_MAX:
        return f"{', '.join(shown)} and {len(paths) - NAMES_MAX} more"
    return " and ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else shown[0]


def _name(path: str) -> str:
    """The step's id; in a loop its path, for there it is one of many."""
    return printable(path if iteration_around(path) else step_id_of(path))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _when(at: datetime | None) -> str:
    return "" if at is None else f" at {time_text(at)}"


def _clean(text: str | None) -> str:
    return printable(text or "", MESSAGE_MAX)
