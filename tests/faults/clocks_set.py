"""F11. The clocks of the machines jump: by an hour, by days, forwards and back. Nothing that is
timed comes early or twice, no lease is taken too soon, and the times in the log stay those of the
database.

`python -m tests.faults F11`. The processes run under libfaketime, which must be installed; their
monotonic clocks are left alone, as on a machine whose clock is set.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from domain.events import Recorded, StepRedelivered, StepStarted
from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.programs import running
from tests.faults.report import Options, Report, main, tell
from tests.faults.workload import offered, working_on
from tests.postgres_server import PostgresServer, running_postgres

JUMPS: Final = ("+3600", "-3600", "-172800", "+1", "-1", "+86400", "+0")
"""Seconds from the right time: an hour (also summer time), two days back, a leap second, a day."""
INSTALLED: Final = "usr/lib/*/faketime/libfaketime.so.1"
NOT_INSTALLED: Final = (
    "libfaketime is not installed, so no clock was set: apt-get install faketime (Debian, Ubuntu)"
)


async def run(options: Options, report: Report) -> None:
    """Jumps of both; the control goes by the clock of its machine."""
    library = _library()
    if library is None:
        report.violations.append(NOT_INSTALLED)
        return
    jumps = JUMPS[:4] if options.quick else JUMPS * 8
    with running_postgres() as postgres:
        report.violations += await _jumped(postgres, options, report, library, jumps, "set")
        wrong = Report(fault="F11", seed=options.seed, quick=True)
        bug = "clock-of-the-machine"
        broken = await _jumped(postgres, options, wrong, library, JUMPS[:2], bug, bug)
        report.control(bug, [each for each in broken if each.startswith("I19")])


async def _jumped(
    postgres: PostgresServer,
    options: Options,
    report: Report,
    library: Path,
    jumps: Sequence[str],
    name: str,
    bug: str = "",
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database)
    await asyncio.to_thread(prepared, url)
    folder = options.place(name)
    fleet = Fleet(url, folder, lease_seconds=15.0, bug=bug)
    dial = folder / "clock"
    dial.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(dial),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    api, worker = fleet.api(**faked), fleet.worker(**faked)
    began = datetime.now(UTC)
    chance = random.Random(options.seed)
    async with running(api, worker, fleet.projector()), working_on([api], chance, 5) as workload:
        async with offered(workload, 0.1):
            for jump in jumps:
                await asyncio.sleep(0.6 if options.quick else 2.0)
                dial.write_text(f"{jump}\n")
                report.bit(f"clock {jump} s")
            tell(f"{len(workload.executions)} executions")
            await asyncio.sleep(0.6)
        dial.write_text("+0\n")
        if not bug:
            report.figures["ends"] = await workload.all_ended()
            await workload.projected()
        log, broken = await judge(
            url, workload.clients.history, effects=fleet.effects, all_ended=not bug
        )
    keep(options, f"F11-{name}", log, workload.clients.history)
    report.figures |= {"executions": len(workload.executions), "events": len(log)}
    return [*broken, *_wrong_times(log, began, datetime.now(UTC)), *_stolen(log)]


def _wrong_times(log: Sequence[Recorded], began: datetime, ended: datetime) -> Iterator[str]:
    """Times in the log are those of the database, whose clock nobody set."""
    slack = timedelta(seconds=1)
    wrong = [each for each in log if not began - slack <= each.event.meta.at <= ended + slack]
    for each in wrong[:5]:
        event = each.event
        yield f"I19 {event.execution_id} v{event.version} is dated {event.meta.at}"


def _stolen(log: Sequence[Recorded]) -> Iterator[str]:
    """Nobody died, so nothing may have been taken over.

    A try is redelivered under its own lease when the answer to its start was lost.
    """
    begun: dict[tuple[UUID, str], str] = {}
    for each in log:
        event = each.event
        if isinstance(event.data, StepStarted | StepRedelivered):
            lease = event.meta.cmd.partition(":")[0]
            before = begun.get((event.execution_id, event.data.path))
            if isinstance(event.data, StepRedelivered) and lease != before:
                yield f"I8 {event.execution_id} v{event.version} was taken from the living"
            begun[event.execution_id, event.data.path] = lease


def _library() -> Path | None:
    return next(Path("/").glob(INSTALLED), None)


if __name__ == "__main__":
    main("F11", run)
