"""Figures: executions by status and duration, and how far the projections are."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from interfaces.http.body import StrictRoute
from interfaces.http.caller import WORKSPACE
from interfaces.http.documented import answers
from interfaces.http.lists import MinPosition, reached
from interfaces.http.present import API, json_answer
from interfaces.http.serving import WorkflowId, services_of
from interfaces.http.shapes import ProjectionList, StatisticsShape

router = APIRouter(prefix=API, tags=["statistics"], route_class=StrictRoute)


@router.get(
    "/statistics",
    response_model=StatisticsShape,
    responses=answers("projection_behind", model=StatisticsShape),
)
async def get_statistics(request: Request, min_position: MinPosition = None) -> Response:
    """All executions: counts by status, success rate, durations."""
    services = services_of(request)
    await reached(services, min_position)
    return json_answer(await services.reads.statistics(WORKSPACE, None))


@router.get(
    "/workflows/{workflow_id}/statistics",
    response_model=StatisticsShape,
    responses=answers("not_found", "projection_behind", model=StatisticsShape),
)
async def get_workflow_statistics(
    request: Request, workflow_id: WorkflowId, min_position: MinPosition = None
) -> Response:
    """The executions of one workflow, all versions."""
    services = services_of(request)
    state, _ = await services.workflows.find(WORKSPACE, workflow_id)
    await reached(services, min_position)
    return json_answer(await services.reads.statistics(WORKSPACE, state.name))


@router.get("/projections", response_model=ProjectionList, responses=answers(model=ProjectionList))
async def list_projections(request: Request) -> Response:
    """Every projection: how far it is, how far behind, and why it stands still."""
    views = await services_of(request).reads.projections()
    return json_answer({"items": views, "total": len(views)})
