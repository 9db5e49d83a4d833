"""F10: the disk of PostgreSQL is full, or reports errors; callers are told so, and work goes on
when there is room, or a good disk.

The cluster lives in a file system of its own (tmpfs) which is filled to the last block. PostgreSQL
may stop over it, so it has a supervisor that starts it again; nobody does anything but make room.
Errors are those of every flush of its log (EIO, see disk_errors.py), over which it ends at once.
Nothing acknowledged is lost. The control has commits that are not waited for: what it acknowledged
before the disk was full is gone.
"""

import asyncio
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.database_killed import lost_when_killed
from tests.faults.disk_errors import TracingRefused, failing_flushes
from tests.faults.inner_callers import InnerCallers, any_ended, inner_callers
from tests.faults.judging import judge, keep
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.report import Options, Report, main

SMALL, LARGE = "size=120m", "size=400m"
SETTINGS = (
    "wal_writer_delay=10s",
    "min_wal_size=32MB",
    "max_wal_size=64MB",
    "shared_buffers=16MB",
)
HELD_SHARE = 5
BACK_SECONDS_MAX = 10.0
BLOCK = b"\0" * 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """How often the disk fills up, and for how long it stays full; how often it reports errors."""

    times: int
    full_seconds: tuple[float, float]
    callers: int
    errors: int


FULL = Plan(8, (2.0, 8.0), 16, 8)
QUICK = Plan(1, (0.5, 0.5), 4, 1)


async def run(options: Options, report: Report) -> None:
    """Fill, wait, make room, go on; then the verdict and the control."""
    plan = QUICK if options.quick else FULL
    chance = random.Random(options.seed)
    disks: list[Path] = []

    def mounted(place: Path) -> None:
        _mount(place)
        disks.append(place)

    try:
        async with owned_postgres(SETTINGS, mounted) as server, _supervised(server):
            await _campaign(server, plan, chance, options, report)
        async with owned_postgres(SETTINGS) as server:
            lost = await lost_when_killed(server, options)
            report.control("commits that are not waited for", lost)
    except MountRefused as error:
        report.forbidden = str(error)
    finally:
        for place in disks:
            await asyncio.to_thread(subprocess.run, ["umount", "-l", str(place)], check=False)
            await asyncio.to_thread(shutil.rmtree, place.parent, ignore_errors=True)


async def _campaign(
    server: OwnedPostgres, plan: Plan, chance: random.Random, options: Options, report: Report
) -> None:
    url = server.create_database()
    async with inner_callers(url, options.folder) as callers:
        await callers.publish()
        report.bit("full disk", 0)
        for number in range(plan.times):
            report.now(f"disk full, turn {number + 1} of {plan.times}")
            await _fill_and_free(server.folder, callers, plan, number, chance, report)
        await _errors(server, callers, plan, options, report)
        report.now("waiting for what was begun to end")
        report.violations += await callers.ended()
        await callers.services.reads.wait_for(await callers.head(), 60)
    log, broken = await judge(url, callers.history)
    report.violations += broken
    report.violations += [f"false refusal: {each}" for each in callers.false_refusals]
    report.figures |= {
        "acknowledged": callers.acknowledged,
        "told_unavailable": callers.unavailable,
        "slowest_refusal_seconds": round(callers.slowest_refusal, 2),
        "starts_of_postgresql": server.starts,
        "events": len(log),
    }
    keep(options, "F10", log, callers.history)


async def _fill_and_free(
    place: Path,
    callers: InnerCallers,
    plan: Plan,
    number: int,
    chance: random.Random,
    report: Report,
) -> None:
    before = callers.unavailable
    async with _at_work(callers, plan, number) as working:
        filler = await asyncio.to_thread(_fill, place)
        while callers.unavailable == before and not any_ended(working):
            await asyncio.to_thread(_fill, place)  # until an append finds no room
            await asyncio.sleep(0.02)
        await asyncio.sleep(chance.uniform(*plan.full_seconds))
        report.bit("full disk", callers.unavailable > before)
        filler.unlink()
        larger = ["mount", "-o", f"remount,{LARGE}", str(place)]
        await asyncio.to_thread(subprocess.run, larger, check=True)
        await _back(callers, plan, "back_seconds_max", report)


