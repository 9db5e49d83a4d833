"""The forms of a reference: parsed to one `Reference`, which finds its value in a `Scope`.

`domain/references.py` documents the forms and puts values into templates.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, Protocol

from domain.json_paths import (
    BadJsonPath,
    ManyValues,
    Place,
    QueryWork,
    TooMuchWork,
    compile_json_path,
)
from domain.json_values import Json
from domain.simulation import is_simulated

FORMS: Final = (
    "${workflow.input.a}, ${step.output.a}, ${loop.item}, ${secret.NAME}, $.workflow_input.a, "
    "$.step.output_data.a, {{trigger.a}}"
)
REFERENCE_CHARACTERS_MAX: Final = 1_000


class Missing(Enum):
    """The type of `MISSING`: there is no value, which is not the same as null."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


class Scope(Protocol):
    """What references see at one step of one execution."""

    @property
    def workflow_input(self) -> Json:
        """The input of the execution."""

    @property
    def simulates(self) -> bool:
        """Whether steps are not performed here, so that nobody knows what they would have given."""

    def output(self, step_id: str) -> Json | Missing:
        """Output of a step as seen from here; `MISSING` when it has none (yet)."""

    def undone(self) -> Mapping[str, Json] | None:
        """`input` and `output` of the step that is being undone; None outside a compensation."""

    def loop(self) -> Mapping[str, Json] | None:
        """`item, index, total, is_first, is_last` of the innermost iteration; None outside."""


class BadReference(ValueError):
    """A text that looks like a reference and is none of the accepted forms."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(message)
        self.text = text
        self.message = message


class UnresolvedReference(LookupError):
    """A reference in a template has no value; `why` says what is missing and where."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"{text} cannot be resolved: {why}")
        self.text = text
        self.why = why


@dataclass(frozen=True, slots=True)
class Reference:
    """One parsed reference. `name` is the loop's or undone step's field, or the secret's name."""

    text: str
    root: Literal["input", "step", "loop", "secret", "undo"]
    step_id: str | None = None
    name: str | None = None
    path: Place = ()
    query: ManyValues | None = None

    def find(self, scope: Scope, work: QueryWork | None = None) -> Json | Missing:
        """The value, `MISSING` when there is none; a secret is its own text. In a simulation, null
        for what only the work of a step that was not performed could tell.

        `work` is shared by all references of one value. Raises `UnresolvedReference` only when a
        JSONPath looks at too many items.
        """
        value = self._start(scope)
        for part in self.path:
            if value is MISSING:
                return MISSING
            inside, value = value, _child(value, part)
            if value is MISSING and scope.simulates and is_simulated(inside):
                return None
        if self.query is None or value is MISSING:
            return value
        try:
            return self.query.find(value, work or QueryWork())
        except TooMuchWork as error:
            raise UnresolvedReference(self.text, str(error)) from None

    def why_missing(self, scope: Scope) -> str:
        """For people: which part of the reference has no value."""
        if self._start(scope) is not MISSING:
            return "there is no value at this path"
        if self.root == "step":
            return f"the step {self.step_id!r} has no output"
        if self.root == "undo":
            return "it is used outside of a compensation"
        return "it is used outside of a loop"

    def _start(self, scope: Scope) -> Json | Missing:
        match self.root:
            case "input":
                return scope.workflow_input
            case "step":
                return scope.output(self.step_id or "")
            case "loop":
                fields = scope.loop()
                return MISSING if fields is None else fields.get(self.name or "", MISSING)
            case "undo":
                undone = scope.undone()
                return MISSING if undone is None else undone.get(self.name or "", MISSING)
            case "secret":
                return self.text


def _child(value: Json, part: str | int) -> Json | Missing:
    if isinstance(value, dict):
        return value.get(part, MISSING) if isinstance(part, str) else MISSING
    if not isinstance(value, list):
        return MISSING
    if isinstance(part, str):
        if not _INDEX.fullmatch(part):
            return MISSING
        part = int(part)
    return value[part] if -len(value) <= part < len(value) else MISSING


