"""What runs: a process that answers, one that works, one that projects, each with what it uses and
nothing else. Made by the openers in `bootstrap.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from uuid_utils.compat import uuid7

from application.breakers import BreakerKey
from application.callers import DEFAULT_WORKSPACE
from application.control import Control
from application.dead_letters import DeadLetterOffice
from application.dispatch_notes import DispatchNotes
from application.history import History
from application.ledger import Ledger
from application.messages import MessagePublisher
from application.ports import Overloaded, QueueStatistics, StoreUnavailable, WorkQueue
from application.reads import ProjectionView, Reads
from application.relay import Relay
from application.requests import NoRunner, Requests, Runner
from application.stuck import StuckExecutions
from application.worker import Worker, WorkerOptions
from application.workflows import Workflows
from domain.recovery_rules import RecoveryRules
from infrastructure.addresses import PostgresAddress, SQLiteAddress, parse_address
from infrastructure.database import Store, StoreOptions
from infrastructure.dead_letters import DeadLetterTable
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.event_store.group_commit import CommitCounters
from infrastructure.following import open_follower
from infrastructure.graphviz_svg import GraphvizSvg
from infrastructure.input_schema import JsonSchemas
from infrastructure.kafka.opening import open_publisher
from infrastructure.projections.postgres_store import (
    LEADER_LOCK,
    RELAY_LOCK,
    PostgresProjectionStore,
)
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.runner import ProjectionRunner
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.projections.sqlite_store import SQLiteProjectionStore
from infrastructure.relay_log import LedgerRelayLog
from infrastructure.settings import Settings
from infrastructure.store_health import CALLS_WAITING_MAX, StoreHealth, StoreThreads
from interfaces.agent_parts import AgentParts
from interfaces.kafka_parts import away, make_relay, relay_log, sending

CHECK_SECONDS: Final = 1.0
LOG: Final = logging.getLogger("flowledger")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One readiness check."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a process can tell of itself and of the store. None: not its business, or the store
    does not answer now.
    """

    store_answers: bool
    executions: Mapping[str, int] | None = None
    """By status."""
    queue: QueueStatistics | None = None
    projections: Sequence[ProjectionView] | None = None
    commits: CommitCounters | None = None
    append_queue_fill: float | None = None
    worker: Worker | None = None
    projector: ProjectionRunner | None = None
    agent_calls: Mapping[tuple[str, str], int] | None = None
    """By agent and what became of them."""
    agent_breakers: Mapping[BreakerKey, str] | None = None
    """States, as this process last saw them."""
    messages: Mapping[tuple[str, str], int] | None = None
    """Received ones, by topic and what became of them."""
    message_lag: Mapping[str, int] | None = None
    """By topic, those of this process's partitions that are not handled."""


class Process(Protocol):
    """One running process of any kind; made by the `open_...` function of its kind."""

    draining: bool
    """It is about to stop, and says so to those who ask whether it is ready."""

    async def close(self) -> None:
        """Let running steps end, hand the rest back, store what is pending, let go of all."""

    async def checks(self) -> dict[str, CheckResult]:
        """Readiness; answers at once."""

    async def observe(self) -> Observation:
        """For figures; answers also while the store does not."""


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
            self.worker = _worker(settings, store, self.ledger, self.workflows, actions, rules)
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
            notes = DispatchNotes(self.ledger)
            self.relay = make_relay(
                settings, log, publisher, self.dead_letters, store.clock, report, notes
            )

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
            checks["worker"] = _leases(self.worker)
        if self.relay is not None:
            checks["kafka"] = _sends(self.relay)
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
            agent_calls=self.agent_parts.caller.calls,
            agent_breakers=self.agent_parts.breakers.last_seen(),
        )


