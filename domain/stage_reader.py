"""From the stages of recovery as they are written to their normal form, all defaults filled in.

A stage is `{"kind": "retry" | "alternative" | "ask", ...}`. Every mistake is noted with its place.
Reading a normal form gives the same form again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Final

from domain.agent_names import AGENT_NAME, AGENT_NAME_RULE, agent_action
from domain.error_classes import ERROR_CLASSES
from domain.json_values import Json, JsonObject, pointer_join
from domain.mistakes import Fields, Mistake, is_number
from domain.recovery_config import ATTEMPTS_MAX, MILLISECONDS_LIMIT, MULTIPLIER_MAX
from domain.recovery_stages import EXPONENTIAL, ON_TIMEOUT, RETRY_STRATEGIES
from domain.references import BadReferences, compile_template

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
WORKFLOW_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,160}\Z")
Place = tuple[str | int, ...]
ALTERNATIVES_MAX: Final = 100
FACTOR_MAX: Final = 1_000_000
_CHANGES_MAX: Final = 100
_STATUS_CODES_MAX: Final = 100
_INPUT_PATH: Final = re.compile(r"[^.]{1,128}(\.[^.]{1,128}){0,7}\Z", re.DOTALL)
_RETRY_FIELDS: Final = frozenset(
    [
        "attempts",
        "base_delay_ms",
        "multiplier",
        "max_delay_ms",
        "first_retry_at_once",
        "strategy",
        "jitter",
        "retry_on_errors",
        "retry_on_status_codes",
    ]
)
_ALTERNATIVE_FIELDS: Final = frozenset({"kind", "id", "when", "do", "input", "rule"})
ASK_FIELDS: Final = frozenset({"kind", "answer_timeout_ms", "on_timeout", "questions"})


def read_retry(step: Fields, raw: Json, *place: str | int) -> JsonObject:
    """The stage `retry`; 3 re-tries after 1, 2 and 4 seconds where nothing else is said."""
    if not isinstance(raw, dict):
        message = "retry is an object with attempts, base_delay_ms, multiplier, max_delay_ms."
        step.refuse("bad_value", message, *place)
        raw = {}
    fields = _inside(step, raw, *place)
    fields.refuse_others(_RETRY_FIELDS)
    return {
        "kind": "retry",
        "attempts": fields.whole("attempts", 0, ATTEMPTS_MAX, 3),
        "base_delay_ms": fields.whole("base_delay_ms", 0, MILLISECONDS_LIMIT, 1_000),
        "multiplier": fields.number("multiplier", 1, MULTIPLIER_MAX, 2.0),
        "max_delay_ms": fields.whole("max_delay_ms", 0, MILLISECONDS_LIMIT, 10_000),
        "first_retry_at_once": fields.flag("first_retry_at_once", False),
        "strategy": fields.choice("strategy", RETRY_STRATEGIES, EXPONENTIAL),
        "jitter": fields.flag("jitter", False),
        "retry_on_errors": fields.texts("retry_on_errors"),
        "retry_on_status_codes": read_status_codes(fields),
    }


def read_status_codes(fields: Fields) -> list[Json]:
    """`retry_on_status_codes`: HTTP statuses of failures."""
    codes = fields.raw.get("retry_on_status_codes")
    if codes is None:
        return []
    if not isinstance(codes, list) or len(codes) > _STATUS_CODES_MAX:
        message = f"retry_on_status_codes is a list of at most {_STATUS_CODES_MAX} HTTP statuses."
        fields.refuse("bad_value", message, "retry_on_status_codes")
        return []
    for index, code in enumerate(codes):
        if not is_number(code) or isinstance(code, float) or not 100 <= code <= 599:
            message = "An HTTP status is a whole number from 100 to 599."
            fields.refuse("out_of_range", message, "retry_on_status_codes", index)
    return list(codes)


def read_alternative(
    step: Fields, raw: Json, *place: str | int, own_action: str | None = None
) -> JsonObject:
    """The stage `alternative`; `own_action` is what the step around it does, if there is one."""
    if not isinstance(raw, dict):
        step.refuse("not_an_object", 'An alternative is {"id", "when", "do", "input"}.', *place)
        raw = {"id": "invalid", "do": {"action": "invalid"}}
    fields = _inside(step, raw, *place)
    fields.refuse_others(_ALTERNATIVE_FIELDS)
    if "rule" in raw:
        if raw.keys() - {"kind", "rule"}:
            fields.refuse("contradiction", "Give rule, or id, when, do and input.", "rule")
        return {"kind": "alternative", "rule": _id(fields, "rule")}
    (action, workflow, agent), changes = _work(fields), _changes(fields)
    done = action if agent is None else agent_action(agent)
    is_own = workflow is None and done in (None, own_action)
    if is_own and own_action == "create_task":
        message = "A person is not asked twice at once: name an action in do, or use a retry."
        fields.refuse("contradiction", message, *(["do"] if "do" in raw else []))
    elif is_own and not changes:
        message = (
            "This alternative is the step itself: name other work in do, or change the input. "
            "To do the same again, use a retry."
        )
        fields.refuse("cycle", message, *(["do"] if "do" in raw else []))
    return {
        "kind": "alternative",
        "id": _id(fields, "id"),
        "when": _when(fields),
        "do": {
            "action": action,
            **({} if workflow is None else {"workflow": workflow}),
            **({} if agent is None else {"agent": agent}),
        },
        "input": changes,
    }


def read_alternatives(
    step: Fields, raw: Json, *place: str | int, own_action: str | None = None
) -> list[JsonObject]:
    """A list of alternatives with ids of their own."""
    if not isinstance(raw, list) or len(raw) > ALTERNATIVES_MAX:
        message = f"alternatives is a list of at most {ALTERNATIVES_MAX}."
        step.refuse("bad_value", message, *place)
        return []
    return [
        read_alternative(step, each, *place, index, own_action=own_action)
        for index, each in enumerate(raw)
    ]


def read_named_alternatives(fields: Fields) -> list[JsonObject]:
    """`alternatives` of a definition or a server: the named rules for failures of any step."""
    raw = fields.raw.get("alternatives")
    found = [] if raw is None else read_alternatives(fields, raw, "alternatives")
    for index, each in enumerate(found):
        if "rule" in each:
            message = "rule names an alternative from a step; write the alternative itself."
            fields.refuse("bad_value", message, "alternatives", index, "rule")
    refuse_repeated_ids(
        fields, [(each, ("alternatives", index)) for index, each in enumerate(found)]
    )
    return found


def unknown_actions(stages: Sequence[Json], pointer: str, known: Set[str]) -> Iterator[Mistake]:
    """Alternatives, in a list of stages, whose action nobody has registered."""
    for index, stage in enumerate(stages):
        work = stage.get("do") if isinstance(stage, dict) else None
        action = work.get("action") if isinstance(work, dict) else None
        if isinstance(action, str) and action not in known:
            message = f"{action!r} is not a registered action; known are "
            place = pointer_join(pointer, index, "do", "action")
            yield Mistake(place, "unknown_action", message + ", ".join(sorted(known)) + ".")


def refuse_repeated_ids(step: Fields, stages: Iterable[tuple[JsonObject, Place]]) -> None:
    """Each alternative of a step, or of a definition, has an id of its own."""
    seen: set[Json] = set()
    for stage, place in stages:
        name = stage.get("id", stage.get("rule"))
        if stage["kind"] != "alternative":
            continue
        if name in seen:
            step.refuse("duplicate_id", f"The alternative {name!r} is given twice.", *place)
        seen.add(name)


def read_ask(step: Fields, raw: Json, *place: str | int) -> JsonObject:
    """The stage `ask`; true stands for one with all defaults."""
    if raw is True:
        raw = {}
    if not isinstance(raw, dict):
        step.refuse(
            "bad_value", 'ask is true, or {"answer_timeout_ms", "on_timeout", "questions"}.', *place
        )
        raw = {}
    fields = _inside(step, raw, *place)
    fields.refuse_others(ASK_FIELDS)
    timeout = raw.get("answer_timeout_ms")
    return {
        "kind": "ask",
        "answer_timeout_ms": None
        if timeout is None
        else fields.whole("answer_timeout_ms", 1, MILLISECONDS_LIMIT),
        "on_timeout": fields.choice("on_timeout", ON_TIMEOUT, "skip"),
        "questions": fields.texts("questions"),
    }


def _inside(step: Fields, raw: JsonObject, *place: str | int) -> Fields:
    return Fields(raw, pointer_join(step.pointer, *place), step.mistakes)


def _id(fields: Fields, name: str) -> str:
    value = fields.raw.get(name)
    if isinstance(value, str) and IDENTIFIER.match(value) and value.strip("."):
        return value
    message = f"{name} of an alternative is 1 to 128 characters of A-Z a-z 0-9 . _ - ."
    fields.refuse("bad_identifier", message, name)
    return "invalid"


def _when(fields: Fields) -> JsonObject:
    raw = fields.raw.get("when", {})
    if not isinstance(raw, dict):
        fields.refuse("bad_value", 'when is {"error_contains", "class", "code"}.', "when")
        raw = {}
    when = _inside(fields, raw, "when")
    when.refuse_others(frozenset({"error_contains", "class", "code"}))
    return {
        "error_contains": when.texts("error_contains"),
        "class": when.choice("class", ERROR_CLASSES, None),
        "code": when.text("code"),
    }


def _work(fields: Fields) -> tuple[str | None, str | None, str | None]:
    """The action, the workflow or the agent that is used instead; none: the step's own work."""
    raw = fields.raw.get("do")
    if raw is None:
        return None, None, None
    if not isinstance(raw, dict):
        message = 'do is {"action": name}, {"agent": name} or {"workflow": name}.'
        fields.refuse("bad_value", message, "do")
        return "invalid", None, None
    work = _inside(fields, raw, "do")
    work.refuse_others(frozenset({"action", "agent", "workflow"}))
    action, workflow = raw.get("action"), read_workflow_id(work, "workflow")
    agent = read_agent_name(work, "agent")
    given = [name for name in ("action", "agent", "workflow") if raw.get(name) is not None]
    if len(given) > 1:
        work.refuse("contradiction", f"Give {given[0]} or {given[1]}, not both.", given[1])
        return None, workflow, None if workflow else agent
    if action is None or (isinstance(action, str) and action):
        return action, workflow, agent
    work.refuse("unknown_action", "action names what is done instead.", "action")
    return "invalid", None, None


