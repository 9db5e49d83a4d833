"""Receives messages from Kafka in a thread of its own and hands them to the event loop.

An offset is committed when every message before it was handled, so that one that was in hand when
the process ended comes again. A partition whose messages wait for too long is held back at the
broker, whatever the others do.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Received

from application.messages import DeadLetters, Message, MessageHandler, Place, TransportHealth
from infrastructure.kafka.client import PROBE_SECONDS, BrokerHealth, KafkaAddress
from infrastructure.kafka.partition import Partition

BATCH_MAX: Final = 500
PENDING_MAX: Final = 1_000
"""Messages of one partition that may wait in this process."""
PENDING_LOW: Final = 200
CONSUME_SECONDS: Final = 0.1
END_SECONDS: Final = 5.0
COMMIT_SECONDS: Final = 0.2
"""Between two commits: what was handled since the last one comes again after a kill."""
RESTART_SECONDS: Final = 1.0
MEASURE_SECONDS: Final = 1.0

_CLOSED: Final = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: ("does not exist yet", logging.INFO),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: ("may not be read", logging.WARNING),
}
"""Why a topic gives nothing until somebody makes it, or lets us read it."""

_log = logging.getLogger("flowledger.kafka")
_Where = tuple[str, int]


class KafkaReceiver:
    """See MessageReceiver; one member of the consumer group `group`."""

    def __init__(
        self,
        address: KafkaAddress,
        topics: Sequence[str],
        group: str,
        handle: MessageHandler,
        dead_letters: DeadLetters,
        *,
        at_once: int = 1,
        in_order: bool = True,
        end_seconds: float = END_SECONDS,
    ) -> None:
        """`at_once` messages of a partition are handled at a time, those of one key in order unless
        `in_order` is false. When it stops, or a partition goes elsewhere, handlers may go on for
        `end_seconds`.
        """
        self._configuration = address.configuration(
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            partition_assignment_strategy="cooperative-sticky",
            # A process that was killed loses its partitions after this time.
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            allow_auto_create_topics=True,
            fetch_wait_max_ms=100,
            queued_max_messages_kbytes=16_384,
        )
        self._topics = list(topics)
        self._handle = handle
        self._dead_letters = dead_letters
        self._at_once = at_once
        self._in_order = in_order
        self._end_seconds = end_seconds
        self._health = BrokerHealth(f"receiver of {', '.join(topics)}")
        self._partitions: dict[_Where, Partition] = {}
        self._committed: dict[_Where, int] = {}
        self._held: set[_Where] = set()
        self._closed: dict[str, str] = {}
        """By topic that gives nothing, why."""
        self._moved = threading.Event()
        self._committing_at = 0.0
        self._measured_at = 0.0
        self._unread: dict[_Where, int] = {}
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="kafka-receiver", daemon=True)

    def start(self) -> None:
        """See MessageReceiver."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """See MessageReceiver. Safe to call twice and without a start."""
        self._stopping.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def health(self) -> TransportHealth:
        """See MessageReceiver; also says which topics give nothing, and when messages wait for
        the store.
        """
        told = self._health.told()
        waits = [each.retrying for each in self._partitions.copy().values() if each.retrying]
        causes = [*self._closed.copy().values(), *(f"messages wait: {each}" for each in waits[:1])]
        return TransportHealth(True, "; ".join(causes)) if told.answers and causes else told

    def lag(self) -> Mapping[str, int]:
        """By topic, the messages of this member's partitions that are not handled, as far as it
        has heard of them.
        """
        found = dict.fromkeys(self._topics, 0)
        for (topic, number), partition in self._partitions.copy().items():
            unread = self._unread.get((topic, number), 0)
            found[topic] = found.get(topic, 0) + unread + partition.pending
        return found

    @property
    def holding_back(self) -> bool:
        """Whether a partition has so much waiting here that the broker sends no more of it."""
        return bool(self._held)

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._receive()
            except KafkaException as error:
                found: KafkaError = error.args[0]
                self._health.lost(f"Kafka's client starts anew: {found.str()}")
                _log.warning("kafka_receiver_restarts", extra={"facts": {"cause": found.str()}})
            except Exception:  # noqa: BLE001 - whatever it is, the thread must not die of it
                _log.exception("kafka_receiver_failed")
            else:
                continue
            self._stopping.wait(RESTART_SECONDS)

    def _receive(self) -> None:
        callbacks = {"error_cb": self._health.error, "on_commit": self._committed_or_not}
        consumer = Consumer({**self._configuration, **callbacks})
        try:
            consumer.subscribe(
                self._topics,
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            while not self._stopping.is_set():
                first = consumer.poll(CONSUME_SECONDS)
                if first is not None:  # and what came with it; a wait for more would delay these
                    self._hand_over([first, *consumer.consume(BATCH_MAX, 0)])
                self._hold_back(consumer)
                self._commit(consumer)
                self._measure(consumer)
                if not self._health.answers:
                    self._probe(consumer)
            self._store(consumer, self._let_go(list(self._partitions)), wait=True)
        finally:
            self._let_go(list(self._partitions))
            consumer.close()

    def _hand_over(self, received: Sequence[Received]) -> None:
        """The whole batch, whatever is in it."""
        taken: dict[_Where, list[Message]] = {}
        for each in received:
            error = each.error()
            if error is None:
                message = _message(each)
                assert message.place is not None  # noqa: S101 - `_message` says where it stands
                taken.setdefault((message.topic, message.place.partition), []).append(message)
            elif error.fatal():
                raise KafkaException(error)
            else:
                self._told(error, each.topic())
        if taken:
            self._health.heard()
        for where, messages in taken.items():
            self._closed.pop(where[0], None)
            partition = self._partitions.get(where)
            if partition is not None:
                self._call(partition.take, messages)

    def _told(self, error: KafkaError, topic: str | None) -> None:
        """What the client has to say, once, and goes on."""
        self._health.error(error)
        why, level = _CLOSED.get(error.code(), ("", logging.INFO))
        if topic is not None and why:
            self._closed[topic] = f"the topic {topic} {why}"
        _log.log(level, "kafka_receiver_told", extra={"facts": {"cause": error.str()}})

    def _hold_back(self, consumer: Consumer) -> None:
        """Keep the broker from sending what would only wait here."""
        full = {
            where
            for where, each in self._partitions.items()
            if each.pending >= (PENDING_LOW if where in self._held else PENDING_MAX)
        }
        if more := full - self._held:
            consumer.pause([TopicPartition(*where) for where in more])
        if free := (self._held - full) & self._partitions.keys():
            consumer.resume([TopicPartition(*where) for where in free])
        self._held = full

    def _measure(self, consumer: Consumer) -> None:
        """How far the partitions' ends are from what was read; asks nobody."""
        now = time.monotonic()
        if now < self._measured_at + MEASURE_SECONDS:
            return
        self._measured_at = now
        wheres = [TopicPartition(*where) for where in self._partitions]
        with suppress(KafkaException):
            for each in consumer.position(wheres):
                _, end = consumer.get_watermark_offsets(each, cached=True)
                if each.offset >= 0 and end >= 0:
                    self._unread[(each.topic, each.partition)] = max(end - each.offset, 0)

    def _commit(self, consumer: Consumer) -> None:
        """Tell the broker how far the partitions are, those which moved."""
        now = time.monotonic()
        if not self._moved.is_set() or now < self._committing_at + COMMIT_SECONDS:
            return
        self._committing_at = now
        self._moved.clear()
        due = {
            where: each.done
            for where, each in self._partitions.items()
            if each.done is not None and each.done != self._committed.get(where)
        }
        self._store(consumer, due, wait=False)

    def _store(self, consumer: Consumer, due: dict[_Where, int], *, wait: bool) -> None:
        if not due:
            return
        offsets = [TopicPartition(*where, offset) for where, offset in due.items()]
        try:
            if wait:
                consumer.commit(offsets=offsets, asynchronous=False)
            else:
                consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            # They come again, here or in another process.
            found: KafkaError = error.args[0]
            _log.info("kafka_offsets_not_committed", extra={"facts": {"cause": found.str()}})
        else:
            self._committed.update(due)

    def _committed_or_not(
        self, error: KafkaError | None, offsets: Sequence[TopicPartition]
    ) -> None:
        """The broker's answer to a commit that nobody waited for; a refused one is sent again."""
        for each in offsets:
            if error is not None or each.error is not None:
                self._committed.pop((each.topic, each.partition), None)
                self._moved.set()

    def _probe(self, consumer: Consumer) -> None:
        with suppress(KafkaException):
            consumer.list_topics(timeout=PROBE_SECONDS)
            self._health.heard()

    # --- the group gives and takes; called by the client within `consume` and `close` ---

    def _assigned(self, _: Consumer, given: Sequence[TopicPartition]) -> None:
        for each in given:
            where = (each.topic, each.partition)
            self._committed.pop(where, None)
            self._held.discard(where)
            self._closed.pop(each.topic, None)
            self._partitions[where] = Partition(
                self._handle,
                self._dead_letters,
                at_once=self._at_once,
                in_order=self._in_order,
                moved=self._moved.set,
            )

    def _revoked(self, consumer: Consumer, taken: Sequence[TopicPartition]) -> None:
        """The next owner starts at what is committed now."""
        ended = self._let_go([(each.topic, each.partition) for each in taken])
        self._store(consumer, ended, wait=True)

    def _lost(self, _: Consumer, taken: Sequence[TopicPartition]) -> None:
        """Somebody else owns them already."""
        self._let_go([(each.topic, each.partition) for each in taken])

    def _let_go(self, wheres: Sequence[_Where]) -> dict[_Where, int]:
        """Let handlers in hand end; how far each partition is then."""
        going = {where: self._partitions[where] for where in wheres if where in self._partitions}
        endings = [self._end(each) for each in going.values()]
        for ending in endings:
            if ending is not None:
                with suppress(Exception):
                    ending.result(self._end_seconds + 1)
        for where in going:
            del self._partitions[where]
            self._unread.pop(where, None)
            self._held.discard(where)
        return {where: each.done for where, each in going.items() if each.done is not None}

    # --- into the event loop ---

    def _call(self, call: Callable[[list[Message]], None], messages: list[Message]) -> None:
        assert self._loop is not None  # noqa: S101 - set before the thread begins
        with suppress(RuntimeError):  # the loop has ended: nobody handles anything any more
            self._loop.call_soon_threadsafe(call, messages)

    def _end(self, partition: Partition) -> "Future[None] | None":
        assert self._loop is not None  # noqa: S101 - set before the thread begins
        if self._loop.is_closed():
            return None
        return asyncio.run_coroutine_threadsafe(partition.end(self._end_seconds), self._loop)


def _message(received: Received) -> Message:
    topic, partition, offset = received.topic(), received.partition(), received.offset()
    assert topic is not None and partition is not None and offset is not None  # noqa: S101, PT018 - no error
    try:
        found = received.headers() or ()
        pairs = found.items() if isinstance(found, dict) else found
        headers = tuple((name, _bytes(value)) for name, value in pairs)
    except UnicodeDecodeError:  # names that are no text say nothing to anybody here
        headers = ()
    return Message(
        topic=topic,
        key=received.key(),
        value=received.value() or b"",
        headers=headers,
        place=Place(partition, offset),
    )


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
