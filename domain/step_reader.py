"""From one step as it was sent to its normalised form, all defaults filled in."""

from typing import Final

from domain.agent_names import AGENT
from domain.child_reader import (
    EVENT_FIELDS,
    SUB_WORKFLOW_FIELDS,
    read_sub_workflow,
    read_wait_for_event,
)
from domain.composite_reader import (
    FORK_FIELDS,
    LOOP_FIELDS,
    read_fork,
    read_loop,
    read_parallel,
    read_validation,
    unfold,
)
from domain.definition import TIMEOUT_SECONDS_DEFAULT
from domain.failure_policy import FIELDS as FAILURE_FIELDS
from domain.failure_policy import read_failure_policy
from domain.json_values import Json, JsonObject
from domain.mistakes import SECONDS_MAX, Fields, Mistake, Places, is_number
from domain.stage_reader import read_agent_name

GATES_MAX: Final = 100
STEP_FIELDS_LATER: Final = frozenset({"on_failure"})
COMMON_FIELDS: Final = FAILURE_FIELDS | frozenset(
    ["id", "name", "type", "description", "next_step", "timeout_seconds", "conditions"]
)
KIND_FIELDS: Final = {
    "action": frozenset(["action", "config", "input_mapping", "idempotency"]),
    AGENT: frozenset(["agent_name", "input_mapping", "idempotency"]),
    "wait": frozenset({"duration_ms"}),
    "conditional": frozenset(
        ["condition", "if_true_step", "if_false_step", "then_step", "else_step"]
    ),
    "parallel": frozenset(["parallel_steps", "max_parallelism"]),
    "loop": frozenset({"loop_config"}),
    "fork_join": frozenset({"fork_join_config"}),
    "sub_workflow": SUB_WORKFLOW_FIELDS,
    "wait_for_event": EVENT_FIELDS,
    "validate": frozenset(["data_source", "validation_schema", "assertions", "validation_mode"]),
}
_KIND_SPELLINGS: Final = {"fork-join": "fork_join"}
_GATE_FIELDS: Final = frozenset({"expression", "field", "operator", "value"})
_ACTION_ALIASES: Final = {"wait": "wait", "delay": "wait", "condition": "conditional"}
_DURATION_NAMES: Final = frozenset({"durationMs", "duration_ms"})


def read_step(
    step_id: str, raw: JsonObject, pointer: str, mistakes: list[Mistake], places: Places
) -> JsonObject:
    """The normalised form; meaningful only when no mistake was noted."""
    step = Fields(raw, pointer, mistakes)
    if raw.get("id", step_id) != step_id:
        step.refuse("id_mismatch", f"id must equal the key {step_id!r}, or be left out.", "id")
    kind = _kind(step)
    if kind is None:
        return _common(step, step_id, "action", places) | _NO_ACTION
    if kind not in ("action", AGENT) and raw.get("type", "action") == "action":
        step = _from_alias(step, kind, places)
    elif kind == "loop":
        step = unfold(step, "loop_config", LOOP_FIELDS, places)
    elif kind == "fork_join":
        step = unfold(step, "fork_join_config", FORK_FIELDS, places)
    step.refuse_others(COMMON_FIELDS | KIND_FIELDS[kind], STEP_FIELDS_LATER)
    return _common(step, step_id, kind, places) | _settings(step, kind, places)


def _settings(step: Fields, kind: str, places: Places) -> JsonObject:
    match kind:
        case "action":
            return _action(step)
        case "agent":
            return _agent(step)
        case "wait":
            return {"duration_ms": _duration(step)}
        case "parallel":
            return read_parallel(step)
        case "loop":
            return read_loop(step)
        case "fork_join":
            return read_fork(step)
        case "sub_workflow":
            return read_sub_workflow(step, places)
        case "wait_for_event":
            return read_wait_for_event(step)
        case "validate":
            return read_validation(step, lambda gate, *place: _gate(step, places, gate, *place))
    return {
        "condition": _gate(step, places, step.raw.get("condition"), "condition"),
        "if_true_step": _branch(step, places, "if_true_step", "then_step"),
        "if_false_step": _branch(step, places, "if_false_step", "else_step"),
    }


_NO_ACTION: Final[JsonObject] = {
    "action": "",
    "config": {},
    "input_mapping": {},
    "idempotency": "attempt",
}


def _kind(step: Fields) -> str | None:
    kind = step.raw.get("type", "action" if "action" in step.raw else AGENT)
    if isinstance(kind, str):
        kind = _KIND_SPELLINGS.get(kind, kind)
    if not isinstance(kind, str) or kind not in KIND_FIELDS:
        step.refuse("unknown_type", f"type is one of {', '.join(KIND_FIELDS)}.", "type")
        return None
    action = step.raw.get("action")
    if kind == "action" and isinstance(action, str):
        return _ACTION_ALIASES.get(action, kind)
    return kind


