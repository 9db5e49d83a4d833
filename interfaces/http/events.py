"""The ledger itself: the events of one execution, and of all, as pages or as lines."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Final, Protocol
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from domain.events import Recorded
from interfaces.http.body import StrictRoute
from interfaces.http.caller import WORKSPACE
from interfaces.http.conditional import IMMUTABLE, NO_CACHE
from interfaces.http.documented import Responses, answers
from interfaces.http.lists import next_link
from interfaces.http.present import API, event_body, json_answer
from interfaces.http.serving import ExecutionId, services_of
from interfaces.http.shapes import EventPage

LINES: Final = "application/x-ndjson"
_CHUNK: Final = 500
_NUMBER_MAX: Final = 2**53

router = APIRouter(prefix=API, tags=["events"], route_class=StrictRoute)

After = Annotated[int, Query(ge=0, le=_NUMBER_MAX)]
Limit = Annotated[int | None, Query(ge=1, le=1_000, description="100 without it; all for lines.")]
Accept = Annotated[
    str, Header(max_length=1_000, description=f"`{LINES}` streams one event a line.")
]
_EXTRA_TYPE: Responses = {
    200: {"content": {LINES: {"schema": {"type": "string", "description": "One event a line."}}}}
}


def _event_answers(*codes: str) -> Responses:
    good = answers(*codes, model=EventPage, headers=("Link",))
    good[200] |= _EXTRA_TYPE[200]
    return good


@router.get(
    "/executions/{execution_id}/events",
    response_model=EventPage,
    responses=_event_answers("not_found"),
)
async def list_execution_events(
    request: Request,
    execution_id: ExecutionId,
    after_version: After = 0,
    limit: Limit = None,
    accept: Accept = "",
) -> Response:
    """The history of an execution, in order. A full page never changes."""
    history = services_of(request).history

    async def read(after: int, count: int) -> Sequence[Recorded]:
        return await history.events(WORKSPACE, execution_id, after_version=after, limit=count)

    if _wants_lines(accept):
        first = await read(after_version, min(limit or _CHUNK, _CHUNK))
        lines = _lines(first, limit, read, lambda last: last.event.version)
        return StreamingResponse(lines, media_type=LINES, headers={"Cache-Control": NO_CACHE})
    size = limit or 100
    items = await read(after_version, size)
    return _page(request, items, size, "after_version", [each.event.version for each in items])


@router.get("/events", response_model=EventPage, responses=_event_answers())
async def list_events(
    request: Request, after: After = 0, limit: Limit = None, accept: Accept = ""
) -> Response:
    """The global log, in the order in which everything was stored."""
    history = services_of(request).history

    async def read(position: int, count: int) -> Sequence[Recorded]:
        return await history.all_events(WORKSPACE, after=position, limit=count)

    if _wants_lines(accept):
        first = await read(after, min(limit or _CHUNK, _CHUNK))
        lines = _lines(first, limit, read, lambda last: last.position)
        return StreamingResponse(lines, media_type=LINES, headers={"Cache-Control": NO_CACHE})
    size = limit or 100
    items = await read(after, size)
    return _page(request, items, size, "after", [each.position for each in items])


def _page(
    request: Request, items: Sequence[Recorded], size: int, name: str, places: Sequence[int]
) -> Response:
    full = len(items) == size
    following = places[-1] if full else None
    headers = {"Cache-Control": IMMUTABLE if full else NO_CACHE, "Vary": "Authorization, Accept"}
    if following is not None:
        headers |= next_link(request, parse_qsl(request.url.query), name, str(following))
    body = {"items": [event_body(each) for each in items], "next_after": following}
    return json_answer(body, headers=headers)


def _wants_lines(accept: str) -> bool:
    return any(part.partition(";")[0].strip() == LINES for part in accept.lower().split(","))


class _Read(Protocol):
    async def __call__(self, after: int, count: int, /) -> Sequence[Recorded]: ...


async def _lines(
    page: Sequence[Recorded], limit: int | None, read: _Read, place: Callable[[Recorded], int]
) -> AsyncIterator[bytes]:
    """All events up to the present head, or `limit` of them; memory holds one chunk."""
    left = limit
    while page:
        yield b"".join(msgspec.json.encode(event_body(each)) + b"\n" for each in page)
        if left is not None:
            left -= len(page)
        if len(page) < _CHUNK or left == 0:
            return
        page = await read(place(page[-1]), _CHUNK if left is None else min(left, _CHUNK))
