"""Executions that begin in the middle of another one: fork, and who came from whom."""

from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from application.reads import ExecutionQuery
from interfaces.http.body import StrictRoute, check_payload
from interfaces.http.caller import COMMAND, WORKSPACE, caller_of
from interfaces.http.documented import COMMAND_HEADERS, answers, body_answers
from interfaces.http.executions import (
    REASON_CHARACTERS_MAX,
    STEP_CHARACTERS_MAX,
    commanded,
    require_reason,
)
from interfaces.http.lists import MinPosition, reached
from interfaces.http.present import API, execution_body, json_answer
from interfaces.http.serving import ExecutionId, services_of
from interfaces.http.shapes import ExecutionShape, LineageShape

FORKS_MAX: Final = 200
"""Forks that a lineage shows; `GET /executions?forked_from=` pages through all."""

router = APIRouter(prefix=API, tags=["executions"], route_class=StrictRoute)


class Fork(BaseModel):
    """From which step, and with which input instead of that of the first execution."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"from_step": "report", "input_data": {"day": "monday"}}]},
    )

    from_step: str = Field(min_length=1, max_length=STEP_CHARACTERS_MAX)
    input_data: dict[str, Any] | None = Field(  # JSON that passed the strict reader
        None, description="Input of the new execution; without it that of the first one."
    )
    reason: str | None = Field(None, min_length=1, max_length=REASON_CHARACTERS_MAX)


@router.post(
    "/executions/{execution_id}/fork",
    status_code=202,
    response_model=ExecutionShape,
    responses=body_answers(
        "not_found",
        "illegal_transition",
        "step_not_reached",
        "invalid_input",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=ExecutionShape,
        status=(202,),
        headers=COMMAND_HEADERS,
        description="A new execution will run.",
    ),
    openapi_extra=COMMAND,
)
async def fork_execution(request: Request, execution_id: ExecutionId, body: Fork) -> Response:
    """Run a new execution from a step on, with what this one has finished before it."""
    caller = await caller_of(request)
    require_reason(request, body.reason)
    if body.input_data is not None:
        check_payload(body.input_data, await request.body(), "/input_data")
    answer = await services_of(request).requests.fork(
        caller, execution_id, body.from_step, body.input_data, body.reason
    )
    return commanded(request, answer, status=202)


@router.get(
    "/executions/{execution_id}/lineage",
    response_model=LineageShape,
    responses=answers("not_found", "projection_behind", model=LineageShape),
)
async def get_lineage(
    request: Request, execution_id: ExecutionId, min_position: MinPosition = None
) -> Response:
    """What it was forked from, the first one first, and the newest 200 that were forked from it."""
    services = services_of(request)
    await reached(services, min_position)
    found = await services.history.ancestors(WORKSPACE, execution_id)
    own = found[-1]
    forks = await services.reads.executions(
        ExecutionQuery(workspace_id=WORKSPACE, forked_from=own.id, page_size=FORKS_MAX)
    )
    body = {
        "execution_id": own.id,
        "ancestors": [execution_body(each) for each in found[:-1]],
        "forks": [execution_body(each) for each in forks.items],
        "forks_total": forks.total,
    }
    return json_answer(body)
