"""The registry's older names, at the root, as bridges of other makers ask for agents.

Such a registry hands out credentials; this one masks them. Our own bridge does not ask here.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from application.agent_views import auth_shown
from domain.agents import AgentRecovery, AgentSettings
from interfaces.http.body import StrictRoute
from interfaces.http.caller import WORKSPACE
from interfaces.http.documented import answers
from interfaces.http.present import Body, json_answer
from interfaces.http.serving import AgentRef, services_of
from interfaces.http.shapes import AgentRecoveryShape, RegistryEntryShape

router = APIRouter(tags=["agents"], route_class=StrictRoute)


@router.get(
    "/agents/{agent}",
    response_model=RegistryEntryShape,
    responses=answers("not_found", model=RegistryEntryShape),
)
async def get_registered_agent(request: Request, agent: AgentRef) -> Response:
    """An agent under its older name; `timeout` in ms, credentials masked."""
    state = await services_of(request).agent_parts.agents.find(WORKSPACE, agent)
    settings = state.settings
    return json_answer(
        {
            "name": state.name,
            "url": settings.url,
            "auth_config": _auth(settings),
            "timeout": settings.timeout_ms,
            "retry_config": settings.retry_config,
            "circuit_breaker_config": settings.circuit_breaker_config,
        }
    )


@router.get(
    "/agents/{agent}/recovery",
    response_model=AgentRecoveryShape,
    responses=answers("not_found", model=AgentRecoveryShape),
)
async def get_agent_recovery(request: Request, agent: AgentRef) -> Response:
    """What is done when a step fails that names this agent and says nothing of it itself."""
    settings = (await services_of(request).agent_parts.agents.find(WORKSPACE, agent)).settings
    known = settings.recovery or AgentRecovery(max_retries=settings.retry_config.max_retries)
    return json_answer(known)


def _auth(settings: AgentSettings) -> Body | None:
    shown: Body = auth_shown(settings)
    if not shown:
        return None
    header = shown.pop("header_name", None)
    return {"type": settings.auth_type, **shown} | ({"header": header} if header else {})
