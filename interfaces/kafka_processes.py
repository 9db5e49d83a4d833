"""Processes that receive messages: one that takes requests and results, one that calls agents.

Made by the openers in `bootstrap.py`, as those in `processes.py`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from application.agent_results import AgentResults
from application.bridge import Bridge
from application.control import Control
from application.dead_letters import DeadLetterOffice
from application.incoming import Incoming
from application.messages import MessageReceiver
from application.pending_starts import PendingStarts
from application.requests import Requests
from domain.recovery_rules import RecoveryRules
from infrastructure.database import Store
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.input_schema import JsonSchemas
from infrastructure.kafka.opening import kafka_topics, open_publisher, open_receiver
from infrastructure.outside_rows import StoredOutsideRows
from infrastructure.projections.reads import ProjectionReads
from infrastructure.settings import Settings
from interfaces.agent_parts import AgentParts
from interfaces.kafka.receiving import BridgedMessages, ConsumedMessages, Counted
from interfaces.kafka.shapes import Shapes
from interfaces.processes import (
    CheckResult,
    Observation,
    WorkerProcess,
    common_checks,
    dead_letter_table,
    projection_store,
    report,
)

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
        return await self._working.checks() | {"kafka": _receives(self.receiver)}

    async def observe(self) -> Observation:
        """See Process."""
        return _with_messages(await self._working.observe(), self.handled, self.receiver)


class BridgeProcess:
    """A process that calls agents for the tasks of a topic. Open it with `open_bridge`."""

    def __init__(
        self, settings: Settings, store: Store, outbound: Outbound, secrets: Secrets
    ) -> None:
        self.draining = False
        self._store = store
        self._outbound = outbound
        self._agents = AgentParts(settings, store, outbound, secrets)
        self._publisher = open_publisher(settings)
        self._letters = dead_letter_table(settings, store)
        topics = kafka_topics(settings)
        bridge = Bridge(
            self._agents.caller,
            self._publisher,
            Shapes(topics, cloudevents=settings.kafka_cloudevents),
            store.clock,
            calls_max=settings.bridge_calls,
            retries=settings.bridge_retries,
        )
        self.handled = Counted(BridgedMessages(bridge))
        self.receiver = open_receiver(
            settings,
            [topics.tasks],
            self.handled,
            DeadLetterOffice(self._letters, store.clock, None),
            group=settings.kafka_bridge_group_id,
            at_once=settings.bridge_calls,
            in_order=False,
        )

    async def start(self) -> None:
        """Begin to receive."""
        await self._store.start()
        self.receiver.start()

    async def close(self) -> None:
        """See Process."""
        self.draining = True
        await self.receiver.stop()
        await self._publisher.close()
        await self._letters.close()
        await self._agents.aclose()
        await self._outbound.aclose()
        await self._store.close()

    async def checks(self) -> dict[str, CheckResult]:
        """The store answers, it is not about to stop, and what is known of Kafka."""
        checks = await common_checks(self._store.ping, draining=self.draining)
        return checks | {"kafka": _receives(self.receiver)}

    async def observe(self) -> Observation:
        """See Process."""
        answers = (await self.checks())["store"].ok
        seen = Observation(
            store_answers=answers,
            agent_calls=self._agents.caller.calls,
            agent_breakers=self._agents.breakers.last_seen(),
        )
        return _with_messages(seen, self.handled, self.receiver)


def _with_messages(seen: Observation, handled: Counted, receiver: MessageReceiver) -> Observation:
    messages: Mapping[tuple[str, str], int] = handled.messages
    return replace(seen, messages=messages, message_lag=receiver.lag())


def _receives(receiver: MessageReceiver) -> CheckResult:
    """Never a reason not to be ready: without Kafka messages wait, and the rest goes on."""
    told = receiver.health()
    return CheckResult(True, "receives" if told.detail == "answers" else told.detail)