def read_agent_name(fields: Fields, name: str) -> str | None:
    """The name of an agent; None where it is left out."""
    value = fields.raw.get(name)
    if value is None or (isinstance(value, str) and AGENT_NAME.match(value)):
        return value
    message = f"{name} is the name of an agent: {AGENT_NAME_RULE}; a reference is not possible."
    fields.refuse("bad_identifier", message, name)
    return "invalid"


def read_workflow_id(fields: Fields, name: str) -> str | None:
    """The name of a workflow, its UUID, or `wf-{name}-{n}`; None where it is left out."""
    value = fields.raw.get(name)
    if value is None or (isinstance(value, str) and WORKFLOW_ID.match(value)):
        return value
    message = f"{name} is a workflow's name, id or wf-name-version; a reference is not possible."
    fields.refuse("bad_identifier", message, name)
    return None


def _changes(fields: Fields) -> list[Json]:
    raw = fields.raw.get("input", [])
    if not isinstance(raw, list) or len(raw) > _CHANGES_MAX:
        message = f"input is a list of at most {_CHANGES_MAX} changes."
        fields.refuse("bad_value", message, "input")
        return []
    return [_change(fields, each, "input", index) for index, each in enumerate(raw)]


def _change(fields: Fields, raw: Json, *place: str | int) -> JsonObject:
    if not isinstance(raw, dict) or ("multiply" in raw) == ("set" in raw):
        message = 'A change is {"path", "multiply"} or {"path", "set"}.'
        fields.refuse("bad_value", message, *place)
        return {"path": "invalid", "set": None}
    change = _inside(fields, raw, *place)
    change.refuse_others(frozenset({"path", "multiply", "set"}))
    path = raw.get("path")
    if not isinstance(path, str) or not _INPUT_PATH.match(path):
        message = "path names a member of the step's input, like amount or body.amount."
        change.refuse("bad_value", message, "path")
    if "multiply" in raw:
        return {"path": path, "multiply": change.number("multiply", 0, FACTOR_MAX)}
    value = raw["set"]
    try:
        refers = bool(compile_template(value).references)
    except BadReferences:
        refers = True
    if refers:
        message = "set takes a plain value; references are resolved in the step's own input only."
        change.refuse("bad_reference", message, "set")
    return {"path": path, "set": value}
