"""Register, read, change and delete agents; ask how they are."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from starlette.requests import Request
from starlette.responses import Response

from application.agent_views import agent_view, circuit_view
from application.breakers import BreakerKey
from domain.agents import AgentState
from interfaces.http.body import StrictRoute
from interfaces.http.caller import COMMAND, CONDITIONAL, REQUEST, REVISION, WORKSPACE, caller_of
from interfaces.http.conditional import etag, is_current
from interfaces.http.documented import answers, body_answers
from interfaces.http.examples import NEW_AGENT
from interfaces.http.lists import WantedPage, page_answer
from interfaces.http.present import API, json_answer
from interfaces.http.serving import AGENT_PATTERN, AgentRef, services_of
from interfaces.http.shapes import (
    AGENT_MEMBERS,
    AgentHealthShape,
    AgentPage,
    AgentShape,
    CircuitShape,
    DeletedAgentShape,
)

router = APIRouter(prefix=API, tags=["agents"], route_class=StrictRoute)

NewAgent = Annotated[
    dict[str, Any],
    Body(
        examples=[NEW_AGENT],
        json_schema_extra={
            "required": ["name"],
            "properties": {"name": {"type": "string", "pattern": AGENT_PATTERN}} | AGENT_MEMBERS,
        },
    ),
]
AgentChanges = Annotated[
    dict[str, Any],
    Body(
        examples=[{"timeout_ms": 60_000, "status": "active"}],
        json_schema_extra={
            "properties": {"status": {"enum": ["active", "inactive"]}} | AGENT_MEMBERS
        },
    ),
]


@router.post(
    "/agents",
    status_code=201,
    response_model=AgentShape,
    responses=body_answers(
        "agent_exists",
        "no_encryption_key",
        "concurrent_update",
        "idempotency_key_reused",
        model=AgentShape,
        status=(201,),
        headers=("Location", "ETag", "Idempotency-Replayed"),
        description="Registered.",
    ),
    openapi_extra=REQUEST,
)
async def register_agent(request: Request, body: NewAgent) -> Response:
    """Register an agent under a name that no other has."""
    caller = await caller_of(request)
    registered = await services_of(request).agent_parts.agents.register(caller, body)
    return _commanded(registered.state, status=201, replayed=registered.replayed)


@router.get(
    "/agents",
    response_model=AgentPage,
    responses=answers("projection_behind", model=AgentPage),
)
async def list_agents(
    request: Request,
    wanted: WantedPage,
    status: Literal["active", "inactive", "deleted"] | None = None,
    name: Annotated[str | None, Query(pattern=AGENT_PATTERN)] = None,
) -> Response:
    """Agents by name; deleted ones only when `status` asks for them."""
    reads = services_of(request).reads
    read = partial(reads.agents, WORKSPACE, status=status, name=name)
    return await page_answer(request, wanted, read)


@router.get(
    "/agents/{agent}",
    response_model=AgentShape,
    responses=answers("not_found", model=AgentShape, headers=("ETag",))
    | {304: {"description": "`If-None-Match` names the present version."}},
    openapi_extra=CONDITIONAL,
)
async def get_agent(request: Request, agent: AgentRef) -> Response:
    """An agent; of its credential a reference or a mask."""
    state = await services_of(request).agent_parts.agents.find(WORKSPACE, agent)
    headers = {"ETag": etag(state.version)}
    if is_current(request, state.version):
        return Response(status_code=304, headers=headers)
    return json_answer(agent_view(state), headers=headers)


@router.put(
    "/agents/{agent}",
    response_model=AgentShape,
    responses=body_answers(
        "not_found",
        "no_encryption_key",
        "concurrent_update",
        "precondition_failed",
        "idempotency_key_reused",
        model=AgentShape,
        headers=("ETag", "Location", "Idempotency-Replayed"),
    ),
    openapi_extra=COMMAND,
)
async def change_agent(request: Request, agent: AgentRef, body: AgentChanges) -> Response:
    """Change the members that are given; `***` in `auth_config` keeps the credential."""
    caller = await caller_of(request)
    changed = await services_of(request).agent_parts.agents.change(caller, agent, body)
    return _commanded(changed.state, status=200, replayed=changed.replayed)


@router.delete(
    "/agents/{agent}",
    response_model=DeletedAgentShape,
    responses=answers(
        "not_found", "concurrent_update", "precondition_failed", model=DeletedAgentShape
    ),
    openapi_extra=REVISION,
)
async def delete_agent(request: Request, agent: AgentRef) -> Response:
    """Take an agent out of use and destroy its credential; its history stays."""
    caller = await caller_of(request)
    state = await services_of(request).agent_parts.agents.delete(caller, agent)
    body = {
        "message": f"Agent {state.name} is deleted.",
        "timestamp": state.updated_at,
        "data": agent_view(state),
    }
    return json_answer(body)


@router.get(
    "/agents/{agent}/health",
    response_model=AgentHealthShape,
    responses=answers("not_found", model=AgentHealthShape),
)
async def check_agent(request: Request, agent: AgentRef) -> Response:
    """Fetch the agent's card from `{url}/.well-known/agent-card.json`, now.

    With the agent's own authentication and time-out; 200 also when it is unhealthy.
    """
    services = services_of(request)
    state = await services.agent_parts.agents.find(WORKSPACE, agent)
    return json_answer(await services.agent_parts.health.check(state))


@router.get(
    "/agents/{agent}/circuit",
    response_model=CircuitShape,
    responses=answers("not_found", model=CircuitShape),
)
async def get_agent_circuit(request: Request, agent: AgentRef) -> Response:
    """The agent's circuit breaker, which all processes share: whether it is called now."""
    parts = services_of(request).agent_parts
    state = await parts.agents.find(WORKSPACE, agent)
    breaker = await parts.breakers.look(BreakerKey(state.workspace_id, state.name))
    return json_answer(circuit_view(breaker, state.settings.circuit_breaker_config))


def _commanded(state: AgentState, *, status: int, replayed: bool) -> Response:
    headers = {"ETag": etag(state.version), "Location": f"{API}/agents/{state.id}"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return json_answer(agent_view(state), status=status, headers=headers)
