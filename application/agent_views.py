"""What callers see of agents."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.agent_reader import MASK, SECRET_MEMBERS
from domain.agents import AgentRecovery, AgentSettings, AgentState, RetryConfig
from domain.breaker import Breaker, BreakerSettings, next_call_at
from domain.json_values import JsonObject


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent as callers see it: of its credential a reference or a mask."""

    id: str
    name: str
    url: str | None
    description: str | None
    auth_type: str
    auth_config: Mapping[str, str]
    timeout_ms: int
    retry_config: RetryConfig
    status: str
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str
    transport: str
    protocol: str
    circuit_breaker_config: BreakerSettings
    recovery: AgentRecovery | None
    version: int


@dataclass(frozen=True, slots=True)
class AgentHealthView:
    """What an agent said when it was asked; unknown when it has no address.

    `agent_card` is what it tells of itself, None when it told nothing usable.
    """

    status: Literal["healthy", "unhealthy", "unknown"]
    message: str
    response_time_ms: int | None
    timestamp: datetime
    agent_card: JsonObject | None


@dataclass(frozen=True, slots=True)
class CircuitView:
    """The circuit breaker of an agent as all processes share it at this moment.

    `cause` says why it opened last; `next_call_at` is when the next call may be made, None: now.
    """

    state: str
    failures_in_a_row: int
    opened_at: datetime | None
    cause: str | None
    next_call_at: datetime | None


def circuit_view(breaker: Breaker, settings: BreakerSettings) -> CircuitView:
    """A breaker as callers see it."""
    return CircuitView(
        state=breaker.state,
        failures_in_a_row=breaker.failures_in_a_row,
        opened_at=breaker.opened_at,
        cause=breaker.cause or None,
        next_call_at=next_call_at(breaker, settings),
    )


def agent_view(state: AgentState) -> AgentView:
    """An agent as it is now."""
    settings = state.settings
    return AgentView(
        id=str(state.id),
        name=state.name,
        url=settings.url,
        description=settings.description,
        auth_type=settings.auth_type,
        auth_config=auth_shown(settings),
        timeout_ms=settings.timeout_ms,
        retry_config=settings.retry_config,
        status=state.status,
        created_at=state.created_at,
        updated_at=state.updated_at,
        created_by=state.created_by,
        updated_by=state.updated_by,
        transport=settings.transport,
        protocol=settings.protocol,
        circuit_breaker_config=settings.circuit_breaker_config,
        recovery=settings.recovery,
        version=state.version,
    )


def auth_shown(settings: AgentSettings) -> dict[str, str]:
    """`auth_config` as callers see it: never a credential."""
    member = SECRET_MEMBERS.get(settings.auth_type)
    if member is None:
        return {}
    shown = {member: settings.secret_reference or MASK}
    return shown | ({"header_name": settings.header_name} if member == "key" else {})
