"""What the publisher does beyond what every transport does: batches, and clients that fail for
good.
"""

import asyncio
import os
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from application.messages import Message, Undeliverable
from infrastructure.kafka.client import KafkaAddress
from infrastructure.kafka.publisher import KafkaPublisher
from tests.engine import until

pytestmark = pytest.mark.anyio

SECONDS_MAX = 60


@pytest.fixture
def topic() -> str:
    return f"test.{uuid4().hex}"


async def test_many_small_messages_are_never_too_large_together(
    real_kafka: str, topic: str
) -> None:
    """The client sends many as one batch, and a broker that finds a batch too large refuses each
    message of it.
    """
    limit = {"max.message.bytes": "200000"}
    admin = AdminClient({"bootstrap.servers": real_kafka})
    admin.create_topics([NewTopic(topic, 1, config=limit)])[topic].result(SECONDS_MAX)
    publisher = KafkaPublisher(KafkaAddress(brokers=real_kafka))
    try:
        sent = [Message(topic=topic, key=b"a", value=os.urandom(2_000)) for _ in range(500)]
        await publisher.publish(sent)
        too_large = Message(topic=topic, key=b"a", value=os.urandom(250_000))
        with pytest.raises(Undeliverable) as refused:
            await publisher.publish([*sent, too_large, *sent])
        assert refused.value.message is too_large
    finally:
        await publisher.close()


async def test_a_client_that_cannot_start_anew_at_once_does_so_later(
    mock_kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a certificate is being replaced while the client fails."""
    publisher = KafkaPublisher(KafkaAddress(brokers=mock_kafka))
    try:
        await publisher.publish([Message(topic=topic, key=b"a", value=b"0")])
        first, asked = publisher._made(), 0
        original = publisher._producer

        def made() -> Producer:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise KafkaException(KafkaError(KafkaError._SSL))
            return first

        monkeypatch.setattr(publisher, "_made", made)
        publisher._failed.set()
        await until(lambda: publisher._producer is not original)
        async with asyncio.timeout(SECONDS_MAX):
            await publisher.publish([Message(topic=topic, key=b"a", value=b"0")])
        assert (asked, publisher.health().answers) == (2, True)
    finally:
        await publisher.close()
