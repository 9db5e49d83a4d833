"""What may become part of an event: the one strict JSON reader and the one check of a value.

Everything that is stored passes here once: request bodies at the door (`read_json`), outputs of
actions when their effect returns (`check_storable`). A value that passes can be written to every
store and every answer: both databases, JSON columns, Kafka, a browser.

Values that passed are shared, not copied: treat them as immutable.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, TypeVar

import msgspec

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
else:
    # msgspec and pydantic build no decoder for a recursive alias; they take any value here, and
    # what may be stored is decided by this module.
    Json = Any
JsonObject: TypeAlias = dict[str, Json]
Stored = TypeVar("Stored", Json, JsonObject)

DEPTH_MAX: Final = 64
"""Containers inside one another; `[[1]]` has depth 2."""
KEYS_MAX: Final = 10_000
"""Object members in one whole value."""
BODY_BYTES_MAX: Final = 1_000_000
PAYLOAD_BYTES_MAX: Final = 256 * 1024
INTEGER_MAX: Final = 2**53
"""Largest magnitude of an integer: beyond it a double, hence a browser, loses digits."""

_POINTER_PART_CHARACTERS_MAX = 200
_BYTES_PER_CHARACTER_MAX = 6  # a control character is written as \\u001f
_BYTES_PER_ITEM_MAX = 32  # the longest number is 24 bytes; quotes, colon and comma
_BYTES_PER_ITEM_MIN = 2  # one digit and its comma
_TOO_DEEP = f"the value is nested deeper than {DEPTH_MAX} levels"


class NotStorable(ValueError):
    """A value, or a text that should be one, cannot become part of an event.

    `code` is one of `bad_encoding, not_json, duplicate_key, too_deep, too_many_keys, too_large,
    not_a_number, integer_too_large, nul_character, lone_surrogate, not_a_json_type`.
    `pointer` is the RFC 6901 pointer of the place, "" for the whole value or where the place is not
    known. Both and `message` are safe to send: no NUL, no surrogate, bounded length.
    """

    def __init__(self, code: str, message: str, pointer: str = "") -> None:
        super().__init__(f"{message} (at {pointer})" if pointer else message)
        self.code = code
        self.message = message
        self.pointer = pointer


def read_json(body: bytes, *, bytes_max: int = BODY_BYTES_MAX) -> Json:
    """Read one JSON text (RFC 8259, UTF-8 without a byte order mark) strictly.

    Raises `NotStorable`, also for what Python's reader lets through: repeated member names, NaN,
    Infinity, numbers beyond a double, and everything `check_storable` refuses.
    """
    value = parse_json(body, bytes_max=bytes_max)
    _check(value, pointer="", bytes_max=bytes_max)
    return value


def parse_json(body: bytes, *, bytes_max: int = BODY_BYTES_MAX) -> Json:
    """As `read_json`, for who checks the parts one by one: none is storable before its
    `check_storable`.
    """
    if len(body) > bytes_max:
        _refuse("too_large", f"the body has {len(body)} bytes; at most {bytes_max} are accepted")
    return _parse(_decode(body))


def check_storable(
    value: object,
    *,
    pointer: str = "",
    bytes_max: int = PAYLOAD_BYTES_MAX,
    keys_max: int = KEYS_MAX,
) -> Json:
    """Return the same `value` when it is storable JSON of at most `bytes_max` bytes.

    Only the exact types None, bool, int, float, str, list and dict pass: a tuple, a set, a subclass
    would come back from the store as something else. Raises `NotStorable`; its pointer begins with
    `pointer`, the place of this value in what the caller shows.
    """
    walk = _check(value, pointer=pointer, bytes_max=bytes_max, keys_max=keys_max)
    if walk.bytes_bound() > bytes_max:
        size = len(msgspec.json.encode(value))
        if size > bytes_max:
            _refuse("too_large", _too_large(bytes_max, f"it has {size}"), pointer)
    return value  # type: ignore[return-value]  # _check has just proved it


def own_copy(value: Stored) -> Stored:
    """A storable value that nobody else holds. Foreign code may go on changing what it gave or got;
    states and projections would then tell what the log does not.
    """
    copied: Stored = msgspec.to_builtins(value)
    return copied


def canonical_bytes(value: Json) -> bytes:
    """The one spelling of a storable value for hashes: sorted members, no blanks, UTF-8.

    Stored hashes depend on it, so `tests/domain/test_json_values.py` pins examples.
    """
    return msgspec.json.encode(value, order="sorted")


def plain_text(text: str, characters_max: int) -> str:
    """Text of others that can be stored: no NUL, no lone surrogate, cut."""
    cut = text if len(text) <= characters_max else text[: characters_max - 1] + "…"
    return cut.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def sha256_of(value: Json) -> str:
    """SHA-256 of `canonical_bytes`, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def pointer_join(pointer: str, *parts: str | int) -> str:
    """Extend an RFC 6901 pointer: `pointer_join("/steps", "a/b", 0)` is `/steps/a~1b/0`."""
    return pointer + "".join(
        "/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts
    )


def _refuse(code: str, message: str, pointer: str = "") -> NoReturn:
    raise NotStorable(code, message, pointer)


def _too_large(bytes_max: int, fact: str) -> str:
    return f"the value may have at most {bytes_max} bytes as JSON; {fact}"


# --- the reader ---


class _RepeatedName(dict[str, Json]):
    """Left in the parsed value where an object repeats a name; `_Walk` reports the place."""

    name: str


def _decode(body: bytes) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        _refuse("bad_encoding", "the body starts with a byte order mark; send plain UTF-8")
    if b"\x00" in body[:4]:
        _refuse("bad_encoding", "the body looks like UTF-16 or UTF-32; send UTF-8")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse("bad_encoding", f"byte {error.start} of the body is not valid UTF-8")


