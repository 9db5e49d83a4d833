"""Publishers and receivers for those who use Kafka; nobody else needs its client installed."""

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from application.messages import (
    DeadLetters,
    MessageHandler,
    MessagePublisher,
    MessageReceiver,
    Topics,
)
from infrastructure.settings import Settings

if TYPE_CHECKING:  # else this module could not be read where the client is not installed
    from infrastructure.kafka.client import KafkaAddress

MISSING: Final = (
    "FLOWLEDGER_KAFKA_BROKERS is set, and the Kafka client is not installed. Install it with: "
    "pip install 'flowledger[kafka]'"
)

_BROKER: Final = re.compile(
    r"(?:[A-Za-z_]+://)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?\Z"
)
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")


class KafkaMissing(ValueError):
    """The client is not installed."""


class BadKafkaSettings(ValueError):
    """A setting cannot be used; the text says which."""


def kafka_topics(settings: Settings) -> Topics:
    """What the topics are called. Raises BadKafkaSettings for a name that no topic can have, or
    that two have.
    """
    topics = Topics(
        executions=settings.kafka_execution_topic,
        cancellations=settings.kafka_cancellation_topic,
        tasks=settings.kafka_task_topic,
        results=settings.kafka_result_topic,
        monitoring=settings.kafka_monitoring_topic,
    )
    names = [getattr(topics, field) for field in topics.__struct_fields__]
    for name in names:
        if not _TOPIC.match(name) or set(name) == {"."}:
            raise BadKafkaSettings(
                "A FLOWLEDGER_KAFKA_..._TOPIC is 1 to 249 characters of A-Z a-z 0-9 . _ - , as "
                f"Kafka has it; {name!r} is not one."
            )
        if names.count(name) > 1:
            raise BadKafkaSettings(
                f"The FLOWLEDGER_KAFKA_..._TOPIC settings need five different names; {name!r} is "
                "not one."
            )
    return topics


def open_publisher(settings: Settings) -> MessagePublisher:
    """A publisher; the broker need not answer yet. Raises KafkaMissing, BadKafkaSettings."""
    address = _address(settings)
    from confluent_kafka import KafkaException  # noqa: PLC0415 - an extra

    from infrastructure.kafka.publisher import KafkaPublisher  # noqa: PLC0415 - an extra

    try:
        return KafkaPublisher(address)
    except KafkaException as error:
        text = f"Kafka's client refuses FLOWLEDGER_KAFKA_OPTIONS: {error.args[0].str()}"
        raise BadKafkaSettings(text) from error


def open_receiver(
    settings: Settings,
    topics: Sequence[str],
    handle: MessageHandler,
    dead_letters: DeadLetters,
    *,
    group: str | None = None,
    at_once: int = 1,
    in_order: bool = True,
) -> MessageReceiver:
    """A member of `group` (FLOWLEDGER_KAFKA_GROUP_ID), to be started; `at_once` messages of one
    partition are handled at a time, those of one key in order unless `in_order` is false. Raises as
    `open_publisher` does.
    """
    address = _address(settings)
    from infrastructure.kafka.receiver import KafkaReceiver  # noqa: PLC0415 - an extra

    group = group or settings.kafka_group_id
    return KafkaReceiver(
        address, topics, group, handle, dead_letters, at_once=at_once, in_order=in_order
    )


def _address(settings: Settings) -> "KafkaAddress":
    if find_spec("confluent_kafka") is None:
        raise KafkaMissing(MISSING)
    from infrastructure.kafka.client import KafkaAddress  # noqa: PLC0415 - an extra

    return KafkaAddress(brokers=_brokers(settings.kafka_brokers), options=_options(settings))


def _brokers(text: str) -> str:
    """The client takes anything here, and would look for it for ever."""
    brokers = [each.strip() for each in text.split(",")]
    for each in brokers:
        found = _BROKER.match(each)
        if found is None or not 0 < int(found["port"] or 9092) < 65_536:
            raise BadKafkaSettings(
                f"FLOWLEDGER_KAFKA_BROKERS is host:port, comma-separated; {each!r} is not one."
            )
    return ",".join(brokers)


def _options(settings: Settings) -> dict[str, Any]:  # as JSON gives them, checked here
    text = settings.kafka_options.get_secret_value()
    try:
        given = json.loads(text or "{}")
    except ValueError as error:
        raise BadKafkaSettings(f"FLOWLEDGER_KAFKA_OPTIONS is not JSON: {error}") from error
    if not isinstance(given, dict) or any(isinstance(each, dict | list) for each in given.values()):
        raise BadKafkaSettings(
            'FLOWLEDGER_KAFKA_OPTIONS is a JSON object of plain values, as {"sasl.mechanism": '
            '"PLAIN"}'
        )
    return given
