"""Wiring of what sends over Kafka: the relay, and what is known of the broker."""

from collections.abc import Callable

from application.messages import DeadLetters, MessagePublisher
from application.ports import Clock
from application.relay import Notes, Relay, RelayHealth, Report
from infrastructure.kafka.opening import kafka_topics
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.relay_log import LedgerRelayLog
from infrastructure.settings import Settings
from infrastructure.store_health import StoreHealth, StoreThreads
from interfaces.kafka.shapes import Shapes


def relay_log(projected: ProjectionStore, health: StoreHealth) -> LedgerRelayLog:
    """The log for a relay, over connections of its own."""
    return LedgerRelayLog(projected, StoreThreads("relay", 1, health))


def make_relay(
    settings: Settings,
    log: LedgerRelayLog,
    publisher: MessagePublisher,
    letters: DeadLetters,
    clock: Clock,
    report: Report,
    notes: Notes | None = None,
) -> Relay:
    """A relay, to be started."""
    shapes = Shapes(kafka_topics(settings), cloudevents=settings.kafka_cloudevents)
    return Relay(log, publisher, shapes, letters, clock, report, notes)


def sending(health: RelayHealth) -> str:
    """What a relay does now, for people."""
    if health.problem is not None:
        return f"messages wait: {health.problem}"
    return "sends" if health.leading else "another process sends"


def away(publisher: MessagePublisher) -> Callable[[], str | None]:
    """Why nothing can be sent now, as far as is known."""

    def reason() -> str | None:
        told = publisher.health()
        return None if told.answers else told.detail

    return reason
