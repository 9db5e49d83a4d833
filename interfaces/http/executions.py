"""Read, list, cancel and retry executions."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from application.callers import Answer
from domain.lifecycle import TERMINAL
from interfaces.http.body import StrictRoute
from interfaces.http.caller import COMMAND, REVISION, WAITING_READ, WORKSPACE, caller_of
from interfaces.http.conditional import (
    NO_CACHE,
    execution_headers,
    is_current,
    known_version,
    wait_applied,
    wait_seconds,
)
from interfaces.http.documented import COMMAND_HEADERS, EXECUTION_HEADERS, answers, body_answers
from interfaces.http.lists import ExecutionFilters, MinPosition, reached, with_next
from interfaces.http.present import (
    API,
    execution_body,
    json_answer,
    page_body,
    step_body,
)
from interfaces.http.problems import Mistake, Refused, refused_part
from interfaces.http.serving import ExecutionId, services_of
from interfaces.http.shapes import ExecutionPage, ExecutionShape, StepList
from interfaces.times import read_time

REASON_CHARACTERS_MAX: Final = 500
STEP_CHARACTERS_MAX: Final = 1_100
"""Of a step's path."""

router = APIRouter(prefix=API, tags=["executions"], route_class=StrictRoute)


class Cancel(BaseModel):
    """Why it is stopped."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"reason": "wrong input"}]}
    )

    reason: str | None = Field(None, min_length=1, max_length=REASON_CHARACTERS_MAX)


class Retry(BaseModel):
    """From where it goes on, and why. Without a step: from what is not finished."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"resume_from_step": "report", "reason": "service is back"}]
        },
    )

    resume_from_step: str | None = Field(None, min_length=1, max_length=STEP_CHARACTERS_MAX)
    reason: str | None = Field(None, min_length=1, max_length=REASON_CHARACTERS_MAX)


@router.get(
    "/executions",
    response_model=ExecutionPage,
    responses=answers("bad_cursor", "projection_behind", model=ExecutionPage, headers=("Link",)),
)
async def list_executions(
    request: Request, filters: ExecutionFilters, min_position: MinPosition = None
) -> Response:
    """Executions, newest first. `label.k=v` filters by label, as often as you like."""
    services = services_of(request)
    await reached(services, min_position)
    page = await services.reads.executions(filters)
    body = page_body(page, map(execution_body, page.items))
    return json_answer(body, headers=with_next(request, page.next_cursor))


@router.get(
    "/executions/{execution_id}",
    response_model=ExecutionShape,
    responses=answers("not_found", model=ExecutionShape, headers=EXECUTION_HEADERS)
    | {304: {"description": "`If-None-Match` names the present version."}},
    openapi_extra=WAITING_READ,
)
async def get_execution(
    request: Request,
    execution_id: ExecutionId,
    as_of: Annotated[
        str | None,
        Query(
            max_length=64, description="As it was: a version (whole number) or a time (RFC 3339)."
        ),
    ] = None,
) -> Response:
    """An execution. `Prefer: wait=N` waits for its end, with `If-None-Match` for a change."""
    services = services_of(request)
    history, seconds = services.history, wait_seconds(request)
    if as_of is not None:
        view = await history.view(WORKSPACE, execution_id, _point(as_of))
        return json_answer(
            execution_body(view), headers={"ETag": f'"{view.version}"', "Cache-Control": NO_CACHE}
        )
    known = known_version(request)
    if seconds is None:
        view = await history.view(WORKSPACE, execution_id)
    elif known is not None:
        view = await history.wait_changed(WORKSPACE, execution_id, known, seconds)
    else:
        view = await history.wait_ended(WORKSPACE, execution_id, seconds)
    headers = execution_headers(view, services.ledger.clock.now())
    headers.update(wait_applied(seconds))
    if is_current(request, view.version):
        return Response(status_code=304, headers=headers)
    return json_answer(execution_body(view), headers=headers)


