"""Literal credentials in a definition: they would be stored in events for ever."""

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_plus, urlsplit

from domain.json_values import Json, JsonObject, pointer_join
from domain.mistakes import Mistake

_KEYS: Final = re.compile(
    r"(authorization|proxy-authorization|x-api-key|api[_-]?key|apikey|password|passwd|secret"
    r"|client[_-]?secret|access[_-]?token|auth[_-]?token|token|private[_-]?key|cookie)\Z",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"\s*(?:bearer|basic)\s+(\S{8,})\s*\Z", re.IGNORECASE)
_NOT_A_WORD: Final = re.compile(r"[^A-Za-z]|[a-z][A-Z]")
"""Tells a token ("Basic dXNlcjpw") from language ("Basic information")."""
# Each alternative begins with a fixed text, so that a long value costs one pass.
_VALUES: Final = re.compile(
    r"whsec_[A-Za-z0-9+/=]{8,}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{16,}|ghp_[A-Za-z0-9]{20,}"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----|://[^/\s:@${]+:[^/\s@${]+@"
)
_MESSAGE: Final = (
    "This looks like a credential; store it as a secret and write ${secret.NAME} here."
)


def literal_credentials(steps: JsonObject) -> Iterator[Mistake]:
    """Places in the settings of normalised `steps` that hold what looks like a credential."""
    for step_id, step in steps.items():
        if isinstance(step, dict):
            for field in ("config", "input_mapping"):
                pointer = pointer_join("/steps", step_id, field)
                yield from _inside(step.get(field), pointer)


def credential_in_url(url: str) -> bool:
    """Whether the query of `url` has what looks like a credential."""
    pairs = (pair.partition("=") for pair in urlsplit(url).query.split("&"))
    return any(_is_credential(unquote_plus(name), value) for name, _, value in pairs)


def _inside(value: Json, pointer: str) -> Iterator[Mistake]:
    stack: list[tuple[Json, str, str]] = [(value, pointer, "")]
    while stack:
        value, pointer, key = stack.pop()
        if isinstance(value, str):
            if _is_credential(key, value):
                yield Mistake(pointer, "literal_credential", _MESSAGE)
            continue
        items: Iterable[tuple[str | int, Json]] = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        for name, inner in items:
            named = name if isinstance(name, str) else key
            stack.append((inner, pointer_join(pointer, name), named))


def _is_credential(key: str, value: str) -> bool:
    if not value or "${" in value or "{{" in value:
        return False
    scheme = _SCHEME.match(value)
    return bool(
        _KEYS.match(key)
        or _VALUES.search(value)
        or (scheme is not None and _NOT_A_WORD.search(scheme[1]))
    )
