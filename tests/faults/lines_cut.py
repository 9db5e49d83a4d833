"""F9. The line between a process and the database is cut or falls silent, for those that answer and
for those that work: when it is back, all goes on by itself, and nothing is lost or done twice.

`python -m tests.faults F9`: 20 cuts of 1 to 20 s, some of connections that end at once, some of
connections on which nothing comes any more; one worker has a network of its own, whose link goes
down.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.own_network import OwnNetwork, own_network
from tests.faults.programs import running
from tests.faults.report import Options, Report, main, tell
from tests.faults.workload import Workload, offered, working_on
from tests.infrastructure.event_store.cutting_proxy import cutting_proxy
from tests.postgres_server import PostgresServer, running_postgres

REST_SECONDS: Final = 30.0
RECOVERY_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often and how long; a quick run asserts no times."""

    cuts: int
    seconds: tuple[float, float]
    between: float = 2.0
    seconds_between: float = 0.1
    timed: bool = False


QUICK: Final = Plan(cuts=5, seconds=(0.3, 1.0), between=0.3)
FULL: Final = Plan(cuts=20, seconds=(1.0, 20.0), timed=True)
CONTROL: Final = Plan(cuts=1, seconds=(3.0, 3.0), between=0.2)


async def run(options: Options, report: Report) -> None:
    """The cuts; the control is a worker that gives up for ever."""
    with running_postgres() as postgres:
        plan = QUICK if options.quick else FULL
        report.violations += await _cut(postgres, options, report, plan, "cut")
        given_up = Report(fault="F9", seed=options.seed, quick=True)
        bug = "one-failure-is-enough"
        broken = await _cut(postgres, options, given_up, CONTROL, bug, bug)
        report.control(bug, [each for each in broken if each.startswith("I18")])


async def _cut(
    postgres: PostgresServer, options: Options, report: Report, plan: Plan, name: str, bug: str = ""
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database)
    await asyncio.to_thread(prepared, url)
    chance = random.Random(options.seed)
    fleet = Fleet(url, options.place(name), lease_seconds=3.0, bug=bug)
    with ExitStack() as stack:
        ends = [
            _Behind(fleet, "api", stack),
            _Behind(fleet, "worker", stack),
        ]
        network = None if bug else stack.enter_context(own_network())
        if network is not None:
            ends.append(_Behind(fleet, "network", stack, network))
        elif not bug:
            report.figures["network namespaces"] = "not allowed here"
            report.demand(options.quick, "no link went down: only root makes networks, with ip")
        programs = [each.program for each in ends]
        async with (
            running(*programs, fleet.projector()),
            working_on(programs[:1], chance, 6, 5.0) as workload,
        ):
            async with offered(workload, plan.seconds_between):
                await _cuts(ends, plan, chance, report)
                await asyncio.sleep(plan.between)
            healed = time.monotonic()
            report.now(f"{name}: waiting for what was begun to end")
            await _rested(workload, 3.0 if bug else REST_SECONDS)
            report.figures["seconds_to_the_last_end"] = round(time.monotonic() - healed, 1)
            if not bug:
                await workload.projected()
            log, broken = await judge(url, workload.clients.history, effects=fleet.effects)
    keep(options, f"F9-{name}", log, workload.clients.history)
    heard = workload.clients.heard
    report.figures |= {
        "executions": len(workload.executions),
        "answers": heard.statuses,
        "answers_lost": heard.answers_lost,
        "slowest_answer_seconds": round(heard.slowest_seconds, 1),
        "events": len(log),
    }
    if plan.timed and report.figures["seconds_to_the_last_end"] > RECOVERY_SECONDS_MAX:
        broken.append(f"I12 all was over only {report.figures['seconds_to_the_last_end']} s after")
    return broken


class _Behind:
    """A process behind a line of its own."""

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        stack: ExitStack,
        network: OwnNetwork | None = None,
    ) -> None:
        host = "" if network is None else network.host
        self.name = name
        self._network = network
        # A folder of its own: the address of a socket in a test's folder would be too long.
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="flowledger-")))
        self._line, url = stack.enter_context(cutting_proxy(fleet.url, sockets, host))
        if name == "api":
            self.program = fleet.api(url=url)
        else:
            within = () if network is None else network.command
            self.program = fleet.worker(name, url=url, within=within)

    def kinds(self) -> Sequence[str]:
        """What can happen to the line; the one which is noticed at once comes first."""
        return ("link down",) if self._network is not None else ("cut", "silence")

    async def suffer(self, kind: str, seconds: float) -> None:
        """Return when the line is whole again."""
        if kind == "silence":
            self._line.hold()
        elif kind == "cut":
            self._line.down = True
            await asyncio.to_thread(self._line.cut_all)
        elif self._network is not None:
            await asyncio.to_thread(self._network.cut)
        await asyncio.sleep(seconds)
        self._line.release()
        self._line.down = False
        if self._network is not None:
            await asyncio.to_thread(self._network.heal)


async def _cuts(ends: Sequence[_Behind], plan: Plan, chance: random.Random, report: Report) -> None:
    kinds = [(end, kind) for end in reversed(ends) for kind in end.kinds()]
    for number in range(plan.cuts):
        await asyncio.sleep(plan.between)
        end, kind = kinds[number % len(kinds)]
        seconds = chance.uniform(*plan.seconds)
        await end.suffer(kind, seconds)
        report.bit(f"{end.name}: {kind}")
        tell(f"{end.name}: {kind} of {seconds:.1f} s")


async def _rested(workload: Workload, seconds: float) -> None:
    """Wait until all has ended, but not for ever: the verdict tells what has not."""
    try:
        async with asyncio.timeout(seconds):
            await workload.all_ended()
    except TimeoutError:
        tell("not all has ended")


if __name__ == "__main__":
    main("F9", run)
