"""What the Kafka settings must be, and what a wrong one is told."""

import subprocess
import sys

import pytest
from pydantic import SecretStr

from infrastructure.kafka.client import BrokerHealth
from infrastructure.kafka.opening import (
    BadKafkaSettings,
    kafka_topics,
    open_publisher,
)
from infrastructure.settings import Settings

pytestmark = pytest.mark.anyio


def test_the_topics_have_the_names_that_clients_know() -> None:
    topics = kafka_topics(Settings())
    assert topics.executions == "workflow.execution.requests"
    assert topics.cancellations == "workflow.cancellation.requests"
    assert topics.tasks == "orchestrator.tasks.http"
    assert topics.results == "results.topic"
    assert topics.monitoring == "workflow.monitoring.updates"
    assert Settings().kafka_group_id == "execution-consumer-group"


def test_two_topics_of_one_name_are_refused() -> None:
    with pytest.raises(BadKafkaSettings, match=r"'results\.topic' is not one"):
        kafka_topics(Settings(kafka_task_topic="results.topic"))


@pytest.mark.parametrize("name", ["", "..", "with space", "tä", "a/b", "t" * 250])
def test_what_no_topic_can_be_called_is_refused(name: str) -> None:
    """The broker would refuse each message for it, for ever."""
    with pytest.raises(BadKafkaSettings, match=r"A FLOWLEDGER_KAFKA_\.\.\._TOPIC is"):
        kafka_topics(Settings(kafka_task_topic=name))


@pytest.mark.parametrize("text", [" ", ",", "a:9092,", "a:0", "a:99999", "a:b", "a b:1", "a:1;b:1"])
def test_brokers_that_are_none_are_refused(text: str) -> None:
    """The client would look for them for ever, and say that no broker answers."""
    with pytest.raises(BadKafkaSettings, match="FLOWLEDGER_KAFKA_BROKERS is host:port"):
        open_publisher(Settings(kafka_brokers=text))


async def test_brokers_are_written_as_the_client_knows_them() -> None:
    text = "127.0.0.1:9, broker, [::1]:9, PLAINTEXT://b.internal:19092"
    await open_publisher(Settings(kafka_brokers=text)).close()


def test_brokers_that_never_answered_are_told_to_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A wrong address shows from the start, and not again with each look."""
    health = BrokerHealth("publisher")
    for _ in range(3):
        health.lost("all brokers are down")
    health.heard()
    health.lost("all brokers are down")
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert told == ["kafka_does_not_answer"] * 2


@pytest.mark.parametrize("name", ["start", "agent_transport"])
def test_what_goes_over_kafka_needs_brokers(name: str) -> None:
    """Without them nothing would be sent, and nobody told."""
    with pytest.raises(ValueError, match=f"{name.upper()}=kafka needs FLOWLEDGER_KAFKA_BROKERS"):
        Settings.model_validate({name: "kafka"})
    Settings.model_validate({name: "kafka", "kafka_brokers": "127.0.0.1:9"})


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {}}', '{"no.such.option": 1}'])
def test_options_that_are_none_are_refused(text: str) -> None:
    settings = Settings(kafka_brokers="127.0.0.1:9", kafka_options=SecretStr(text))
    with pytest.raises(BadKafkaSettings, match="FLOWLEDGER_KAFKA_OPTIONS"):
        open_publisher(settings)


def test_without_the_client_the_message_says_how_to_install_it() -> None:
    """In a process that cannot find the client; everything else can be read there."""
    program = """
import sys
sys.modules["confluent_kafka"] = None
import interfaces.bootstrap
from infrastructure.kafka.opening import KafkaMissing, open_publisher
from infrastructure.settings import Settings
try:
    open_publisher(Settings(kafka_brokers="127.0.0.1:9"))
except KafkaMissing as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install 'flowledger[kafka]'" in done.stdout, done.stderr