class WorkerProcess:
    """A process that runs executions and answers nobody. Open it with `open_worker`."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        outbound: Outbound,
        actions: ActionRegistry,
        rules: RecoveryRules,
        secrets: Secrets,
    ) -> None:
        self.ledger = Ledger(store.log, store.clock, uuid7, settings.cache_bytes)
        self.agent_parts = AgentParts(settings, store, outbound, secrets)
        actions = actions.calling(self.agent_parts.caller)
        self.workflows = Workflows(
            store.log,
            store.clock,
            uuid7,
            actions,
            JsonSchemas().problem,
            self.agent_parts.agents,
        )
        self.draining = False
        self.worker = _worker(settings, store, self.ledger, self.workflows, actions, rules)
        self._store = store
        self._outbound = outbound
        self._settings = settings

    async def start(self) -> None:
        """Begin to work."""
        await self._store.start()
        if self._settings.kafka_brokers:
            projected = projection_store(self._settings, self._store, relay=True)
            log = relay_log(projected, self._store.health)
            try:
                await log.begin()
            finally:
                await log.close()
        self.worker.start()

    async def close(self) -> None:
        """See Process."""
        self.draining = True
        await self.worker.stop()
        await self.agent_parts.aclose()
        await self._outbound.aclose()
        await self._store.close()

    async def checks(self) -> dict[str, CheckResult]:
        """The store answers, leases are renewed, it is not about to stop."""
        checks = await common_checks(self._store.ping, draining=self.draining)
        return checks | {"worker": _leases(self.worker)}

    async def observe(self) -> Observation:
        """See Process."""
        queue = await _known(self._store.queue)
        return Observation(
            store_answers=queue is not None,
            queue=queue,
            commits=self._store.counters,
            append_queue_fill=self._store.log.saturation(),
            worker=self.worker,
            agent_calls=self.agent_parts.caller.calls,
            agent_breakers=self.agent_parts.breakers.last_seen(),
        )


class ProjectorProcess:
    """A process that fills the tables, or stands by while another does. Open it with
    `open_projector`.
    """

    def __init__(self, settings: Settings, address: PostgresAddress) -> None:
        self.draining = False
        self.follower = open_follower(
            settings.database_url, address.dsn, store_options(settings), self._wake
        )
        self.projections = ProjectionRunner(
            PostgresProjectionStore(address.dsn), self.follower.clock.now
        )
        self.relay: Relay | None = None
        self._publisher: MessagePublisher | None = None
        if settings.kafka_brokers:
            health, clock = self.follower.health, self.follower.clock
            self._publisher = open_publisher(settings)
            self._letters = _dead_letters(PostgresProjectionStore(address.dsn), health)
            log = relay_log(PostgresProjectionStore(address.dsn, leader_lock=RELAY_LOCK), health)
            office = DeadLetterOffice(self._letters, clock, self._publisher)
            self.relay = make_relay(settings, log, self._publisher, office, clock, report)

    def _wake(self) -> None:
        self.projections.wake()
        if self.relay is not None:
            self.relay.wake()

    async def start(self) -> None:
        """Begin to project."""
        await self.follower.start()
        self.projections.start()
        if self.relay is not None:
            self.relay.start()

    async def close(self) -> None:
        """See Process."""
        self.draining = True
        await asyncio.to_thread(self.projections.stop)
        if self.relay is not None:
            await self.relay.stop()
            await self._letters.close()
        if self._publisher is not None:
            await self._publisher.close()
        await self.follower.close()

    async def checks(self) -> dict[str, CheckResult]:
        """The store answers, it is not about to stop."""

        async def ping() -> None:
            self.follower.health.require()

        checks = await common_checks(ping, draining=self.draining)
        leads = "fills the tables" if self.projections.leading else "another process does"
        checks["projections"] = CheckResult(True, leads)
        if self.relay is not None:
            checks["kafka"] = _sends(self.relay)
        return checks

    async def observe(self) -> Observation:
        """See Process."""
        queue = await _known(self.follower.queue)
        return Observation(store_answers=queue is not None, queue=queue, projector=self.projections)


async def common_checks(
    ping: Callable[[], Awaitable[None]], *, draining: bool
) -> dict[str, CheckResult]:
    """Those of every process: the store answers, it is not about to stop."""
    try:
        await asyncio.wait_for(ping(), CHECK_SECONDS)
        store = CheckResult(True, "answers")
    except (StoreUnavailable, Overloaded, TimeoutError):
        store = CheckResult(False, "does not answer; look at the database")
    checks = {"store": store}
    if draining:
        checks["process"] = CheckResult(False, "is about to stop")
    return checks


def _leases(worker: Worker) -> CheckResult:
    fresh = worker.fresh()
    return CheckResult(fresh, "leases are renewed" if fresh else "leases were not renewed lately")


async def _known(queue: WorkQueue) -> QueueStatistics | None:
    with suppress(StoreUnavailable, Overloaded):
        return await queue.statistics()
    return None


def _worker(
    settings: Settings,
    store: Store,
    ledger: Ledger,
    workflows: Workflows,
    actions: ActionRegistry,
    rules: RecoveryRules,
) -> Worker:
    options = WorkerOptions(
        slots=settings.worker_slots,
        renew_seconds=settings.heartbeat,
        fence_seconds=settings.fence,
        grace_seconds=settings.grace_seconds,
    )
    return Worker(
        ledger,
        store.queue,
        store.clock,
        store.feed,
        workflows,
        actions,
        options,
        report,
        rules,
        schemas=JsonSchemas(),
    )


def projection_store(settings: Settings, store: Store, *, relay: bool = False) -> ProjectionStore:
    """Connections for the tables of an open store; who leads with those of a `relay` is the one
    relay, not the one projector.
    """
    address = parse_address(settings.database_url)
    if isinstance(address, SQLiteAddress) and not isinstance(store.writes, PostgresAddress):
        leader = "relay" if relay else "projector"
        return SQLiteProjectionStore(address.path, store.writes, leader=leader)
    if isinstance(address, PostgresAddress):
        leader_lock = RELAY_LOCK if relay else LEADER_LOCK
        return PostgresProjectionStore(address.dsn, leader_lock=leader_lock)
    raise ValueError(f"{settings.database_url} does not name the open store")


def dead_letter_table(settings: Settings, store: Store) -> DeadLetterTable:
    """The dead letters of an open store."""
    return _dead_letters(projection_store(settings, store), store.health)


def _dead_letters(projected: ProjectionStore, health: StoreHealth) -> DeadLetterTable:
    threads = StoreThreads("dead letters", 1, health, waiting_max=CALLS_WAITING_MAX)
    return DeadLetterTable(projected, threads)


def _sends(relay: Relay) -> CheckResult:
    """Never a reason not to be ready: without Kafka messages wait, and the rest goes on."""
    return CheckResult(True, sending(relay.health()))


def store_options(settings: Settings) -> StoreOptions:
    """How the settings want the store to be used."""
    return StoreOptions(lease_seconds=settings.lease_seconds, appends_max=settings.append_queue)


def report(event: str, facts: dict[str, object]) -> None:
    """One line per thing an operator should know of."""
    error = facts.pop("exception", None)
    LOG.warning(
        event, extra={"facts": facts}, exc_info=error if isinstance(error, BaseException) else None
    )