async def _errors(
    server: OwnedPostgres, callers: InnerCallers, plan: Plan, options: Options, report: Report
) -> None:
    """The flushes of one server after the other fail."""
    for number in range(plan.times, plan.times + plan.errors):
        report.now(f"disk errors, turn {number - plan.times + 1} of {plan.errors}")
        before = callers.unavailable
        async with _at_work(callers, plan, number) as working:
            try:
                async with failing_flushes(server, options.folder) as failed:
                    await _refused(callers, before, working)
                    await asyncio.sleep(plan.full_seconds[0])
                    report.bit("disk error", min(failed(), callers.unavailable - before, 1))
            except TracingRefused as error:
                report.figures["disk errors"] = f"not possible here: {error}"
                report.demand(plan is QUICK, f"no disk errors were shown: {error}")
                return
            await _back(callers, plan, "back_after_errors_seconds_max", report)


async def _refused(
    callers: InnerCallers, before: int, working: Sequence["asyncio.Task[None]"]
) -> None:
    """Return once a caller was told that nothing can be stored."""
    while callers.unavailable == before and not any_ended(working):  # noqa: ASYNC110 - others' clocks
        await asyncio.sleep(0.01)


async def _back(callers: InnerCallers, plan: Plan, figure: str, report: Report) -> None:
    """Return once each caller may have heard something again."""
    began = time.monotonic()
    told = callers.acknowledged
    while callers.acknowledged < told + plan.callers:  # noqa: ASYNC110 - many others' answers
        await asyncio.sleep(0.01)
    seconds = time.monotonic() - began
    report.figures[figure] = max(report.figures.get(figure, 0.0), round(seconds, 2))
    if plan is FULL:
        report.demand(seconds <= BACK_SECONDS_MAX, f"back only {seconds:.1f} s after it was good")


@asynccontextmanager
async def _at_work(
    callers: InnerCallers, plan: Plan, number: int
) -> AsyncIterator[Sequence["asyncio.Task[None]"]]:
    """Callers with stories of their own, until the block ends."""
    stories = iter(range(number * 100_000 + 1, (number + 1) * 100_000))
    enough = asyncio.Event()
    working = [
        asyncio.create_task(callers.work(_until(stories, enough), HELD_SHARE))
        for _ in range(plan.callers)
    ]
    try:
        yield working
    finally:
        enough.set()
        await asyncio.gather(*working)


def _until(stories: Iterator[int], enough: asyncio.Event) -> Iterator[int]:
    for number in stories:
        yield number
        if enough.is_set():
            return


class MountRefused(RuntimeError):
    """The kernel, or the account, does not allow a file system of our own."""


def _mount(place: Path) -> None:
    """Put a small file system there, for the account of the server. Raises MountRefused."""
    if shutil.which("mount") is None:
        raise MountRefused("there is no mount command")
    command = ["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MountRefused(f"no tmpfs can be mounted: {done.stderr.strip()}")
    shutil.chown(place, user="nobody")


def _fill(place: Path) -> Path:
    """Take what room is left."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while file.write(BLOCK):
                pass
        except OSError:
            return filler
    return filler


@asynccontextmanager
async def _supervised(server: OwnedPostgres) -> AsyncIterator[None]:
    """Start the server again whenever it has ended, as an init system does."""

    async def supervise() -> None:
        while True:
            await asyncio.sleep(0.1)
            if server.postmaster() is None:
                await server.revive(600)

    task = asyncio.create_task(supervise())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


if __name__ == "__main__":
    main("F10", run)
