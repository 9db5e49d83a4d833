"""Who calls and how the call may be repeated: headers to a `Caller`.

Read by hand, because the framework's header parameters cost a fifth of the busiest request.
"""

from typing import Any, Final

from starlette.requests import Request

from application.callers import DEFAULT_WORKSPACE, Caller
from domain.json_values import Json, sha256_of
from interfaces.caller_names import (
    ACTOR_CHARACTERS_MAX,
    KEY_CHARACTERS_MAX,
    KEY_PATTERN,
    is_name,
    is_visible,
)
from interfaces.http.body import StrictRequest
from interfaces.http.conditional import expected_version
from interfaces.http.problems import refused_part

WORKSPACE: Final = DEFAULT_WORKSPACE
"""Until principals bring their own, everything belongs to one workspace."""
CORRELATION_CHARACTERS_MAX: Final = 128


async def caller_of(request: Request) -> Caller:
    """The principal and the identity of this request; raises Refused for a malformed header."""
    key = _visible(request, "Idempotency-Key", KEY_CHARACTERS_MAX)
    names = request.path_params.values()
    route = ":".join((request.scope["route"].name, *map(str, names)))
    return Caller(
        workspace_id=WORKSPACE,
        actor=_actor(request),
        route=route,
        idempotency_key=key,
        fingerprint=await _fingerprint(request, route) if key is not None else None,
        correlation_id=_visible(request, "X-Correlation-ID", CORRELATION_CHARACTERS_MAX),
        if_match=expected_version(request),
    )


def fingerprint_of(route: str, query: str, body: Json) -> str:
    """What tells a repeated request from another one under the same key."""
    return sha256_of([route, query, body])


async def _fingerprint(request: Request, route: str) -> str:
    body = await request.json() if isinstance(request, StrictRequest) else None
    return fingerprint_of(route, request.url.query, body)


def _one(request: Request, header: str) -> str | None:
    values = request.headers.getlist(header)
    if len(values) > 1:
        raise refused_part("header", header, "repeated", "it may be given once")
    return values[0] if values else None


def _visible(request: Request, header: str, characters_max: int) -> str | None:
    value = _one(request, header)
    if value is None:
        return None
    if not is_visible(value, characters_max):
        raise refused_part(
            "header", header, "bad_value", f"use 1 to {characters_max} visible ASCII characters"
        )
    return value


def _actor(request: Request) -> str:
    value = _one(request, "X-Actor")
    if value is None:
        return "anonymous"
    try:
        name = value.encode("latin-1").decode()  # headers arrive as Latin-1
    except UnicodeError:
        raise refused_part("header", "X-Actor", "bad_encoding", "it is not UTF-8") from None
    if not is_name(name):
        message = f"use 1 to {ACTOR_CHARACTERS_MAX} visible characters"
        raise refused_part("header", "X-Actor", "bad_value", message)
    return name


def _parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **schema},
    }


_KEY: Final = _parameter(
    "Idempotency-Key",
    "The same key and body give the first answer again, with `Idempotency-Replayed: true`; "
    "another body is refused with 422. A key counts for the caller, the route and what the command "
    "is for: with another workflow, execution or agent, also by another `name` in the body, it is "
    "another command.",
    minLength=1,
    maxLength=KEY_CHARACTERS_MAX,
    pattern=KEY_PATTERN,
)
_IDENTITY: Final = (
    _parameter(
        "X-Actor",
        "Who asks, in visible characters (UTF-8); `anonymous` without it.",
        minLength=1,
        maxLength=ACTOR_CHARACTERS_MAX,
        pattern=r"^[\x21-\x7e]+( [\x21-\x7e]+)*$",
    ),
    _parameter(
        "X-Correlation-ID",
        "Kept in the events of this command.",
        minLength=1,
        maxLength=CORRELATION_CHARACTERS_MAX,
        pattern=KEY_PATTERN,
    ),
)
_IF_MATCH: Final = _parameter(
    "If-Match",
    "The `ETag` that you read; 412 with the present one when it has changed.",
    pattern=r'^(\*|"[0-9]{1,15}")$',
)
_IF_NONE_MATCH: Final = _parameter(
    "If-None-Match",
    "The `ETag` that you have; 304 while it is the present one.",
    pattern=r'^(\*|(W/)?"[0-9]{1,15}")$',
)
_PREFER: Final = _parameter(
    "Prefer",
    "`wait=N`: answer after at most N seconds (30 at most), sooner when there is something to say.",
    examples=["wait=10"],
)

Extra = dict[str, Any]  # FastAPI's own type
COMMAND: Final[Extra] = {"parameters": [_KEY, *_IDENTITY, _IF_MATCH]}
"""What OpenAPI says of a command on something that exists."""
REQUEST: Final[Extra] = {"parameters": [_KEY, *_IDENTITY]}
"""The same of a command that makes something new."""
WAITING_REQUEST: Final[Extra] = {"parameters": [_KEY, *_IDENTITY, _PREFER]}
REVISION: Final[Extra] = {"parameters": [*_IDENTITY, _IF_MATCH]}
CONDITIONAL: Final[Extra] = {"parameters": [_IF_NONE_MATCH]}
WAITING_READ: Final[Extra] = {"parameters": [_IF_NONE_MATCH, _PREFER]}
