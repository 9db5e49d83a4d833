"""The mock cluster inside librdkafka, in a process of its own: `python -m tests.kafka.mock`.

It prints its address and serves until its standard input closes. One broker, in memory, which makes
each topic on first use, with four partitions.
"""

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import Producer

from tests.kafka.broker import SILENT

POLL_SECONDS: Final = 0.2


@contextmanager
def mock_cluster() -> Iterator[str]:
    """Yield the address (host:port) of a cluster that serves until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.kafka.mock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the mock cluster did not start"
        yield address
        process.communicate()


def _serve() -> None:
    producer = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, **SILENT})
    (broker,) = producer.list_topics(timeout=10).brokers.values()
    sys.stdout.write(f"{broker.host}:{broker.port}\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0)[0]:
        producer.poll(POLL_SECONDS)


if __name__ == "__main__":
    _serve()
