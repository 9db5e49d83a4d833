"""Messages that could not be taken, or not be sent, and what becomes of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from interfaces.http.body import StrictRoute
from interfaces.http.documented import answers
from interfaces.http.lists import Page, PageSize
from interfaces.http.present import API, json_answer, page_body
from interfaces.http.serving import ID_PATTERN, services_of
from interfaces.http.shapes import DeadLetterPage, DeadLetterShape

router = APIRouter(prefix=API, tags=["dead letters"], route_class=StrictRoute)

DeadLetterId = Annotated[str, Path(pattern=ID_PATTERN, description="`id` of a dead letter.")]


@router.get(
    "/dead-letters",
    response_model=DeadLetterPage,
    responses=answers(model=DeadLetterPage),
)
async def list_dead_letters(
    request: Request,
    status: Literal["OPEN", "REPLAYED", "DISCARDED"] | None = None,
    topic: Annotated[str | None, Query(min_length=1, max_length=249)] = None,
    page: Page = 1,
    page_size: PageSize = 20,
) -> Response:
    """Messages that could not be taken, the newest first, without their values."""
    office = services_of(request).dead_letters
    found = await office.list(status=status, topic=topic, page=page, page_size=page_size)
    return json_answer(page_body(found, found.items))


@router.get(
    "/dead-letters/{letter_id}",
    response_model=DeadLetterShape,
    responses=answers("not_found", model=DeadLetterShape),
)
async def get_dead_letter(request: Request, letter_id: DeadLetterId) -> Response:
    """One of them in full, with the cause."""
    return json_answer(await services_of(request).dead_letters.show(letter_id))


@router.post(
    "/dead-letters/{letter_id}/replay",
    response_model=DeadLetterShape,
    responses=answers(
        "not_found",
        "illegal_transition",
        model=DeadLetterShape,
        description="It was sent to its topic once more, with its id in the header "
        "`flowledger-dead-letter`.",
    ),
)
async def replay_dead_letter(request: Request, letter_id: DeadLetterId) -> Response:
    """Send it again, after what was wrong has been put right."""
    return json_answer(await services_of(request).dead_letters.replay(letter_id))


@router.post(
    "/dead-letters/{letter_id}/discard",
    response_model=DeadLetterShape,
    responses=answers(
        "not_found", "illegal_transition", model=DeadLetterShape, description="It is put away."
    ),
)
async def discard_dead_letter(request: Request, letter_id: DeadLetterId) -> Response:
    """Say that it is of no use; it stays readable."""
    return json_answer(await services_of(request).dead_letters.discard(letter_id))
