"""O1. Every process is stopped by SIGTERM in turn while work comes: nothing acknowledged is lost,
nobody sees another 5xx than 503 with Retry-After, and a process that stops says so at once.

`python -m tests.faults O1`: 20 restarts of two processes that answer and two that work. Callers
behave as behind a load balancer: they leave a process whose /readyz is not 200.
"""

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.programs import Program, running
from tests.faults.report import Options, Report, main, tell
from tests.faults.wire import API, Caller, Heard, calling
from tests.faults.workload import WORKFLOW, definition
from tests.invariants import Answer

EXIT_SECONDS_MAX: Final = 30.0
READY_SECONDS_MAX: Final = 1.0
CALLERS: Final = 4


@dataclass(slots=True)
class Gate:
    """What load-balanced callers saw of all processes that answer."""

    programs: Sequence[Program]
    statuses: Counter[int] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    history: list[Answer] = field(default_factory=list)
    executions: list[str] = field(default_factory=list)
    leaving: set[str] = field(default_factory=set)

    async def ask(self, caller: Mapping[str, Caller], path: str, body: object, key: str) -> Heard:
        """The first answer that is not about a process going away; every answer is judged."""
        while True:
            open_now = [
                each for each in self.programs if each.address and each.name not in self.leaving
            ]
            if not open_now:
                await asyncio.sleep(0.02)
                continue
            chosen = random.choice(open_now)
            own = caller[chosen.name]
            own.move(chosen.address)
            heard = await own.post(path, body, key)
            self.statuses[heard.status] += 1
            if heard.status == 503 and "retry-after" not in heard.headers:
                self.bad.append(f"503 without Retry-After: {heard.body[:200]!r}")
            if heard.status >= 500 and heard.status != 503:
                self.bad.append(f"{heard.status}: {heard.body[:200]!r}")
            if heard.status not in (0, 429, 503):
                return heard
            await asyncio.sleep(0.02)


async def run(options: Options, report: Report) -> None:
    """20 restarts, or 3; the control is a server that stays ready until it is gone."""
    async with owned_postgres() as postgres:
        restarts = 3 if options.quick else 20
        report.violations += await _restarted(postgres, options, report, restarts, "restarts")
        silent = Report(fault="O1", seed=options.seed, quick=True)
        bug = "ready-to-the-last"
        broken = await _restarted(postgres, options, silent, 1, bug, bug)
        report.control(bug, [each for each in broken if "readyz" in each])


async def _restarted(
    postgres: OwnedPostgres,
    options: Options,
    report: Report,
    restarts: int,
    name: str,
    bug: str = "",
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    folder = options.place(name)
    fleet = Fleet(url, folder, lease_seconds=15.0, bug=bug)
    apis = [fleet.api(f"api-{each}") for each in range(1 if bug else 2)]
    workers = [fleet.worker(f"worker-{each}") for each in range(1 if options.quick else 2)]
    gate = Gate(apis)
    broken: list[str] = []
    async with running(*apis, *workers, fleet.projector()):
        async with calling(apis[0].address) as first:
            published = await first.post(f"{API}/workflows", definition(4), "publish")
            assert published.status == 201, published
        load = [asyncio.create_task(_caller(gate, number)) for number in range(CALLERS)]
        for number, program in zip(
            range(restarts), itertools.cycle([*apis, *workers]), strict=False
        ):
            await asyncio.sleep(0.5)
            broken += await _restart(program, gate, report, answers=program in apis)
            tell(f"restart {number + 1}, {len(gate.executions)} executions")
        report.now("waiting for what was requested to end")
        for task in load:
            task.cancel()
        for task in load:
            with suppress(asyncio.CancelledError):
                await task
        async with calling(apis[0].address) as first:
            await _all_ended(first, gate)
        report.now("judging")
        log, found = await judge(url, gate.history, effects=fleet.effects)
    keep(options, f"O1-{name}", log, gate.history)
    report.figures |= {"answers": dict(gate.statuses), "executions": len(gate.executions)}
    return [*broken, *gate.bad, *found]


async def _caller(gate: Gate, number: int) -> None:
    """Requests executions for ever, one after the other."""
    own = {each.name: Caller(each.address) for each in gate.programs}
    try:
        for count in itertools.count():
            path, key = f"{API}/workflows/{WORKFLOW}/execute", f"execute-{number}-{count}"
            heard = await gate.ask(own, path, {"input_data": {"n": count}}, key)
            if heard.status != 202:
                gate.bad.append(f"execute was answered with {heard.status}: {heard.body[:200]!r}")
                continue
            view = heard.json()
            known = str(view["id"])
            gate.executions.append(known)
            gate.history.append(Answer(known, UUID(known), "done", "execute", int(view["version"])))
            await asyncio.sleep(0.1)
    finally:
        for caller in own.values():
            await caller.close()


async def _restart(program: Program, gate: Gate, report: Report, *, answers: bool) -> list[str]:
    """Stop one by SIGTERM as an orchestrator does, and start it again."""
    address, pid = program.address, program.pid
    began = time.monotonic()
    program.signal(signal.SIGTERM)
    broken = []
    if answers:
        seconds = await _seconds_until_not_ready(address)
        gate.leaving.add(program.name)
        report.figures["slowest_readyz_503"] = max(
            report.figures.get("slowest_readyz_503", 0.0), round(seconds, 3)
        )
        if seconds > READY_SECONDS_MAX:
            broken.append(f"readyz of {pid} did not say 503 within {READY_SECONDS_MAX} s")
        report.bit("process that answers stopped")
    else:
        report.bit("process that works stopped")
    code = await program.wait()
    took = time.monotonic() - began
    report.figures["slowest_exit_seconds"] = max(
        report.figures.get("slowest_exit_seconds", 0.0), round(took, 2)
    )
    if code != 0 or took > EXIT_SECONDS_MAX:
        broken.append(f"{program.name} ended with {code} after {took:.1f} s")
    await program.start()
    gate.leaving.discard(program.name)
    return broken


async def _seconds_until_not_ready(address: str) -> float:
    """How long /readyz went on to say 200; infinite when it was never seen to say 503."""
    began = time.monotonic()
    async with calling(address, seconds_max=5.0) as caller:
        while True:
            heard = await caller.get("/readyz")
            if heard.status == 503:
                return time.monotonic() - began
            if heard.status == 0:
                return float("inf")
            await asyncio.sleep(0.005)


async def _all_ended(caller: Caller, gate: Gate) -> None:
    """Return once every execution has ended and the tables know it."""
    position = 0
    for identifier in gate.executions:
        while True:
            heard = await caller.get(f"{API}/executions/{identifier}")
            if heard.status == 200 and heard.json()["completed_at"]:
                position = max(position, int(heard.json()["position"]))
                break
            await asyncio.sleep(0.05)
    await caller.get(f"{API}/executions?page_size=1&min_position={position}")


if __name__ == "__main__":
    main("O1", run)
