"""The page of settings: every environment variable that the server reads."""

from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from infrastructure.effects.secrets import ENVIRONMENT_PREFIX, LENGTH_MIN
from infrastructure.settings import Settings
from tools.markdown import table

_INTRODUCTION: Final = """# Settings

The server and the commands read their settings from the environment, once, at start. A wrong value
stops the start with a message that names it. Options of a command win over the environment; they
have the same names, as `--lease-seconds` for `FLOWLEDGER_LEASE_SECONDS`.

Booleans are `true` or `false`. [Running it in production](../how-to/run-in-production.md) says
which of these to think about.
"""
_OTHERS: Final = f"""## Others

| variable | meaning |
| --- | --- |
| `{ENVIRONMENT_PREFIX}NAME` | The value of `${{secret.NAME}}`, {LENGTH_MIN} characters or more. |
| `FLOWLEDGER_URL` | The server that the [commands](cli.md) talk to, as `--url`. |
"""
_BOUNDS: Final = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below"}


def settings_page() -> str:
    """The page."""
    prefix = Settings.model_config["env_prefix"]
    rows = [
        (f"`{prefix}{name.upper()}`", _type(field), _default(field), str(field.description))
        for name, field in Settings.model_fields.items()
    ]
    listed = table(("variable", "type", "default", "meaning"), rows)
    return f"{_INTRODUCTION}\n{listed}\n{_OTHERS}"


def _type(field: FieldInfo) -> str:
    kind: Any = field.annotation  # any type a setting may have
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(kind))
    plain = next((each for each in get_args(kind) if each is not type(None)), kind)
    names = {str: "text", int: "whole number", float: "number", bool: "boolean", Path: "path"}
    name = "text, secret" if plain is SecretStr else names[plain]
    bounds = [
        f"{_BOUNDS[type(each).__name__]} {_bound(each):,}"
        for each in field.metadata
        if type(each).__name__ in _BOUNDS
    ]
    return ", ".join([name, *bounds])


def _bound(constraint: object) -> float:
    value: float = getattr(constraint, type(constraint).__name__.lower())
    return value


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
