"""Calls an agent over HTTP for one try of a step: one request, one recorded and explained outcome.

Nothing is tried again here: that is recovery, and the engine's. Formats are in
`agent_protocols.py`, the circuit breaker's rules in `domain/breaker.py`.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

from msgspec import Struct

from application.breakers import BreakerKey, Breakers
from application.messages import AgentTask
from application.ports import Clock
from application.steps import Failed, StepContext, StepFailure, StepOutcome, Succeeded
from domain.agent_names import HTTP
from domain.breaker import BreakerSettings, CallResult, Refused
from domain.dispatching import task_ids
from domain.errors import FlowledgerError, NotReady
from domain.json_values import Json, JsonObject, NotStorable, check_storable
from infrastructure.effects.agent_protocols import output_of, request_body
from infrastructure.effects.attempt_headers import attempt_headers, try_headers
from infrastructure.effects.failure_texts import plain_message
from infrastructure.effects.outbound import Outbound, OutboundRequest
from infrastructure.effects.secrets import LENGTH_MIN, Mask, Secrets

NEARLY: Final = 0.9
"""The part of its time limit after which a call that is given up counts as timed out: the engine's
own limit for the step may end a moment before the call's."""

NOTHING_TO_MASK: Final = Mask(())

_NEVER_SENT: Final = frozenset({"outbound_refused", "bad_url"})
_SAYS_NO: Final = frozenset(
    {"agent_error", "task_not_completed", "output_not_storable", "body_too_large"}
)


class CallSettings(Protocol):
    """How an agent is called."""

    @property
    def url(self) -> str | None:
        """Where, by POST; None for one that is not called."""

    @property
    def transport(self) -> str:
        """`http`, `pull` or `kafka`."""

    @property
    def protocol(self) -> str:
        """`jsonrpc` or `simple`."""

    @property
    def auth_type(self) -> str:
        """`none`, `bearer` or `apikey`."""

    @property
    def header_name(self) -> str:
        """The header of an API key."""

    @property
    def timeout_ms(self) -> int:
        """What one call may take."""

    @property
    def circuit_breaker_config(self) -> BreakerSettings:
        """When its calls are let through."""


class Agent(Protocol):
    """What a call needs to know of an agent."""

    @property
    def name(self) -> str:
        """Unique in its workspace."""

    @property
    def status(self) -> str:
        """`active`, or why it is not to be called."""

    @property
    def settings(self) -> CallSettings:
        """How it is called."""


A = TypeVar("A", bound=Agent)


class AgentBook(Protocol[A]):
    """The registry of agents."""

    async def state(self, workspace_id: str, name: str) -> A | None:
        """The agent; None when there is none. Raises NotReady."""
        ...

    async def credential(self, agent: A) -> str | None:
        """Its token or key, or the `${secret.NAME}` that stands for it; None when it has none.

        Raises NotReady, or another FlowledgerError when it cannot be had.
        """
        ...


class AgentCall(Struct, frozen=True, kw_only=True):
    """One try of a step, as an agent is told of it."""

    workspace_id: str
    agent: str
    task_id: str
    correlation_id: str
    idempotency_key: str
    input: JsonObject
    timeout_seconds: float = 0.0
    """What the step leaves for the call; 0 for no limit but the agent's own."""
    headers: Mapping[str, str] = {}


