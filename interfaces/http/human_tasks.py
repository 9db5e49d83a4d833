"""Tasks that executions give to people."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from interfaces.http.body import StrictRoute, check_payload
from interfaces.http.caller import COMMAND, WORKSPACE, caller_of
from interfaces.http.documented import COMMAND_HEADERS, answers, body_answers
from interfaces.http.executions import commanded
from interfaces.http.lists import WantedPage, named_execution, page_answer
from interfaces.http.present import API
from interfaces.http.serving import ID_PATTERN, services_of
from interfaces.http.shapes import ExecutionShape, HumanTaskPage

router = APIRouter(prefix=API, tags=["human tasks"], route_class=StrictRoute)

TaskId = Annotated[str, Path(pattern=ID_PATTERN, description="`id` of a human task.")]


class Completion(BaseModel):
    """What came of it."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"result": {"approved": True}}]},
    )

    result: Any = Field(None, description="Any JSON, at most 256 KB; the output of the step.")


@router.get(
    "/human-tasks",
    response_model=HumanTaskPage,
    responses=answers("projection_behind", model=HumanTaskPage),
)
async def list_human_tasks(
    request: Request,
    wanted: WantedPage,
    status: Literal["TODO", "DONE", "CANCELLED"] | None = None,
    execution_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """Tasks, the oldest open one first."""
    reads = services_of(request).reads
    named = named_execution(execution_id)
    read = partial(reads.human_tasks, WORKSPACE, status=status, execution_id=named)
    return await page_answer(request, wanted, read)


@router.post(
    "/human-tasks/{task_id}/complete",
    response_model=ExecutionShape,
    responses=body_answers(
        "not_found",
        "illegal_transition",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=ExecutionShape,
        headers=COMMAND_HEADERS,
        description="Done; the execution that waited goes on.",
    ),
    openapi_extra=COMMAND,
)
async def complete_human_task(request: Request, task_id: TaskId, body: Completion) -> Response:
    """Say that a task is done, and with which result."""
    caller = await caller_of(request)
    check_payload(body.result, await request.body(), "/result")
    answer = await services_of(request).control.complete_human_task(caller, task_id, body.result)
    return commanded(request, answer, status=200)
