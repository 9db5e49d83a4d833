"""A Kafka broker of our own for tests, benchmarks and a try at home, with plain Java.

Use it without pytest as::

    with running_kafka() as address:
        ...

or as `make kafka`, which serves until Ctrl-C. The jars come from the public Maven repository (once,
into var/kafka/jars); the broker keeps its data in a temporary folder, uses two free ports of
127.0.0.1, and ends with this process however that ends. The address in FLOWLEDGER_TEST_KAFKA
(host:port) is used instead when it is set.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

ADDRESS_VARIABLE: Final = "FLOWLEDGER_TEST_KAFKA"
REQUIRED_VARIABLE: Final = "FLOWLEDGER_TEST_KAFKA_REQUIRED"
"""Set where nothing may be skipped: a broker that cannot be had is a failure there."""
POM: Final = Path(__file__).with_name("pom.xml")
JARS: Final = Path(__file__).resolve().parent.parent.parent / "var" / "kafka" / "jars"
FETCH_SECONDS_MAX: Final = 600
START_SECONDS_MAX: Final = 60
STOP_SECONDS_MAX: Final = 30
SILENT: Final = {"log_level": 0}
"""For clients that wait for a broker: the library says nothing about its absence."""
HEAP: Final = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# Runs the broker as a child and passes on the signal that is written to its standard input; KILL
# when that closes, which the kernel does when the owning process ends, also after a kill -9.
GUARD: Final = '"$@" & broker=$!; read signal; kill -${signal:-KILL} $broker; wait $broker'
# The short session lets a broker that was killed come back in seconds instead of a quarter minute.
PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
num.partitions=4
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=true
controlled.shutdown.enable=false
log.cleaner.dedupe.buffer.size=2097152
"""
LOGGING: Final = """\
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n
"""


class KafkaUnavailable(RuntimeError):
    """No broker could be had; the message says what to install or set."""


def given() -> str | None:
    """The address of a broker that somebody else runs, if it is set."""
    return os.environ.get(ADDRESS_VARIABLE) or None


def required() -> bool:
    """Whether a broker that cannot be had is a failure."""
    return bool(os.environ.get(REQUIRED_VARIABLE))


def missing() -> str | None:
    """What this machine lacks to run a broker, as a sentence; None when it has all."""
    lacking = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if not lacking or (lacking == ["mvn"] and any(JARS.glob("kafka_*.jar"))):
        return None
    return (
        f"No Kafka for the tests: {' and '.join(lacking)} not found. On Debian and Ubuntu: apt-get "
        f"install default-jre-headless maven. Or set {ADDRESS_VARIABLE}=host:port of a broker."
    )


def fetch() -> Path:
    """The folder of the jars, filled from the Maven repository when it is empty.

    Raises KafkaUnavailable.
    """
    if any(JARS.glob("kafka_*.jar")):
        return JARS
    JARS.parent.mkdir(parents=True, exist_ok=True)
    # Beside, then renamed: a fetch that was cut off must not look like a whole one.
    fetched = Path(tempfile.mkdtemp(prefix="jars-", dir=JARS.parent))
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    options = ["-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=FETCH_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(fetched)
        raise KafkaUnavailable(
            f"Maven could not fetch Kafka (is its repository reachable?):\n{done.stdout[-2000:]}"
        )
    try:
        fetched.rename(JARS)
    except OSError:  # another process was faster
        shutil.rmtree(fetched)
    return JARS


class KafkaBroker:
    """A broker whose data outlives its process: stop or kill it, and start it again."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """`folder` is empty and stays the caller's to remove; port 0 takes a free one."""
        controller_port = _free_port()
        self.port = port or _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._guard: subprocess.Popen[bytes] | None = None
        self._properties = folder / "server.properties"
        self._properties.write_text(
            PROPERTIES.format(port=self.port, controller_port=controller_port, data=folder / "data")
        )
        (folder / "log4j.properties").write_text(LOGGING)
        name = self._tool("random-uuid").splitlines()[-1]
        self._tool("format", "-t", name, "-c", str(self._properties))

    def start(self) -> None:
        """Return once it answers. Raises KafkaUnavailable."""
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sh", *self._java(), "kafka.Kafka", self._properties],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Keeps Ctrl-C for the tests; the broker ends by its guard.
                start_new_session=True,
            )
        try:
            wait_until_ready(self.address)
        except KafkaUnavailable as error:
            self.kill()
            log_text = self.log.read_text(errors="replace")[-3000:]
            raise KafkaUnavailable(f"{error}\n{log_text}") from error

    def stop(self) -> None:
        """End it as an operator does (SIGTERM); its data stays."""
        self._end("TERM")

    def kill(self) -> None:
        """End it in the middle of whatever it does (SIGKILL); its data stays."""
        self._end("KILL")

    @property
    def log(self) -> Path:
        """What the broker wrote of itself."""
        return self._folder / "broker.log"

    def _end(self, signal_name: str) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate(f"{signal_name}\n".encode(), timeout=STOP_SECONDS_MAX)

    def _java(self) -> list[str]:
        logging = f"-Dlog4j.configuration=file:{self._folder / 'log4j.properties'}"
        return ["java", *HEAP, logging, "-cp", f"{JARS}/*"]

    def _tool(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", *arguments],
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
            check=False,
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"Kafka's storage was not made:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()


def wait_until_ready(address: str) -> None:
    """Return once the broker lists its topics. Raises KafkaUnavailable."""
    client = AdminClient({"bootstrap.servers": address, **SILENT})
    try:
        client.list_topics(timeout=START_SECONDS_MAX)
    except KafkaException as error:
        raise KafkaUnavailable(f"Kafka at {address} did not answer: {error}") from error


@contextmanager
def running_kafka(port: int = 0) -> Iterator[str]:
    """Yield the address (host:port) of a broker that can be used until the block ends.

    Raises KafkaUnavailable.
    """
    address = given()
    if address is not None:
        wait_until_ready(address)
        yield address
        return
    with own_broker(port) as broker:
        yield broker.address


@contextmanager
def own_broker(port: int = 0) -> Iterator[KafkaBroker]:
    """A started broker in a folder of its own, for those who also break it."""
    if (problem := missing()) is not None:
        raise KafkaUnavailable(problem)
    fetch()
    folder = Path(tempfile.mkdtemp(prefix="flowledger-kafka-"))
    try:
        broker = KafkaBroker(folder, port)
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="A Kafka broker until Ctrl-C, with fresh data.")
    parser.add_argument("--port", type=int, default=9092, help="0 takes a free one")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with own_broker(wanted.port) as broker:
            sys.stdout.write(f"Kafka listens on {broker.address}; Ctrl-C ends it.\n")
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        return
    except KafkaUnavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _serve()
