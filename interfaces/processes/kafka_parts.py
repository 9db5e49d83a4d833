"""Wiring of what sends and receives over Kafka, and what is known of the broker."""

from collections.abc import Callable
from dataclasses import replace

from application.dispatch_notes import DispatchNotes
from application.ledger import Ledger
from application.messages import DeadLetters, MessagePublisher, MessageReceiver
from application.relay import Relay
from infrastructure.kafka.opening import kafka_topics
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.relay_log import LedgerRelayLog
from infrastructure.settings import Settings
from infrastructure.store_health import StoreHealth, StoreThreads
from interfaces.kafka.receiving import Counted
from interfaces.kafka.shapes import Shapes
from interfaces.processes.process import CheckResult, Observation, report


def relay_log(projected: ProjectionStore, health: StoreHealth) -> LedgerRelayLog:
    """The log for a relay, over connections of its own."""
    return LedgerRelayLog(projected, StoreThreads("relay", 1, health))


def make_relay(
    settings: Settings,
    log: LedgerRelayLog,
    publisher: MessagePublisher,
    letters: DeadLetters,
    ledger: Ledger,
) -> Relay:
    """A relay, to be started; in the `ledger` it notes why executions wait for it."""
    shapes = Shapes(kafka_topics(settings), cloudevents=settings.kafka_cloudevents)
    notes = DispatchNotes(ledger)
    return Relay(log, publisher, shapes, letters, ledger.clock, report, notes)


def away(publisher: MessagePublisher) -> Callable[[], str | None]:
    """Why nothing can be sent now, as far as is known."""

    def reason() -> str | None:
        told = publisher.health()
        return None if told.answers else told.detail

    return reason


def relay_check(relay: Relay) -> CheckResult:
    """Never a reason not to be ready: without Kafka messages wait, and the rest goes on."""
    told = relay.health()
    if told.problem is not None:
        return CheckResult(True, f"messages wait: {told.problem}")
    return CheckResult(True, "sends" if told.leading else "another process sends")


def receiver_check(receiver: MessageReceiver) -> CheckResult:
    """As of a relay: never a reason not to be ready."""
    told = receiver.health()
    return CheckResult(True, "receives" if told.detail == "answers" else told.detail)


def with_messages(seen: Observation, handled: Counted, receiver: MessageReceiver) -> Observation:
    """What a process saw of itself, and of the messages that it received."""
    return replace(seen, messages=handled.messages, message_lag=receiver.lag())
