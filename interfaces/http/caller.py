"""Who calls and how the call may be repeated: headers to a `Caller`."""

from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import Request

from application.callers import Caller
from domain.json_values import Json, sha256_of
from interfaces.http.body import StrictRequest
from interfaces.http.conditional import expected_version
from interfaces.http.problems import refused_part

WORKSPACE: Final = "default"
"""Until principals bring their own, everything belongs to one workspace."""
ACTOR_CHARACTERS_MAX: Final = 128

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Visible ASCII. The same key and body give the first answer again, and "
        "`Idempotency-Replayed: true`; another body is refused with 422.",
    ),
]
CorrelationId = Annotated[
    str | None,
    Header(
        alias="X-Correlation-ID",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Kept in the events of this command.",
    ),
]
Actor = Annotated[
    str | None,
    Header(
        alias="X-Actor",
        min_length=1,
        max_length=ACTOR_CHARACTERS_MAX * 4,
        description="Who asks, at most 128 visible characters in UTF-8; `anonymous` without it.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1_000,
        description="The `ETag` that you read; 412 with the present one when it has changed.",
    ),
]


async def _caller(
    request: Request,
    idempotency_key: IdempotencyKey = None,
    correlation_id: CorrelationId = None,
    actor: Actor = None,
    if_match: IfMatch = None,
) -> Caller:
    for header in ("idempotency-key", "x-actor", "x-correlation-id", "if-match"):
        if len(request.headers.getlist(header)) > 1:
            raise refused_part("header", header, "repeated", "it may be given once")
    route = ":".join((request.scope["route"].name, *request.path_params.values()))
    return Caller(
        workspace_id=WORKSPACE,
        actor=_name_of(actor),
        route=route,
        idempotency_key=idempotency_key,
        fingerprint=await _fingerprint(request, route) if idempotency_key else None,
        correlation_id=correlation_id,
        if_match=expected_version(request) if if_match is not None else None,
    )


CallerOf = Annotated[Caller, Depends(_caller)]


def fingerprint_of(route: str, query: str, body: Json) -> str:
    """What tells a repeated request from another one under the same key."""
    return sha256_of([route, query, body])


async def _fingerprint(request: Request, route: str) -> str:
    body = await request.json() if isinstance(request, StrictRequest) else None
    return fingerprint_of(route, request.url.query, body)


def _name_of(actor: str | None) -> str:
    if actor is None:
        return "anonymous"
    try:
        name = actor.encode("latin-1").decode()  # headers arrive as Latin-1
    except UnicodeError:
        raise refused_part("header", "X-Actor", "bad_encoding", "it is not UTF-8") from None
    if len(name) > ACTOR_CHARACTERS_MAX or not name.isprintable() or not name.strip():
        raise refused_part("header", "X-Actor", "bad_name", "use 1 to 128 visible characters")
    return name
