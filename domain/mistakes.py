"""What is wrong with a definition: mistakes with their places, collected and never raised."""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeGuard

from domain.json_values import Json, JsonObject, pointer_join

SECONDS_MAX: Final = 31_536_000
"""One year: the longest time-out, wait and delay."""
TEXT_MAX: Final = 4_096
TEXTS_MAX: Final = 100
IGNORED_FIELDS: Final = frozenset({"workflow_id", "version", "metadata", "circuit_breaker_config"})
"""What older clients send along; passes everywhere in a definition, as names with `x-` do."""


class Mistake(NamedTuple):
    """One thing that is wrong: where (RFC 6901 pointer), a stable code, what to do about it."""

    pointer: str
    code: str
    message: str


class Places:
    """Where the parts of the normalised form stand in what was sent, where the two differ."""

    def __init__(self) -> None:
        self._written: dict[str, str] = {}

    def note(self, normalised: str, written: str) -> None:
        """The part at `normalised`, with all it holds, was read from `written`."""
        self._written[normalised] = written

    def written(self, pointer: str) -> str:
        """The place in what was sent."""
        for _ in range(3):  # a setting under its old name, in an action, in a list
            head, tail = pointer, ""
            while head and head not in self._written:
                head, slash, name = head.rpartition("/")
                tail = slash + name + tail
            if not head:
                break
            pointer = self._written[head] + tail
        return pointer


class Fields:
    """The members of one object, read one by one; pointers are those of the normalised form."""

    __slots__ = ("mistakes", "pointer", "raw")

    def __init__(self, raw: JsonObject, pointer: str, mistakes: list[Mistake]) -> None:
        self.raw = raw
        self.pointer = pointer
        self.mistakes = mistakes

    def refuse(self, code: str, message: str, *parts: str | int) -> None:
        """Note a mistake in the object, or in the part of it that `parts` name."""
        self.mistakes.append(Mistake(pointer_join(self.pointer, *parts), code, message))

    def refuse_others(
        self, known: frozenset[str], later: frozenset[str] = frozenset(), inside: str = ""
    ) -> None:
        """Refuse members (of the object `inside`, if given) that nothing would read."""
        members = self.object(inside) if inside else self.raw
        for field in members:
            if field in known or field in IGNORED_FIELDS or field.startswith("x-"):
                continue
            parts = (inside, field) if inside else (field,)
            if field in later:
                message = f"{field!r} is not available yet; leave it out."
                self.refuse("not_available_yet", message, *parts)
            else:
                message = f"{field!r} is not a field here; known are {', '.join(sorted(known))}."
                self.refuse("unknown_field", message, *parts)

    def text(self, field: str) -> str | None:
        """A text of bounded length, or None."""
        value = self.raw.get(field)
        if value is None or (isinstance(value, str) and len(value) <= TEXT_MAX):
            return value
        self.refuse("bad_value", f"{field} is text of at most {TEXT_MAX} characters.", field)
        return None

    def object(self, field: str) -> JsonObject:
        """An object; empty when it is left out."""
        value = self.raw.get(field, {})
        if isinstance(value, dict):
            return value
        self.refuse("bad_value", f"{field} is a JSON object.", field)
        return {}

    def step_id(self, field: str) -> str | None:
        """The id of another step, or None."""
        value = self.raw.get(field)
        if value is None or (isinstance(value, str) and value):
            return value
        self.refuse("bad_value", f"{field} is the id of a step, or null.", field)
        return None

    def flag(self, field: str, default: bool | None = None) -> bool | None:
        """True or false."""
        value = self.raw.get(field)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.refuse("bad_value", f"{field} is true or false.", field)
        return default

    def number(self, field: str, low: float, high: float, default: float = 0.0) -> float:
        """A number from `low` to `high`; the default when it is left out."""
        value = self.raw.get(field, default)
        if not is_number(value):
            self.refuse("bad_value", f"{field} is a number.", field)
        elif not low <= value <= high:
            self.refuse("out_of_range", f"{field} is between {low} and {high}.", field)
        else:
            return float(value)
        return default

    def whole(self, field: str, low: int, high: int, default: int = 0) -> int:
        """A whole number from `low` to `high`; the default when it is left out."""
        value = self.raw.get(field, default)
        if not is_number(value) or isinstance(value, float):
            self.refuse("bad_value", f"{field} is a whole number.", field)
        elif not low <= value <= high:
            self.refuse("out_of_range", f"{field} is between {low} and {high}.", field)
        else:
            return value
        return default

    def choice(self, field: str, choices: Sequence[str], default: str | None) -> str | None:
        """One of a few words; the default when it is left out."""
        value = self.raw.get(field)
        if value is None or (isinstance(value, str) and value in choices):
            return default if value is None else value
        self.refuse("bad_value", f"{field} is one of {', '.join(choices)}.", field)
        return default

    def texts(self, field: str) -> list[Json]:
        """A list of texts, none of them empty; empty when it is left out."""
        value = self.raw.get(field)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > TEXTS_MAX:
            self.refuse("bad_value", f"{field} is a list of at most {TEXTS_MAX} texts.", field)
            return []
        for index, each in enumerate(value):
            if not isinstance(each, str) or not 0 < len(each) <= TEXT_MAX:
                message = f"{field} holds texts of 1 to {TEXT_MAX} characters."
                self.refuse("bad_value", message, field, index)
        return [each for each in value if isinstance(each, str)]

    def seconds(self, field: str, default: int | None) -> Json:
        """A time in seconds, more than 0."""
        value = self.raw.get(field)
        if value is None:
            return default
        if is_number(value) and 0 < value <= SECONDS_MAX:
            return value
        message = f"{field} is a number of seconds above 0, at most {SECONDS_MAX}."
        self.refuse("out_of_range", message, field)
        return default


def is_number(value: Json) -> TypeGuard[int | float]:
    """Whether `value` is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
