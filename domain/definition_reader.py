"""From the JSON a client sends to the normalised form that is stored, hashed and run.

Accepted: the canonical form (`steps` by id), L's spellings inside it (`then_step`, `else_step`, `condition` text) and W's list form
(`actions`). All defaults are filled in here and nowhere else, so a later release's defaults never change a stored definition.
Every mistake is collected, none raised. Normalising a normalised definition gives the same form again.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from domain.definition import ATTEMPTS_MAX, SECONDS_MAX, STEPS_MAX, TIMEOUT_SECONDS_DEFAULT
from domain.json_values import Json, JsonObject, pointer_join

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_RESERVED_NAME: Final = re.compile(
    r"wf-.*-\d+\Z|[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\Z|\.{1,2}\Z|validate\Z"
)
TEXT_MAX: Final = 4_096
KINDS_LATER: Final = frozenset(
    {"agent", "parallel", "loop", "fork_join", "fork-join", "sub_workflow", "wait_for_event", "validate"}
)
STEP_FIELDS_LATER: Final = frozenset(
    {
        "agent_name",
        "parallel_steps",
        "max_parallelism",
        "loop_config",
        "fork_join_config",
        "compensate_with",
        "alternatives",
        "recovery_strategy",
        "retry_strategy",
        "on_failure",
    }
)
DEFINITION_FIELDS_LATER: Final = frozenset({"atomic_mode", "recovery", "alternatives", "on_complete"})
IGNORED_FIELDS: Final = frozenset({"workflow_id", "version", "metadata", "circuit_breaker_config"})
_COMMON_FIELDS: Final = frozenset(
    {
        "id",
        "name",
        "type",
        "description",
        "next_step",
        "critical",
        "timeout_seconds",
        "on_error",
        "retry",
        "recovery",
        "conditions",
    }
)
_KIND_FIELDS: Final = {
    "action": frozenset({"action", "config", "input_mapping", "idempotency"}),
    "wait": frozenset({"duration_ms"}),
    "conditional": frozenset(
        {"condition", "if_true_step", "if_false_step", "then_step", "else_step"}
    ),
}
_ACTION_ALIASES: Final = {"wait": "wait", "delay": "wait", "condition": "conditional"}
_RETRY_DEFAULTS: Final[JsonObject] = {
    "attempts": 3,
    "base_delay_ms": 1_000,
    "multiplier": 2.0,
    "max_delay_ms": 10_000,
}


class Mistake(NamedTuple):
    """One thing that is wrong: where (RFC 6901 pointer), a stable code, and a sentence that says what to do."""

    pointer: str
    code: str
    message: str


class ActionCatalog(Protocol):
    """The actions that an installation knows."""

    def names(self) -> frozenset[str]:
        """Names of all registered actions."""

    def check(self, action: str, config: JsonObject, pointer: str) -> Iterable[Mistake]:
        """Mistakes in an action's config."""


class _Source(NamedTuple):
    """A step as it was sent, and where."""

    id: str
    raw: JsonObject
    pointer: str


