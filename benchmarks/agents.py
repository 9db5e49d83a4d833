"""Steps of agents per second on one machine, over each of the three ways to an agent, and how long
a task is on its way.

Executions of three steps of one trivial agent, a program of its own. Over HTTP the engine calls it
and over pull it asks in batches, both beside `flowledger serve`; over Kafka it takes its tasks from
the topic (no bridge, which would call it over HTTP), beside `flowledger consumer` and `flowledger
projector`, whose relay sends, and a real broker. All projections run.

All executions are requested beforehand. Some become due one by one: theirs are the times from the
decision to send a task, before its commit, until the agent has it. Then all others become due at
one moment: their steps per second count from that moment until the last has ended.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID, uuid4

import sqlalchemy as sa
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from application.callers import Caller
from application.requests import ExecuteOptions
from benchmarks.agent_programs import AGENT
from benchmarks.harness import (
    Figures,
    Report,
    databases,
    option_parser,
    options_of,
    percentile,
    progress,
)
from benchmarks.http_load import cpu_seconds
from benchmarks.installation import Installation, until_ended
from domain.events import TaskDispatched
from domain.json_values import JsonObject
from infrastructure.addresses import administration_engine
from infrastructure.event_store.codec import Codec
from infrastructure.settings import Settings
from interfaces.bootstrap import open_services
from tests.e2e.programs import Server
from tests.kafka.broker import running_kafka

STEPS: Final = 3
DEFINITION: Final[JsonObject] = {
    "name": "bench",
    "start_step": "a",
    "steps": {
        "a": {"agent_name": AGENT, "input_mapping": {"rows": "${workflow.input.rows}"},
              "next_step": "b"},
        "b": {"agent_name": AGENT, "input_mapping": {"rows": "${a.output}"}, "next_step": "c"},
        "c": {"agent_name": AGENT, "input_mapping": {"rows": "${b.output}"}, "next_step": None},
    },
}  # fmt: skip
INPUT: Final[JsonObject] = {"source": "s3://bucket/data.csv", "rows": 1000, "flags": ["a", "b"]}
PACE_SECONDS: Final = 0.02
"""Between two executions that become due one by one."""
GAP_SECONDS: Final = 2.0
"""Between the last of them and all others."""
PARTITIONS: Final = 4
RATE: Final = "steps_per_second"
P50: Final = "dispatch_p50_ms"
RATE_MIN: Final = 1_000.0
P50_MS_MAX: Final = 20.0


class Load(NamedTuple):
    """Executions that become due one by one, then those that do at once; and when they begin to."""

    paced: int
    at_once: int
    due_in_seconds: float


class Agent:
    """A program of `benchmarks.agent_programs`; ready once this is made."""

    def __init__(self, resources: ExitStack, kind: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.agent_programs", kind, *arguments]
        self._process = resources.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        resources.callback(self._process.kill)
        assert self._process.stdout is not None
        ready, _, self.address = self._process.stdout.readline().strip().partition(" ")
        if ready != "ready":
            raise RuntimeError(f"the agent ({kind}) did not start")

    def end(self) -> dict[str, float]:
        """By correlation id, when it had each task."""
        told, _ = self._process.communicate()
        came: dict[str, float] = json.loads(told)
        return came


class Started(NamedTuple):
    """The programs of a measurement."""

    agent: Agent
    engine: Sequence[Server]


class Place(NamedTuple):
    """Where a measurement takes place."""

    resources: ExitStack
    url: str
    installation: Installation
    load: Load

    def request(self, described: JsonObject) -> datetime:
        """Register the agent and request all executions; when the first becomes due."""
        due = datetime.now(UTC) + timedelta(seconds=self.load.due_in_seconds)
        asyncio.run(_request(self.url, described, self.load, due))
        return due


def over_http(place: Place) -> tuple[Started, datetime]:
    """The worker calls the agent."""
    agent = Agent(place.resources, "http")
    due = place.request({"name": AGENT, "url": agent.address})
    return Started(agent, [place.installation.start("serve", "--port", "0")]), due


def over_pull(place: Place) -> tuple[Started, datetime]:
    """The agent asks for tasks over REST."""
    due = place.request({"name": AGENT, "transport": "pull"})
    engine = place.installation.start("serve", "--port", "0")
    return Started(Agent(place.resources, "pull", engine.address), [engine]), due


def over_kafka(place: Place) -> tuple[Started, datetime]:
    """The relay publishes tasks, the consumer takes results."""
    brokers = place.resources.enter_context(running_kafka())
    names = uuid4().hex[:8]
    topics = {
        f"kafka_{kind}_topic": f"{names}.{kind}"
        for kind in ("execution", "cancellation", "task", "result", "monitoring")
    }
    _make_topics(brokers, topics.values())
    due = place.request({"name": AGENT, "transport": "kafka"})
    settings = {"kafka_brokers": brokers, "kafka_group_id": f"{names}-consumers", **topics}
    engine = [
        place.installation.start("projector", **settings),
        place.installation.start("consumer", **settings),
    ]
    task_topic, result_topic = topics["kafka_task_topic"], topics["kafka_result_topic"]
    agent = Agent(place.resources, "kafka", brokers, f"{names}-agent", task_topic, result_topic)
    return Started(agent, engine), due


def _make_topics(brokers: str, names: Iterable[str]) -> None:
    """As an operator does, before anybody reads them."""
    client = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    made = client.create_topics([NewTopic(name, num_partitions=PARTITIONS) for name in names])
    for each in made.values():
        each.result()


WAYS: Final[dict[str, Callable[[Place], tuple[Started, datetime]]]] = {
    "http": over_http,
    "pull": over_pull,
    "kafka": over_kafka,
}


def measure(way: str, url: str, load: Load) -> Figures:
    """One repetition on a fresh database."""
    with ExitStack() as resources, tempfile.TemporaryDirectory() as folder:
        started, due = WAYS[way](
            Place(resources, url, Installation(resources, url, Path(folder)), load)
        )
        if datetime.now(UTC) >= due:
            raise RuntimeError("executions were due before the programs were up; give more time")
        all_due = due + _paced_for(load) + timedelta(seconds=GAP_SECONDS)
        time.sleep((all_due - datetime.now(UTC)).total_seconds())
        before = sum(cpu_seconds(each.process.pid) for each in started.engine)
        took = until_ended(url, all_due, load.paced + load.at_once)
        used = sum(cpu_seconds(each.process.pid) for each in started.engine) - before
        came = started.agent.end()
        steps = load.at_once * STEPS
        return {
            RATE: steps / took,
            "engine_cpu_us_per_step": used / steps * 1e6,
            **_on_their_way(url, came, all_due),
        }


def _paced_for(load: Load) -> timedelta:
    return timedelta(seconds=load.paced * PACE_SECONDS)


async def _request(url: str, described: JsonObject, load: Load, due: datetime) -> None:
    settings = Settings(database_url=url, worker_slots=0)
    services = await open_services(settings)
    caller = Caller(actor="bench")
    await services.agent_parts.agents.register(caller, described)
    await services.workflows.publish(caller, DEFINITION)
    starts = [due + timedelta(seconds=PACE_SECONDS * number) for number in range(load.paced)]
    all_due = due + _paced_for(load) + timedelta(seconds=GAP_SECONDS)
    left = [*starts, *[all_due] * load.at_once]

    async def client() -> None:
        while left:
            options = ExecuteOptions(input_data=INPUT, start_at=left.pop())
            await services.requests.execute(caller, "bench", options)

    await asyncio.gather(*(client() for _ in range(20)))
    await services.close()


def _on_their_way(url: str, came: dict[str, float], before: datetime) -> Figures:
    """Of the tasks that were sent before then: from the decision until the agent had them."""
    if not came:
        return {}  # it was called, nothing was sent
    codec = Codec()
    took: list[float] = []
    with administration_engine(url).connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT originator_id, originator_version, topic, state FROM ledger_events"
                " WHERE topic LIKE 'execution.task_dispatched.%'"
            )
        )
        for stream, version, topic, state in rows:
            stream_id = stream if isinstance(stream, UUID) else UUID(stream)
            event = codec.recorded(0, stream_id, version, topic, bytes(state)).event
            if isinstance(event.data, TaskDispatched) and event.meta.at < before:
                took.append(came[event.data.correlation_id] - event.meta.at.timestamp())
    return {
        P50: percentile(took, 0.5) * 1000,
        "dispatch_p95_ms": percentile(took, 0.95) * 1000,
    }


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure and print the report; Kafka on PostgreSQL only, whose consumer needs it."""
    parser = option_parser(__doc__ or "")
    parser.add_argument("--way", choices=tuple(WAYS), action="append")
    given = parser.parse_args(arguments)
    options = options_of(given)
    report = Report("agents", options)
    load = Load(200, 1_000, 14.0) if options.quick else Load(1_000, 4_000, 40.0)
    with databases() as bases:
        for _ in range(options.repetitions):
            for way in given.way or WAYS:
                for backend in options.backends:
                    if way == "kafka" and backend == "sqlite":
                        continue
                    figures = measure(way, bases.fresh(backend), load)
                    report.add(f"{way}, {backend}", figures)
                    progress(f"{way}, {backend}: {figures[RATE]:,.0f} steps/s")
    row = "kafka, postgresql"
    if row in report.rows:
        report.judge(f"{row}: {RATE}", report.median(row, RATE), least=RATE_MIN)
        report.judge(f"{row}: {P50}", report.median(row, P50), P50_MS_MAX)
    report.show()
    return report


if __name__ == "__main__":
    main()
