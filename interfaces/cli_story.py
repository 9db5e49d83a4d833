"""Events of an execution as sentences for people, e.g. `book failed: HTTP 503 (transient)`."""

import json
from collections.abc import Callable

from interfaces.cli_output import short_duration
from interfaces.cli_session import Body

_TEXT_CHARACTERS_MAX = 160


def sentence(event: Body) -> str:
    """One event in a few words; one that this release does not know is named by its topic."""
    tell = _SENTENCES.get(str(event.get("type")))
    return tell(event.get("data") or {}) if tell else str(event.get("topic"))


def _step(data: Body) -> str:
    tries = data.get("try_no") or 1
    return f"{data.get('path')}" + (f" (try {tries})" if tries > 1 else "")


def _short(value: object) -> str:
    """A text of somebody else on one line and cut, so that no such text passes for an event."""
    text = " ".join(str(value or "").split())
    if len(text) > _TEXT_CHARACTERS_MAX:
        text = text[: _TEXT_CHARACTERS_MAX - 3] + "..."
    return text


def _message(data: Body) -> str:
    return _short(data.get("message") or data.get("code"))


def _because(data: Body) -> str:
    reason = _short(data.get("reason"))
    return f": {reason}" if reason else ""


def _given(data: Body, name: str) -> str:
    """What a person sent along as a value; nothing for one that sent none."""
    value = data.get(name)
    return "" if value is None else f" with {_short(json.dumps(value, ensure_ascii=False))}"


def _requested(data: Body) -> str:
    version = data.get("workflow_version")
    later = f", to start at {data['start_at']}" if data.get("start_at") else ""
    return f"requested: {data.get('workflow_name')} version {version}{later}"


def _branch(data: Body) -> str:
    outcome = "true" if data.get("branch") == "then" else "false"
    child = str(data.get("child") or "").rpartition("/")[2]
    then = f"so {child} runs" if child else "nothing to run there"
    return f"{data.get('path')}: the condition is {outcome}, {then}"


def _lane(data: Body, name: str) -> str:
    failed = f" failed: {_message(data)}" if data.get("state") == "FAILED" else " is done"
    return f"{data.get('path')}: {name}{failed}"


def _joined(data: Body) -> str:
    names = ", ".join(data.get("cancelled") or ())
    left = f"; not needed any more: {names}" if names else ""
    return f"{data.get('path')}: all that it waits for has ended{left}"


def _skipped(data: Body) -> str:
    return f"{data.get('path')} skipped ({str(data.get('why')).replace('_', ' ')})"


def _retry(data: Body) -> str:
    delay = short_duration(data.get("delay_ms"))
    return f"{data.get('path')} will be tried again in {delay} (try {data.get('try_no')})"


def _retried(data: Body) -> str:
    names = ", ".join(data.get("reset") or ()) or "nothing"
    return f"reopened as attempt {data.get('attempt')}; to run again: {names}{_because(data)}"


def _recovering(data: Body) -> str:
    ways = ", ".join(str(each).replace("_", " ") for each in data.get("strategies") or ())
    budget = data.get("budget_ms")
    within = "" if budget is None else f" within {short_duration(budget)}"
    return f"{data.get('path')} recovers{within} by {ways or 'what it may'}"


def _asked(data: Body) -> str:
    options = ", ".join(map(str, data.get("options") or ()))
    return f"{data.get('path')} asks a person ({data.get('question_id')}): {options}"


def _answered(data: Body) -> str:
    kind = " ".join(str(data[key]) for key in ("kind", "alternative") if data.get(key))
    return f"{data.get('path')}: the answer is {kind} ({_how_understood(data)}){_because(data)}"


def _how_understood(data: Body) -> str:
    read_as, answer = data.get("read_as"), _short(data.get("answer"))
    if read_as == "timeout":
        return "nobody in time"
    # An exact answer is what it was taken for; of any other the words are the only evidence.
    said = f' of "{answer}"' if answer and read_as != "exact" else ""
    return f"read as {read_as}{said}"


