"""Around every request: its id, HEAD as GET without a body, and an answer whatever goes wrong."""

import asyncio
import logging
import re
from itertools import count
from typing import Any, Final
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interfaces.http.problems import problem

HEAD_REQUEST: Final = "flowledger.head"
REQUEST_ID: Final = "flowledger.request_id"
LOG: Final = logging.getLogger("flowledger.http")
_LATER: Final = {"Retry-After": "1", "Connection": "close"}
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class Frame:
    """ASGI middleware; written without the framework's base class because it is on every path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._process = uuid4().hex[:16]
        self._requests = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or f"{self._process}-{next(self._requests)}"
        own: dict[str, Any] = {**scope, REQUEST_ID: request_id}  # an ASGI scope
        head = scope["method"] == "HEAD"
        if head:
            own |= {"method": "GET", HEAD_REQUEST: True}
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(own, receive, answer)
        except ClientDisconnect:
            return
        except (Exception, asyncio.CancelledError) as error:
            refused = _refusal(error, Request(own, receive), request_id)
            if started:
                raise
            await refused(own, receive, answer)


def _refusal(error: BaseException, request: Request, request_id: str) -> Response:
    if isinstance(error, asyncio.CancelledError):
        # The server stops, and this took too long to wait for: as a rule a body that does not come.
        detail = "This process stops before the request is complete; send it again."
        return problem(request, "not_ready", detail, headers=_LATER)
    LOG.error("request_failed", exc_info=error, extra={"facts": {"request_id": request_id}})
    detail = "Something went wrong that should not; the log has it under this request_id."
    return problem(request, "internal_error", detail)


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return None
