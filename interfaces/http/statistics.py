"""Figures: executions by status and duration, recovery, and how far the projections are."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from application.reads import ExecutionQuery
from application.stuck import why_not_moving
from interfaces.http.body import StrictRoute
from interfaces.http.caller import WORKSPACE
from interfaces.http.documented import answers
from interfaces.http.lists import MinPosition, reached
from interfaces.http.present import API, json_answer
from interfaces.http.problems import refused_part
from interfaces.http.serving import ID_PATTERN, WorkflowId, services_of
from interfaces.http.shapes import (
    OverallShape,
    ProjectionList,
    RecoveryMetricsShape,
    StatisticsShape,
    StuckList,
)
from interfaces.times import Time

router = APIRouter(prefix=API, tags=["statistics"], route_class=StrictRoute)


@router.get(
    "/statistics",
    response_model=OverallShape,
    responses=answers("projection_behind", model=OverallShape),
)
async def get_statistics(request: Request, min_position: MinPosition = None) -> Response:
    """All executions: counts by status, success rate, durations; the work queue, and why it does
    not get shorter."""
    services = services_of(request)
    await reached(services, min_position)
    overall = asdict(await services.reads.statistics(WORKSPACE, None))
    queue = await services.store.queue.statistics()
    return json_answer({**overall, "queue": queue, "why_not_moving": why_not_moving(queue)})


@router.get("/stuck-executions", response_model=StuckList, responses=answers(model=StuckList))
async def list_stuck_executions(request: Request) -> Response:
    """Executions that should move and do not, the longest first, a hundred at most; the list is
    empty when all is well."""
    found = await services_of(request).stuck.find(WORKSPACE)
    return json_answer({"items": found, "total": len(found)})


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


@router.get(
    "/metrics/recovery",
    response_model=RecoveryMetricsShape,
    responses=answers("projection_behind", model=RecoveryMetricsShape),
)
async def get_recovery_metrics(
    request: Request,
    workflow_id: Annotated[
        str | None, Query(pattern=ID_PATTERN, description="Only of this workflow.")
    ] = None,
    created_after: Annotated[
        Time | None, Query(description="Only executions requested at this time or later.")
    ] = None,
    created_before: Annotated[
        Time | None, Query(description="Only executions requested before this time.")
    ] = None,
    min_position: MinPosition = None,
) -> Response:
    """What recovery did: by strategy and class of error, how long it took, and what it saved."""
    if created_after is not None and created_before is not None and created_after >= created_before:
        message = "created_before is not after created_after, so that nothing is left"
        raise refused_part("query", "created_before", "contradiction", message)
    services = services_of(request)
    await reached(services, min_position)
    query = ExecutionQuery(
        workspace_id=WORKSPACE,
        workflow=workflow_id,
        created_after=created_after,
        created_before=created_before,
    )
    return json_answer(await services.reads.recovery(query))


@router.get("/projections", response_model=ProjectionList, responses=answers(model=ProjectionList))
async def list_projections(request: Request) -> Response:
    """Every projection: how far it is, how far behind, and why it stands still."""
    views = await services_of(request).reads.projections()
    return json_answer({"items": views, "total": len(views)})