def _undoing(data: Body) -> str:
    return f"undoes what has finished: {', '.join(map(str, data.get('paths') or ()))}"


def _paused(data: Body) -> str:
    limit = f", until {data['due_at']} at most" if data.get("due_at") else ""
    return f"paused{limit}{_because(data)}"


def _settled(data: Body) -> str:
    output = _given(data, "output")
    return f"{_step(data)} {str(data.get('state')).lower()} by hand{output}{_because(data)}"


_SENTENCES: dict[str, Callable[[Body], str]] = {
    "requested": _requested,
    "started": lambda data: f"started, attempt {data.get('attempt')}",
    "step_started": lambda data: f"{_step(data)} started ({data.get('action') or 'step'})",
    "step_redelivered": lambda data: f"{_step(data)} handed to another worker",
    "step_progressed": lambda data: f"{_step(data)}: {_short(data.get('progress'))}",
    "step_completed": lambda data: f"{_step(data)} completed",
    "step_failed": lambda data: (
        f"{_step(data)} failed: {_message(data)} ({data.get('error_class')})"
    ),
    "step_skipped": _skipped,
    "branch_taken": _branch,
    "iteration_started": lambda data: f"{data.get('path')}: item {data.get('index')} begins",
    "iteration_finished": lambda data: _lane(data, f"item {data.get('index')}"),
    "branch_started": lambda data: f"{data.get('path')}: branch {data.get('branch')} begins",
    "branch_finished": lambda data: _lane(data, f"branch {data.get('branch')}"),
    "joined": _joined,
    "retry_scheduled": _retry,
    "recovery_started": _recovering,
    "alternative_selected": lambda data: (
        f"{data.get('path')} is rerouted to {data.get('id')} ({data.get('action')})"
    ),
    "question_asked": _asked,
    "question_answered": _answered,
    "recovery_succeeded": lambda data: (
        f"{data.get('path')} recovered by {str(data.get('strategy')).replace('_', ' ')}"
    ),
    "recovery_exhausted": lambda data: (
        f"{data.get('path')} did not recover: {str(data.get('reason')).replace('_', ' ')}"
    ),
    "compensation_started": _undoing,
    "compensation_finished": lambda data: f"{data.get('path')} is undone",
    "human_task_created": lambda data: (
        f"{data.get('path')} asks a person: {_short(data.get('title'))}"
    ),
    "human_task_completed": lambda data: (
        f"{data.get('path')} was done by a person{_given(data, 'result')}"
    ),
    "task_dispatched": lambda data: (
        f"{_step(data)} is a task of agent {data.get('agent')}, over {data.get('transport')}"
    ),
    "dispatch_failed": lambda data: f"the request could not be sent: {_short(data.get('reason'))}",
    "child_started": lambda data: (
        f"{data.get('path')} runs {data.get('workflow_id')} as {data.get('child_id')}"
    ),
    "child_ended": lambda data: f"{data.get('path')}: child is {data.get('state')}",
    "signal_received": lambda data: f"signal {data.get('name')} received{_given(data, 'payload')}",
    "signal_consumed": lambda data: f"{_step(data)} takes signal {data.get('number')}",
    "cancel_requested": lambda data: (
        f"cancel requested: {_short(data.get('reason')) or 'no reason given'}"
    ),
    "cancelled": lambda data: "CANCELLED",
    "completed": lambda data: "COMPLETED" + (" in part" if data.get("partial") else ""),
    "failed": lambda data: f"FAILED: {_message(data)}",
    "retried": _retried,
    "paused": _paused,
    "resumed": lambda data: f"resumed{_because(data)}",
    "step_settled": _settled,
    "forked_from": lambda data: (
        f"forked from {data.get('execution_id')} (version {data.get('version')}) "
        f"at {data.get('from_step')}{_because(data)}"
    ),
    "step_kept": lambda data: f"{data.get('path')} is kept, {str(data.get('state')).lower()}",
    "late_result_ignored": lambda data: f"{_step(data)}: a late result was ignored",
}