def _parse(text: str) -> Json:
    try:
        return _load(text)
    except json.JSONDecodeError as error:
        # `from None`: the error would keep the whole body alive in logs and traces.
        raise NotStorable(
            "not_json", f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise NotStorable("too_deep", _TOO_DEEP) from None
    except ValueError:  # int() refuses thousands of digits without saying where; the walk will
        return _load(text, read_integer=_read_long_integer)


def _load(text: str, read_integer: Callable[[str], int] | None = None) -> Json:
    value: Json = json.loads(text, object_pairs_hook=_read_object, parse_int=read_integer)
    return value


def _read_long_integer(digits: str) -> int:
    return int(digits) if len(digits) < 20 else INTEGER_MAX + 1


def _read_object(pairs: list[tuple[str, Json]]) -> JsonObject:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    repeated = _RepeatedName(members)
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            repeated.name = name
        seen.add(name)
    return repeated


# --- the check ---


def _check(value: object, *, pointer: str, bytes_max: int, keys_max: int = KEYS_MAX) -> "_Walk":
    walk = _Walk(bytes_max, keys_max)
    try:
        walk.item(value, 1)
    except _Refusal as refusal:
        place = pointer_join(pointer, *map(_showable, reversed(refusal.path)))
        raise NotStorable(refusal.code, refusal.message, place) from None
    return walk


def _showable(part: str | int) -> str | int:
    """A name that was just refused may itself be what cannot be sent, or be very long."""
    if isinstance(part, int):
        return part
    if len(part) > _POINTER_PART_CHARACTERS_MAX:
        part = part[:_POINTER_PART_CHARACTERS_MAX] + "..."
    return part.replace("\x00", "\\u0000").encode("utf-8", "backslashreplace").decode()


class _Refusal(Exception):
    """A mistake on its way up; each container adds where it was, so the good case pays nothing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.path: list[str | int] = []


class _Walk:
    """Looks at every item of one value once; its budgets also end a value that shares its parts.

    (An action may return a list that holds one list ten times, which holds another ten times, and
    so on: a few bytes in memory, 10^64 items when written.)
    """

    __slots__ = ("bytes_max", "characters", "items", "keys", "keys_max")

    def __init__(self, bytes_max: int, keys_max: int) -> None:
        self.bytes_max = bytes_max
        self.keys_max = keys_max
        self.items = 1
        self.keys = 0
        self.characters = 0

    def bytes_bound(self) -> int:
        """No JSON text of the value is longer than this."""
        return self.characters * _BYTES_PER_CHARACTER_MAX + self.items * _BYTES_PER_ITEM_MAX

    def item(self, value: object, depth: int) -> None:
        if type(value) is str:
            self.text(value)
        elif type(value) is int:
            if not -INTEGER_MAX <= value <= INTEGER_MAX:
                raise _Refusal(
                    "integer_too_large",
                    "an integer beyond 2^53 loses digits in JSON readers; send it as a string",
                )
        elif type(value) is dict:
            self.members(value, depth)
        elif type(value) is list:
            self.elements(value, depth)
        elif type(value) is float:
            if not -math.inf < value < math.inf:
                raise _Refusal("not_a_number", "NaN, Infinity and numbers like 1e400 are not JSON")
        elif value is not None and type(value) is not bool:  # a subclass is none of these
            raise _wrong_type(value)

    def text(self, text: str) -> None:
        self.characters += len(text)
        if self.characters > self.bytes_max:
            raise _Refusal("too_large", _too_large(self.bytes_max, "its texts alone have more"))
        if "\x00" in text:
            raise _Refusal("nul_character", "the text holds a NUL character, which cannot be kept")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _Refusal(
                    "lone_surrogate", "the text holds half of a surrogate pair; it is not Unicode"
                ) from None

    def members(self, members: dict[object, object], depth: int) -> None:
        self.enter(len(members), depth)
        self.keys += len(members)
        if self.keys > self.keys_max:
            message = f"the value has more than {self.keys_max} object members"
            raise _Refusal("too_many_keys", message)
        name: object = None
        try:
            for name, value in members.items():
                if type(name) is not str:
                    raise _Refusal("not_a_json_type", "the name of a member is not a str")
                self.text(name)
                self.item(value, depth + 1)
        except _Refusal as refusal:
            refusal.path.append(name if type(name) is str else f"({type(name).__name__})")
            raise

    def elements(self, elements: list[object], depth: int) -> None:
        self.enter(len(elements), depth)
        index = -1
        try:
            for value in elements:
                index += 1  # read after the loop was left by an exception
                self.item(value, depth + 1)
        except _Refusal as refusal:
            refusal.path.append(index)
            raise

    def enter(self, length: int, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise _Refusal("too_deep", _TOO_DEEP)
        self.items += length
        if self.items * _BYTES_PER_ITEM_MIN > self.bytes_max + _BYTES_PER_ITEM_MIN:
            raise _Refusal("too_large", _too_large(self.bytes_max, "it has more items than fit"))


def _wrong_type(value: object) -> _Refusal:
    if isinstance(value, _RepeatedName):
        repeated = _Refusal("duplicate_key", "the object names this member twice")
        repeated.path.append(value.name)
        return repeated
    name = type(value).__name__[:100]
    plain = next((k.__name__ for k in (str, int, float, dict, list) if isinstance(value, k)), "")
    advice = f"convert it with {plain}(...)" if plain else "return JSON values only"
    return _Refusal("not_a_json_type", f"a {name} is not a JSON value; {advice}")