def _point(as_of: str) -> int | datetime:
    """A version or a time."""
    if as_of.isascii() and as_of.isdigit():
        if len(as_of) > 15:
            raise refused_part("query", "as_of", "out_of_range", "there is no such version")
        return int(as_of)
    try:
        return read_time(as_of)
    except ValueError as error:
        raise refused_part("query", "as_of", "bad_time", f"a version, or {error}") from None


@router.post(
    "/executions/{execution_id}/cancel",
    status_code=202,
    response_model=ExecutionShape,
    responses=body_answers(
        "not_found",
        "illegal_transition",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=ExecutionShape,
        status=(202, 200),
        headers=COMMAND_HEADERS,
        description="It will stop.",
    ),
    openapi_extra=COMMAND,
)
async def cancel_execution(
    request: Request, execution_id: ExecutionId, body: Cancel | None = None
) -> Response:
    """Stop an execution for good. 200 when it is CANCELLED, also when it was before."""
    caller = await caller_of(request)
    reason = body.reason if body else None
    require_reason(request, reason)
    answer = await services_of(request).control.cancel(caller, execution_id, reason)
    return commanded(request, answer)


@router.delete(
    "/executions/{execution_id}",
    deprecated=True,
    response_model=ExecutionShape,
    responses=answers(
        "not_found",
        "illegal_transition",
        "concurrent_update",
        "precondition_failed",
        model=ExecutionShape,
        status=(200, 202),
        headers=COMMAND_HEADERS,
        description="CANCELLED; its history stays.",
    ),
    openapi_extra=REVISION,
)
async def delete_execution(request: Request, execution_id: ExecutionId) -> Response:
    """The same as cancel, for older clients."""
    caller = await caller_of(request)
    require_reason(request, None)
    answer = await services_of(request).control.cancel(caller, execution_id, None)
    return commanded(request, answer)


@router.post(
    "/executions/{execution_id}/retry",
    status_code=202,
    response_model=ExecutionShape,
    responses=body_answers(
        "not_found",
        "illegal_transition",
        "step_not_reached",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=ExecutionShape,
        status=(202,),
        headers=COMMAND_HEADERS,
        description="The next attempt will run.",
    ),
    openapi_extra=COMMAND,
)
async def retry_execution(
    request: Request, execution_id: ExecutionId, body: Retry | None = None
) -> Response:
    """Run a FAILED or CANCELLED execution again as its next attempt; what is done stays done."""
    caller = await caller_of(request)
    wanted = body or Retry(resume_from_step=None, reason=None)
    require_reason(request, wanted.reason)
    answer = await services_of(request).control.retry(
        caller, execution_id, wanted.resume_from_step, wanted.reason
    )
    return commanded(request, answer)


@router.get(
    "/executions/{execution_id}/steps",
    response_model=StepList,
    responses=answers("not_found", model=StepList),
)
async def list_steps(request: Request, execution_id: ExecutionId) -> Response:
    """Every try of every step in every attempt, in order of start."""
    views = await services_of(request).history.steps(WORKSPACE, execution_id)
    return json_answer({"items": [step_body(view) for view in views], "total": len(views)})


def require_reason(request: Request, reason: str | None) -> None:
    """Refuse a command without a reason where the settings ask for one."""
    if reason is None and services_of(request).settings.require_reason:
        message = "this server wants a reason for this command"
        raise Refused("invalid_request", message, [Mistake("/reason", "missing", message)])


def commanded(request: Request, answer: Answer, *, status: int | None = None) -> Response:
    """The execution after a command: 200 when it has ended by it, else 202."""
    view = answer.view
    headers = execution_headers(view, services_of(request).ledger.clock.now())
    headers["Location"] = f"{API}/executions/{view.id}"
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    status = status or (200 if view.status in TERMINAL else 202)
    return json_answer(execution_body(view), status=status, headers=headers)
