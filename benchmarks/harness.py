"""What every benchmark shares: arguments, databases, repetitions, the report."""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from benchmarks.yardstick import python_loop_ms
from tests.postgres_server import PostgresServer, running_postgres

Figures = dict[str, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` ends within a minute; `repetitions` are whole runs of each measurement."""

    quick: bool
    json: bool
    backends: tuple[str, ...]
    repetitions: int


def option_parser(description: str) -> argparse.ArgumentParser:
    """The command line that all benchmarks understand, for those which add to it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small counts; ends within a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--backend", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--repetitions", type=int, default=None)
    return parser


def options_of(given: argparse.Namespace) -> Options:
    """What was asked for on that command line."""
    backends = tuple(given.backend or ("sqlite", "postgresql"))
    return Options(
        given.quick, given.json, backends, given.repetitions or (1 if given.quick else 3)
    )


def read_options(description: str, arguments: Sequence[str] | None = None) -> Options:
    """Options of a benchmark that adds none."""
    return options_of(option_parser(description).parse_args(arguments))


def as_served(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns in an event loop as the product's processes have it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


class Databases:
    """Fresh databases for measurements; the PostgreSQL server is started when one is asked for."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources
        self._server: PostgresServer | None = None
        self._folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        self._count = 0

    def fresh(self, backend: str) -> str:
        """The URL of an empty database."""
        self._count += 1
        if backend == "sqlite":
            return f"sqlite:///{self._folder / f'bench{self._count}.db'}"
        if self._server is None:
            self._server = self._resources.enter_context(running_postgres())
        return self._server.create_database()


@contextmanager
def databases() -> Iterator[Databases]:
    """Databases that are gone afterwards."""
    with ExitStack() as resources:
        yield Databases(resources)


@dataclass(slots=True)
class Report:
    """Figures by back end and measurement, each with min, median and max over the repetitions."""

    name: str
    options: Options
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def add(self, row: str, figures: Figures) -> None:
        """One repetition of one measurement."""
        for figure, value in figures.items():
            self.rows.setdefault(row, {}).setdefault(figure, []).append(value)

    def median(self, row: str, figure: str) -> float:
        """The median of a figure over the repetitions."""
        return statistics.median(self.rows[row][figure])

    def judge(
        self, name: str, value: float, most: float | None = None, *, least: float | None = None
    ) -> None:
        """Note whether a goal, at most `most` or at least `least`, is reached."""
        if most is not None:
            reached, goal = value <= most, f"at most {most:g}"
        elif least is not None:
            reached, goal = value >= least, f"at least {least:g}"
        else:
            raise TypeError("a goal has a bound")
        self.notes[name] = f"{value:.2f}, goal {goal}: {'reached' if reached else 'missed'}"

    def ratio(self, ours: tuple[str, str], theirs: tuple[str, str]) -> float:
        """The median of a row's figure over that of another."""
        return self.median(*ours) / self.median(*theirs)

    def show(self) -> None:
        """Print the table and, if asked for, the JSON object as the last line."""
        out = sys.stdout
        for row, figures in self.rows.items():
            out.write(f"\n{row}\n")
            for figure, values in figures.items():
                low, mid, high = min(values), statistics.median(values), max(values)
                out.write(f"  {figure:<34} {mid:>12,.2f}   ({low:,.2f} .. {high:,.2f})\n")
        out.write("\nmachine: " + ", ".join(f"{k} {v}" for k, v in _machine().items()) + "\n")
        for name, value in self.notes.items():
            out.write(f"{name}: {value}\n")
        if self.options.json:
            out.write("\n" + json.dumps(self.as_json()) + "\n")

    def as_json(self) -> dict[str, object]:
        """The report for programs."""
        measured = {
            row: {
                figure: {
                    "min": min(values),
                    "median": statistics.median(values),
                    "max": max(values),
                }
                for figure, values in figures.items()
            }
            for row, figures in self.rows.items()
        }
        return {
            "benchmark": self.name,
            "quick": self.options.quick,
            "repetitions": self.options.repetitions,
            "machine": _machine(),
            "figures": measured,
            **self.notes,
        }


@cache
def _machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "python_loop_ms": round(python_loop_ms(), 1),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def progress(text: str) -> None:
    """One line for who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
