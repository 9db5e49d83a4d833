"""Questions that a recovery asks a person, and their answers."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from interfaces.http.body import StrictRoute
from interfaces.http.caller import COMMAND, WORKSPACE, caller_of
from interfaces.http.documented import COMMAND_HEADERS, answers, body_answers
from interfaces.http.executions import REASON_CHARACTERS_MAX, commanded, require_reason
from interfaces.http.lists import WantedPage, named_execution, page_answer
from interfaces.http.present import API, json_answer
from interfaces.http.serving import ID_PATTERN, ExecutionId, services_of
from interfaces.http.shapes import ExecutionShape, QuestionList, QuestionPage

router = APIRouter(prefix=API, tags=["executions"], route_class=StrictRoute)


class Answered(BaseModel):
    """What to do about the failed step."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"answer": "retry"}]}
    )

    answer: str = Field(
        min_length=1,
        max_length=4_096,
        description="retry, skip, abort, alternative:{id}, or a text that says so.",
    )
    question_id: str | None = Field(
        None, pattern=ID_PATTERN, description="Which question; the open one without it."
    )
    reason: str | None = Field(
        None, min_length=1, max_length=REASON_CHARACTERS_MAX, description="Why."
    )


@router.get(
    "/questions",
    response_model=QuestionPage,
    responses=answers("projection_behind", model=QuestionPage),
)
async def list_all_questions(
    request: Request,
    wanted: WantedPage,
    status: Literal["OPEN", "ANSWERED", "CLOSED"] | None = None,
    execution_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """Questions of all executions, the oldest open one first."""
    reads = services_of(request).reads
    named = named_execution(execution_id)
    read = partial(reads.questions, WORKSPACE, status=status, execution_id=named)
    return await page_answer(request, wanted, read)


@router.get(
    "/executions/{execution_id}/questions",
    response_model=QuestionList,
    responses=answers("not_found", model=QuestionList),
)
async def list_questions(request: Request, execution_id: ExecutionId) -> Response:
    """Every question that was asked about its failed steps, open ones too."""
    found = await services_of(request).history.questions(WORKSPACE, execution_id)
    return json_answer({"items": list(found), "total": len(found)})


@router.post(
    "/executions/{execution_id}/answers",
    response_model=ExecutionShape,
    responses=body_answers(
        "not_found",
        "illegal_transition",
        "invalid_request",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=ExecutionShape,
        headers=COMMAND_HEADERS,
        description="Taken; a worker carries the answer out.",
    ),
    openapi_extra=COMMAND,
)
async def answer_question(request: Request, execution_id: ExecutionId, body: Answered) -> Response:
    """Answer a question once: the same answer again changes nothing, another one is refused."""
    caller = await caller_of(request)
    require_reason(request, body.reason)
    answer = await services_of(request).control.answer(
        caller, execution_id, body.question_id, body.answer, body.reason
    )
    return commanded(request, answer, status=200)
