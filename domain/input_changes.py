"""The input of an alternative: that of the try that failed, with some places changed."""

from domain.json_values import INTEGER_MAX, Json, JsonObject
from domain.mistakes import is_number
from domain.recovery_stages import InputChange


def changed_input(given: Json, changes: tuple[InputChange, ...]) -> Json:
    """A changed copy; raises ValueError that names the place where a change does not fit."""
    for change in changes:
        given = _changed(given, change.path.split("."), change)
    return given


def _changed(value: Json, place: list[str], change: InputChange) -> Json:
    if not place:
        return change.value if change.multiply is None else _product(value, change)
    name, deeper = place[0], place[1:]
    if isinstance(value, dict):
        if name not in value and (deeper or change.multiply is not None):
            raise ValueError(_missing(change))
        changed: JsonObject = {**value, name: _changed(value.get(name), deeper, change)}
        return changed
    if isinstance(value, list) and name.isascii() and name.isdecimal() and len(name) < 10:
        index = int(name)
        if index < len(value):
            inside = _changed(value[index], deeper, change)
            return [*value[:index], inside, *value[index + 1 :]]
    raise ValueError(_missing(change))


def _product(value: Json, change: InputChange) -> Json:
    if not is_number(value):
        kind = type(value).__name__
        raise ValueError(f"{change.path} is multiplied, but it is a {kind} and no number.")
    product = value * (change.multiply or 0.0)
    if not -INTEGER_MAX <= product <= INTEGER_MAX:
        raise ValueError(f"{change.path} becomes too large a number.")
    # A count stays a count: half of 100 pieces is 50, not 50.0.
    return int(product) if isinstance(value, int) and product == int(product) else product


def _missing(change: InputChange) -> str:
    return f"the input has no {change.path} to change."
