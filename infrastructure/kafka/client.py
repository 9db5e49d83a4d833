"""What publishers and receivers have in common: options of the client, and whether the broker
answers.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError

from application.messages import TransportHealth

PROBE_SECONDS: Final = 1.0
METADATA_REFRESH_MS: Final = 5_000
"""A topic that is made after its readers is read within this time; the library's is five
minutes."""
RECONNECT_MAX_MS: Final = 2_000
_AWAY: Final = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE})

_NOT_YET: Final = "no broker has answered yet"

Option = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAddress:
    """Where Kafka is: `brokers` (host:port, comma-separated), and options of its client (librdkafka
    names) which go over ours, as `security.protocol`.
    """

    brokers: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def configuration(self, **own: Option) -> dict[str, Option]:
        """The client's configuration; `own` names have `_` for `.`."""
        given = {name.replace("_", "."): value for name, value in own.items()}
        return {
            "bootstrap.servers": self.brokers,
            "client.id": "flowledger",
            "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
            "reconnect.backoff.max.ms": RECONNECT_MAX_MS,
            # Its own lines would go past the log; what it has to say comes as errors.
            "log_level": 0,
            **given,
            **self.options,
        }


class BrokerHealth:
    """What is known of the broker; from any thread. Tells the log when that changes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._cause: str | None = _NOT_YET
        self._log = logging.getLogger("flowledger.kafka")

    @property
    def answers(self) -> bool:
        """Whether it answered when it was last heard of."""
        return self._cause is None

    def told(self) -> TransportHealth:
        """For those who ask."""
        cause = self._cause
        return TransportHealth(cause is None, "answers" if cause is None else cause)

    def heard(self) -> None:
        """It answered."""
        if self._cause is None:  # the usual case, once a message
            return
        with self._lock:
            if self._cause is None:
                return
            self._cause = None
        self._log.info("kafka_answers", extra={"facts": {"client": self._name}})

    def lost(self, cause: str) -> None:
        """It does not answer."""
        with self._lock:
            known, self._cause = self._cause, cause
        if known in (None, _NOT_YET):
            facts = {"client": self._name, "cause": cause}
            self._log.warning("kafka_does_not_answer", extra={"facts": facts})

    def error(self, error: KafkaError) -> None:
        """The client's callback for what is not about one message."""
        if error.code() in _AWAY or error.fatal():
            self.lost(f"Kafka does not answer: {error.str()}")
