"""YAML to JSON values, bounded: what a definition file may hold and nothing else of YAML.

Scalars follow the core schema of YAML 1.2 (`yes`, `on`, `12:30` and `2026-11-20` are texts, as in
JSON). Aliases, anchors, tags, merge keys, repeated keys and a second document are refused. The
value is built from the parser's events without recursion, so that neither depth nor size can hurt.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

import yaml

from domain.json_values import (
    INTEGER_MAX,
    Json,
    JsonObject,
    NotStorable,
    check_storable,
    pointer_join,
)

YAML_BYTES_MAX: Final = 512 * 1024
YAML_DEPTH_MAX: Final = 32
"""Lists and mappings inside one another; `[[1]]` has depth 2."""

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_A_NUMBER: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_INTEGER_DIGITS_MAX: Final = 20


class BadYaml(ValueError):
    """A YAML text that is refused; `line` and `column` count from 1, `pointer` is RFC 6901.

    `code` is one of `bad_encoding, not_yaml, too_large, too_deep, alias, tag, merge_key,
    duplicate_key, bad_key, many_documents, empty`, or one of `domain.json_values.NotStorable`.
    """

    def __init__(self, code: str, message: str, line: int, column: int, pointer: str = "") -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.code = code
        self.message = message
        self.line = line
        self.column = column
        self.pointer = pointer


class YamlDocument(NamedTuple):
    """A value, and for the RFC 6901 pointer of each of its parts the line where it stands."""

    value: Json
    lines: Mapping[str, int]


def read_yaml(body: bytes) -> YamlDocument:
    """Read one YAML document of at most 512 KB; raises `BadYaml`."""
    if len(body) > YAML_BYTES_MAX:
        message = f"the file has {len(body)} bytes; at most {YAML_BYTES_MAX} are accepted"
        raise BadYaml("too_large", message, 1, 1)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        message = f"byte {error.start} of the file is not valid UTF-8"
        raise BadYaml("bad_encoding", message, line, 1) from None
    builder = _Builder()
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text) from None
    return builder.document()


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column where an event begins, from 1."""
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _events(text: str) -> Iterator[yaml.Event]:
    # Only the C parser: it is ten times quicker than the Python one on 512 KB.
    yield from yaml.parse(text, Loader=yaml.CSafeLoader)


def _syntax_error(error: yaml.YAMLError, text: str) -> BadYaml:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        problem = getattr(error, "problem", None) or getattr(error, "context", None)
        return BadYaml("not_yaml", f"not YAML: {problem}", mark.line + 1, mark.column + 1)
    position = getattr(error, "position", 0)
    line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
    reason = getattr(error, "reason", None) or "it cannot be read"
    return BadYaml("not_yaml", f"not YAML: {reason}", line, 1)


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read; `key` is the member whose value comes next."""

    pointer: str
    value: list[Json] | JsonObject
    key: str | None = None


@dataclass(slots=True)
class _Builder:
    """Puts the parser's events together to one value."""

    open: list[_Open] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    root: Json = None
    documents: int = 0
    has_root: bool = False

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.AliasEvent():
                self.refuse(event, "alias", "aliases are not accepted; write the value out")
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    self.refuse(event, "many_documents", "a second document starts here; give one")
            case yaml.ScalarEvent():
                self.check_node(event)
                self.scalar(event)
            case yaml.SequenceStartEvent():
                self.check_node(event)
                self.begin(event, [])
            case yaml.MappingStartEvent():
                self.check_node(event)
                self.begin(event, {})
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self.open.pop()

    def document(self) -> YamlDocument:
        """What was read, checked once more as a whole."""
        if not self.has_root or self.root is None:
            raise BadYaml("empty", "the file holds no value", 1, 1)
        try:
            check_storable(self.root, bytes_max=YAML_BYTES_MAX * 2)
        except NotStorable as error:
            line = self.lines.get(error.pointer, 1)
            raise BadYaml(error.code, error.message, line, 1, error.pointer) from None
        return YamlDocument(self.root, self.lines)

    def refuse(self, event: yaml.Event, code: str, message: str) -> NoReturn:
        raise BadYaml(code, message, *_place(event), self.place())

    def place(self) -> str:
        """Pointer of the value that comes next."""
        if not self.open:
            return ""
        top = self.open[-1]
        if isinstance(top.value, list):
            return pointer_join(top.pointer, len(top.value))
        return top.pointer if top.key is None else pointer_join(top.pointer, top.key)

    def check_node(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            self.refuse(
                event, "alias", "anchors are not accepted; write the value where it is used"
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.refuse(event, "tag", f"the tag {tag[:60]!r} is not accepted; write a plain value")

    def begin(self, event: yaml.Event, value: list[Json] | JsonObject) -> None:
        if self.expects_key():
            self.refuse(event, "bad_key", "the key of a mapping is a text, not a list or mapping")
        if len(self.open) >= YAML_DEPTH_MAX:
            message = f"lists and mappings nest at most {YAML_DEPTH_MAX} levels"
            self.refuse(event, "too_deep", message)
        pointer = self.place()
        self.put(event, value)
        self.open.append(_Open(pointer, value))

    def expects_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and not self.has_key()

    def has_key(self) -> bool:
        return self.open[-1].key is not None

    def scalar(self, event: yaml.ScalarEvent) -> None:
        if self.expects_key():
            self.key(event)
        else:
            self.put(event, self.plain(event) if not event.style else event.value)

    def key(self, event: yaml.ScalarEvent) -> None:
        """The text as written is the key, as in JSON: `1: x` is `{"1": "x"}`."""
        top = self.open[-1]
        name: str = event.value
        if name == "<<" and not event.style:
            self.refuse(event, "merge_key", "merge keys are not accepted; write the members out")
        if isinstance(top.value, dict) and name in top.value:
            self.refuse(event, "duplicate_key", f"the key {name[:60]!r} stands here twice")
        top.key = name
        self.lines[self.place()] = _place(event)[0]

    def put(self, event: yaml.Event, value: Json) -> None:
        pointer = self.place()
        self.lines.setdefault(pointer, _place(event)[0])
        if not self.open:
            self.root, self.has_root = value, True
            return
        top = self.open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is not None:
            top.value[top.key], top.key = value, None

    def plain(self, event: yaml.ScalarEvent) -> Json:
        """A plain scalar by the core schema."""
        text: str = event.value
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.match(text):
            value = self.integer(text) if len(text) <= _INTEGER_DIGITS_MAX else INTEGER_MAX + 1
            if abs(value) > INTEGER_MAX:
                message = "an integer beyond 2^53 loses digits in JSON readers; quote it as a text"
                self.refuse(event, "integer_too_large", message)
            return value
        if _FLOAT.match(text) and math.isfinite(number := float(text)):
            return number
        if _FLOAT.match(text) or _NOT_A_NUMBER.match(text):
            message = "NaN, Infinity and numbers like 1e400 are not JSON; quote it as a text"
            self.refuse(event, "not_a_number", message)
        return text

    @staticmethod
    def integer(text: str) -> int:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
