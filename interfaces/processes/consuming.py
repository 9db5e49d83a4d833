"""A worker that also takes what other systems ask for and send back over Kafka."""

from typing import Final

from application.agent_results import AgentResults
from application.control import Control
from application.dead_letters import DeadLetterOffice
from application.incoming import Incoming
from application.pending_starts import PendingStarts
from application.requests import Requests
from domain.recovery_rules import RecoveryRules
from infrastructure.database import Store
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.input_schema import JsonSchemas
from infrastructure.kafka.opening import kafka_topics, open_receiver
from infrastructure.outside_rows import StoredOutsideRows
from infrastructure.projections.reads import ProjectionReads
from infrastructure.settings import Settings
from interfaces.kafka.receiving import ConsumedMessages, Counted
from interfaces.processes.kafka_parts import receiver_check, with_messages
from interfaces.processes.process import CheckResult, Observation, report
from interfaces.processes.store_parts import dead_letter_table, projection_store
from interfaces.processes.working import WorkerProcess

MESSAGES_AT_ONCE: Final = 64
"""Of one partition; appends of several at a time share a commit."""


class ConsumerProcess:
    """A worker that also takes what other systems ask for and send back over Kafka. Open it with
    `open_consumer`.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        outbound: Outbound,
        actions: ActionRegistry,
        rules: RecoveryRules,
        secrets: Secrets,
    ) -> None:
        working = WorkerProcess(settings, store, outbound, actions, rules, secrets)
        ledger, workflows, worker = working.ledger, working.workflows, working.worker
        self.ledger = ledger
        self._working = working
        self._letters = dead_letter_table(settings, store)
        self.dead_letters = DeadLetterOffice(self._letters, store.clock, None)
        self._rows = projection_store(settings, store)
        reads = ProjectionReads(
            store.engine, self._rows, store.clock.now, threads=store.query_threads
        )
        self.starts = PendingStarts(store.queue, worker, reads, store.clock, report)
        incoming = Incoming(
            ledger,
            Requests(ledger, workflows, worker, JsonSchemas(), rules),
            Control(ledger, workflows, worker, rules),
            AgentResults(ledger, workflows, worker, rules),
            StoredOutsideRows(store.engine, store.query_threads, store.writes),
            self.starts,
        )
        topics = kafka_topics(settings)
        self.handled = Counted(ConsumedMessages(incoming, topics))
        self.receiver = open_receiver(
            settings,
            [topics.executions, topics.cancellations, topics.results],
            self.handled,
            self.dead_letters,
            at_once=MESSAGES_AT_ONCE,
        )

    @property
    def draining(self) -> bool:
        """See Process."""
        return self._working.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._working.draining = value

    async def start(self) -> None:
        """Begin to work, to receive, and to look for executions that wait for too long."""
        await self._working.start()
        self.receiver.start()
        self.starts.begin()

    async def close(self) -> None:
        """See Process."""
        self.draining = True
        await self.starts.end()
        await self.receiver.stop()
        await self._letters.close()
        self._rows.close()
        await self._working.close()

    async def checks(self) -> dict[str, CheckResult]:
        """Those of a worker, and what is known of Kafka."""
        return await self._working.checks() | {"kafka": receiver_check(self.receiver)}

    async def observe(self) -> Observation:
        """See Process."""
        return with_messages(await self._working.observe(), self.handled, self.receiver)
