"""What to do about a refusal: the command that shows what is there, or what to correct."""

from shlex import quote
from typing import Any, Final

from interfaces.cli_failures import ExitCode

Problem = dict[str, Any]
"""A refusal as the REST interface tells it; empty when something else answered."""

_LISTS: Final = {
    "agents": "`flowledger agents list` shows which there are.",
    "dead-letters": "`flowledger dead-letters list --all` shows which there are.",
    "executions": "`flowledger list` shows which there are.",
    "workflows": "`flowledger workflow list` shows which there are.",
}
_BY_CODE: Final = {
    "agent_exists": "`flowledger agents list` shows which there are; choose another name.",
    "diagram_too_large": "Ask for --format json, and draw a part of it.",
    "idempotency_key_reused": "Give another --key for another request.",
    "log_damaged": "docs/how-to/back-up-and-restore.md says how to compare it and to restore it.",
    "no_encryption_key": "Write '${secret.NAME}' instead, or let the process that answers have "
    "FLOWLEDGER_ENCRYPTION_KEY (`flowledger make-key` prints one).",
    "workflow_inactive": "`flowledger workflow list` shows which are active.",
}
_CORRECT_IT: Final = "Correct it, then try again; --help says what each option takes."


def next_step(code: ExitCode, problem: Problem) -> str:
    """One sentence for people; empty when there is nothing to do about it here."""
    known = _BY_CODE.get(problem.get("code", ""))
    if known is not None:
        return known
    kind, name, rest = _place(problem)
    match code:
        case ExitCode.NOT_FOUND:
            return _what_there_is(problem, kind, name, rest)
        case ExitCode.CONFLICT if problem.get("current_status"):
            allowed = ", ".join(problem.get("allowed_actions") or ()) or "nothing"
            return f"It is {problem['current_status']}; possible now: {allowed}."
        case ExitCode.CONFLICT if problem.get("code") == "step_not_reached":
            return f"`flowledger diagram {name}` shows its steps, and how far each of them came."
        case ExitCode.CONFLICT:
            return _look_again(kind, name)
        case ExitCode.NOT_READY:
            return "Try again in a moment; `flowledger doctor` says what is wrong if it stays so."
        case ExitCode.UNEXPECTED:
            number = problem.get("request_id")
            return f"This is a defect; the server's log has more under request {number}."
        case ExitCode.INVALID if problem.get("code") == "invalid_input" and kind == "workflows":
            return f"`flowledger workflow show {name}` shows its input_schema; correct --input."
        case ExitCode.INVALID:
            return _CORRECT_IT
        case _:
            return ""


def _place(problem: Problem) -> tuple[str, str, str]:
    """What was asked for, its name, and what was wanted of it, from the path of the request."""
    path = str(problem.get("path") or "").partition("/api/v1/")[2]
    kind, _, rest = path.partition("/")
    name, _, rest = rest.partition("/")
    return kind, quote(name), rest


def _what_there_is(problem: Problem, kind: str, name: str, rest: str) -> str:
    pointers = [mistake.get("pointer") for mistake in problem.get("errors") or ()]
    if kind == "executions" and rest.startswith("steps/") and pointers == ["/path"]:
        return f"`flowledger diagram {name}` shows its steps."
    if kind == "executions" and pointers == ["/question_id"]:
        return f"`flowledger questions {name}` shows what it asked."
    everything = "`flowledger list` and `flowledger workflow list` show what there is."
    return _LISTS.get(kind, everything)


def _look_again(kind: str, name: str) -> str:
    looks = {"agents": "agents show", "executions": "explain", "workflows": "workflow show"}
    look = f" (`flowledger {looks[kind]} {name}`)" if kind in looks and name != quote("") else ""
    return f"Look at it again{look}, then decide."
