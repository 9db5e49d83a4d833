"""The page of metrics, from a scrape of a real process on an empty database."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prometheus_client.core import Metric

from application.breakers import BreakerKey
from application.callers import DEFAULT_WORKSPACE
from application.relay import SENT, RelayFigures
from domain.breaker import CLOSED
from infrastructure.settings import Settings
from interfaces.bootstrap import open_services
from interfaces.http.figures import Figures
from tools.markdown import table

_INTRODUCTION: Final = """# Metrics

`GET /metrics` in the text form of Prometheus. Figures of tables and of the queue are the same
whichever process answers; those called *of this process*, and all counters and histograms, are its
own and begin at 0. `flowledger serve` tells all of them, `api` all but those of a worker, `worker`
those of the queue, of commits and of its work, `projector` those of the queue and of the projector.
Those of the relay are told where it may run (`serve` and `projector`, with
`FLOWLEDGER_KAFKA_BROKERS`), those of received messages by `consumer` and `bridge`.

"""


def metrics_page() -> str:
    """The page."""
    rows = [
        (f"`{_shown_name(each)}`", each.type, _labels(each), each.documentation)
        for each in scraped()
    ]
    return _INTRODUCTION + table(("name", "kind", "labels", "meaning"), rows)


def scraped() -> Sequence[Metric]:
    """What one scrape gives."""
    with TemporaryDirectory() as folder:
        return asyncio.run(_scrape(Settings(database_url=f"sqlite:///{Path(folder) / 'x.db'}")))


async def _scrape(settings: Settings) -> Sequence[Metric]:
    services = await open_services(settings)
    try:
        # Nobody called an agent yet; one stands for them, so that their labels are seen.
        seen = replace(
            await services.observe(),
            agent_calls={("scorer", "completed"): 0},
            agent_breakers={BreakerKey(DEFAULT_WORKSPACE, "scorer"): CLOSED},
            messages={("results.topic", "taken"): 0},
            message_lag={"results.topic": 0},
            relay=RelayFigures(
                leading=True,
                waits=False,
                lag_events=0,
                messages={("workflow.monitoring.updates", SENT): 0},
                failures=0,
            ),
        )
        return list(Figures(seen, open_streams=0).collect())
    finally:
        await services.close()


def _shown_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _labels(metric: Metric) -> str:
    names = sorted({name for sample in metric.samples for name in sample.labels})
    return ", ".join(f"`{name}`" for name in names)
