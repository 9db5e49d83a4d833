"""Sends messages to Kafka: stored by all replicas before it counts, in order, without repeats of
the client's own making.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from application.messages import BrokerAway, Message, TransportHealth, Undeliverable
from infrastructure.kafka.client import PROBE_SECONDS, BrokerHealth, KafkaAddress

WAITING_MAX: Final = 50_000
"""Messages that wait for the broker; whoever brings more waits for room."""
WAITING_KILOBYTES_MAX: Final = 65_536
MESSAGE_BYTES_MAX: Final = 8_000_000
BATCH_BYTES: Final = 128 * 1024
"""Of messages that are sent as one. A broker holds a batch to the limit of one message, and refuses
all that is in it: below any usual limit, only what is too large by itself is refused.
"""
POLL_SECONDS: Final = 0.2
ROOM_SECONDS: Final = 0.05
RENEW_SECONDS: Final = 1.0


class KafkaPublisher:
    """See MessagePublisher. Belongs to one event loop; a thread of its own takes the answers."""

    def __init__(self, address: KafkaAddress) -> None:
        self._configuration = address.configuration(
            acks="all",
            enable_idempotence=True,
            linger_ms=1,
            compression_type="lz4",
            # For ever: a message that was given up in the middle of others would come after them.
            message_timeout_ms=0,
            queue_buffering_max_messages=WAITING_MAX,
            queue_buffering_max_kbytes=WAITING_KILOBYTES_MAX,
            message_max_bytes=MESSAGE_BYTES_MAX,
            batch_size=BATCH_BYTES,
        )
        self._health = BrokerHealth("publisher")
        self._failed = threading.Event()
        self._stopping = threading.Event()
        self._producer = self._made()
        self._thread = threading.Thread(target=self._run, name="kafka-publisher", daemon=True)
        self._thread.start()

    async def publish(self, messages: Sequence[Message]) -> None:
        """See MessagePublisher."""
        if not messages:
            return
        delivery = _Delivery(len(messages), asyncio.get_running_loop(), self._health)
        producer = self._producer
        for message in messages:
            await self._give(producer, message, delivery)
        await asyncio.shield(delivery.done)

    def health(self) -> TransportHealth:
        """See MessagePublisher."""
        return self._health.told()

    async def close(self) -> None:
        """See MessagePublisher. Safe to call twice."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    async def _give(self, producer: Producer, message: Message, delivery: "_Delivery") -> None:
        answer = delivery.answer_for(message)
        while True:
            if self._stopping.is_set():
                raise BrokerAway("the publisher is closed")
            try:
                producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    headers=list(message.headers),
                    on_delivery=answer,
                )
            except BufferError:
                await asyncio.sleep(ROOM_SECONDS)
            except KafkaException as error:
                found: KafkaError = error.args[0]
                if found.fatal():
                    self._failed.set()
                    raise BrokerAway(f"Kafka's client starts anew: {found.str()}") from error
                delivery.settle(message, found)
                return
            else:
                return

    def _made(self) -> Producer:
        return Producer({**self._configuration, "error_cb": self._error})

    def _error(self, error: KafkaError) -> None:
        self._health.error(error)
        if error.fatal():
            self._failed.set()

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        self._probe()
        while not self._stopping.is_set():
            if self._failed.is_set() and not self._renew():
                self._stopping.wait(RENEW_SECONDS)
            self._producer.poll(POLL_SECONDS)
            if not (self._health.answers or self._failed.is_set()):
                self._probe()
        self._drop(self._producer)

    def _probe(self) -> None:
        """Ask for the topics, which any broker that lives answers."""
        try:
            self._producer.list_topics(timeout=PROBE_SECONDS)
        except KafkaException as error:
            found: KafkaError = error.args[0]
            self._health.lost(f"Kafka does not answer: {found.str()}")
        else:
            self._health.heard()

    def _renew(self) -> bool:
        """An idempotent client that met an error it calls fatal takes nothing any more. False when
        there is no other one yet, as while a certificate is being replaced.
        """
        broken = self._producer
        try:
            self._producer = self._made()
        except KafkaException as error:
            found: KafkaError = error.args[0]
            self._health.lost(f"Kafka's client cannot start anew: {found.str()}")
            return False
        self._failed.clear()
        self._drop(broken)
        return True

    def _drop(self, producer: Producer) -> None:
        producer.purge()
        producer.flush(PROBE_SECONDS)


class _Delivery:
    """The answers for messages that were handed over together."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop, health: BrokerHealth) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        # Whoever waited may have gone when the answer comes.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._loop = loop
        self._health = health
        self._lock = threading.Lock()
        self._open = count
        self._failure: BrokerAway | Undeliverable | None = None

    def answer_for(self, message: Message) -> Callable[[KafkaError | None, Delivered], None]:
        """The client's callback for one message, called in the thread that polls."""
        return lambda error, _: self.settle(message, error)

    def settle(self, message: Message, error: KafkaError | None) -> None:
        """What became of one message; from any thread."""
        if error is None:
            self._health.heard()
        with self._lock:
            if error is not None and not isinstance(self._failure, BrokerAway):
                self._failure = _failure(message, error, self._failure)
            self._open -= 1
            last = self._open == 0
        if last:
            with suppress(RuntimeError):  # that loop has ended, and who waited with it
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self.done.done():
            return
        if self._failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self._failure)


_NEVER: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
    }
)
"""What is wrong with the message itself. The rest, as a topic that does not exist or may not be
written, is wrong with the broker and can be put right there."""


def _failure(
    message: Message, error: KafkaError, earlier: Undeliverable | None
) -> BrokerAway | Undeliverable:
    if error.code() in _NEVER:
        return earlier or Undeliverable(message, error.str())
    return BrokerAway(f"Kafka did not take a message for {message.topic}: {error.str()}")