def _from_alias(step: Fields, kind: str, places: Places) -> Fields:
    """`wait` and `condition` written as actions are the same nodes as the step kinds."""
    kept = {name: value for name, value in step.raw.items() if name not in _ALIAS_FIELDS}
    config, mapped = step.object("config"), step.object("input_mapping")
    known = _DURATION_NAMES if kind == "wait" else _GATE_FIELDS
    step.refuse_others(known, inside="config")
    step.refuse_others(known, inside="input_mapping")
    given = {name: value for name, value in (config | mapped).items() if name in known}
    field = "duration_ms" if kind == "wait" else "condition"
    holder = "input_mapping" if given.keys() & mapped.keys() else "config"
    if len(given) > 1 and kind == "wait":
        step.refuse("contradiction", "Give durationMs or duration_ms, not both.", holder)
    if given and field in step.raw:
        step.refuse("contradiction", f"Give {field} or {holder}, not both.", holder)
    elif given and kind == "wait":
        name, kept[field] = next(iter(given.items()))
        places.note(f"{step.pointer}/{field}", f"{step.pointer}/{holder}/{name}")
    elif field not in step.raw and kind == "conditional":
        kept[field] = given
        places.note(f"{step.pointer}/{field}", f"{step.pointer}/{holder}")
    return Fields(kept | {"type": kind}, step.pointer, step.mistakes)


_ALIAS_FIELDS: Final = frozenset({"action", "config", "input_mapping"})


def _common(step: Fields, step_id: str, kind: str, places: Places) -> JsonObject:
    # A person takes the time it takes; a wait and a branch have their own.
    is_timed = kind in ("validate", AGENT) or (
        kind == "action" and step.raw.get("action") != "create_task"
    )
    gates = step.raw.get("conditions", [])
    if not isinstance(gates, list) or len(gates) > GATES_MAX:
        message = f"conditions is a list of at most {GATES_MAX} conditions."
        step.refuse("bad_value", message, "conditions")
        gates = []
    default = TIMEOUT_SECONDS_DEFAULT if is_timed else None
    return {
        "id": step_id,
        "type": kind,
        "name": step.text("name") or step_id,
        "description": step.text("description"),
        "next_step": step.step_id("next_step"),
        **read_failure_policy(step, step_id, kind, places),
        "timeout_seconds": step.seconds("timeout_seconds", default),
        "conditions": [
            _gate(step, places, gate, "conditions", index) for index, gate in enumerate(gates)
        ],
    }


def _action(step: Fields) -> JsonObject:
    action = step.raw.get("action", "")
    if not isinstance(action, str) or not action:
        message = "action names what the step does and is needed."
        step.refuse("unknown_action", message, "action")
        action = ""
    return {
        "action": action,
        "config": step.object("config"),
        "input_mapping": step.object("input_mapping"),
        "idempotency": _idempotency(step),
    }


def _agent(step: Fields) -> JsonObject:
    name = read_agent_name(step, "agent_name")
    if step.raw.get("agent_name") is None:
        message = "agent_name says which agent does the step; a step of another kind has a type."
        step.refuse("missing_field", message, "agent_name")
    return {
        "agent_name": name or "invalid",
        "input_mapping": step.object("input_mapping"),
        "idempotency": _idempotency(step),
    }


def _idempotency(step: Fields) -> Json:
    key = step.raw.get("idempotency", "attempt")
    if key not in ("attempt", "try"):
        step.refuse("bad_value", 'idempotency is "attempt" or "try".', "idempotency")
    return key


def _gate(step: Fields, places: Places, raw: Json, *parts: str | int) -> JsonObject:
    pointer = step.pointer + "".join(f"/{part}" for part in parts)
    if isinstance(raw, str):
        places.note(f"{pointer}/expression", pointer)
        return {"expression": raw}
    if isinstance(raw, dict):
        Fields(raw, pointer, step.mistakes).refuse_others(_GATE_FIELDS)
        given = {name for name in _GATE_FIELDS if raw.get(name) is not None}
        if given == {"expression"} and isinstance(raw["expression"], str):
            return {"expression": raw["expression"]}
        field, operator = raw.get("field"), raw.get("operator")
        if "expression" not in given and isinstance(field, str) and isinstance(operator, str):
            return {"field": field, "operator": operator, "value": raw.get("value")}
    message = 'A condition is {"expression": text} or {"field", "operator", "value"}.'
    step.refuse("bad_condition", message, *parts)
    return {"expression": "false"}


def _duration(step: Fields) -> Json:
    value = step.raw.get("duration_ms", 1_000)
    milliseconds_max = SECONDS_MAX * 1_000
    if isinstance(value, str) or (is_number(value) and 0 <= value <= milliseconds_max):
        return value
    message = f"duration_ms is milliseconds from 0 to {milliseconds_max}, or one reference."
    step.refuse("out_of_range", message, "duration_ms")
    return 0


def _branch(step: Fields, places: Places, field: str, alias: str) -> str | None:
    if step.raw.get(alias) is None:
        return step.step_id(field)
    if step.raw.get(field) is not None:
        step.refuse("contradiction", f"Give {field} or {alias}, not both.", alias)
    places.note(f"{step.pointer}/{field}", f"{step.pointer}/{alias}")
    return step.step_id(alias)
