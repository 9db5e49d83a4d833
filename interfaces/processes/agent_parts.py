"""Wiring of agents: the registry, their sealed credentials, the breakers, and who calls them."""

from uuid_utils.compat import uuid7

from application.agent_results import AgentResults
from application.agents import Agents
from application.breakers import Breakers
from application.ledger import Ledger
from application.reads import Reads
from application.requests import Runner
from application.tasks import Tasks
from application.workflows import Workflows
from domain.agents import AgentState
from domain.recovery_rules import RecoveryRules
from infrastructure.agent_secrets import SealedSecrets
from infrastructure.breaker_store import open_breaker_store
from infrastructure.database import Store
from infrastructure.effects.agent_call import HttpAgentCaller
from infrastructure.effects.agent_health import AgentHealth
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.outbound_urls import mistake_of_url
from infrastructure.effects.secrets import Secrets
from infrastructure.settings import Settings
from infrastructure.small_tables import open_small_tables
from infrastructure.task_queue import open_task_queue


class AgentParts:
    """All about agents over one open store. Close it before the store, after who calls agents."""

    def __init__(
        self, settings: Settings, store: Store, outbound: Outbound, secrets: Secrets
    ) -> None:
        self._sealed = SealedSecrets(open_small_tables(store, "agents"), store.clock, settings.keys)
        self._breaker_store = open_breaker_store(store)
        self._task_queue = open_task_queue(store)
        self._store = store
        self.agents = Agents(
            store.log,
            store.clock,
            uuid7,
            self._sealed,
            mistake_of_url,
            http_over_kafka=settings.agent_transport == "kafka",
            has_kafka=bool(settings.kafka_brokers),
        )
        self.breakers = Breakers(self._breaker_store, store.clock)
        self.caller: HttpAgentCaller[AgentState] = HttpAgentCaller(
            self.agents, self.breakers, outbound, store.clock, secrets
        )
        self.health = AgentHealth(outbound, self.agents, secrets, store.clock.now)

    def tasks(
        self,
        reads: Reads,
        ledger: Ledger,
        workflows: Workflows,
        runner: Runner,
        rules: RecoveryRules,
    ) -> Tasks:
        """What workers that ask for work are answered with."""
        results = AgentResults(ledger, workflows, runner, rules)
        return Tasks(
            self._task_queue, reads, ledger, workflows, self.agents, results, self._store.feed
        )

    async def aclose(self) -> None:
        """Write what the breakers keep back, let go of connections."""
        await self.breakers.flush()
        await self._breaker_store.aclose()
        await self._sealed.aclose()
        await self._task_queue.aclose()
