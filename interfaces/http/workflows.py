"""Publish, read, revise and retire workflows."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from application.workflows import Published
from domain.json_values import JsonObject
from domain.workflow import WorkflowState
from interfaces.http.body import DefinitionRoute
from interfaces.http.caller import CONDITIONAL, REQUEST, REVISION, WORKSPACE, caller_of
from interfaces.http.conditional import etag, is_current
from interfaces.http.documented import answers, body_answers
from interfaces.http.examples import DEFINITION
from interfaces.http.lists import Page, PageSize, WantedPage, page_answer
from interfaces.http.present import (
    API,
    json_answer,
    page_body,
    remarks,
    slice_of,
    verdict_body,
    workflow_body,
    workflow_view,
)
from interfaces.http.serving import WorkflowId, services_of
from interfaces.http.shapes import (
    DEFINITION_SCHEMA,
    PublishedShape,
    RetiredShape,
    VerdictShape,
    WorkflowPage,
    WorkflowShape,
)

router = APIRouter(prefix=API, tags=["workflows"], route_class=DefinitionRoute)

Definition = Annotated[Any, Body(examples=[DEFINITION], json_schema_extra=DEFINITION_SCHEMA)]
Candidate = Annotated[Any, Body(examples=[DEFINITION])]
WorkflowSort = Literal[
    "name", "-name", "created_at", "-created_at", "updated_at", "-updated_at", "version", "-version"
]
SortBy = Literal["name", "created_at", "updated_at", "version"]


class WorkflowChanges(BaseModel):
    """Changed members of the definition, which make a new version; `status` alone makes none."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"description": "Now with a report."}]}
    )

    status: Literal["active", "inactive"] | None = None


@router.post(
    "/workflows",
    status_code=201,
    response_model=PublishedShape,
    responses=body_answers(
        "malformed_yaml",
        "invalid_definition",
        "concurrent_update",
        "idempotency_key_reused",
        model=PublishedShape,
        status=(201,),
        headers=("Location", "ETag", "Idempotency-Replayed"),
        description="Published.",
    ),
    openapi_extra=REQUEST,
)
async def publish_workflow(request: Request, definition: Definition) -> Response:
    """Publish a definition, in JSON or YAML: version 1, or the next version of the name."""
    caller = await caller_of(request)
    published = await services_of(request).workflows.publish(caller, definition)
    return _published(published, status=201)


@router.get(
    "/workflows",
    response_model=WorkflowPage,
    responses=answers("projection_behind", model=WorkflowPage),
)
async def list_workflows(
    request: Request,
    wanted: WantedPage,
    status: Literal["active", "inactive", "deleted"] | None = None,
    name: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9._-]{1,128}$")] = None,
    sort: WorkflowSort = "name",
    sort_by: SortBy | None = None,
    sort_order: Literal["asc", "desc"] | None = None,
) -> Response:
    """The newest version of each workflow. `sort_by`, `sort_order`: the older form of `sort`."""
    order: str = sort
    if sort_by is not None or sort_order is not None:
        order = f"{'-' if sort_order == 'desc' else ''}{sort_by or sort.removeprefix('-')}"
    reads = services_of(request).reads
    read = partial(reads.workflows, WORKSPACE, status=status, name=name, sort=order)
    return await page_answer(request, wanted, read)


@router.post(
    "/workflows/validate",
    response_model=VerdictShape,
    responses=body_answers("malformed_yaml", model=VerdictShape, description="The verdict."),
)
async def validate_workflow(request: Request, definition: Candidate) -> Response:
    """What publishing would say; nothing is stored. 200 also when the definition is wrong."""
    verdict = await services_of(request).workflows.verdict(WORKSPACE, definition)
    return json_answer(verdict_body(verdict))