class DefinitionReader:
    """Reads one definition; afterwards `mistakes` and `warnings` hold what was found, `pointers` where each step stands."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.warnings: list[Mistake] = []
        self.pointers: dict[str, str] = {}

    def read(self, raw: Json) -> JsonObject | None:
        """The normalised form, or None when it is not even an object. Meaningful only if `mistakes` stays empty."""
        if not isinstance(raw, dict):
            self._mistake("", "not_an_object", "A definition is a JSON object with name, start_step and steps.")
            return None
        known = {"name", "description", "start_step", "steps", "actions", "timeout_seconds"} | {
            "input_schema",
            "output",
        }
        self._unknown_fields(raw, "", known, DEFINITION_FIELDS_LATER)
        sources = list(self._sources(raw))
        steps: JsonObject = {}
        for source in sources:
            self.pointers[source.id] = source.pointer
            steps[source.id] = self._step(source)
        schema = raw.get("input_schema")
        if schema is not None and not isinstance(schema, dict | bool):
            self._mistake("/input_schema", "bad_value", "input_schema is a JSON Schema object.")
        return {
            "name": self._name(raw),
            "description": self._text(raw, "description", ""),
            "start_step": self._start(raw, sources),
            "steps": steps,
            "timeout_seconds": self._seconds(raw, "timeout_seconds", "", None),
            "input_schema": schema,
            "output": raw.get("output"),
        }

    # -------------------------------------------------------------------------------------------- definition

    def _name(self, raw: JsonObject) -> str:
        name = raw.get("name")
        if not isinstance(name, str) or not IDENTIFIER.match(name):
            self._mistake(
                "/name", "bad_identifier", "name is 1 to 128 characters of A-Z a-z 0-9 . _ - and is needed."
            )
            return "invalid"
        if _RESERVED_NAME.match(name):
            self._mistake(
                "/name", "reserved_name", f"{name!r} looks like an id or a fixed path; choose another name."
            )
        return name

    def _start(self, raw: JsonObject, sources: list[_Source]) -> str:
        if "actions" in raw and "start_step" not in raw:
            return sources[0].id if sources else ""
        start = raw.get("start_step")
        if not isinstance(start, str) or not start:
            self._mistake("/start_step", "missing_start", "start_step names the first step and is needed.")
            return ""
        return start

    def _sources(self, raw: JsonObject) -> Iterator[_Source]:
        steps, actions = raw.get("steps"), raw.get("actions")
        if steps is not None and actions is not None:
            self._mistake("/actions", "contradiction", "Give steps or actions, not both.")
        if isinstance(actions, list) and steps is None:
            yield from self._list_form(actions)
            return
        if not isinstance(steps, dict) or not steps:
            self._mistake("/steps", "missing_steps", "steps is an object with at least one step by its id.")
            return
        if len(steps) > STEPS_MAX:
            self._mistake("/steps", "too_many_steps", f"A definition has at most {STEPS_MAX} steps, not {len(steps)}.")
            return
        for step_id, step in steps.items():
            pointer = pointer_join("/steps", step_id)
            if not IDENTIFIER.match(step_id):
                self._mistake(
                    pointer, "bad_identifier", "A step id is 1 to 128 characters of A-Z a-z 0-9 . _ - ."
                )
            if isinstance(step, dict):
                yield _Source(step_id, step, pointer)
            else:
                self._mistake(pointer, "not_an_object", "A step is a JSON object.")

    def _list_form(self, actions: list[Json]) -> Iterator[_Source]:
        """W's form: a chain in list order; `timeout` in ms (30000), `onError` (stop), ids default to action-N."""
        if not actions or len(actions) > STEPS_MAX:
            self._mistake("/actions", "missing_steps", f"actions holds 1 to {STEPS_MAX} actions.")
            return
        ids: list[str] = []
        for index, action in enumerate(actions):
            given = action.get("id") if isinstance(action, dict) else None
            ids.append(given if isinstance(given, str) else f"action-{index}")
        for index, action in enumerate(actions):
            pointer = pointer_join("/actions", index)
            if not isinstance(action, dict):
                self._mistake(pointer, "not_an_object", "An action is a JSON object with a type.")
                continue
            if not IDENTIFIER.match(ids[index]):
                self._mistake(
                    f"{pointer}/id", "bad_identifier", "An id is 1 to 128 characters of A-Z a-z 0-9 . _ - ."
                )
            if ids[index] in ids[:index]:
                self._mistake(f"{pointer}/id", "duplicate_id", f"The id {ids[index]!r} is used twice.")
                continue
            self._unknown_fields(
                action, pointer, {"id", "type", "config", "conditions", "timeout", "onError"}, frozenset()
            )
            following = ids[index + 1] if index + 1 < len(ids) else None
            yield _Source(ids[index], self._from_list(action, pointer, ids[index], following), pointer)

    def _from_list(self, action: JsonObject, pointer: str, step_id: str, following: str | None) -> JsonObject:
        timeout = action.get("timeout", 30_000)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
            self._mistake(f"{pointer}/timeout", "bad_value", "timeout is a positive number of milliseconds.")
            timeout = 30_000
        step: JsonObject = {
            "id": step_id,
            "type": "action",
            "action": action.get("type"),
            "config": action.get("config", {}),
            "conditions": action.get("conditions", []),
            "timeout_seconds": timeout / 1000,
            "next_step": following,
        }
        if "onError" in action:
            step["on_error"] = action["onError"]
        return step

    # -------------------------------------------------------------------------------------------------- steps

    def _step(self, source: _Source) -> JsonObject:
        raw, pointer = source.raw, source.pointer
        if raw.get("id", source.id) != source.id:
            self._mistake(f"{pointer}/id", "id_mismatch", f"id must equal the key {source.id!r}, or be left out.")
        kind = self._kind(raw, pointer)
        if kind is None:
            return self._common(source, "action") | self._action(raw, pointer)
        if raw.get("type", "action") == "action" and kind != "action":
            raw = self._from_alias(raw, pointer, kind)
        self._unknown_fields(raw, pointer, _COMMON_FIELDS | _KIND_FIELDS[kind], STEP_FIELDS_LATER)
        step = self._common(source, kind)
        match kind:
            case "action":
                return step | self._action(raw, pointer)
            case "wait":
                return step | {"duration_ms": self._duration(raw, pointer)}
            case _:
                return step | {
                    "condition": self._gate(raw.get("condition"), f"{pointer}/condition"),
                    "if_true_step": self._id_field(raw, pointer, "if_true_step", "then_step"),
                    "if_false_step": self._id_field(raw, pointer, "if_false_step", "else_step"),
                }

    def _kind(self, raw: JsonObject, pointer: str) -> str | None:
        kind = raw.get("type", "action" if "action" in raw else "agent")
        if isinstance(kind, str) and kind in KINDS_LATER:
            where = f"{pointer}/type" if "type" in raw else pointer
            self._mistake(
                where, "not_available_yet", f"Steps of type {kind!r} are not available yet; use action, conditional or wait."
            )
            return None
        if not isinstance(kind, str) or kind not in _KIND_FIELDS:
            self._mistake(
                f"{pointer}/type", "unknown_type", "type is action, conditional or wait."
            )
            return None
        if kind == "action":
            action = raw.get("action")
            return _ACTION_ALIASES.get(action, kind) if isinstance(action, str) else kind
        return kind

    def _from_alias(self, raw: JsonObject, pointer: str, kind: str) -> JsonObject:
        """`wait` and `condition` written as actions are the same nodes as the step kinds."""
        config = raw.get("config", {})
        config = dict(config) if isinstance(config, dict) else {}
        step = {key: value for key, value in raw.items() if key not in ("action", "config", "input_mapping")}
        if kind == "wait":
            step["duration_ms"] = config.pop("durationMs", config.pop("duration_ms", 1_000))
        else:
            step["condition"] = {key: config.pop(key) for key in ("expression", "field", "operator", "value") if key in config}
        for key in config:
            self._mistake(
                pointer_join(pointer, "config", key), "unknown_field", f"{key!r} is not a setting of this action."
            )
        return step | {"type": kind}

    def _common(self, source: _Source, kind: str) -> JsonObject:
        raw, pointer = source.raw, source.pointer
        critical, recovery = self._failure_policy(raw, pointer)
        default = TIMEOUT_SECONDS_DEFAULT if kind == "action" and raw.get("action") != "create_task" else None
        gates = raw.get("conditions", [])
        if not isinstance(gates, list) or len(gates) > 100:
            self._mistake(f"{pointer}/conditions", "bad_value", "conditions is a list of at most 100 conditions.")
            gates = []
        return {
            "id": source.id,
            "type": kind,
            "name": self._text(raw, "name", pointer) or source.id,
            "description": self._text(raw, "description", pointer),
            "next_step": self._id_field(raw, pointer, "next_step"),
            "critical": critical,
            "timeout_seconds": self._seconds(raw, "timeout_seconds", pointer, default),
            "recovery": recovery,
            "conditions": [
                self._gate(gate, pointer_join(pointer, "conditions", index)) for index, gate in enumerate(gates)
            ],
        }

    def _action(self, raw: JsonObject, pointer: str) -> JsonObject:
        action = raw.get("action", "")
        if not isinstance(action, str) or not action:
            if raw.get("type", "action") == "action":
                self._mistake(f"{pointer}/action", "unknown_action", "action names what the step does and is needed.")
            action = ""
        values: JsonObject = {"action": action}
        for field in ("config", "input_mapping"):
            value = raw.get(field, {})
            if not isinstance(value, dict):
                self._mistake(f"{pointer}/{field}", "bad_value", f"{field} is a JSON object.")
                value = {}
            values[field] = value
        values["idempotency"] = raw.get("idempotency", "attempt")
        if values["idempotency"] not in ("attempt", "try"):
            self._mistake(f"{pointer}/idempotency", "bad_value", 'idempotency is "attempt" or "try".')
        return values

    def _failure_policy(self, raw: JsonObject, pointer: str) -> tuple[bool, list[Json]]:
        """`critical` and ordered `recovery`, from the several ways to say it: stop, continue, retry."""
        mode, critical = raw.get("on_error"), raw.get("critical")
        if mode not in (None, "stop", "continue", "retry"):
            self._mistake(f"{pointer}/on_error", "bad_value", "on_error is stop, continue or retry.")
            mode = None
        if critical is not None and not isinstance(critical, bool):
            self._mistake(f"{pointer}/critical", "bad_value", "critical is true or false.")
            critical = None
        if mode is not None and critical is not None and critical is (mode == "continue"):
            self._mistake(
                f"{pointer}/critical",
                "contradiction",
                f"on_error {mode!r} means critical {str(mode != 'continue').lower()}; leave one of the two out.",
            )
        retry = raw.get("retry")
        if retry is not None and mode in ("stop", "continue"):
            self._mistake(
                f"{pointer}/retry", "contradiction", f"on_error {mode!r} does not retry; leave on_error out."
            )
        is_critical = critical if isinstance(critical, bool) else mode != "continue"
        if "recovery" in raw:
            if mode is not None or retry is not None:
                self._mistake(f"{pointer}/recovery", "contradiction", "Give recovery, or on_error and retry, not both.")
            return is_critical, self._recovery(raw["recovery"], pointer_join(pointer, "recovery"))
        if mode == "retry" or retry is not None:
            return is_critical, [self._retry({} if retry is None else retry, f"{pointer}/retry")]
        return is_critical, []

    def _recovery(self, stages: Json, pointer: str) -> list[Json]:
        if not isinstance(stages, list):
            self._mistake(pointer, "bad_value", "recovery is a list of stages.")
            return []
        kept: list[Json] = []
        for index, stage in enumerate(stages):
            where = pointer_join(pointer, index)
            if not isinstance(stage, dict) or stage.get("kind") != "retry" or kept:
                self._mistake(where, "not_available_yet", "Only one stage of kind retry is available yet.")
                continue
            kept.append(self._retry({k: v for k, v in stage.items() if k != "kind"}, where))
        return kept

    def _retry(self, raw: Json, pointer: str) -> JsonObject:
        stage: JsonObject = {"kind": "retry", **_RETRY_DEFAULTS}
        if not isinstance(raw, dict):
            self._mistake(pointer, "bad_value", "retry is an object with attempts, base_delay_ms, multiplier, max_delay_ms.")
            return stage
        self._unknown_fields(raw, pointer, set(_RETRY_DEFAULTS), frozenset())
        bounds = {
            "attempts": (0, ATTEMPTS_MAX),
            "base_delay_ms": (0, SECONDS_MAX * 1000),
            "multiplier": (1, 100),
            "max_delay_ms": (0, SECONDS_MAX * 1000),
        }
        for field, (low, high) in bounds.items():
            value = raw.get(field, _RETRY_DEFAULTS[field])
            whole = field != "multiplier"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                self._mistake(f"{pointer}/{field}", "bad_value", f"{field} is a {'whole ' if whole else ''}number.")
            elif not low <= value <= high:
                self._mistake(f"{pointer}/{field}", "out_of_range", f"{field} is between {low} and {high}.")
            else:
                stage[field] = value if whole else float(value)
        return stage

    # ------------------------------------------------------------------------------------------------- fields

    def _gate(self, raw: Json, pointer: str) -> JsonObject:
        if isinstance(raw, str):
            raw = {"expression": raw}
        if isinstance(raw, dict):
            self._unknown_fields(raw, pointer, {"expression", "field", "operator", "value"}, frozenset())
            if isinstance(raw.get("expression"), str) and raw.get("operator") is None:
                return {"expression": raw["expression"]}
            if isinstance(raw.get("field"), str) and isinstance(raw.get("operator"), str):
                return {"field": raw["field"], "operator": raw["operator"], "value": raw.get("value")}
        self._mistake(
            pointer, "bad_condition", 'A condition is {"expression": text} or {"field", "operator", "value"}.'
        )
        return {"expression": "false"}

    def _duration(self, raw: JsonObject, pointer: str) -> Json:
        value = raw.get("duration_ms", 1_000)
        if isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SECONDS_MAX * 1000:
            self._mistake(
                f"{pointer}/duration_ms",
                "out_of_range",
                f"duration_ms is a number of milliseconds from 0 to {SECONDS_MAX * 1000}, or one reference.",
            )
            return 0
        return value

    def _seconds(self, raw: JsonObject, field: str, pointer: str, default: int | None) -> Json:
        value = raw.get(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= SECONDS_MAX:
            self._mistake(
                f"{pointer}/{field}", "out_of_range", f"{field} is a number of seconds above 0, at most {SECONDS_MAX}."
            )
            return default
        return value

    def _id_field(self, raw: JsonObject, pointer: str, field: str, alias: str | None = None) -> str | None:
        name = alias if alias is not None and alias in raw else field
        value = raw.get(name)
        if alias is not None and raw.get(alias) is not None and raw.get(field) is not None:
            self._mistake(f"{pointer}/{alias}", "contradiction", f"Give {field} or {alias}, not both.")
        if value is None or (isinstance(value, str) and value):
            return value
        self._mistake(f"{pointer}/{name}", "bad_value", f"{name} is the id of a step, or null.")
        return None

    def _text(self, raw: JsonObject, field: str, pointer: str) -> str | None:
        value = raw.get(field)
        if value is None or (isinstance(value, str) and len(value) <= TEXT_MAX):
            return value
        self._mistake(f"{pointer}/{field}", "bad_value", f"{field} is text of at most {TEXT_MAX} characters.")
        return None

    def _unknown_fields(
        self, raw: JsonObject, pointer: str, known: set[str] | frozenset[str], later: frozenset[str]
    ) -> None:
        for field in raw:
            if field in known or field in IGNORED_FIELDS or field.startswith("x-"):
                continue
            where = pointer_join(pointer, field)
            if field in later:
                self._mistake(where, "not_available_yet", f"{field!r} is not available yet; leave it out.")
            else:
                self._mistake(where, "unknown_field", f"{field!r} is not a field here; known are {', '.join(sorted(known))}.")

    def _mistake(self, pointer: str, code: str, message: str) -> None:
        self.mistakes.append(Mistake(pointer, code, message))
