"""Two worker processes against one, over the same PostgreSQL.

Executions of three steps that each use 5 ms of processor time (8 slots a worker) or wait for 5 ms
(32 slots a worker). All are requested beforehand and become due at one moment, when the workers
are up and idle; measured is from that moment until the last has ended. A projector beside them
keeps the projections up.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from application.callers import Caller
from application.requests import ExecuteOptions
from benchmarks.executions import DEFINITION, INPUT
from benchmarks.harness import Figures, Report, databases, option_parser, options_of, progress
from benchmarks.installation import Installation, until_ended
from infrastructure.settings import Settings
from interfaces.bootstrap import open_services

RATE = "executions_per_second"
ACTIONS = {
    "5 ms of CPU": '''
import time

async def noop(config, context):
    """Computes for 5 ms."""
    until = time.thread_time() + 0.005
    while time.thread_time() < until:
        pass
    return {"uri": "s3://bucket/out.parquet", "rows": 998, "ok": True}
''',
    "5 ms of waiting": '''
import asyncio

async def noop(config, context):
    """Waits for 5 ms."""
    await asyncio.sleep(0.005)
    return {"uri": "s3://bucket/out.parquet", "rows": 998, "ok": True}
''',
}
SLOTS = {"5 ms of CPU": 8, "5 ms of waiting": 32}
GOALS = {"5 ms of CPU": 1.7, "5 ms of waiting": 1.8}


def workers(
    url: str, actions: Path, slots: int, processes: int, executions: int, due_in: float
) -> Figures:
    """Executions per second from when all are due, with so many workers."""
    due = datetime.now(UTC) + timedelta(seconds=due_in)
    asyncio.run(_request(url, actions, executions, due))
    with ExitStack() as resources, tempfile.TemporaryDirectory() as folder:
        place = Installation(resources, url, Path(folder))
        place.start("projector")
        for _ in range(processes):
            place.start("worker", "--worker-slots", str(slots), actions=str(actions))
        if datetime.now(UTC) >= due:
            raise RuntimeError("the executions were due before the workers were up; give more time")
        took = until_ended(url, due, executions)
    return {RATE: executions / took}


async def _request(url: str, actions: Path, executions: int, due: datetime) -> None:
    settings = Settings(database_url=url, actions=str(actions), worker_slots=0)
    services = await open_services(settings)
    caller = Caller(actor="bench")
    await services.workflows.publish(caller, DEFINITION)
    options = ExecuteOptions(input_data=INPUT, start_at=due)

    async def client(count: int) -> None:
        for _ in range(count):
            await services.requests.execute(caller, "bench", options)

    await asyncio.gather(*(client(executions // 20) for _ in range(20)))
    await services.close()


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure and print the report; on PostgreSQL only."""
    options = options_of(option_parser(__doc__ or "").parse_args(arguments))
    report = Report("workers", options)
    with databases() as bases, tempfile.TemporaryDirectory() as folder:
        for what, source in ACTIONS.items():
            actions = Path(folder) / f"{what.replace(' ', '_')}.py"
            actions.write_text(source)
            few = what == "5 ms of CPU"
            executions = (200 if few else 1_000) * (1 if options.quick else 4)
            due_in = 16.0 if options.quick else 30.0
            for _ in range(options.repetitions):
                for processes in (1, 2):
                    url = bases.fresh("postgresql")
                    figures = workers(url, actions, SLOTS[what], processes, executions, due_in)
                    row = _row(what, processes)
                    report.add(row, figures)
                    progress(f"{row}: {figures[RATE]:,.1f}/s")
            ratio = report.ratio((_row(what, 2), RATE), (_row(what, 1), RATE))
            report.judge(f"{what}, two workers / one", ratio, least=GOALS[what])
    report.show()
    return report


def _row(what: str, processes: int) -> str:
    return f"{what}, {SLOTS[what]} slots a worker, {processes} worker{'s' * (processes > 1)}"


if __name__ == "__main__":
    main()
