"""Dead letters over REST."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx2
import pytest
from confluent_kafka import Consumer

from application.messages import Message, Place
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.http.app import create_app
from tests.interfaces.http.served import Client, problem_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def with_kafka(
    sqlite_ledger_url: str, mock_kafka: str, anyio_backend: str
) -> AsyncIterator[Services]:
    opened = await open_services(Settings(database_url=sqlite_ledger_url, kafka_brokers=mock_kafka))
    try:
        yield opened
    finally:
        await opened.close()


async def kept(services: Services, topic: str = "t") -> str:
    """Id of a dead letter that was just put aside."""
    message = Message(topic=topic, key=b"run-1", value=b"{}", place=Place(0, 1))
    await services.dead_letters.add(message, "/run_id: it is missing")
    found = await services.dead_letters.list(status="OPEN", topic=topic, page=1, page_size=1)
    return found.items[0].id


async def test_they_are_listed_shown_and_discarded(services: Services, client: Client) -> None:
    letter = await kept(services)
    (listed,) = (await client.get("/dead-letters?status=OPEN&topic=t")).json()["items"]
    assert (listed["id"], listed["cause"]) == (letter, "/run_id: it is missing")
    assert listed["value"] is None
    shown = (await client.get(f"/dead-letters/{letter}")).json()
    assert shown["value"] == "{}"
    assert shown["allowed_actions"] == ["replay", "discard"]
    discarded = await client.post(f"/dead-letters/{letter}/discard")
    assert discarded.json()["status"] == "DISCARDED"
    again = problem_of(
        await client.post(f"/dead-letters/{letter}/discard"), 409, "illegal_transition"
    )
    assert again["current_status"] == "DISCARDED"


async def test_nothing_is_replayed_where_no_kafka_is_configured(
    services: Services, client: Client
) -> None:
    letter = await kept(services)
    refused = problem_of(await client.post(f"/dead-letters/{letter}/replay"), 503, "not_ready")
    assert "FLOWLEDGER_KAFKA_BROKERS" in refused["detail"]


async def test_an_unknown_one_is_not_found(client: Client) -> None:
    problem_of(await client.get("/dead-letters/nothing"), 404, "not_found")
    problem_of(await client.post("/dead-letters/nothing/replay"), 404, "not_found")
    problem_of(await client.get("/dead-letters?status=open"), 422, "invalid_request")


async def test_a_replay_reaches_the_topic(with_kafka: Services, mock_kafka: str) -> None:
    topic = f"test.{uuid4().hex}"
    letter = await kept(with_kafka, topic)
    assert with_kafka.publisher is not None
    await with_kafka.publisher.publish([Message(topic=topic, key=None, value=b"first")])
    transport = httpx2.ASGITransport(create_app(with_kafka))
    async with httpx2.AsyncClient(transport=transport, base_url="http://ledger.test") as http:
        answer = await Client(http).post(f"/dead-letters/{letter}/replay")
    assert answer.json()["status"] == "REPLAYED", answer.text
    consumer = Consumer(
        {"bootstrap.servers": mock_kafka, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    found: set[bytes | None] = set()
    while len(found) < 2:
        message = consumer.poll(30)
        assert message is not None, "the replayed message did not come"
        assert message.error() is None
        found.add(message.value())
    consumer.close()
    assert found == {b"first", b"{}"}