class HttpAgentCaller(Generic[A]):
    """Calls the agents of a registry. `calls` counts them by agent and outcome: `completed`, or the
    code of the failure."""

    def __init__(
        self,
        book: AgentBook[A],
        breakers: Breakers,
        outbound: Outbound,
        clock: Clock,
        secrets: Secrets,
    ) -> None:
        self._book = book
        self._breakers = breakers
        self._outbound = outbound
        self._clock = clock
        self._secrets = secrets
        self._masks: dict[BreakerKey, tuple[str, Mask]] = {}
        self.calls: Counter[tuple[str, str]] = Counter()

    async def call(self, name: str, config: JsonObject, context: StepContext) -> StepOutcome:
        """One try of a step that the agent `name` does; `config` is the step's resolved input.

        Raises nothing but `asyncio.CancelledError`.
        """
        task, correlation = task_ids(
            UUID(context.execution_id), context.path, context.attempt, context.try_no
        )
        return await self.perform(
            AgentCall(
                workspace_id=context.workspace_id,
                agent=name,
                task_id=task,
                correlation_id=correlation,
                idempotency_key=context.idempotency_key,
                input=config,
                timeout_seconds=context.timeout_seconds,
                headers=attempt_headers(context),
            )
        )

    async def call_for(self, workspace_id: str, task: AgentTask) -> StepOutcome | None:
        """As `call`, for a task that came in a message: its sender chose the names. None when its
        agent is not called: it reads the topic, too, or asks for tasks.
        """
        with suppress(NotReady):  # which `perform` tells
            agent = await self._book.state(workspace_id, task.agent_name)
            if agent is not None and agent.settings.transport != HTTP:
                return None
        return await self.perform(
            AgentCall(
                workspace_id=workspace_id,
                agent=task.agent_name,
                task_id=task.task_id,
                correlation_id=task.correlation_id,
                idempotency_key=task.idempotency_key or task.correlation_id,
                input=task.input,
                headers=try_headers(task.attempt, task.try_no),
            )
        )

    async def perform(self, task: AgentCall) -> StepOutcome:
        """As `call`, for a task that came with its names."""
        try:
            agent = await self._book.state(task.workspace_id, task.agent)
            if agent is None:
                raise _permanent(
                    "unknown_agent",
                    f"no agent is named {task.agent!r}; register it under that name",
                )
            outcome = await self._guarded(agent, task)
        except StepFailure as failure:
            outcome = _failed(failure, NOTHING_TO_MASK)
        except NotReady as error:
            text = plain_message(f"agents cannot be looked up: {error}")
            return Failed("registry_unavailable", text, "transient")
        except FlowledgerError as error:
            return Failed(error.code, plain_message(error.message), "permanent", retryable=False)
        except Exception as error:  # noqa: BLE001 - every try has an outcome
            # Its text is not shown: nobody knows whether it holds the credential.
            return Failed("agent_call_broken", f"the call ended in {type(error).__name__}")
        told = "completed" if isinstance(outcome, Succeeded) else outcome.code
        if told != "unknown_agent":  # a name that anybody made up is no label
            self.calls[task.agent, told] += 1
        return outcome

    async def _guarded(self, agent: A, task: AgentCall) -> StepOutcome:
        """The call with its credential and behind its breaker."""
        if agent.status.lower() != "active":
            raise _permanent(
                "agent_inactive", f"the agent {agent.name!r} is {agent.status}; activate it"
            )
        credential = await self._book.credential(agent)
        if credential is not None:
            credential = self._secrets.in_credential(credential)
        request = _request(agent, task, credential)
        key = BreakerKey(task.workspace_id, agent.name)
        mask = self._mask(key, credential)
        call = await self._breakers.admit(
            key, agent.settings.circuit_breaker_config, request.timeout_seconds
        )
        if isinstance(call, Refused):
            return _refused(agent.name, call)
        given_up_at = self._clock.now() + timedelta(seconds=NEARLY * request.timeout_seconds)
        result: CallResult = "neither"
        try:
            answer = await self._outbound.send(request)
            output = output_of(agent.settings.protocol, task.task_id, answer, mask)
            result = "success"
            return Succeeded(_kept(agent.name, output))
        except StepFailure as failure:
            result = _result_of(failure)
            return _failed(failure, mask)
        except asyncio.CancelledError:
            result = "failure" if self._clock.now() >= given_up_at else "neither"
            raise
        finally:  # whatever happens, the breaker is told once
            await self._breakers.record(key, call, result)

    def _mask(self, key: BreakerKey, credential: str | None) -> Mask:
        """What takes the credential out of what comes back; made once for each."""
        if credential is None:
            return NOTHING_TO_MASK
        known = self._masks.get(key)
        if known is None or known[0] != credential:
            known = self._masks[key] = credential, Mask((credential,))
        return known[1]


def _request(agent: Agent, task: AgentCall, credential: str | None) -> OutboundRequest:
    settings = agent.settings
    if settings.url is None:
        raise _permanent(
            "agent_without_url",
            f"the agent {agent.name!r} has no url; give it the one where it is called",
        )
    seconds = settings.timeout_ms / 1000
    if task.timeout_seconds > 0:
        seconds = min(seconds, task.timeout_seconds)
    return OutboundRequest(
        method="POST",
        url=settings.url,
        timeout_seconds=seconds,
        headers={
            "Content-Type": "application/json",
            "Accept": "application/json",
            "X-Correlation-ID": task.correlation_id,
            "Idempotency-Key": task.idempotency_key,
            **task.headers,
            **authorisation(agent, credential),
        },
        body=request_body(settings.protocol, task.task_id, task.input),
        redirects_max=0,
    )


def authorisation(agent: Agent, credential: str | None) -> dict[str, str]:
    """The header that shows an agent who calls; raises StepFailure when its credential is none."""
    auth_type = agent.settings.auth_type
    if auth_type == "none":
        return {}
    if not credential:
        raise _permanent(
            "agent_credential_missing",
            f"the agent {agent.name!r} wants a credential ({auth_type}) and has none; give it one "
            "in its auth_config",
        )
    if len(credential) < LENGTH_MIN or not (credential.isascii() and credential.isprintable()):
        raise _permanent(
            "agent_credential_unusable",
            f"the credential of the agent {agent.name!r} has fewer than {LENGTH_MIN} characters or "
            "one that no HTTP header can hold; give it another one in its auth_config",
        )
    if auth_type == "bearer":
        return {"Authorization": f"Bearer {credential}"}
    return {agent.settings.header_name: credential}


def _kept(agent: str, output: Json) -> Json:
    try:
        return check_storable(output)
    except NotStorable as error:
        raise _permanent(
            "output_not_storable",
            f"the answer of the agent {agent!r} cannot be kept, at {error.pointer or '/'}: "
            f"{error.message}; let it answer with less, or with where the rest is",
        ) from error


def _result_of(failure: StepFailure) -> CallResult:
    """What a failed call tells of the agent: one that says no works."""
    if failure.code in _NEVER_SENT:
        return "neither"
    if failure.code in _SAYS_NO:
        return "success"
    if failure.code == "http_status" and failure.error_class == "permanent":
        return "success"
    return "failure"


def _refused(agent: str, refusal: Refused) -> Failed:
    detail: JsonObject = {"agent": agent}
    if refusal.retry_at is not None:
        detail["retry_at"] = refusal.retry_at.isoformat().replace("+00:00", "Z")
    message = f"Circuit breaker is OPEN for agent '{agent}'"
    return Failed("circuit_open", message, "transient", detail=detail)


def _failed(failure: StepFailure, mask: Mask) -> Failed:
    message, output = plain_message(mask.text(str(failure))), failure.output
    try:
        check_storable(output)
    except NotStorable as error:
        message, output = f"{message} (what came back cannot be kept: {error.message})", None
    return Failed(
        failure.code, message, failure.error_class, failure.retryable, output, failure.detail
    )


def _permanent(code: str, message: str) -> StepFailure:
    return StepFailure(code, message, error_class="permanent")
