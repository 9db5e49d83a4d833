"""Declares the configuration of a built-in action once; used at registration and before the call.

At registration values may still hold references and are then not judged; before the call all of
them are known, and the same rules raise.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from application.steps import StepFailure
from domain.json_values import Json, JsonObject, pointer_join
from domain.mistakes import Mistake

TEXT: tuple[type, ...] = (str,)
INTEGER: tuple[type, ...] = (int,)
OBJECT: tuple[type, ...] = (dict,)
ANY: tuple[type, ...] = (str, int, float, bool, list, dict, type(None))

_NAMES: Mapping[type, str] = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One member of a configuration."""

    kinds: tuple[type, ...]
    """JSON types it may have, as Python types; `bool` is no `int` here."""
    required: bool = False
    mistake: Callable[[Json], str | None] | None = None
    """What else is wrong with a value of the right type, in words."""


Fields = Mapping[str, Field]


def mistakes_as_written(fields: Fields, config: JsonObject, pointer: str) -> Iterator[Mistake]:
    """Every mistake that is certain before references are resolved."""
    for name in config.keys() - fields.keys():
        known = ", ".join(sorted(fields))
        yield Mistake(
            pointer_join(pointer, name), "unknown_field", f"unknown field; the known ones: {known}"
        )
    for name, field in fields.items():
        if config.get(name) is None and type(None) not in field.kinds:
            if field.required:
                yield Mistake(pointer, "missing_field", f"{name!r} is missing")
        elif name in config and not holds_reference(config[name]):
            found = _mistake(field, config[name])
            if found is not None:
                yield Mistake(pointer_join(pointer, name), *found)


def require_valid(fields: Fields, config: JsonObject) -> None:
    """Raises `StepFailure` with code `bad_config` (permanent) for the first mistake."""
    for name, field in fields.items():
        value = config.get(name)
        if value is None and type(None) not in field.kinds:
            found = ("missing_field", "it is missing or null") if field.required else None
        else:
            found = _mistake(field, value)
        if found is not None:
            raise StepFailure("bad_config", f"config/{name}: {found[1]}", error_class="permanent")


def holds_reference(value: Json) -> bool:
    """Whether a value, or one inside it, may hold a reference in any accepted form."""
    match value:
        case str():
            return "${" in value or "{{" in value or value.startswith(("$.", "$["))
        case dict():
            return any(holds_reference(member) for member in value.values())
        case list():
            return any(holds_reference(item) for item in value)
        case _:
            return False


def _mistake(field: Field, value: Json) -> tuple[str, str] | None:
    if type(value) not in field.kinds:
        names = " or ".join(_NAMES[kind] for kind in field.kinds if kind in _NAMES)
        return "wrong_type", f"must be {names}"
    text = field.mistake(value) if field.mistake is not None else None
    return ("bad_value", text) if text is not None else None
