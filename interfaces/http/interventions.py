"""What operators do to an execution that runs: pause, resume, skip or complete a stuck step."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from domain.interventions import PAUSE_SECONDS_MAX
from domain.verbs import COMPLETE, SKIP
from interfaces.http.body import StrictRoute, check_payload
from interfaces.http.caller import COMMAND, caller_of
from interfaces.http.documented import COMMAND_HEADERS, Responses, body_answers
from interfaces.http.executions import (
    REASON_CHARACTERS_MAX,
    STEP_CHARACTERS_MAX,
    commanded,
    require_reason,
)
from interfaces.http.present import API
from interfaces.http.serving import ExecutionId, services_of
from interfaces.http.shapes import ExecutionShape

router = APIRouter(prefix=API, tags=["executions"], route_class=StrictRoute)


def _answers(description: str) -> Responses:
    return body_answers(
        "not_found",
        "illegal_transition",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=ExecutionShape,
        headers=COMMAND_HEADERS,
        description=description,
    )


class Pause(BaseModel):
    """How long at most, and why."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"reason": "the bank is down", "max_pause_duration_seconds": 3600}]
        },
    )

    max_pause_duration_seconds: float | None = Field(
        None,
        gt=0,
        le=PAUSE_SECONDS_MAX,
        allow_inf_nan=False,
        description="After it the execution fails with reason `pause_timeout`.",
    )
    reason: str | None = Field(None, min_length=1, max_length=REASON_CHARACTERS_MAX)


class Resume(BaseModel):
    """Why it goes on."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"reason": "bank is back"}]}
    )

    reason: str | None = Field(None, min_length=1, max_length=REASON_CHARACTERS_MAX)


class SkipStep(BaseModel):
    """Which step, and why."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"path": "notify", "reason": "told by telephone"}]},
    )

    path: str = Field(
        min_length=1,
        max_length=STEP_CHARACTERS_MAX,
        description="As `GET .../steps` shows it: `pay`, `each[3]/pay`, `split/left/pay`.",
    )
    reason: str = Field(min_length=1, max_length=REASON_CHARACTERS_MAX)


class CompleteStep(SkipStep):
    """Which step, why, and what the steps after it see as its output."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"path": "pay", "reason": "paid by hand", "output": {"receipt": "2026-17"}}
            ]
        },
    )

    output: Any = Field(None, description="JSON, at most 256 KB.")


@router.post(
    "/executions/{execution_id}/pause",
    response_model=ExecutionShape,
    responses=_answers("Paused, also when it was before."),
    openapi_extra=COMMAND,
)
async def pause_execution(
    request: Request, execution_id: ExecutionId, body: Pause | None = None
) -> Response:
    """Begin nothing new until it is resumed; what is in flight goes on and is recorded."""
    caller = await caller_of(request)
    wanted = body or Pause(max_pause_duration_seconds=None, reason=None)
    require_reason(request, wanted.reason)
    answer = await services_of(request).control.pause(
        caller, execution_id, wanted.max_pause_duration_seconds, wanted.reason
    )
    return commanded(request, answer, status=200)


@router.post(
    "/executions/{execution_id}/resume",
    response_model=ExecutionShape,
    responses=_answers("It goes on, or was not paused."),
    openapi_extra=COMMAND,
)
async def resume_execution(
    request: Request, execution_id: ExecutionId, body: Resume | None = None
) -> Response:
    """Go on with a paused execution, with all that has become due meanwhile."""
    caller = await caller_of(request)
    reason = body.reason if body else None
    require_reason(request, reason)
    answer = await services_of(request).control.resume(caller, execution_id, reason)
    return commanded(request, answer, status=200)


@router.post(
    "/executions/{execution_id}/steps/skip",
    response_model=ExecutionShape,
    responses=_answers("The step is SKIPPED; a worker goes on."),
    openapi_extra=COMMAND,
)
async def skip_step(request: Request, execution_id: ExecutionId, body: SkipStep) -> Response:
    """End a stuck step without an output. What runs there is interrupted, its result ignored."""
    caller = await caller_of(request)
    answer = await services_of(request).control.settle_step(
        caller, execution_id, body.path, SKIP, body.reason
    )
    return commanded(request, answer, status=200)


@router.post(
    "/executions/{execution_id}/steps/complete",
    response_model=ExecutionShape,
    responses=_answers("The step is COMPLETED; a worker goes on."),
    openapi_extra=COMMAND,
)
async def complete_step(
    request: Request, execution_id: ExecutionId, body: CompleteStep
) -> Response:
    """End a stuck step whose work was done otherwise, with an output for the steps after it."""
    caller = await caller_of(request)
    check_payload(body.output, await request.body(), "/output")
    answer = await services_of(request).control.settle_step(
        caller, execution_id, body.path, COMPLETE, body.reason, body.output
    )
    return commanded(request, answer, status=200)
