"""This product and its peers, the same workflow of three steps that do nothing, in one run.

In process, on the same PostgreSQL server and on SQLite files: DBOS Transact and Absurd. Over HTTP,
from the request to the result: Restate with a Python handler. With 1 and with 64 in flight, one
repetition of each after the other. On PostgreSQL this product takes part twice: as one process, and
with the tables filled by a second one.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from benchmarks.executions import ACTIONS, beside_a_projector, in_process, over_http
from benchmarks.executions import Measure as Measured
from benchmarks.harness import (
    Databases,
    Figures,
    Report,
    as_served,
    databases,
    option_parser,
    options_of,
    progress,
)
from benchmarks.peers import rivals
from benchmarks.peers.environment import PeerEnvironment, install

IN_FLIGHT = (64, 1)
OURS = "flowledger"
WITH_PROJECTOR = "flowledger beside a projector"
RATE = "executions_per_second"
PARTS = ("postgresql", "sqlite", "http")
GOALS: dict[tuple[str, int, str, str], dict[str, float]] = {
    ("postgresql", 64, "dbos", RATE): {"least": 20},
    ("sqlite", 64, "dbos", RATE): {"least": 20},
    ("http", 64, "restate", RATE): {"least": 4},
    ("http", 1, "restate", "p50_ms"): {"most": 0.4},
}
Measure = Callable[[int, int], Figures]


class Contest:
    """The measurements of one part: who takes part, with how many executions."""

    def __init__(self, peers: PeerEnvironment, bases: Databases, actions: Path) -> None:
        self._peers = peers
        self._bases = bases
        self._actions = actions

    def entrants(self, part: str) -> dict[str, tuple[Measure, int]]:
        """By name: how to measure, and how many times the executions of the slowest."""
        match part:
            case "http":
                return {
                    OURS: (self._ours("postgresql", over_http), 4),
                    WITH_PROJECTOR: (self._ours("postgresql", beside_a_projector(over_http)), 4),
                    "restate": (self._restate, 1),
                }
            case "sqlite":
                return {OURS: (self._ours(part, in_process), 10), "dbos": (self._dbos(part), 1)}
            case _:
                return {
                    OURS: (self._ours(part, in_process), 10),
                    WITH_PROJECTOR: (self._ours(part, beside_a_projector(in_process)), 10),
                    "dbos": (self._dbos(part), 1),
                    "absurd": (self._absurd, 2),
                }

    def _ours(self, backend: str, measured: Measured) -> Measure:
        def measure(executions: int, in_flight: int) -> Figures:
            url = self._bases.fresh(backend)
            return as_served(measured(url, self._actions, executions, in_flight))

        return measure

    def _restate(self, executions: int, in_flight: int) -> Figures:
        return as_served(rivals.restate(self._peers, executions, in_flight))

    def _dbos(self, backend: str) -> Measure:
        return lambda executions, in_flight: rivals.dbos(
            self._peers, self._bases.fresh(backend), executions, in_flight
        )

    def _absurd(self, executions: int, in_flight: int) -> Figures:
        url = self._bases.fresh("postgresql")
        return rivals.absurd(self._peers, url, executions, in_flight)


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure the chosen parts and print the report."""
    parser = option_parser(__doc__ or "")
    parser.add_argument("--part", choices=PARTS, action="append", help="one or more; default all")
    parser.add_argument("--cache", type=Path, help="folder where the peers stay installed")
    given = parser.parse_args(arguments)
    report = Report("peers", options_of(given))
    with ExitStack() as resources:
        folder = given.cache or Path(resources.enter_context(tempfile.TemporaryDirectory()))
        peers = install(folder)
        report.notes["versions"] = peers.versions
        bases = resources.enter_context(databases())
        actions = Path(resources.enter_context(tempfile.TemporaryDirectory())) / "bench_actions.py"
        actions.write_text(ACTIONS)
        contest = Contest(peers, bases, actions)
        for part in given.part or PARTS:
            _measure(report, part, contest.entrants(part))
    report.show()
    return report


def _measure(report: Report, part: str, entrants: dict[str, tuple[Measure, int]]) -> None:
    for in_flight in IN_FLIGHT:
        executions = (320 if report.options.quick else 960) if in_flight > 1 else 100
        for _ in range(report.options.repetitions):
            for name, (measure, times) in entrants.items():
                figures = measure(executions * times, in_flight)
                report.add(_row(part, name, in_flight), figures)
                progress(f"{_row(part, name, in_flight)}: {figures[RATE]:,.0f}/s")
        ours = [name for name in (OURS, WITH_PROJECTOR) if name in entrants]
        for us, name in product(ours, [each for each in entrants if each not in ours]):
            _compare(report, part, in_flight, us, name)


def _compare(report: Report, part: str, in_flight: int, us: str, name: str) -> None:
    ours, theirs = _row(part, us, in_flight), _row(part, name, in_flight)
    what = f"{part}, {in_flight} in flight, {us} / {name}"
    for figure in (RATE, "p50_ms"):
        ratio = report.ratio((ours, figure), (theirs, figure))
        goal = GOALS.get((part, in_flight, name, figure))
        if goal is None:
            report.notes[f"{what}, {figure}"] = round(ratio, 2)
        else:
            report.judge(f"{what}, {figure}", ratio, **goal)


def _row(part: str, name: str, in_flight: int) -> str:
    where = "over HTTP" if part == "http" else f"in process, {part}"
    return f"{name}, {where}, {in_flight} in flight"


if __name__ == "__main__":
    main()