@router.get(
    "/workflows/{workflow_id}",
    response_model=WorkflowShape,
    responses=answers("not_found", model=WorkflowShape, headers=("ETag",))
    | {304: {"description": "`If-None-Match` names the present version."}},
    openapi_extra=CONDITIONAL,
)
async def get_workflow(request: Request, workflow_id: WorkflowId) -> Response:
    """A workflow in its newest version, or the version that the id names."""
    state, number = await services_of(request).workflows.find(WORKSPACE, workflow_id)
    return _workflow(request, state, number)


@router.put(
    "/workflows/{workflow_id}",
    response_model=PublishedShape,
    responses=body_answers(
        "not_found",
        "malformed_yaml",
        "invalid_definition",
        "concurrent_update",
        "precondition_failed",
        "illegal_transition",
        model=PublishedShape,
        headers=("ETag", "Location"),
    ),
    openapi_extra=REVISION,
)
async def revise_workflow(
    request: Request, workflow_id: WorkflowId, body: WorkflowChanges
) -> Response:
    """Publish a new version with these changes; the versions before stay readable."""
    caller = await caller_of(request)
    changes: JsonObject = body.model_dump(exclude_unset=True)
    published = await services_of(request).workflows.revise(caller, workflow_id, changes)
    return _published(published, status=200)


@router.delete(
    "/workflows/{workflow_id}",
    response_model=RetiredShape,
    responses=answers("not_found", "concurrent_update", "precondition_failed", model=RetiredShape),
    openapi_extra=REVISION,
)
async def retire_workflow(request: Request, workflow_id: WorkflowId) -> Response:
    """Take a workflow out of use: `GET /workflows?status=deleted` lists it, and every other route
    answers 404 to its name and ids until the name is published again, as its next version.

    What runs goes on, and its executions keep their version and their history.
    """
    caller = await caller_of(request)
    services = services_of(request)
    before, number = await services.workflows.find(WORKSPACE, workflow_id)
    state = await services.workflows.set_status(caller, before.name, "deleted")
    body = {
        "message": f"Workflow {state.name} is deleted.",
        "timestamp": state.updated_at,
        "data": workflow_view(state, number),
    }
    return json_answer(body)


@router.get(
    "/workflows/{workflow_id}/versions",
    response_model=WorkflowPage,
    responses=answers("not_found", model=WorkflowPage),
)
async def list_versions(
    request: Request, workflow_id: WorkflowId, page: Page = 1, page_size: PageSize = 20
) -> Response:
    """All versions, newest first."""
    state, _ = await services_of(request).workflows.find(WORKSPACE, workflow_id)
    numbers = range(len(state.versions), 0, -1)
    found = slice_of(numbers, page, page_size)
    return json_answer(page_body(found, (workflow_view(state, each) for each in found.items)))


@router.get(
    "/workflows/{workflow_id}/versions/{number}",
    response_model=WorkflowShape,
    responses=answers("not_found", model=WorkflowShape, headers=("ETag",))
    | {304: {"description": "`If-None-Match` names the present version."}},
    openapi_extra=CONDITIONAL,
)
async def get_version(
    request: Request, workflow_id: WorkflowId, number: Annotated[int, Path(ge=1, le=1_000_000)]
) -> Response:
    """One version."""
    state, _ = await services_of(request).workflows.find(WORKSPACE, workflow_id)
    state.numbered(number)
    return _workflow(request, state, number)


def _workflow(request: Request, state: WorkflowState, number: int) -> Response:
    headers = {"ETag": etag(state.version)}
    if is_current(request, state.version):
        return Response(status_code=304, headers=headers)
    return json_answer(workflow_view(state, number), headers=headers)


def _published(published: Published, *, status: int) -> Response:
    state = published.state
    view = workflow_view(state, published.number)
    headers = {"ETag": etag(state.version), "Location": f"{API}/workflows/{state.id}"}
    if published.replayed:
        headers["Idempotency-Replayed"] = "true"
    body = workflow_body(view) | {"warnings": remarks(published.warnings)}
    return json_answer(body, status=status, headers=headers)
