"""What every fault shares: its options, its report, and the verdict.

A fault is a module with `async def run(options, report)`. It counts in `report.bites` how often
each of its faults really hit; one that never did makes the run void. It passes what its positive
control broke to `report.control`; a control that breaks nothing is a miss as well.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SHOWN_MAX = 20
QUICK_RUNS_MAX = 3
PROGRESS_SECONDS = 10.0
SECONDS_MAX = 570.0
"""A run that takes longer is broken off, so that each has a verdict within ten minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`quick` takes seconds. `folder` is empty and for scratch; histories are kept in `keep`."""

    quick: bool
    seed: int
    folder: Path
    keep: Path | None = None

    def place(self, name: str) -> Path:
        """A new folder for the files of one part of the run."""
        made = self.folder / name
        made.mkdir(parents=True)
        return made


@dataclass(slots=True, kw_only=True)
class Report:
    """What happened. `misses` must be empty."""

    fault: str
    seed: int
    quick: bool
    figures: dict[str, Any] = field(default_factory=dict)
    bites: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    controls: dict[str, list[str]] = field(default_factory=dict)
    forbidden: str = ""
    """Why this kernel or account does not allow the fault; empty when it was run. A full run
    that shows nothing for that is a miss.
    """
    doing: Callable[[], str] = str
    """Where the run is, for the lines of progress."""

    def bit(self, fault: str, times: int = 1) -> None:
        """Count hits of a fault; 0 declares one that is still to come."""
        self.bites[fault] = self.bites.get(fault, 0) + times

    def demand(self, holds: object, otherwise: str) -> None:
        """A violation unless it `holds`."""
        if not holds:
            self.violations.append(otherwise)

    def control(self, name: str, broken: Iterable[str]) -> None:
        """What the invariants found in a run without what protects it; nothing is a miss."""
        self.controls[name] = list(broken)[:SHOWN_MAX]

    def misses(self) -> list[str]:
        """Why the run does not show what it should."""
        if self.forbidden:
            return [] if self.quick else [f"nothing was shown: {self.forbidden}"]
        found = self.violations[:SHOWN_MAX]
        found += [f"void: no {each} happened" for each, times in self.bites.items() if not times]
        found += [
            f"the control broke nothing: {each}" for each, got in self.controls.items() if not got
        ]
        if not self.bites:
            found.append("void: no fault happened")
        if not self.controls:
            found.append("there is no control")
        return found

    def is_void(self) -> bool:
        """Whether nothing was broken, and yet nothing shown: a fault or a control never hit."""
        return bool(self.misses()) and not self.violations

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        told = {name: value for name, value in asdict(self).items() if name != "doing"}
        return {**told, "misses": self.misses()}

    def now(self, doing: str | Callable[[], str]) -> None:
        """A part of the run begins; with a function, what that tells is its progress."""
        self.doing = doing if callable(doing) else lambda: doing


Fault = Callable[[Options, Report], Awaitable[None]]


def tell(what: str) -> None:
    """A line of progress, on standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")
    sys.stderr.flush()


async def live_through(number: str, fault: Fault, options: Options) -> Report:
    """Run a fault to its end; what it raises is a violation."""
    report = Report(fault=number, seed=options.seed, quick=options.quick)
    began = time.monotonic()
    progress = asyncio.create_task(_tell_progress(report))
    try:
        async with asyncio.timeout(SECONDS_MAX):
            await fault(options, report)
    except Exception as error:  # noqa: BLE001 - a harness that failed has shown nothing
        where = f" at: {report.doing()}" if isinstance(error, TimeoutError) else ""
        report.violations.append(f"the run broke off: {type(error).__name__}: {error}{where}")
        sys.stderr.write(traceback.format_exc())
    finally:
        progress.cancel()
        report.figures["seconds"] = round(time.monotonic() - began, 1)
        report.figures["machine"] = {
            "cores": os.cpu_count(),
            "load_of_15_minutes_at_the_end": round(os.getloadavg()[2], 1),
        }
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            kept = options.keep / f"{number}.json"
            kept.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return report


async def _tell_progress(report: Report) -> None:
    """A line every few seconds: what has hit, and where the run is."""
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        hits = ", ".join(f"{times} x {what}" for what, times in report.bites.items())
        tell(f"{report.fault} {hits or 'no fault yet'}; {report.doing()}")


def read_options(
    arguments: Sequence[str] | None, **more: dict[str, Any]
) -> tuple[argparse.Namespace, int]:
    """The command line of faults, with further positional arguments; and the seed."""
    parser = argparse.ArgumentParser()
    for name, details in more.items():
        parser.add_argument(name, **details)
    parser.add_argument("--quick", action="store_true", help="the form of `make test`: seconds")
    parser.add_argument("--seed", type=int, default=None, help="repeat the draws of a run")
    parser.add_argument("--keep", type=Path, default=None, help="folder for histories and reports")
    given = parser.parse_args(arguments)
    seed = given.seed
    if seed is None:
        seed = int(os.environ.get("FAULTS_SEED", str(random.randrange(1_000_000))))
    return given, seed


def run_one(number: str, fault: Fault, given: argparse.Namespace, seed: int) -> Report:
    """Run one fault in an event loop and a folder of its own, and print its report."""
    with tempfile.TemporaryDirectory(prefix="flowledger-fault-") as folder:
        options = Options(quick=given.quick, seed=seed, folder=Path(folder), keep=given.keep)
        report = asyncio.run(live_through(number, fault, options))
    sys.stdout.write(json.dumps(report.as_json()) + "\n")
    sys.stdout.flush()
    return report


def main(number: str, fault: Fault, arguments: Sequence[str] | None = None) -> None:
    """The command of one fault; ends with 1 when something was missed."""
    given, seed = read_options(arguments)
    report = run_one(number, fault, given, seed)
    sys.exit(1 if report.misses() else 0)


async def quick(number: str, fault: Fault, folder: Path) -> Report:
    """The quick form, as the tests run it; always the same draws.

    A void run shows nothing, so it is made again, up to twice: how soon a fault hits depends on the
    machine. What broke an invariant is never made again.
    """
    for seed in range(1, QUICK_RUNS_MAX + 1):
        place = folder / str(seed)
        place.mkdir()
        report = await live_through(number, fault, Options(quick=True, seed=seed, folder=place))
        if not report.is_void():
            break
    return report
