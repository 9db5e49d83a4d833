"""An agent: a remote worker with a unique name. Register, change, delete."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

import msgspec
from msgspec import Struct, field, structs

from domain.agent_names import HTTP, KAFKA
from domain.breaker import BreakerSettings
from domain.errors import AgentExists
from domain.events import AgentChanged, AgentDeleted, AgentRegistered, Event, Payload
from domain.json_values import JsonObject
from domain.log_order import check_follows
from domain.workflow import NAMESPACE

ACTIVE: Final = "active"
INACTIVE: Final = "inactive"
DELETED: Final = "deleted"
JSONRPC: Final = "jsonrpc"
SIMPLE: Final = "simple"
PROTOCOLS: Final = (JSONRPC, SIMPLE)
"""`message/send` of JSON-RPC 2.0, or `{task_id, input}`."""
NONE: Final = "none"
BEARER: Final = "bearer"
APIKEY: Final = "apikey"
AUTH_TYPES: Final = (NONE, BEARER, APIKEY)
KEY_HEADER: Final = "X-API-Key"
RETRY: Final = "RETRY"
FALLBACK: Final = "FALLBACK"
FAIL: Final = "FAIL"
ON_FAILURE: Final = (RETRY, FALLBACK, FAIL)


@lru_cache(maxsize=4_096)
def agent_uuid(workspace_id: str, name: str) -> UUID:
    """An agent's stream: its name is unique within a workspace, so no look-up is needed."""
    return uuid5(NAMESPACE, f"agent\n{workspace_id}\n{name}")


class RetryConfig(Struct, frozen=True, kw_only=True):
    """How a step that names this agent is tried again, unless the step says so itself."""

    max_retries: int = 3
    initial_delay_ms: int = 1_000
    max_delay_ms: int = 30_000
    backoff_multiplier: float = 2.0


class AgentRecovery(Struct, frozen=True, kw_only=True):
    """What is done when a step fails that names this agent and says nothing of it itself.

    `max_retries` repeats that of the RetryConfig for those who ask for this part alone.
    """

    on_failure: str = RETRY
    fallback_agent: str | None = None
    max_retries: int = 3


class AgentSettings(Struct, frozen=True, kw_only=True):
    """All of an agent but its name and status.

    The credential of `auth_type` bearer or apikey is either `secret_reference`, a
    `${secret.NAME}`, or the sealed secret numbered `secret_id`.
    """

    url: str | None = None
    description: str | None = None
    transport: str = HTTP
    protocol: str = JSONRPC
    auth_type: str = NONE
    header_name: str = KEY_HEADER
    timeout_ms: int = 30_000
    retry_config: RetryConfig = field(default_factory=RetryConfig)
    circuit_breaker_config: BreakerSettings = field(default_factory=BreakerSettings)
    recovery: AgentRecovery | None = None
    secret_reference: str | None = None
    secret_id: str | None = None

    def as_json(self) -> JsonObject:
        """Every member, as it is stored."""
        built: JsonObject = msgspec.to_builtins(self)
        return built


class AgentState(Struct, frozen=True):
    """What the events say. `version` counts events."""

    id: UUID
    workspace_id: str
    version: int
    name: str
    status: str
    settings: AgentSettings
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str

    @property
    def active(self) -> bool:
        """Whether new steps may name it."""
        return self.status == ACTIVE

    def transport(self, *, http_over_kafka: bool) -> str:
        """How work reaches it, where the agents that are called may be called by a bridge."""
        transport = self.settings.transport
        return KAFKA if http_over_kafka and transport == HTTP else transport


def evolve(state: AgentState | None, event: Event) -> AgentState:
    """The state after one more event. Raises LogDamaged."""
    check_follows(0 if state is None else state.version, event)
    data, meta = event.data, event.meta
    if isinstance(data, AgentRegistered):
        return AgentState(
            event.execution_id,
            meta.ws,
            event.version,
            data.name,
            ACTIVE,
            msgspec.convert(data.settings, AgentSettings),
            meta.at,
            meta.actor,
            meta.at,
            meta.actor,
        )
    if state is None:
        raise TypeError("an agent's first event is agent.registered")
    settings, status = state.settings, state.status
    if isinstance(data, AgentChanged):
        settings = msgspec.convert(settings.as_json() | data.settings, AgentSettings)
        status = data.status or status
    elif isinstance(data, AgentDeleted):
        # Nothing may find the credential any more, which is destroyed.
        settings = structs.replace(settings, secret_id=None, secret_reference=None)
        status = DELETED
    else:
        raise TypeError(f"{type(data).__name__} is not an agent event")
    return structs.replace(
        state,
        version=event.version,
        settings=settings,
        status=status,
        updated_at=meta.at,
        updated_by=meta.actor,
    )


def decide_register(
    state: AgentState | None, name: str, settings: AgentSettings
) -> Sequence[Payload]:
    """A new agent, also in the place of one that was deleted. Raises AgentExists."""
    if state is not None and state.status != DELETED:
        raise AgentExists(
            f"There is an agent {name!r} already; change it with PUT, or choose another name."
        )
    return (AgentRegistered(name, settings.as_json()),)


def decide_change(state: AgentState, settings: AgentSettings, status: str) -> Sequence[Payload]:
    """What is different from now on; nothing when all of it already is so."""
    before = state.settings.as_json()
    changed = {name: value for name, value in settings.as_json().items() if value != before[name]}
    if not changed and status == state.status:
        return ()
    return (AgentChanged(changed, None if status == state.status else status),)


def decide_delete(state: AgentState) -> Sequence[Payload]:
    """Nothing when it is deleted already."""
    return () if state.status == DELETED else (AgentDeleted(),)
