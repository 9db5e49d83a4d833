"""An execution as it happens: Server-Sent Events, one per event, resumable at any version."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from application.history import History
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
_HEADERS: Final = {"Cache-Control": "no-store"}
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
    """How many streams this process serves or is about to; each costs memory, so there is an end
    to it.
    """

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Counts while it is entered. Raises Refused at the limit."""
        if self.count >= STREAMS_MAX:
            raise Refused(
                "too_many_streams",
                f"This server has {self.count} open streams; it serves at most {STREAMS_MAX}.",
                headers={"Retry-After": "5"},
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


class CountedStream(EventSourceResponse):
    """A stream that counts as long as it is sent."""

    def __init__(self, messages: AsyncIterator[ServerSentEvent], streams: OpenStreams) -> None:
        super().__init__(
            messages, headers=_HEADERS, ping=PING_SECONDS, send_timeout=SEND_SECONDS_MAX
        )
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._streams.one_more():
            await super().__call__(scope, receive, send)


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
    streams: OpenStreams = request.app.state.streams
    with streams.one_more():  # also while it waits for its turn
        view = await services.history.to_follow(WORKSPACE, execution_id)
    resumed = last_event_id is not None
    seen = int(last_event_id) if last_event_id is not None else after or 0
    if seen > view.version:
        place, name = ("header", "Last-Event-ID") if resumed else ("query", "after")
        raise refused_part(
            place, name, "out_of_range", f"the execution has {view.version} events so far"
        )
    if HEAD_REQUEST in request.scope:
        return Response(media_type=_EVENT_STREAM, headers=_HEADERS)
    return CountedStream(_messages(services.history, view.id, seen), streams)


async def _messages(
    history: History, execution_id: str, seen: int
) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(retry=RETRY_MS)
    async for recorded in history.follow(UUID(execution_id), seen):
        seen = recorded.event.version
        yield ServerSentEvent(
            msgspec.json.encode(event_body(recorded)).decode(),
            id=str(seen),
            event=event_type(recorded.event.data.TOPIC),
        )
    end = {"execution_id": execution_id, "version": seen}
    yield ServerSentEvent(msgspec.json.encode(end).decode(), event="end")
