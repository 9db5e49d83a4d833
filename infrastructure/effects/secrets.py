"""Secrets: read at start, filled in inside the effect, and never in anything that is recorded.

`${secret.NAME}` comes from the environment variable `FLOWLEDGER_SECRET_NAME` or from a secrets
file: a JSON object of texts, or lines `NAME=value` (`#` starts a comment line).
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from application.steps import SecretUse, StepFailure
from domain.json_values import Json, JsonObject, NotStorable, pointer_join, read_json
from domain.reference_forms import SECRET_USE

ENVIRONMENT_PREFIX = "FLOWLEDGER_SECRET_"
LENGTH_MIN = 6
"""A shorter value cannot be told from ordinary text when it is taken out of an output."""
MASK = "[secret]"
MASKS_MAX = 256

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class SecretsUnreadable(ValueError):
    """The secrets file cannot be used; the message says where and what to do."""


class Secrets:
    """The secrets of this process by name; prints as their number only."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)
        self._masks: dict[frozenset[str], Mask] = {}

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)})"

    @classmethod
    def read(cls, environment: Mapping[str, str], file: Path | None = None) -> "Secrets":
        """Secrets of the environment, over those of the file. Raises `SecretsUnreadable`."""
        from_environment = {
            name.removeprefix(ENVIRONMENT_PREFIX): value
            for name, value in environment.items()
            if name.startswith(ENVIRONMENT_PREFIX)
        }
        return cls({**(_read_file(file) if file is not None else {}), **from_environment})

    def fill_in(self, config: JsonObject, uses: Iterable[SecretUse]) -> tuple[JsonObject, "Mask"]:
        """A copy of the configuration with the secrets of `uses`, and what takes them out again.

        Texts at other places stay as they are, whatever they look like: they are data. Raises
        `StepFailure` (permanent): `secret_missing`, `secret_too_short`.
        """
        names: dict[str, set[str]] = {}
        for pointer, name in uses:
            names.setdefault(pointer, set()).add(name)
        used = frozenset(name for group in names.values() for name in group)
        values = {name: self._value(name) for name in used}
        mask = self._masks.get(used)
        if mask is None:
            if len(self._masks) >= MASKS_MAX:
                self._masks.clear()
            mask = self._masks[used] = Mask(values.values())

        def fill(text: str, pointer: str) -> str:
            allowed = names.get(pointer)
            if allowed is None:
                return text
            return SECRET_USE.sub(lambda use: values[use[1]] if use[1] in allowed else use[0], text)

        filled = {
            key: _copy_with(fill, value, pointer_join("", key)) for key, value in config.items()
        }
        return filled, mask

    def in_credential(self, text: str) -> str:
        """The credential that an agent's record gives: the secret, where it names one, else `text`.

        Raises `StepFailure` (permanent): `secret_missing`, `secret_too_short`.
        """
        use = SECRET_USE.fullmatch(text)
        return text if use is None else self._value(use[1])

    def _value(self, name: str) -> str:
        value = self._values.get(name, "")
        if not value:
            raise StepFailure(
                "secret_missing",
                f"the secret {name!r} is not set; set {ENVIRONMENT_PREFIX}{name} in the server's "
                f"environment or {name!r} in its secrets file, and start the server again",
                error_class="permanent",
            )
        if len(value) < LENGTH_MIN:
            raise StepFailure(
                "secret_too_short",
                f"the secret {name!r} has fewer than {LENGTH_MIN} characters and could not be "
                "kept out of the ledger; use a longer one",
                error_class="permanent",
            )
        return value


class Mask:
    """Takes secret values out of texts and JSON values, in every form they commonly come in."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def text(self, text: str) -> str:
        return self._pattern.sub(MASK, text)

    def json(self, value: Json) -> Json:
        """A copy without the secrets; a number that is a secret becomes text."""
        match value:
            case str():
                return self._pattern.sub(MASK, value)
            case dict():
                return {self.text(key): self.json(member) for key, member in value.items()}
            case list():
                return [self.json(item) for item in value]
            case bool() | None:
                return value
            case _:
                return MASK if self._pattern.search(str(value)) else value


def _copy_with(fill: Callable[[str, str], str], value: Json, pointer: str) -> Json:
    match value:
        case str():
            return fill(value, pointer)
        case dict():
            return {
                key: _copy_with(fill, member, pointer_join(pointer, key))
                for key, member in value.items()
            }
        case list():
            return [
                _copy_with(fill, item, pointer_join(pointer, index))
                for index, item in enumerate(value)
            ]
        case _:
            return value


def _forms(value: str) -> set[str]:
    """Raw, JSON, URL, hexadecimal and base64 spellings of a secret, also inside longer base64."""
    data = value.encode("utf-8", "surrogateescape")
    forms = {
        value,
        value.encode("unicode_escape").decode("ascii"),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        quote_plus(data),
        data.hex(),
        data.hex().upper(),
    }
    for safe in ("", "/"):
        quoted = quote(data, safe=safe)
        forms |= {quoted, re.sub("%..", lambda match: match[0].lower(), quoted)}
    for shift in range(3):
        forms |= _base64_forms(data, shift)
    return {form for form in forms if len(form) >= LENGTH_MIN}


def _base64_forms(data: bytes, shift: int) -> set[str]:
    """The characters that depend on `data` alone when `shift` bytes (mod 3) stand before it."""
    first = (0, 2, 3)[shift]
    last = (shift + len(data)) * 8 // 6
    padded = bytes(shift) + data
    return {
        encode(padded)[first:last].decode("ascii")
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    }


def _read_file(file: Path) -> dict[str, str]:
    try:
        mode = file.stat().st_mode
        content = file.read_bytes()
    except OSError as error:
        raise SecretsUnreadable(f"secrets file {file}: {error.strerror}") from error
    if mode & 0o037:
        raise SecretsUnreadable(
            f"secrets file {file}: others may read or change it (mode {mode & 0o777:o}); "
            f"run: chmod 600 {file}"
        )
    is_json = content.lstrip().startswith(b"{")
    values = _from_json(file, content) if is_json else _from_lines(file, content)
    for name in values:
        if _NAME.fullmatch(name) is None:
            raise SecretsUnreadable(
                f"secrets file {file}: {name!r} is no name; use 1 to 128 of A-Z a-z 0-9 . _ -"
            )
    return values


def _from_json(file: Path, content: bytes) -> dict[str, str]:
    try:
        parsed = read_json(content)
    except NotStorable as error:
        raise SecretsUnreadable(f"secrets file {file}: {error.message}") from error
    values: dict[str, str] = {}
    for name, value in parsed.items() if isinstance(parsed, dict) else ():
        if not isinstance(value, str):
            raise SecretsUnreadable(f"secrets file {file}: the value of {name!r} must be text")
        values[name] = value
    return values


def _from_lines(file: Path, content: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SecretsUnreadable(f"secrets file {file}: it must be UTF-8 text") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator:
            raise SecretsUnreadable(f"secrets file {file}, line {number}: write NAME=value")
        values[name.strip()] = value.strip()
    return values
