"""A process that fills the tables, or stands by while another does."""

import asyncio

from uuid_utils.compat import uuid7

from application.dead_letters import DeadLetterOffice
from application.ledger import Ledger
from application.messages import MessagePublisher
from application.relay import Relay
from infrastructure.addresses import PostgresAddress
from infrastructure.following import open_follower
from infrastructure.kafka.opening import open_publisher
from infrastructure.projections.postgres_store import (
    RELAY_LOCK,
    PostgresProjectionStore,
)
from infrastructure.projections.runner import ProjectionRunner
from infrastructure.settings import Settings
from interfaces.processes.kafka_parts import make_relay, relay_check, relay_log
from interfaces.processes.process import (
    CheckResult,
    Observation,
    common_checks,
    known_queue,
)
from interfaces.processes.store_parts import dead_letters_over, store_options


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
            PostgresProjectionStore(address.dsn, dedicated=True), self.follower.clock.now
        )
        self.relay: Relay | None = None
        self._publisher: MessagePublisher | None = None
        if settings.kafka_brokers:
            health, clock = self.follower.health, self.follower.clock
            self._publisher = open_publisher(settings)
            self._letters = dead_letters_over(PostgresProjectionStore(address.dsn), health)
            log = relay_log(PostgresProjectionStore(address.dsn, leader_lock=RELAY_LOCK), health)
            office = DeadLetterOffice(self._letters, clock, self._publisher)
            ledger = Ledger(self.follower.log, clock, uuid7, settings.cache_bytes)
            self.relay = make_relay(settings, log, self._publisher, office, ledger)

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
            checks["kafka"] = relay_check(self.relay)
        return checks

    async def observe(self) -> Observation:
        """See Process."""
        queue = await known_queue(self.follower.queue)
        return Observation(
            store_answers=queue is not None,
            queue=queue,
            projector=self.projections,
            relay=None if self.relay is None else await self.relay.figures(),
        )