_INDEX: Final = re.compile(r"[0-9]{1,9}")
_ENDS_HERE = r"(?=\Z|[.\[])"
_STEP_ID = r"[A-Za-z0-9._-]{1,128}?"
_INPUT: Final = re.compile(r"workflow\.input" + _ENDS_HERE)
SECRET_USE: Final = re.compile(r"\$\{\s*secret\.([A-Za-z0-9._-]{1,128})\s*\}")
"""A secret inside a text, in the form that steps and agents' records have it."""
_SECRET: Final = re.compile(r"secret\.([A-Za-z0-9._-]{1,128})\Z")
_LOOP: Final = re.compile(r"loop\.(item|index|total|is_first|is_last)" + _ENDS_HERE)
_UNDO: Final = re.compile(r"undo\.(input|output)" + _ENDS_HERE)
_OUTPUT: Final = re.compile(rf"({_STEP_ID})\.output{_ENDS_HERE}")
_TRIGGER: Final = re.compile(r"trigger" + _ENDS_HERE)
_ACTION: Final = re.compile(r"step\.([0-9]{1,6})" + _ENDS_HERE)
_PATH_INPUT: Final = re.compile(r"\$(?:\.workflow_input|\['workflow_input'\])" + _ENDS_HERE)
_PATH_OUTPUT: Final = re.compile(
    rf"\$(?:\.({_STEP_ID})|\['({_STEP_ID})'\]|\[\"({_STEP_ID})\"\])"
    rf"(?:\.output_data|\['output_data'\]|\[\"output_data\"\]){_ENDS_HERE}"
)
_PART: Final = re.compile(r"\.([\w-]+)|\[(-?[0-9]{1,9})\]|\['([^'\\]*)'\]|\[\"([^\"\\]*)\"\]")


def parse_reference(text: str) -> Reference:
    """Parse a text that is exactly one `${...}`, `{{...}}` or `$...`; raises `BadReference`."""
    if len(text) > REFERENCE_CHARACTERS_MAX:
        raise BadReference(
            text[:100], f"a reference has at most {REFERENCE_CHARACTERS_MAX} characters"
        )
    if text.startswith("${") and text.endswith("}"):
        return _parse_dollar(text, text[2:-1].strip())
    if text.startswith("{{") and text.endswith("}}"):
        inside = text[2:-2].strip()
        if head := _TRIGGER.match(inside):
            return Reference(text, "input", path=_parse_path(text, inside, head.end()))
    elif text.startswith("$"):
        return _parse_json_path(text)
    raise _unknown(text)


def parse_bare_reference(text: str, action_ids: Sequence[str] = ()) -> Reference:
    """Parse `trigger.a` or `step.N.a`; `action_ids[N]` is the step. Raises `BadReference`."""
    if len(text) <= REFERENCE_CHARACTERS_MAX:
        if head := _TRIGGER.match(text):
            return Reference(text, "input", path=_parse_path(text, text, head.end()))
        if head := _ACTION.match(text):
            number = int(head[1])
            if number >= len(action_ids):
                raise BadReference(
                    text, f"{text!a} counts actions from 0 and there are {len(action_ids)}"
                )
            path = _parse_path(text, text, head.end())
            return Reference(text, "step", step_id=action_ids[number], path=path)
    raise BadReference(
        text[:100], f"{text[:100]!a} is no reference; write {FORMS}, trigger.a or step.N.a"
    )


def _parse_dollar(text: str, inside: str) -> Reference:
    if head := _INPUT.match(inside):
        return Reference(text, "input", path=_parse_path(text, inside, head.end()))
    if head := _LOOP.match(inside):
        path = _parse_path(text, inside, head.end())
        return Reference(text, "loop", name=head[1], path=path)
    if head := _SECRET.match(inside):
        # One spelling, whatever blanks were written: the effect looks for exactly this text.
        return Reference(f"${{secret.{head[1]}}}", "secret", name=head[1])
    if head := _UNDO.match(inside):
        path = _parse_path(text, inside, head.end())
        return Reference(text, "undo", name=head[1], path=path)
    if head := _OUTPUT.match(inside):
        path = _parse_path(text, inside, head.end())
        return Reference(text, "step", step_id=head[1], path=path)
    raise _unknown(text)


def _parse_json_path(text: str) -> Reference:
    if head := _PATH_INPUT.match(text):
        place, query = _compile_path(text, head.end())
        return Reference(text, "input", path=place, query=query)
    if head := _PATH_OUTPUT.match(text):
        place, query = _compile_path(text, head.end())
        step_id = head[1] or head[2] or head[3]
        return Reference(text, "step", step_id=step_id, path=place, query=query)
    raise _unknown(text)


def _compile_path(text: str, start: int) -> tuple[Place, ManyValues | None]:
    try:
        compiled = compile_json_path("$" + text[start:])
    except BadJsonPath as error:
        raise BadReference(text[:100], f"{text[:100]!a}: {error}") from None
    return ((), compiled) if isinstance(compiled, ManyValues) else (compiled, None)


def _parse_path(text: str, inside: str, start: int) -> Place:
    parts: list[str | int] = []
    while start < len(inside):
        found = _PART.match(inside, start)
        if found is None:
            raise BadReference(
                text, f"{text!a} has no path after {inside[:start]!a}; write .name, [0] or ['name']"
            )
        name, index, single, double = found.groups()
        parts.append(int(index) if index is not None else name or single or double or "")
        start = found.end()
    return tuple(parts)


def _unknown(text: str) -> BadReference:
    return BadReference(
        text[:100], f"{text[:100]!a} is not a reference; the accepted forms are {FORMS}"
    )
