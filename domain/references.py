"""References to data: one grammar and one resolver for every place that may hold them.

| written | means |
| --- | --- |
| `${workflow.input}`, `${workflow.input.a.b}` | the input of the execution |
| `${STEP.output}`, `${STEP.output.a[0].b}` | the output of the step STEP |
| `${loop.item}` (`index, total, is_first, is_last`), with a path | the current iteration |
| `${undo.input}`, `${undo.output}` | in a compensation: those of the step that it undoes |
| `${secret.NAME}` | a secret; stays as written, an action resolves it inside its effect |
| `$.workflow_input.a`, `$.STEP.output_data.a`, `$['STEP'].output_data[?@.n > 1]` | JSONPath |
| `{{trigger.a}}` | the input, as `${workflow.input.a}` |
| `trigger.a`, `step.N.a` | in conditions only; N counts the actions of a list from 0 |

A path is `.name`, `.0`, `[0]`, `[-1]` or `['any name']`. A string that is exactly one reference
takes the value with its type; inside a longer text (`${...}` and `{{...}}` only) a text is put in
as it is and any other value as compact JSON. `$${` writes a literal `${`, `{{{{` a literal `{{`;
`$$.` or `$$[` at the beginning of a string writes a literal `$.` or `$[`.

Data never names a secret. An action fills in the secrets that `Template.references` lists, at their
pointers only, so `${secret.NAME}` in data stays a text; and where data is joined with a secret in
one text, data that spells another one is refused.
"""

import re
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from domain.json_paths import QueryWork
from domain.json_values import DEPTH_MAX, PAYLOAD_BYTES_MAX, Json, pointer_join
from domain.reference_forms import (
    FORMS,
    MISSING,
    BadReference,
    Missing,
    Reference,
    Scope,
    UnresolvedReference,
    parse_bare_reference,
    parse_reference,
)

__all__ = [
    "MISSING",
    "BadReference",
    "BadReferences",
    "Missing",
    "Reference",
    "Scope",
    "Template",
    "UnresolvedReference",
    "compile_template",
    "literal_text",
    "parse_bare_reference",
    "parse_reference",
]

MISTAKES_MAX: Final = 100
"""Mistakes listed for one value; more are as good as these."""


class BadReferences(ValueError):
    """All mistakes of one value, as (pointer inside the value, message)."""

    def __init__(self, mistakes: tuple[tuple[str, str], ...]) -> None:
        super().__init__("; ".join(f"{pointer}: {message}" for pointer, message in mistakes))
        self.mistakes = mistakes


class Template:
    """A JSON value with its references found: compile once, resolve often."""

    __slots__ = ("_constant", "_part", "references")

    def __init__(
        self, constant: Json, part: "_Part | None", references: tuple[tuple[str, Reference], ...]
    ) -> None:
        self._constant = constant
        self._part = part
        self.references = references
        """(pointer inside the value, reference) of every reference, secrets too, in order."""

    @property
    def is_reference(self) -> bool:
        """Whether it is one reference and nothing else, so that the value may be of any type."""
        return isinstance(self._part, _Whole)

    def resolve(self, scope: Scope) -> Json:
        """The value with each reference replaced; without references the very same object.

        Referenced values are shared with the scope, not copied. Raises `UnresolvedReference` when
        a reference has no value, when the referenced values together exceed 256 KB, or when data
        beside a secret would name another one.
        """
        if self._part is None:
            return self._constant
        return self._part.fill(_Filling(scope))


def compile_template(value: Json) -> Template:
    """Find the references in a storable value; raises `BadReferences` with all mistakes."""
    compiler = _Compiler()
    part = compiler.compile(value, "", 1)
    if compiler.mistakes:
        raise BadReferences(tuple(compiler.mistakes[:MISTAKES_MAX]))
    references = tuple(compiler.references)
    if isinstance(part, _Constant):
        return Template(part.value, None, references)
    return Template(None, part, references)


