"""A process that answers callers, with or without work and projections of its own."""

import asyncio
from contextlib import suppress

from uuid_utils.compat import uuid7

from application.callers import DEFAULT_WORKSPACE
from application.control import Control
from application.dead_letters import DeadLetterOffice
from application.history import History
from application.ledger import Ledger
from application.messages import MessagePublisher
from application.ports import Overloaded, StoreUnavailable
from application.reads import Reads
from application.relay import Relay
from application.requests import NoRunner, Requests, Runner
from application.stuck import StuckExecutions
from application.worker import Worker
from application.workflows import Workflows
from domain.recovery_rules import RecoveryRules
from infrastructure.database import Store
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.graphviz_svg import GraphvizSvg
from infrastructure.input_schema import JsonSchemas
from infrastructure.kafka.opening import open_publisher
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.runner import ProjectionRunner
from infrastructure.relay_log import LedgerRelayLog
from infrastructure.settings import Settings
from interfaces.processes.agent_parts import AgentParts
from interfaces.processes.kafka_parts import away, make_relay, relay_check, relay_log
from interfaces.processes.process import CheckResult, Observation, common_checks
from interfaces.processes.store_parts import dead_letter_table, projection_store
from interfaces.processes.working import leases, make_worker


class Services:
    """A process that answers callers, with or without a worker and a projector of its own. Open it
    with `open_services` or `open_api`, close it in the same event loop.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        outbound: Outbound,
        actions: ActionRegistry,
        rules: RecoveryRules,
        secrets: Secrets,
        *,
        alone: bool,
    ) -> None:
        """`alone` works and projects as well; else other processes do."""
        schemas = JsonSchemas()
        self.settings = settings
        self.draining = False
        self.store = store
        self.projections = ProjectionRunner(
            projection_store(settings, store), store.clock.now, may_lead=alone
        )
        self.reads: Reads = ProjectionReads(
            store.engine,
            projection_store(settings, store),
            store.clock.now,
            threads=store.query_threads,
            runner=self.projections,
        )
        self.ledger = Ledger(store.log, store.clock, uuid7, settings.cache_bytes)
        self.agent_parts = AgentParts(settings, store, outbound, secrets)
        actions = actions.calling(self.agent_parts.caller)
        self.workflows = Workflows(
            store.log, store.clock, uuid7, actions, schemas.problem, self.agent_parts.agents
        )
        self.actions = actions
        self.worker: Worker | None = None
        if alone and settings.worker_slots:
            self.worker = make_worker(settings, store, self.ledger, self.workflows, actions, rules)
        runner: Runner = self.worker or NoRunner()
        self.publisher: MessagePublisher | None = None
        if settings.kafka_brokers:
            self.publisher = open_publisher(settings)
        over_kafka = None
        if self.publisher is not None and settings.start == "kafka":
            over_kafka = away(self.publisher)
        self.requests = Requests(
            self.ledger, self.workflows, runner, schemas, rules, over_kafka=over_kafka
        )
        self.control = Control(self.ledger, self.workflows, runner, rules)
        self.tasks = self.agent_parts.tasks(self.reads, self.ledger, self.workflows, runner, rules)
        reading = self.ledger.reading(store.queries)
        self.history = History(reading, self.workflows, store.feed)
        self.stuck = StuckExecutions(self.reads, reading, settings.lease_seconds)
        self.svg = GraphvizSvg.installed()
        self._letters = dead_letter_table(settings, store)
        self.dead_letters = DeadLetterOffice(self._letters, store.clock, self.publisher)
        self.relay: Relay | None = None
        self._relay_log: LedgerRelayLog | None = None
        if self.publisher is not None:
            self._set_up_relay(self.publisher, leads=alone)
        self._outbound = outbound

    def _set_up_relay(self, publisher: MessagePublisher, *, leads: bool) -> None:
        store, settings = self.store, self.settings
        log = relay_log(projection_store(settings, store, relay=True), store.health)
        self._relay_log = log
        if leads:
            self.relay = make_relay(settings, log, publisher, self.dead_letters, self.ledger)

    async def start(self) -> None:
        """Begin to watch, to project and to work."""
        await self.store.start()
        self.store.feed.subscribe(self.projections.wake)
        self.store.refuse_new_work(self._too_far_behind)
        self.projections.start()
        if self._relay_log is not None:
            await self._relay_log.begin()
        if self.relay is not None:
            self.store.feed.subscribe(self.relay.wake)
            self.relay.start()
        if self.worker is not None:
            self.worker.start()

    def finish_requests(self) -> None:
        """Answer those who wait for an execution with what there is; no new wait begins."""
        self.history.close()
        self.tasks.close()

    async def close(self) -> None:
        """See Process."""
        self.draining = True
        if self.worker is not None:
            await self.worker.stop()
        self.finish_requests()
        await asyncio.to_thread(self.projections.stop)
        await self._outbound.aclose()
        if self.relay is not None:
            await self.relay.stop()
        elif self._relay_log is not None:
            await self._relay_log.close()
        if self.publisher is not None:
            await self.publisher.close()
        await self._letters.close()
        await self.agent_parts.aclose()
        await self.store.close()

    def _too_far_behind(self) -> str | None:
        """Why no new execution is taken now: readers would wait too long for what they wrote."""
        seconds = self.projections.lag().seconds
        if seconds <= self.settings.projection_lag_seconds:
            return None
        return f"The tables are {seconds:.0f} seconds behind the log; try again."

    async def checks(self) -> dict[str, CheckResult]:
        """The store answers, leases are renewed, it is not about to stop."""
        checks = await common_checks(self.store.ping, draining=self.draining)
        if self.worker is not None:
            checks["worker"] = leases(self.worker)
        if self.relay is not None:
            checks["kafka"] = relay_check(self.relay)
        return checks

    async def observe(self) -> Observation:
        """See Process."""
        executions = queue = projections = None
        with suppress(StoreUnavailable, Overloaded):
            executions = (await self.reads.statistics(DEFAULT_WORKSPACE, None)).by_status
            queue = await self.store.queue.statistics()
            projections = await self.reads.projections()
        return Observation(
            store_answers=projections is not None,
            executions=executions,
            queue=queue,
            projections=projections,
            commits=self.store.counters,
            append_queue_fill=self.store.log.saturation(),
            worker=self.worker,
            projector=self.projections,
            relay=None if self.relay is None else await self.relay.figures(),
            agent_calls=self.agent_parts.caller.calls,
            agent_breakers=self.agent_parts.breakers.last_seen(),
        )
