"""Register, find, change and delete agents; what executions ask about them."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol
from uuid import UUID

from msgspec import structs

from application.callers import Caller
from application.ledger import not_ready
from application.ports import Clock, EventLog, Overloaded, StoreUnavailable
from application.streams import Done, Streams
from domain import agents
from domain.agent_names import KAFKA
from domain.agent_policy import AgentPolicy
from domain.agent_reader import CheckUrl, Described, read_agent
from domain.agents import DELETED, AgentState, agent_uuid
from domain.errors import Invalid, NotFound
from domain.events import Payload
from domain.json_values import JsonObject
from domain.mistakes import Mistake


class AgentSecrets(Protocol):
    """Credentials of agents, sealed. Each is written once, under a number of its own."""

    async def put(self, agent_id: UUID, version: int, secret_id: str, credential: str) -> None:
        """Seal and store what version `version` of the agent will refer to.

        Raises NoEncryptionKey, StoreUnavailable.
        """

    async def get(self, agent_id: UUID, secret_id: str) -> str | None:
        """The credential; None when it was destroyed.

        Raises NoEncryptionKey when it cannot be opened, and StoreUnavailable.
        """

    async def keep_only(self, agent_id: UUID, version: int, secret_id: str | None) -> None:
        """Destroy what versions up to `version` referred to, but for `secret_id`."""


class Registered(NamedTuple):
    """The agent as a command left it; `replayed` when the command had been carried out before."""

    state: AgentState
    replayed: bool


class Agents:
    """The agent use cases."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        new_id: Callable[[], UUID],
        secrets: AgentSecrets,
        check_url: CheckUrl,
        *,
        http_over_kafka: bool = False,
        has_kafka: bool = False,
    ) -> None:
        """`http_over_kafka`: a bridge calls the agents of transport http, not the engine.
        `has_kafka`: this process has a broker.
        """
        self._streams = Streams(log, clock, new_id, kind="agent", evolve=agents.evolve)
        self._new_id = new_id
        self._secrets = secrets
        self._check_url = check_url
        self._http_over_kafka = http_over_kafka
        self._has_kafka = has_kafka

    async def register(self, caller: Caller, described: JsonObject) -> Registered:
        """A new agent. Raises Invalid with every mistake, AgentExists, NoEncryptionKey."""
        wanted = self._read(described)
        stream = agent_uuid(caller.workspace_id, wanted.name)

        async def decide(state: AgentState | None) -> Sequence[Payload]:
            facts = agents.decide_register(state, wanted.name, wanted.settings)
            secret_id = await self._sealed(stream, state, wanted)
            if secret_id is None:
                return facts
            settings = structs.replace(wanted.settings, secret_id=secret_id)
            return agents.decide_register(state, wanted.name, settings)

        return await self._command(caller, stream, decide)

    async def change(self, caller: Caller, ref: str, changes: JsonObject) -> Registered:
        """Change the members that are given; `status` is active or inactive.

        Raises NotFound, Invalid, PreconditionFailed, NoEncryptionKey.
        """
        found = await self.find(caller.workspace_id, ref)

        async def decide(newest: AgentState | None) -> Sequence[Payload]:
            state = _present(newest, ref)
            caller.check_version(state.version)
            wanted = self._read(changes, state)
            settings = wanted.settings
            if wanted.credential is not None:
                secret_id = await self._sealed(found.id, state, wanted)
                settings = structs.replace(settings, secret_id=secret_id)
            return agents.decide_change(state, settings, wanted.status)

        return await self._command(caller, found.id, decide)

    async def delete(self, caller: Caller, ref: str) -> AgentState:
        """Take an agent out of use and destroy its credential. Raises NotFound,
        PreconditionFailed.
        """
        found = await self.find(caller.workspace_id, ref)

        async def decide(newest: AgentState | None) -> Sequence[Payload]:
            state = newest or found
            if state.status != DELETED:
                caller.check_version(state.version)
            return agents.decide_delete(state)

        return (await self._command(caller, found.id, decide)).state

    async def find(self, workspace_id: str, ref: str) -> AgentState:
        """By UUID or name; NotFound when there is none, or it is deleted or another workspace's."""
        named = await self.state(workspace_id, ref)
        if named is not None:
            return named
        with suppress(ValueError):
            state = await self._streams.load(UUID(ref), trusted=False)
            if state is not None and state.workspace_id == workspace_id:
                return _present(state, ref)
        return _present(None, ref)

    async def state(self, workspace_id: str, name: str) -> AgentState | None:
        """The agent of that name, active or not; None when there is none or it is deleted."""
        stream = agent_uuid(workspace_id, name)
        found = await self._streams.load(stream)
        if found is None or found.status == DELETED:
            # Another process may have registered it a moment ago.
            found = await self._streams.load(stream, trusted=False)
        return None if found is None or found.status == DELETED else found

    async def unknown(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """Of `names`, those that no new definition may use, each with a sentence that says why."""
        found = {}
        for name in names:
            state = await self.state(workspace_id, name)
            if state is None:
                found[name] = (
                    f"There is no agent {name!r}; register it with POST /api/v1/agents first."
                )
            elif not state.active:
                found[name] = f"The agent {name!r} is inactive; activate it with PUT first."
        return found

    async def transports(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """How work reaches each of `names` that is registered: http, pull or kafka."""
        found = {}
        for name in names:
            state = await self.state(workspace_id, name)
            if state is not None:
                found[name] = state.transport(http_over_kafka=self._http_over_kafka)
        return found

    async def out_of_reach(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """Those whose tasks would go over Kafka where there is none, each with a sentence."""
        if self._has_kafka:
            return {}
        transports = await self.transports(workspace_id, names)
        return {
            name: (
                f"The agent {name!r} gets its tasks over Kafka, and no broker is set here: they "
                "would not be sent, and their steps end with their time-out. Set "
                "FLOWLEDGER_KAFKA_BROKERS=host:port in every process."
            )
            for name, transport in transports.items()
            if transport == KAFKA
        }

    async def policies(
        self, workspace_id: str, names: Collection[str]
    ) -> Mapping[str, AgentPolicy]:
        """What the record of each of `names` that is registered says about failure."""
        found = {}
        for name in names:
            state = await self.state(workspace_id, name)
            if state is not None:
                found[name] = AgentPolicy(state.settings.retry_config, state.settings.recovery)
        return found

    async def credential(self, agent: AgentState) -> str | None:
        """What authenticates a call to the agent: a literal, or a `${secret.NAME}` that the effect
        resolves. None without authentication, and when the agent was deleted meanwhile.

        Raises NoEncryptionKey, NotReady.
        """
        newest: AgentState | None = agent
        if agent.settings.secret_id is not None:
            credential = await self._opened(agent.id, agent.settings.secret_id)
            if credential is not None:
                return credential
            newest = await self._streams.load(agent.id, trusted=False)  # it was replaced
        if newest is None or newest.settings.secret_id is None:
            return None if newest is None else newest.settings.secret_reference
        return await self._opened(newest.id, newest.settings.secret_id)

    def _read(self, described: JsonObject, before: AgentState | None = None) -> Described:
        mistakes: list[Mistake] = []
        known = None
        if before is not None:
            known = Described(before.name, before.status, before.settings, None, False)
        wanted = read_agent(described, self._check_url, mistakes, known)
        if mistakes:
            count = len(mistakes)
            raise Invalid(
                f"The agent has {count} mistake{'s'[: count - 1]}; nothing is stored.", mistakes
            )
        return wanted

    async def _sealed(
        self, stream: UUID, state: AgentState | None, wanted: Described
    ) -> str | None:
        """Store the credential before the event that refers to it: a crash between the two leaves
        a secret that nobody refers to, never an agent without the credential that it claims.
        """
        if wanted.credential is None:
            return None
        secret_id = str(self._new_id())
        version = 1 if state is None else state.version + 1
        try:
            await self._secrets.put(stream, version, secret_id, wanted.credential)
        except (Overloaded, StoreUnavailable) as error:
            raise not_ready(error) from error
        return secret_id

    async def _opened(self, agent_id: UUID, secret_id: str) -> str | None:
        try:
            return await self._secrets.get(agent_id, secret_id)
        except (Overloaded, StoreUnavailable) as error:
            raise not_ready(error) from error

    async def _command(
        self,
        caller: Caller,
        stream: UUID,
        decide: Callable[[AgentState | None], Awaitable[Sequence[Payload]]],
    ) -> Registered:
        done: Done[AgentState] = await self._streams.command(caller, stream, decide)
        state = done.state
        with suppress(Overloaded, StoreUnavailable):  # the next command destroys what is left over
            await self._secrets.keep_only(stream, state.version, state.settings.secret_id)
        return Registered(done.then, done.replayed)


def _present(state: AgentState | None, ref: str) -> AgentState:
    if state is None or state.status == DELETED:
        raise NotFound(f"There is no agent {ref[:200]!r}. List them with GET /api/v1/agents.")
    return state
