"""Why an execution does not move, and what each verb would do."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from application.explain import explain
from interfaces.http.body import StrictRoute
from interfaces.http.caller import WORKSPACE
from interfaces.http.documented import answers
from interfaces.http.present import API, json_answer
from interfaces.http.serving import ExecutionId, services_of
from interfaces.http.shapes import ExplanationShape

router = APIRouter(prefix=API, tags=["executions"], route_class=StrictRoute)


@router.get(
    "/executions/{execution_id}/explain",
    response_model=ExplanationShape,
    responses=answers("not_found", model=ExplanationShape),
)
async def explain_execution(request: Request, execution_id: ExecutionId) -> Response:
    """In plain English: its state, what it waits for, what cancel and retry would do."""
    services = services_of(request)
    state, _ = await services.history.state(WORKSPACE, execution_id)
    definition = await services.history.definition(state)
    now = services.ledger.clock.now()
    row = await services.store.queue.row(state.id)
    return json_answer(explain(state, definition, row, now))
