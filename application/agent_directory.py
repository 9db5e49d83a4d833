"""What the use cases ask about agents: whether one may be named, how work reaches it, and what is
done about its failures.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from domain.agent_policy import AgentPolicy


class AgentDirectory(Protocol):
    """The agents of each workspace, by name."""

    async def unknown(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """By name, why an agent cannot be used (there is none, it is inactive or deleted) and what
        to do about it, in a sentence. Names of usable ones are left out. Raises NotReady.
        """

    async def transports(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """By name, how work reaches an agent (`domain/agent_names.py`); names of no agent are left
        out, and a worker that calls one hears so. Raises NotReady.
        """

    async def out_of_reach(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """By name, why nothing would reach an agent as this process is set up and what to do about
        it, in a sentence. The others are left out. Raises NotReady.
        """

    async def policies(
        self, workspace_id: str, names: Collection[str]
    ) -> Mapping[str, AgentPolicy]:
        """By name, what a record says about failure; names of no agent are left out.

        Raises NotReady.
        """


class NoAgents:
    """The directory of an installation that has no agents."""

    async def unknown(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """See AgentDirectory."""
        del workspace_id
        return {name: unknown_agent(name) for name in names}

    async def transports(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """See AgentDirectory."""
        del workspace_id, names
        return {}

    async def out_of_reach(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        """See AgentDirectory."""
        del workspace_id, names
        return {}

    async def policies(
        self, workspace_id: str, names: Collection[str]
    ) -> Mapping[str, AgentPolicy]:
        """See AgentDirectory."""
        del workspace_id, names
        return {}


def unknown_agent(name: str) -> str:
    """The sentence about an agent that is not registered."""
    return f"There is no agent {name[:200]!r}; register it with POST /api/v1/agents."