def literal_text(text: str) -> str:
    """A text in which only escapes may stand, with those undone; raises `BadReference`."""
    pieces = list(_pieces(text))
    for piece in pieces:
        if isinstance(piece, Reference):
            raise BadReference(piece.text, f"the reference {piece.text!a} cannot stand here")
    return "".join(str(piece) for piece in pieces)


# --- filling in ---


class _Filling:
    """One `resolve`: the scope, and how much more data may be put in."""

    __slots__ = ("bytes_left", "scope", "work")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.bytes_left = PAYLOAD_BYTES_MAX
        self.work = QueryWork()

    def value(self, reference: Reference) -> Json:
        found = reference.find(self.scope, self.work)
        if found is MISSING:
            raise UnresolvedReference(reference.text, reference.why_missing(self.scope))
        if isinstance(found, str):
            self.charge(len(found), reference)
        elif isinstance(found, dict | list):
            self.charge(len(msgspec.json.encode(found)), reference)
        return found

    def charge(self, size: int, reference: Reference) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            why = f"the referenced values together have more than {PAYLOAD_BYTES_MAX} bytes"
            raise UnresolvedReference(reference.text, why)


# Wider than the one spelling that effects look for, so that a more lenient effect is safe too.
_SECRET: Final = re.compile(r"\$\{\s*secret")


class _Part(Protocol):
    def fill(self, filling: _Filling) -> Json: ...


class _Constant:
    __slots__ = ("value",)

    def __init__(self, value: Json) -> None:
        self.value = value

    def fill(self, filling: _Filling) -> Json:
        return self.value


class _Whole:
    __slots__ = ("reference",)

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def fill(self, filling: _Filling) -> Json:
        return filling.value(self.reference)


class _Text:
    __slots__ = ("pieces", "secrets")

    def __init__(self, pieces: tuple[str | Reference, ...], secrets: int) -> None:
        self.pieces = pieces
        self.secrets = secrets

    def fill(self, filling: _Filling) -> Json:
        written: list[str] = []
        last = None
        for piece in self.pieces:
            if isinstance(piece, str):
                written.append(piece)
                continue
            last = piece
            value = filling.value(piece)
            written.append(value if isinstance(value, str) else _compact(value))
        text = "".join(written)
        # Looked at whole: two harmless values may join to one `${secret.NAME}`.
        if last and self.secrets and len(_SECRET.findall(text)) != self.secrets:
            why = "its value would name a secret in a text that holds one; only a definition may"
            raise UnresolvedReference(last.text, why)
        return text


class _Object:
    __slots__ = ("base", "parts")

    def __init__(self, base: dict[str, Json], parts: tuple[tuple[str, _Part], ...]) -> None:
        self.base = base
        self.parts = parts

    def fill(self, filling: _Filling) -> Json:
        members = dict(self.base)
        for name, part in self.parts:
            members[name] = part.fill(filling)
        return members


class _List:
    __slots__ = ("base", "parts")

    def __init__(self, base: list[Json], parts: tuple[tuple[int, _Part], ...]) -> None:
        self.base = base
        self.parts = parts

    def fill(self, filling: _Filling) -> Json:
        elements = list(self.base)
        for index, part in self.parts:
            elements[index] = part.fill(filling)
        return elements


def _compact(value: Json) -> str:
    return msgspec.json.encode(value).decode()


# --- compiling ---


