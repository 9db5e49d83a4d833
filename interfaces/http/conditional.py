"""Versions as ETags, how long an answer stays good, when to ask again, how long to wait.

Sources: RFC 9110 (conditional requests), RFC 7240 (Prefer).
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from starlette.requests import Request

from application.views import ExecutionView
from domain.lifecycle import COMPLETED, TERMINAL
from interfaces.http.problems import refused_part

WAIT_SECONDS_MAX: Final = 30
NO_CACHE: Final = "private, no-cache"
SHORT_CACHE: Final = "private, max-age=60"
IMMUTABLE: Final = "private, max-age=31536000, immutable"
NEVER_SEEN: Final = 0
"""The version that no resource has; an `If-Match` that names no version of ours stands for it."""
_POLL_SECONDS: Final = ((10, 1), (60, 2), (600, 5), (3600, 15))
_POLL_SECONDS_MAX: Final = 30
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_TAGS: Final = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"(?:\s*,\s*(?:W/)?"[\x21\x23-\x7e]*")*\s*')
_WAIT: Final = re.compile(r"wait\s*=\s*\"?([^\";]*)\"?", re.IGNORECASE)
_TAGS_CHARACTERS_MAX: Final = 1_000


def etag(version: int) -> str:
    """The strong tag of a version."""
    return f'"{version}"'


def expected_version(request: Request) -> int | None:
    """`If-Match`: the version the caller decided on; None without it or for `*`."""
    header = _combined(request, "if-match")
    if header is None or header.strip() == "*":
        return None
    tags = _tags("If-Match", header)
    if len(tags) > 1:
        raise refused_part("header", "If-Match", "too_many", "send the one version you read")
    weak, value = tags[0]
    ours = value.isascii() and value.isdigit() and len(value) < 16 and not weak
    return int(value) if ours else NEVER_SEEN


def is_current(request: Request, version: int) -> bool:
    """Whether `If-None-Match` says that the caller has this version already."""
    header = _combined(request, "if-none-match")
    if header is None:
        return False
    if header == f'"{version}"':
        return True
    return header.strip() == "*" or any(
        value == str(version) for _, value in _tags("If-None-Match", header)
    )


def known_version(request: Request) -> int | None:
    """The one version that `If-None-Match` names, for a long poll; None for none or several."""
    header = _combined(request, "if-none-match")
    if header is None or header.strip() == "*":
        return None
    values = {value for _, value in _tags("If-None-Match", header)}
    value = values.pop()
    return int(value) if not values and value.isdigit() and len(value) < 16 else None


def wait_seconds(request: Request) -> int | None:
    """`Prefer: wait=N` in whole seconds, 30 at most; None without it."""
    header = _combined(request, "prefer")
    if header is None:
        return None
    for preference in header.split(","):
        found = _WAIT.match(preference.strip())
        if found is None:
            continue
        digits = found[1].strip()
        if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
            raise refused_part("header", "Prefer", "bad_wait", "wait is a whole number of seconds")
        return min(int(digits), WAIT_SECONDS_MAX)
    return None


def poll_after_seconds(view: ExecutionView, now: datetime) -> int:
    """When to look again: rarer as it gets older, in time for a timer, 30 s for a person."""
    age = (now - view.created_at).total_seconds()
    usual = next((pause for limit, pause in _POLL_SECONDS if age < limit), _POLL_SECONDS_MAX)
    if not view.waiting_on:
        return usual
    if all(wait.kind == "human_task" for wait in view.waiting_on):
        return _POLL_SECONDS_MAX
    timers = [wait.until for wait in view.waiting_on if wait.kind in ("start", "timer", "retry")]
    due = [until for until in timers if until is not None]
    if len(due) < len(view.waiting_on):
        return usual
    pause = (min(due) - now).total_seconds()
    return max(1, min(_POLL_SECONDS_MAX, round(pause + 0.5)))


def execution_headers(view: ExecutionView, now: datetime) -> dict[str, str]:
    """What every answer with an execution carries."""
    headers = {
        "ETag": f'"{view.version}"',
        "Cache-Control": SHORT_CACHE if view.status == COMPLETED else NO_CACHE,
        "Vary": "Authorization, Prefer",
    }
    if view.status not in TERMINAL:
        headers["Retry-After"] = str(poll_after_seconds(view, now))
    return headers


def wait_applied(seconds: int | None) -> Mapping[str, str]:
    """Says which wait was used."""
    return {} if seconds is None else {"Preference-Applied": f"wait={seconds}"}


def _combined(request: Request, header: str) -> str | None:
    """Several lines of a list header are one list (RFC 9110, 5.3)."""
    values = request.headers.getlist(header)
    return ", ".join(values) if values else None


def _tags(header: str, value: str) -> list[tuple[bool, str]]:
    if len(value) > _TAGS_CHARACTERS_MAX or not _TAGS.fullmatch(value):
        raise refused_part("header", header, "bad_etag", 'send a tag as it came in ETag, like "7"')
    return [(bool(weak), text) for weak, text in _TAG.findall(value)]
