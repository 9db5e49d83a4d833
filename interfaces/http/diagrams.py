"""Pictures of a definition and of an execution: Mermaid, DOT, SVG, or the graph as JSON."""

import asyncio
from collections import Counter
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from application.diagram import graph_json, graph_of
from application.diagram_dot import dot_of
from application.diagram_graph import Graph
from application.diagram_mermaid import mermaid_of
from interfaces.bootstrap import Services
from interfaces.http.body import StrictRoute
from interfaces.http.caller import CONDITIONAL, WORKSPACE
from interfaces.http.conditional import NO_CACHE, etag, is_current
from interfaces.http.documented import Responses, answers
from interfaces.http.present import API, json_answer
from interfaces.http.serving import ExecutionId, WorkflowId, services_of

Format = Annotated[Literal["mermaid", "dot", "svg", "json"], Query()]
_SVG_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""An SVG that is opened by itself is a page; this one may run and load nothing."""

router = APIRouter(prefix=API, tags=["diagrams"], route_class=StrictRoute)

_TEXT: Final = {"schema": {"type": "string"}}


def _diagram_answers() -> Responses:
    responses = answers("not_found", "diagram_too_large", "diagram_not_rendered", headers=("ETag",))
    responses[200]["content"] = {
        "text/plain": _TEXT,
        "image/svg+xml": _TEXT,
        "application/json": {"schema": {"type": "object"}},
    }
    responses[304] = {"description": "`If-None-Match` names the present version."}
    return responses


@router.get(
    "/workflows/{workflow_id}/diagram",
    response_class=Response,
    responses=_diagram_answers(),
    openapi_extra=CONDITIONAL,
)
async def draw_workflow(
    request: Request,
    workflow_id: WorkflowId,
    format: Format = "mermaid",
) -> Response:
    """The flow of a workflow's version."""
    services = services_of(request)
    state, number = await services.workflows.find(WORKSPACE, workflow_id)
    version = state.numbered(number)
    definition = services.workflows.compiled(version.sha256, version.definition)
    return await _drawn(request, services, graph_of(definition), format, number)


@router.get(
    "/executions/{execution_id}/diagram",
    response_class=Response,
    responses=_diagram_answers(),
    openapi_extra=CONDITIONAL,
)
async def draw_execution(
    request: Request,
    execution_id: ExecutionId,
    format: Format = "mermaid",
) -> Response:
    """The flow of an execution with the state and the tries of every step."""
    services = services_of(request)
    state, _ = await services.history.state(WORKSPACE, execution_id)
    definition = await services.history.definition(state)
    views = await services.history.steps(WORKSPACE, str(state.id))
    tries = Counter(view.path for view in views if view.try_no)
    return await _drawn(
        request, services, graph_of(definition, state, tries), format, state.version
    )


async def _drawn(
    request: Request, services: Services, graph: Graph, form: str, version: int
) -> Response:
    headers = {"ETag": etag(version), "Cache-Control": NO_CACHE}
    if is_current(request, version):
        return Response(status_code=304, headers=headers)
    match form:
        case "json":
            return json_answer(graph_json(graph), headers=headers)
        case "mermaid":
            return Response(mermaid_of(graph), media_type="text/plain", headers=headers)
        case "dot":
            return Response(dot_of(graph), media_type="text/plain", headers=headers)
        case _:
            svg = await asyncio.to_thread(services.svg, dot_of(graph))
            headers["Content-Security-Policy"] = _SVG_POLICY
            return Response(svg, media_type="image/svg+xml", headers=headers)
