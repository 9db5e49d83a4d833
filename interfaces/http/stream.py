"""An execution as it happens: Server-Sent Events, one per event, resumable at any version."""

from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from interfaces.bootstrap import Services
from interfaces.http.body import StrictRoute
from interfaces.http.caller import WORKSPACE
from interfaces.http.documented import answers
from interfaces.http.frame import HEAD_REQUEST
from interfaces.http.present import API, event_body, event_type
from interfaces.http.problems import Refused, refused_part
from interfaces.http.serving import ExecutionId, services_of

RETRY_MS: Final = 2_000
PING_SECONDS: Final = 15
STREAMS_MAX: Final = 2_000
SEND_SECONDS_MAX: Final = 10
_EVENT_STREAM: Final = "text/event-stream"
_NUMBER_MAX: Final = 2**53
_TEXT: Final = {"type": "string"}
_MESSAGE: Final = {
    "type": "object",
    "description": "One message of the stream.",
    "properties": {"id": _TEXT, "event": _TEXT, "data": _TEXT},
}

router = APIRouter(prefix=API, tags=["events"], route_class=StrictRoute)

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID", max_length=16, pattern=r"^[0-9]+$", description="Resume after it."
    ),
]


class OpenStreams:
    """How many streams this process serves; each costs memory, so there is an end to it."""

    def __init__(self) -> None:
        self.count = 0

    def refuse_when_full(self) -> None:
        """Raises Refused at the limit."""
        if self.count >= STREAMS_MAX:
            raise Refused(
                "too_many_streams",
                f"This server has {self.count} open streams; it serves at most {STREAMS_MAX}.",
                headers={"Retry-After": "5"},
            )


@router.get(
    "/executions/{execution_id}/stream",
    response_class=EventSourceResponse,
    responses=answers("not_found", "too_many_streams")
    | {
        200: {
            "description": "`id` is the version, `event` the type, `data` the event as JSON; "
            "`event: end` closes.",
            "content": {_EVENT_STREAM: {"schema": _MESSAGE}},
        }
    },
)
async def stream_execution(
    request: Request,
    execution_id: ExecutionId,
    after: Annotated[int | None, Query(ge=0, le=_NUMBER_MAX)] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Its events from the first, or after `Last-Event-ID` (or `?after=`), as they come."""
    services = services_of(request)
    view = await services.history.view(WORKSPACE, execution_id)
    resumed = last_event_id is not None
    seen = int(last_event_id) if last_event_id is not None else after or 0
    if seen > view.version:
        place, name = ("header", "Last-Event-ID") if resumed else ("query", "after")
        raise refused_part(
            place, name, "out_of_range", f"the execution has {view.version} events so far"
        )
    headers = {"Cache-Control": "no-store"}
    if HEAD_REQUEST in request.scope:
        return Response(media_type=_EVENT_STREAM, headers=headers)
    streams: OpenStreams = request.app.state.streams
    streams.refuse_when_full()
    return EventSourceResponse(
        _messages(services, view.id, seen, streams),
        headers=headers,
        ping=PING_SECONDS,
        send_timeout=SEND_SECONDS_MAX,
    )


async def _messages(
    services: Services, execution_id: str, seen: int, streams: OpenStreams
) -> AsyncIterator[ServerSentEvent]:
    streams.count += 1
    try:
        yield ServerSentEvent(retry=RETRY_MS)
        async for recorded in services.history.follow(WORKSPACE, execution_id, seen):
            seen = recorded.event.version
            yield ServerSentEvent(
                msgspec.json.encode(event_body(recorded)).decode(),
                id=str(seen),
                event=event_type(recorded.event.data.TOPIC),
            )
        end = {"execution_id": execution_id, "version": seen}
        yield ServerSentEvent(msgspec.json.encode(end).decode(), event="end")
    finally:
        streams.count -= 1
