"""Executions under their older name, runs: the same object with `id` = `run_id`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from application.callers import Answer
from application.reads import ExecutionQuery
from domain.events import Recorded
from interfaces.http.body import StrictRoute
from interfaces.http.caller import COMMAND, CONDITIONAL, WORKSPACE, caller_of
from interfaces.http.conditional import execution_headers, is_current
from interfaces.http.documented import COMMAND_HEADERS, EXECUTION_HEADERS, answers, body_answers
from interfaces.http.executions import Cancel, Retry, require_reason
from interfaces.http.lists import MinPosition, Page, PageSize, Status, reached
from interfaces.http.present import API, event_type, json_answer, page_body, run_body, step_body
from interfaces.http.serving import ID_PATTERN, ExecutionId, services_of
from interfaces.http.shapes import (
    ExecutionPage,
    ExecutionShape,
    LogLines,
    RunCommandShape,
    StepArray,
)
from interfaces.times import Time

router = APIRouter(prefix=API, tags=["runs"], route_class=StrictRoute)

SortBy = Literal["created_at", "updated_at", "completed_at", "status", "workflow_name"]
_LOG_LINES_MAX = 1_000


async def _run_filters(
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    workflow_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    workflow_definition_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    created_after: Time | None = None,
    created_before: Time | None = None,
    sort_by: SortBy = "created_at",
    sort_order: Literal["asc", "desc"] = "desc",
    page: Page = 1,
    page_size: PageSize = 20,
) -> ExecutionQuery:
    return ExecutionQuery(
        workspace_id=WORKSPACE,
        statuses=tuple(status or ()),
        workflow=workflow_id or workflow_definition_id,
        created_after=created_after,
        created_before=created_before,
        sort=f"{'-' if sort_order == 'desc' else ''}{sort_by}",
        page=page,
        page_size=page_size,
    )


@router.get(
    "/runs",
    response_model=ExecutionPage,
    responses=answers("projection_behind", model=ExecutionPage),
)
async def list_runs(
    request: Request,
    filters: Annotated[ExecutionQuery, Depends(_run_filters)],
    min_position: MinPosition = None,
) -> Response:
    """Runs, newest first."""
    services = services_of(request)
    await reached(services, min_position)
    page = await services.reads.executions(filters)
    return json_answer(page_body(page, map(run_body, page.items)))


@router.get(
    "/runs/{run_id}",
    response_model=ExecutionShape,
    responses=answers("not_found", model=ExecutionShape, headers=EXECUTION_HEADERS)
    | {304: {"description": "`If-None-Match` names the present version."}},
    openapi_extra=CONDITIONAL,
)
async def get_run(request: Request, run_id: ExecutionId) -> Response:
    """A run."""
    services = services_of(request)
    view = await services.history.view(WORKSPACE, run_id)
    headers = execution_headers(view, services.ledger.clock.now())
    if is_current(request, view.version):
        return Response(status_code=304, headers=headers)
    return json_answer(run_body(view), headers=headers)


@router.get(
    "/runs/{run_id}/steps",
    response_model=StepArray,
    responses=answers("not_found"),
)
async def list_run_steps(request: Request, run_id: ExecutionId) -> Response:
    """Its step executions as a bare array, in order of start."""
    views = await services_of(request).history.steps(WORKSPACE, run_id)
    return json_answer([step_body(view) for view in views])


@router.post(
    "/runs/{run_id}/cancel",
    response_model=RunCommandShape,
    responses=body_answers(
        "not_found",
        "run_illegal",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=RunCommandShape,
        headers=COMMAND_HEADERS,
    ),
    openapi_extra=COMMAND,
)
async def cancel_run(request: Request, run_id: ExecutionId, body: Cancel | None = None) -> Response:
    """Stop a run: 200, or 400 when it has ended otherwise."""
    caller = await caller_of(request)
    reason = body.reason if body else None
    require_reason(request, reason)
    answer = await services_of(request).control.cancel(caller, run_id, reason)
    return _commanded(request, answer, "Run cancelled", status=200)


@router.post(
    "/runs/{run_id}/retry",
    status_code=202,
    response_model=RunCommandShape,
    responses=body_answers(
        "not_found",
        "run_illegal",
        "step_not_reached",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=RunCommandShape,
        status=(202,),
        headers=COMMAND_HEADERS,
    ),
    openapi_extra=COMMAND,
)
async def retry_run(request: Request, run_id: ExecutionId, body: Retry | None = None) -> Response:
    """Run it again under the same id: 202, or 400 when it is not FAILED or CANCELLED."""
    caller = await caller_of(request)
    wanted = body or Retry(resume_from_step=None, reason=None)
    require_reason(request, wanted.reason)
    answer = await services_of(request).control.retry(
        caller, run_id, wanted.resume_from_step, wanted.reason
    )
    return _commanded(request, answer, "Retry started", status=202)


@router.get(
    "/runs/{run_id}/logs",
    response_model=LogLines,
    responses=answers("not_found", model=LogLines),
)
async def list_run_logs(request: Request, run_id: ExecutionId) -> Response:
    """Its first 1,000 events, a line of text each."""
    recorded = await services_of(request).history.events(WORKSPACE, run_id, limit=_LOG_LINES_MAX)
    return json_answer([_line(each) for each in recorded])


def _line(recorded: Recorded) -> str:
    event = recorded.event
    words = [f"{event.meta.at:%Y-%m-%dT%H:%M:%S.%fZ}", event_type(event.data.TOPIC)]
    for name in ("path", "attempt", "try_no", "code", "why", "reason"):
        value = getattr(event.data, name, None)
        if value is not None:
            words.append(f"{name}={value}")
    return " ".join(words)


def _commanded(request: Request, answer: Answer, message: str, *, status: int) -> Response:
    view = answer.view
    headers = execution_headers(view, services_of(request).ledger.clock.now())
    headers["Location"] = f"{API}/runs/{view.run_id}"
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    body = run_body(view) | {
        "message": message,
        "new_run_id": view.run_id,
        "original_run_id": view.run_id,
        "retry_count": view.attempt - 1,
        "timestamp": view.updated_at,
    }
    return json_answer(body, status=status, headers=headers)
