"""Agents as a test of calls has them: a registry, a caller, a clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from application.breakers import BreakerKey, Breakers
from application.steps import Failed, StepOutcome
from domain.breaker import DEFAULT_SETTINGS, BreakerSettings
from domain.errors import NotReady
from domain.json_values import JsonObject
from infrastructure.effects.agent_call import HttpAgentCaller
from tests.infrastructure.effects.local_servers import step_context


@dataclass(frozen=True)
class Settings:
    """How an agent of these tests is called."""

    url: str | None
    transport: str = "http"
    protocol: str = "jsonrpc"
    auth_type: str = "none"
    header_name: str = "X-API-Key"
    timeout_ms: int = 20_000
    circuit_breaker_config: BreakerSettings = DEFAULT_SETTINGS


@dataclass(frozen=True)
class Agent:
    name: str
    settings: Settings
    status: str = "active"


@dataclass
class Book:
    """A registry of agents."""

    agents: dict[str, Agent] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)
    failure: Exception | None = None

    async def state(self, workspace_id: str, name: str) -> Agent | None:
        if isinstance(self.failure, NotReady):
            raise self.failure
        return self.agents.get(name) if workspace_id == "default" else None

    async def credential(self, agent: Agent) -> str | None:
        if self.failure is not None:
            raise self.failure
        return self.credentials.get(agent.name)


@dataclass
class Calls:
    """A caller, and agents of its own for each test: breakers outlive it."""

    book: Book
    breakers: Breakers
    caller: HttpAgentCaller[Agent]
    name: str

    def register(self, url: str | None, *, credential: str | None = None, **settings: Any) -> None:
        self.book.agents[self.name] = Agent(self.name, Settings(url, **settings))
        if credential is not None:
            self.book.credentials[self.name] = credential

    async def call(self, config: JsonObject | None = None, **context: Any) -> StepOutcome:
        return await self.caller.call(self.name, config or {"q": 1}, step_context(**context))

    async def failure(self, **context: Any) -> Failed:
        outcome = await self.call(**context)
        assert isinstance(outcome, Failed)
        return outcome

    async def state(self) -> str:
        return (await self.breakers.look(BreakerKey("default", self.name))).state


class Ahead:
    """A clock that only moves when it is told to."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at

    async def sleep(self, seconds: float) -> None:
        self._at += timedelta(seconds=seconds)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError("a call waits for nothing")