class _Compiler:
    def __init__(self) -> None:
        self.references: list[tuple[str, Reference]] = []
        self.mistakes: list[tuple[str, str]] = []

    def compile(self, value: Json, pointer: str, depth: int) -> _Part:
        if len(self.mistakes) >= MISTAKES_MAX:
            return _Constant(value)
        if isinstance(value, str):
            return self._string(value, pointer) if _MAY_REFER.search(value) else _Constant(value)
        if not isinstance(value, dict | list):
            return _Constant(value)
        if depth > DEPTH_MAX:
            self.mistakes.append((pointer, f"nested deeper than {DEPTH_MAX} levels"))
            return _Constant(value)
        if isinstance(value, dict):
            return self._object(value, pointer, depth)
        return self._list(value, pointer, depth)

    def _object(self, members: dict[str, Json], pointer: str, depth: int) -> _Part:
        base: dict[str, Json] = {}
        parts: list[tuple[str, _Part]] = []
        for name, value in members.items():
            place = pointer_join(pointer, name)
            literal = self._name(name, place)
            part = self.compile(value, place, depth + 1)
            if isinstance(part, _Constant):
                base[literal] = part.value
            else:
                base[literal] = None  # keeps the order of the members
                parts.append((literal, part))
        if parts:
            return _Object(base, tuple(parts))
        return _Constant(members if _same(base, members) else base)

    def _list(self, elements: list[Json], pointer: str, depth: int) -> _Part:
        base: list[Json] = []
        parts: list[tuple[int, _Part]] = []
        for index, value in enumerate(elements):
            part = self.compile(value, pointer_join(pointer, index), depth + 1)
            if isinstance(part, _Constant):
                base.append(part.value)
            else:
                base.append(None)
                parts.append((index, part))
        if parts:
            return _List(base, tuple(parts))
        unchanged = all(new is old for new, old in zip(base, elements, strict=True))
        return _Constant(elements if unchanged else base)

    def _name(self, name: str, pointer: str) -> str:
        if "${" not in name and "{{" not in name:
            return name
        try:
            return literal_text(name)
        except BadReference:
            message = "a member's name holds no references; write $${ or {{{{ for these signs"
            self.mistakes.append((pointer, message))
            return name

    def _string(self, text: str, pointer: str) -> _Part:
        try:
            pieces = tuple(_pieces(text))
        except BadReference as error:
            self.mistakes.append((pointer, error.message))
            return _Constant(text)
        found = [piece for piece in pieces if isinstance(piece, Reference)]
        self.references += [(pointer, reference) for reference in found]
        secrets = sum(reference.root == "secret" for reference in found)
        if secrets == len(found):
            plain = "".join(p.text if isinstance(p, Reference) else p for p in pieces)
            return _Constant(plain)
        if len(pieces) == 1:
            return _Whole(found[0])
        as_written = (
            p.text if isinstance(p, Reference) and p.root == "secret" else p for p in pieces
        )
        return _Text(tuple(as_written), secrets)


def _same(base: dict[str, Json], members: dict[str, Json]) -> bool:
    return all(
        new is old and name == written
        for (name, new), (written, old) in zip(base.items(), members.items(), strict=True)
    )


_MAY_REFER: Final = re.compile(r"\$\{|\{\{|\A\$\$?[.\[]")
_JSON_PATH_START: Final = re.compile(r"\$(?:\.[A-Za-z_]|\[\s*['\"*?0-9-])")
_TOKEN: Final = re.compile(
    r"(?P<escape>\$\$\{|\{\{\{\{)"
    r"|(?P<reference>\$\{(?:[^{}'\"]|'[^']*'|\"[^\"]*\")*\}|\{\{[^{}]*\}\})"
    r"|(?P<broken>\$\{|\{\{)"
)


def _pieces(text: str) -> Iterator[str | Reference]:
    """Literal texts, escapes undone, and references, in order; raises the first `BadReference`."""
    if _JSON_PATH_START.match(text):
        yield parse_reference(text)
        return
    start = 1 if text.startswith("$") and _JSON_PATH_START.match(text, 1) else 0
    for token in _TOKEN.finditer(text, start):
        if token.start() > start:
            yield text[start : token.start()]
        start = token.end()
        if token["reference"]:
            yield parse_reference(token["reference"])
        elif token["escape"]:
            if _SECRET.match(text, token.start() + 1):
                raise BadReference(text[:100], "the text ${secret cannot be written literally")
            yield token["escape"][-2:]
        else:
            raise _broken(text, token.start())
    if start < len(text):
        yield text[start:]


def _broken(text: str, position: int) -> BadReference:
    shown = text[position : position + 40]
    return BadReference(
        shown,
        f"{shown!a} opens a reference without closing it; the accepted forms are {FORMS}; "
        "write $${ or {{{{ for these signs themselves",
    )
