"""Files and values that the user hands to a command."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from domain.json_values import Json, JsonObject, NotStorable, read_json
from interfaces.cli_failures import CommandFailed, ExitCode

_BYTES_MAX = 1_000_000


class DefinitionFile(NamedTuple):
    """A definition that was read; `lines` by JSON pointer, for YAML only."""

    name: str
    value: Json
    lines: Mapping[str, int]

    def place(self, pointer: str) -> str:
        """Where a mistake stands: `orders.yaml:12: /steps/book/next_step`."""
        line = self.line(pointer)
        where = f"{self.name}:{line}" if line else self.name
        return f"{where}: {pointer or '(the whole definition)'}"

    def line(self, pointer: str) -> int:
        """Line of the value, or of what should hold it; 0 when lines are not known."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 0)


def read_definition(name: str) -> DefinitionFile:
    """A definition from a `.yaml`, `.yml` or `.json` file, or from stdin (`-`, YAML or JSON)."""
    content = _content(name)
    if name.endswith(".json"):
        return DefinitionFile(name, _json(content, name), {})
    from interfaces.yaml_reader import BadYaml, read_yaml

    shown = "stdin" if name == "-" else name
    try:
        document = read_yaml(content)
    except BadYaml as error:
        message = f"{shown}:{error.line}:{error.column}: {error.message}"
        raise CommandFailed(
            ExitCode.INVALID, message, "Correct the file, then try again."
        ) from None
    return DefinitionFile(shown, document.value, document.lines)


def read_credential(text: str) -> str:
    """A `${secret.NAME}` as it is, else what stands in `@FILE` or on stdin (`-`).

    A credential among the arguments of a command could be read by every user of the machine.
    """
    if text.startswith("${"):
        return text
    if text != "-" and not text.startswith("@"):
        raise CommandFailed(
            ExitCode.INVALID,
            "A credential does not belong on the command line.",
            "Give '${secret.NAME}', @FILE with the credential, or - for stdin.",
        )
    return _content(text.removeprefix("@")).decode("utf-8", "replace").strip()


def read_input(text: str | None) -> JsonObject:
    """`--input`: a JSON object, `@FILE` (JSON or YAML) or `-` for stdin; nothing is `{}`."""
    if text is None:
        return {}
    value = read_value(text, "--input")
    if not isinstance(value, dict):
        example = '--input \'{"name": "value"}\', --input @file.json or --input -'
        raise CommandFailed(ExitCode.INVALID, "The input is not a JSON object.", f"Try {example}.")
    return value


def read_value(text: str, option: str) -> Json:
    """A JSON value, `@FILE` (JSON or YAML) or `-` for stdin; `option` is how it was given."""
    if text == "-" or text.startswith("@"):
        return read_definition(text.removeprefix("@")).value
    return _json(text.encode("utf-8", "surrogateescape"), option)


def read_labels(pairs: Sequence[str]) -> dict[str, str]:
    """`--label name=value`, any number of times."""
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            message = f"--label {pair!r} is not of the form name=value."
            raise CommandFailed(ExitCode.INVALID, message)
        labels[name] = value
    return labels


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_BYTES_MAX + 1)
    path = Path(name)
    try:
        with path.open("rb") as file:
            return file.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        raise CommandFailed(
            ExitCode.NOT_FOUND, f"There is no file {name} in {Path.cwd()}.", "Check the path."
        ) from None
    except OSError as error:
        raise CommandFailed(ExitCode.INVALID, f"{name} cannot be read: {error.strerror}.") from None


def _json(content: bytes, name: str) -> Json:
    try:
        return read_json(content)
    except NotStorable as error:
        raise CommandFailed(
            ExitCode.INVALID, f"{name}: {error}", "Give one JSON text in UTF-8."
        ) from None
