"""The figures of /metrics, gathered at the moment of the scrape."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from application.reads import ProjectionView
from interfaces.bootstrap import Services
from interfaces.http.caller import WORKSPACE
from interfaces.http.stream import OpenStreams

_WORKER: Final = {
    "steps": ("flowledger_steps_performed", "Tries that this process performed."),
    "ended": ("flowledger_executions_ended", "Executions that this process brought to an end."),
    "interrupted": ("flowledger_steps_interrupted", "Handlers that were interrupted."),
    "leases_lost": ("flowledger_leases_lost", "Leases that this process lost."),
}
_COMMITTER: Final = {
    "batches": ("flowledger_commits", "Transactions of the committer."),
    "appends": ("flowledger_appends", "Appends in those transactions."),
    "events": ("flowledger_events_stored", "Events in those appends."),
    "refused": ("flowledger_appends_refused", "Appends refused because the queue was full."),
    "commit_seconds": ("flowledger_commit_seconds", "Time spent in those transactions."),
    "queue_seconds": ("flowledger_append_wait_seconds", "Time that appends waited for theirs."),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # the registry hashes it
class Figures(Collector):
    """One scrape."""

    by_status: Mapping[str, int]
    gauges: Mapping[str, tuple[str, float]]
    counters: Mapping[str, tuple[str, float]]
    projections: tuple[ProjectionView, ...]

    @classmethod
    async def gathered(cls, services: Services, streams: OpenStreams) -> "Figures":
        """Ask the tables, the queue and this process."""
        statistics = await services.reads.statistics(WORKSPACE, None)
        queue = await services.store.queue.statistics()
        gauges = {
            "flowledger_queue_depth": ("Executions with something left to do.", queue.depth),
            "flowledger_queue_ready": ("Of those, ready and without a worker.", queue.ready),
            "flowledger_queue_leased": ("Of those, with a worker.", queue.leased),
            "flowledger_queue_oldest_age_seconds": (
                "How long the longest-ready execution has waited for a worker.",
                queue.oldest_age_seconds,
            ),
            "flowledger_append_queue_fill": (
                "How full the queue of appends is, 0 to 1.",
                services.store.log.saturation(),
            ),
            "flowledger_open_streams": ("Open event streams of this process.", streams.count),
        }
        return cls(
            by_status=statistics.by_status,
            gauges=gauges,
            counters=_counted(_COMMITTER, services.store.counters)
            | _counted(_WORKER, services.worker.figures),
            projections=tuple(await services.reads.projections()),
        )

    def collect(self) -> Iterable[Metric]:
        """The families, as the client library asks for them."""
        executions = GaugeMetricFamily(
            "flowledger_executions", "Executions by status.", labels=["status"]
        )
        for status, count in sorted(self.by_status.items()):
            executions.add_metric([status], count)
        yield executions
        for name, (text, value) in self.gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        for name, (text, value) in self.counters.items():
            yield CounterMetricFamily(name, text, value=value)
        yield from self._lag()

    def _lag(self) -> Iterable[Metric]:
        events = GaugeMetricFamily(
            "flowledger_projection_lag_events", "Events not yet projected.", labels=["projection"]
        )
        seconds = GaugeMetricFamily(
            "flowledger_projection_lag_seconds", "Age of the oldest of them.", labels=["projection"]
        )
        running = GaugeMetricFamily(
            "flowledger_projection_running", "1 while it moves, 0 else.", labels=["projection"]
        )
        for view in self.projections:
            events.add_metric([view.name], view.lag_events)
            seconds.add_metric([view.name], view.lag_seconds)
            running.add_metric([view.name], float(view.state == "running"))
        yield from (events, seconds, running)


def _counted(names: Mapping[str, tuple[str, str]], source: object) -> dict[str, tuple[str, float]]:
    return {
        metric: (text, float(getattr(source, field))) for field, (metric, text) in names.items()
    }
