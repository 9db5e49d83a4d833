"""From the JSON a client sends to the normalised form that is stored, hashed and run.

Accepted: the canonical form (`steps` by id), L's spellings inside it (`then_step`, `else_step`,
`condition` text) and W's list form (`actions`). All defaults are filled in here and nowhere else,
so a later release's defaults never change a stored definition. Every mistake is collected, none
raised. Normalising a normalised definition gives the same form again.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from domain.action_list import note_places, steps_of_actions
from domain.agent_names import AGENT
from domain.definition import STEPS_MAX
from domain.failure_policy import is_silent
from domain.json_values import Json, JsonObject, pointer_join
from domain.mistakes import Fields, Mistake, Places
from domain.stage_reader import IDENTIFIER, read_named_alternatives
from domain.step_reader import read_step

__all__ = ["IDENTIFIER", "ActionCatalog", "DefinitionReader", "Mistake"]

_RESERVED_NAME: Final = re.compile(
    r"wf-.*-\d+\Z|[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\Z|\.{1,2}\Z|validate\Z"
)
_RESERVED_STEP: Final = re.compile(
    r"\.{1,2}\Z|secret(\.|\Z)|undo\Z|undo\.input(\.|\Z)|workflow_input\Z|workflow\.input(\.|\Z)"
    r"|loop\.(item|index|total|is_first|is_last)(\.|\Z)|.*\.output(_data)?(\.|\Z)",
    re.DOTALL,
)
"""Ids that would mean something else in a path or in a reference."""
_FIELDS: Final = frozenset(
    [
        "name",
        "description",
        "start_step",
        "steps",
        "actions",
        "alternatives",
        "timeout_seconds",
        "input_schema",
        "output",
    ]
)
_FIELDS_LATER: Final = frozenset({"atomic_mode", "recovery", "on_complete"})


class ActionCatalog(Protocol):
    """The actions that an installation knows."""

    def names(self) -> frozenset[str]:
        """Names of all registered actions."""

    def check(self, action: str, config: JsonObject, pointer: str) -> Iterable[Mistake]:
        """Mistakes in an action's config."""


class _Source(NamedTuple):
    """A step as it was sent. `pointer` is its place in the normalised form."""

    id: str
    raw: JsonObject
    pointer: str


class DefinitionReader:
    """Reads one definition.

    Afterwards `mistakes` holds what was found, with pointers into the normalised form; `places`
    turns them into pointers into what was sent, and `silent` has by id the agents of the steps that
    say nothing of failure.
    """

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.places = Places()
        self.silent: dict[str, str] = {}

    def read(self, raw: Json) -> JsonObject | None:
        """The normalised form, None when it is no object. It means something without mistakes."""
        if not isinstance(raw, dict):
            message = "A definition is a JSON object with name, start_step and steps."
            self.mistakes.append(Mistake("", "not_an_object", message))
            return None
        fields = Fields(raw, "", self.mistakes)
        fields.refuse_others(_FIELDS, _FIELDS_LATER)
        sources = self._sources(fields)
        steps: JsonObject = {}
        for source in sources:
            step = read_step(*source, self.mistakes, self.places)
            steps[source.id] = step
            if step["type"] == AGENT and is_silent(source.raw):
                self.silent[source.id] = str(step["agent_name"])
        schema = raw.get("input_schema")
        if schema is not None and not isinstance(schema, dict | bool):
            fields.refuse("bad_value", "input_schema is a JSON Schema object.", "input_schema")
        return {
            "name": self._name(fields),
            "description": fields.text("description"),
            "start_step": self._start(fields, sources),
            "steps": steps,
            "alternatives": [*read_named_alternatives(fields)],
            "timeout_seconds": fields.seconds("timeout_seconds", None),
            "input_schema": schema,
            "output": raw.get("output"),
        }

    def _name(self, fields: Fields) -> str:
        name = fields.raw.get("name")
        if not isinstance(name, str) or not IDENTIFIER.match(name):
            message = "name is 1 to 128 characters of A-Z a-z 0-9 . _ - and is needed."
            fields.refuse("bad_identifier", message, "name")
            return "invalid"
        if _RESERVED_NAME.match(name):
            message = f"{name!r} looks like an id or a fixed path; choose another name."
            fields.refuse("reserved_name", message, "name")
        return name

    def _start(self, fields: Fields, sources: list[_Source]) -> str:
        start = fields.raw.get("start_step")
        if start is None and self._is_list(fields):
            return sources[0].id if sources else ""
        if isinstance(start, str) and start:
            return start
        message = "start_step names the first step and is needed."
        fields.refuse("missing_start", message, "start_step")
        return ""

    def _is_list(self, fields: Fields) -> bool:
        return fields.raw.get("actions") is not None and fields.raw.get("steps") is None

    def _sources(self, fields: Fields) -> list[_Source]:
        steps, actions = fields.raw.get("steps"), fields.raw.get("actions")
        if steps is not None and actions is not None:
            fields.refuse("contradiction", "Give steps or actions, not both.", "actions")
        if self._is_list(fields):
            if isinstance(actions, list) and self._is_count_right(fields, "actions", len(actions)):
                return self._from_list(actions)
            if not isinstance(actions, list):
                fields.refuse("missing_steps", "actions is a list of actions.", "actions")
            return []
        if not isinstance(steps, dict):
            fields.refuse("missing_steps", "steps is an object with each step by its id.", "steps")
            return []
        if not self._is_count_right(fields, "steps", len(steps)):
            return []
        return list(self._from_steps(steps))

    def _is_count_right(self, fields: Fields, field: str, count: int) -> bool:
        if count == 0:
            fields.refuse("missing_steps", f"{field} has at least one step.", field)
        elif count > STEPS_MAX:
            message = f"A definition has at most {STEPS_MAX} steps, not {count}."
            fields.refuse("too_many_steps", message, field)
        return 0 < count <= STEPS_MAX

    def _from_steps(self, steps: JsonObject) -> Iterator[_Source]:
        for step_id, step in steps.items():
            pointer = self._pointer(step_id)
            if isinstance(step, dict):
                self._check_id(step_id, pointer)
                yield _Source(step_id, step, pointer)
            else:
                message = "A step is a JSON object."
                self.mistakes.append(Mistake(pointer, "not_an_object", message))

    def _from_list(self, actions: list[Json]) -> list[_Source]:
        sources = []
        for step_id, written, step in steps_of_actions(actions, self.mistakes):
            pointer = self._pointer(step_id)
            note_places(pointer, written, self.places)
            self._check_id(step_id, f"{written}/id")
            sources.append(_Source(step_id, step, pointer))
        return sources

    def _pointer(self, step_id: str) -> str:
        return pointer_join("/steps", step_id)

    def _check_id(self, step_id: str, pointer: str) -> None:
        if not IDENTIFIER.match(step_id):
            message = "A step id is 1 to 128 characters of A-Z a-z 0-9 . _ - ."
            self.mistakes.append(Mistake(pointer, "bad_identifier", message))
        elif _RESERVED_STEP.match(step_id):
            message = f"{step_id!r} means something else in a path or a reference; rename the step."
            self.mistakes.append(Mistake(pointer, "reserved_name", message))
