"""A process that calls agents for the tasks of a topic."""

from application.bridge import Bridge
from application.dead_letters import DeadLetterOffice
from infrastructure.database import Store
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.secrets import Secrets
from infrastructure.kafka.opening import kafka_topics, open_publisher, open_receiver
from infrastructure.settings import Settings
from interfaces.kafka.receiving import BridgedMessages, Counted
from interfaces.kafka.shapes import Shapes
from interfaces.processes.agent_parts import AgentParts
from interfaces.processes.kafka_parts import receiver_check, with_messages
from interfaces.processes.process import CheckResult, Observation, common_checks, report
from interfaces.processes.store_parts import dead_letter_table


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
            report,
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
        return checks | {"kafka": receiver_check(self.receiver)}

    async def observe(self) -> Observation:
        """See Process."""
        answers = (await self.checks())["store"].ok
        seen = Observation(
            store_answers=answers,
            agent_calls=self._agents.caller.calls,
            agent_breakers=self._agents.breakers.last_seen(),
        )
        return with_messages(seen, self.handled, self.receiver)
