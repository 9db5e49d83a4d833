"""Signals: what steps of kind wait_for_event wait for."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from interfaces.http.body import StrictRoute, check_payload
from interfaces.http.caller import COMMAND, caller_of
from interfaces.http.documented import COMMAND_HEADERS, body_answers
from interfaces.http.executions import commanded
from interfaces.http.present import API
from interfaces.http.serving import ExecutionId, services_of
from interfaces.http.shapes import ExecutionShape

router = APIRouter(prefix=API, tags=["executions"], route_class=StrictRoute)

SignalName = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9._-]{1,128}$", description="What the step waits for.")
]


class SignalBody(BaseModel):
    """What the signal says."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"payload": {"order_id": "A-17", "paid": True}}]},
    )

    payload: Any = Field(None, description="Any JSON, at most 256 KB; the output of the step.")


@router.post(
    "/executions/{execution_id}/signals/{name}",
    status_code=202,
    response_model=ExecutionShape,
    responses=body_answers(
        "not_found",
        "illegal_transition",
        "too_many_signals",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=ExecutionShape,
        status=(202,),
        headers=COMMAND_HEADERS,
        description="Taken; a step that waits for it, now or later, goes on with it.",
    ),
    openapi_extra=COMMAND,
)
async def send_signal(
    request: Request, execution_id: ExecutionId, name: SignalName, body: SignalBody
) -> Response:
    """Send a signal. One that comes before its step waits is kept; each is taken once."""
    caller = await caller_of(request)
    check_payload(body.payload, await request.body(), "/payload")
    answer = await services_of(request).control.signal(caller, execution_id, name, body.payload)
    return commanded(request, answer, status=202)
