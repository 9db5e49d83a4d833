"""The figures of /metrics, made of what the process observed at the moment of the scrape."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from application.ports import QueueStatistics
from domain.breaker import CLOSED, HALF_OPEN, OPEN
from interfaces.bootstrap import Distribution, Observation

_WORKER: Final = {
    "claimed": ("flowledger_executions_claimed", "Executions that this process claimed."),
    "steps": ("flowledger_steps_performed", "Tries that this process performed."),
    "ended": ("flowledger_executions_ended", "Executions that this process brought to an end."),
    "interrupted": ("flowledger_steps_interrupted", "Handlers that were interrupted."),
    "renewals": ("flowledger_lease_renewals", "Times that this process renewed its leases."),
    "leases_lost": ("flowledger_leases_lost", "Leases that this process lost."),
}
_QUEUE: Final = {
    "depth": ("flowledger_queue_depth", "Executions with something left to do."),
    "ready": ("flowledger_queue_ready", "Of those, ready and without a worker."),
    "leased": ("flowledger_queue_leased", "Of those, with a worker."),
    "lapsed": ("flowledger_queue_lapsed", "Of those, with a worker that went silent."),
    "workers": ("flowledger_workers", "Workers that hold an execution."),
    "oldest_age_seconds": (
        "flowledger_queue_oldest_age_seconds",
        "How long the longest-ready execution has waited for a worker.",
    ),
}
_COMMITTER: Final = {
    "appends": ("flowledger_appends", "Appends that this process stored or tried to."),
    "events": ("flowledger_events_stored", "Events in those appends."),
    "refused": ("flowledger_appends_refused", "Appends that were not stored."),
    "queue_seconds": ("flowledger_append_wait_seconds", "Time that appends waited for theirs."),
}
_COMMITS: Final = {
    "commit_times": ("flowledger_commit_seconds", "Duration of the committer's transactions."),
    "batch_sizes": ("flowledger_commit_appends", "Appends in one such transaction."),
}
_BREAKER_STATES: Final = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}


@dataclass(frozen=True, slots=True, eq=False)  # the registry hashes it
class Figures(Collector):
    """One scrape."""

    seen: Observation
    open_streams: int

    def collect(self) -> Iterable[Metric]:
        """The families, as the client library asks for them."""
        yield GaugeMetricFamily(
            "flowledger_store_up",
            "1 while the database answers this process, 0 else; then the figures of tables and of "
            "the queue are missing.",
            value=float(self.seen.store_answers),
        )
        yield from self._executions()
        if self.seen.queue is not None:
            yield from _gauges(_QUEUE, self.seen.queue)
        yield from self._commits()
        yield from self._worker()
        yield GaugeMetricFamily(
            "flowledger_open_streams", "Open event streams of this process.", self.open_streams
        )
        yield from self._agents()
        yield from self._messages()
        yield from self._relay()
        yield from self._projections()
        yield from self._projector()

    def _executions(self) -> Iterable[Metric]:
        if self.seen.executions is None:
            return
        family = GaugeMetricFamily(
            "flowledger_executions", "Executions by status.", labels=["status"]
        )
        for status, count in sorted(self.seen.executions.items()):
            family.add_metric([status], count)
        yield family

    def _commits(self) -> Iterable[Metric]:
        commits = self.seen.commits
        if commits is None or self.seen.append_queue_fill is None:
            return
        yield GaugeMetricFamily(
            "flowledger_append_queue_fill",
            "How full the queue of appends of this process is, 0 to 1.",
            self.seen.append_queue_fill,
        )
        yield from _counters(_COMMITTER, commits)
        for field, (name, text) in _COMMITS.items():
            yield _histogram(name, text, getattr(commits, field))

    def _worker(self) -> Iterable[Metric]:
        worker = self.seen.worker
        if worker is None:
            return
        yield GaugeMetricFamily(
            "flowledger_leases_held", "Executions leased by this process.", worker.holds()
        )
        yield from _counters(_WORKER, worker.figures)

    def _agents(self) -> Iterable[Metric]:
        if self.seen.agent_calls is None or self.seen.agent_breakers is None:
            return
        calls = CounterMetricFamily(
            "flowledger_agent_calls",
            "Calls of agents by this process, by what became of them: `completed`, or the code of "
            "the failure (`circuit_open`: not made).",
            labels=["agent", "outcome"],
        )
        for (agent, outcome), count in sorted(self.seen.agent_calls.items()):
            calls.add_metric([agent, outcome], count)
        breakers = GaugeMetricFamily(
            "flowledger_agent_breaker_state",
            "Circuit breaker of an agent, as this process last saw it: 0 closed, 1 half-open, "
            "2 open; the highest where workspaces have agents of one name.",
            labels=["agent"],
        )
        states: dict[str, int] = {}
        for key, state in self.seen.agent_breakers.items():
            states[key.agent] = max(_BREAKER_STATES[state], states.get(key.agent, 0))
        for agent, number in sorted(states.items()):
            breakers.add_metric([agent], number)
        yield from (calls, breakers)

    def _messages(self) -> Iterable[Metric]:
        if self.seen.messages is None or self.seen.message_lag is None:
            return
        received = CounterMetricFamily(
            "flowledger_messages_received",
            "Messages that this process received from Kafka, by what became of them: `taken`, or "
            "`poison` (put among the dead letters).",
            labels=["topic", "outcome"],
        )
        for (topic, outcome), count in sorted(self.seen.messages.items()):
            received.add_metric([topic, outcome], count)
        lag = GaugeMetricFamily(
            "flowledger_messages_waiting",
            "Messages in this process's partitions that are not handled, as it last heard.",
            labels=["topic"],
        )
        for topic, count in sorted(self.seen.message_lag.items()):
            lag.add_metric([topic], count)
        yield from (received, lag)

    def _relay(self) -> Iterable[Metric]:
        relay = self.seen.relay
        if relay is None:
            return
        yield GaugeMetricFamily(
            "flowledger_relay_leading",
            "1 while this process sends to Kafka what the log tells, 0 else.",
            float(relay.leading),
        )
        yield GaugeMetricFamily(
            "flowledger_relay_waits",
            "1 while something keeps it from sending, 0 else; `/readyz` says what, under `kafka`.",
            float(relay.waits),
        )
        if relay.lag_events is not None:
            yield GaugeMetricFamily(
                "flowledger_relay_lag_events",
                "Events of the log that Kafka was not told of; of the process that sends only.",
                relay.lag_events,
            )
        sent = CounterMetricFamily(
            "flowledger_messages_sent",
            "Messages that this process sent from the log, by what became of them: `sent`, or "
            "`refused` (Kafka will never take it; put among the dead letters).",
            labels=["topic", "outcome"],
        )
        for (topic, outcome), count in sorted(relay.messages.items()):
            sent.add_metric([topic, outcome], count)
        yield sent
        yield CounterMetricFamily(
            "flowledger_relay_failures",
            "Times that it had to begin anew, whatever the cause; a Kafka that is away for a while "
            "is often none.",
            relay.failures,
        )

    def _projections(self) -> Iterable[Metric]:
        if self.seen.projections is None:
            return
        events = GaugeMetricFamily(
            "flowledger_projection_lag_events", "Events not yet projected.", labels=["projection"]
        )
        seconds = GaugeMetricFamily(
            "flowledger_projection_lag_seconds", "Age of the oldest of them.", labels=["projection"]
        )
        running = GaugeMetricFamily(
            "flowledger_projection_running", "1 while it moves, 0 else.", labels=["projection"]
        )
        for view in self.seen.projections:
            events.add_metric([view.name], view.lag_events)
            seconds.add_metric([view.name], view.lag_seconds)
            running.add_metric([view.name], float(view.state == "running"))
        yield from (events, seconds, running)

    def _projector(self) -> Iterable[Metric]:
        projector = self.seen.projector
        if projector is None:
            return
        lag = projector.lag()
        yield GaugeMetricFamily(
            "flowledger_projector_leading",
            "1 while this process fills the tables, 0 else.",
            float(projector.leading),
        )
        yield GaugeMetricFamily(
            "flowledger_projector_lag_events",
            "Events between the tables and the log, as this process last saw it.",
            lag.events,
        )
        yield GaugeMetricFamily(
            "flowledger_projector_lag_seconds", "Age of the oldest of them.", lag.seconds
        )


def _gauges(names: Mapping[str, tuple[str, str]], source: QueueStatistics) -> Iterable[Metric]:
    for field, (name, text) in names.items():
        yield GaugeMetricFamily(name, text, value=float(getattr(source, field)))


def _counters(names: Mapping[str, tuple[str, str]], source: object) -> Iterable[Metric]:
    for field, (name, text) in names.items():
        yield CounterMetricFamily(name, text, value=float(getattr(source, field)))


def _histogram(name: str, text: str, values: Distribution) -> Metric:
    return HistogramMetricFamily(name, text, buckets=values.cumulative(), sum_value=values.total)
