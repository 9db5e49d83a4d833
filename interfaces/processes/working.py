"""A process that runs executions and answers nobody."""

from uuid_utils.compat import uuid7

from application.ledger import Ledger
from application.worker import Worker, WorkerOptions
from application.workflows import Workflows
from domain.recovery_rules import RecoveryRules
from infrastructure.database import Store
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.input_schema import JsonSchemas
from infrastructure.settings import Settings
from interfaces.processes.agent_parts import AgentParts
from interfaces.processes.kafka_parts import relay_log
from interfaces.processes.process import (
    CheckResult,
    Observation,
    common_checks,
    known_queue,
    report,
)
from interfaces.processes.store_parts import projection_store


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
        self.worker = make_worker(settings, store, self.ledger, self.workflows, actions, rules)
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
        return checks | {"worker": leases(self.worker)}

    async def observe(self) -> Observation:
        """See Process."""
        queue = await known_queue(self._store.queue)
        return Observation(
            store_answers=queue is not None,
            queue=queue,
            commits=self._store.counters,
            append_queue_fill=self._store.log.saturation(),
            worker=self.worker,
            agent_calls=self.agent_parts.caller.calls,
            agent_breakers=self.agent_parts.breakers.last_seen(),
        )


def leases(worker: Worker) -> CheckResult:
    fresh = worker.fresh()
    return CheckResult(fresh, "leases are renewed" if fresh else "leases were not renewed lately")


def make_worker(
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
