"""The registry of agents for those who call them: records, and credentials in clear."""

from application.agents import Agents
from application.ports import StoreUnavailable
from application.steps import SecretUse, StepFailure
from domain.agent_reader import named_secret
from domain.agents import AgentState
from domain.errors import NoEncryptionKey, NotReady
from infrastructure.effects.agent_call import AgentBook
from infrastructure.effects.secrets import Secrets


class RegisteredAgents(AgentBook[AgentState]):
    """See AgentBook."""

    def __init__(self, agents: Agents, secrets: Secrets) -> None:
        self._agents = agents
        self._secrets = secrets

    async def state(self, workspace_id: str, name: str) -> AgentState | None:
        """See AgentBook."""
        try:
            return await self._agents.state(workspace_id, name)
        except NotReady as error:
            raise StoreUnavailable(error.message) from error

    async def credential(self, agent: AgentState) -> str | None:
        """See AgentBook.

        Raises StepFailure: `no_encryption_key`, `secret_missing`, `secret_too_short` (permanent),
        `registry_unavailable` (transient).
        """
        try:
            kept = await self._agents.credential(agent)
        except NoEncryptionKey as error:
            raise StepFailure(error.code, error.message, error_class="permanent") from error
        except NotReady as error:
            raise StepFailure(
                "registry_unavailable", error.message, error_class="transient"
            ) from error
        name = None if kept is None else named_secret(kept)
        if name is None:
            return kept
        filled, _ = self._secrets.fill_in({"value": kept}, [SecretUse("/value", name)])
        return str(filled["value"])
