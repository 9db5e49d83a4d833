"""F1: PostgreSQL is killed with all its processes, again and again, while clients write.

Nothing acknowledged is lost or stored twice, no repeat hears a conflict, and work goes on after
each return. Callers, engine and projections are one process, so that kills meet as many commits as
can be; every request is repeated with its key until it is answered. The control does not wait for
its commits to be written: there the same kills must lose what was acknowledged.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from tests.faults.inner_callers import InnerCallers, any_ended, inner_callers
from tests.faults.judging import judge, keep, opened, whole_log
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.report import Options, Report, main
from tests.invariants import check_answers

HELD_SHARE = 3
"""Every third story is held: four acknowledged commands; the others are one."""
STALL_SECONDS_MAX = 5.0
LOSE_LATE_COMMITS = ("wal_writer_delay=10s",)
"""Matters to commits that are not waited for, and to no others."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often is killed, how much must be acknowledged, and by how many callers at a time."""

    kills: int
    acknowledged: int
    callers: int
    pause_seconds: tuple[float, float]
    asked_again: int


FULL = Plan(60, 50_000, 64, (0.3, 1.8), 2_000)
QUICK = Plan(2, 60, 8, (0.1, 0.4), 20)


async def run(options: Options, report: Report) -> None:
    """The campaign, its verdict, and the control."""
    plan = QUICK if options.quick else FULL
    chance = random.Random(options.seed)
    async with owned_postgres(LOSE_LATE_COMMITS) as server:
        url = server.create_database()
        async with inner_callers(url, options.folder) as callers:
            await _campaign(server, callers, plan, chance, report)
            report.now("waiting for what was begun to end")
            report.violations += await callers.ended()
            report.now("waiting for the tables")
            await callers.services.reads.wait_for(await callers.services.store.log.head(), 60)
        report.now("judging")
        log, broken = await judge(url, callers.history)
        report.violations += broken
        keep(options, "F1", log, callers.history)
        report.figures["events"] = len(log)
        report.control("commits that are not waited for", await lost_when_killed(server, options))


async def _campaign(
    server: OwnedPostgres,
    callers: InnerCallers,
    plan: Plan,
    chance: random.Random,
    report: Report,
) -> None:
    await callers.publish()
    stories = _numbers()
    done = asyncio.Event()
    working = [
        asyncio.create_task(callers.work(_until(stories, done), HELD_SHARE))
        for _ in range(plan.callers)
    ]
    report.bit("kill", 0)
    report.now(lambda: f"{callers.acknowledged} acknowledged")
    while report.bites["kill"] < plan.kills:
        await asyncio.sleep(chance.uniform(*plan.pause_seconds))
        if any_ended(working):
            break
        before = callers.unavailable
        callers.stalls.blow()
        await asyncio.to_thread(server.kill)
        await server.revive()
        revived = time.monotonic()
        while callers.stalls.last < revived and not any_ended(working):  # noqa: ASYNC110 - others' clocks
            await asyncio.sleep(0.005)
        report.bit("kill", 1 if callers.unavailable > before else 0)
    busy = [each for each in working if not each.done()]
    while busy and callers.acknowledged < plan.acknowledged:
        _, pending = await asyncio.wait(busy, timeout=0.1)
        busy = busy if len(pending) == len(busy) else []
    done.set()
    await asyncio.gather(*working)
    told = callers.acknowledged
    await callers.work(iter(range(1, plan.asked_again + 1)), HELD_SHARE)
    _note(report, callers, told, quick=plan is QUICK)


def _note(report: Report, callers: InnerCallers, acknowledged: int, *, quick: bool) -> None:
    stalls = callers.stalls.figures()
    report.figures |= {
        "acknowledged": acknowledged,
        "told_unavailable": callers.unavailable,
        "false_refusals": len(callers.false_refusals),
        **stalls,
    }
    report.violations += [f"false refusal: {each}" for each in callers.false_refusals]
    if not quick:
        slow = stalls["stall_max_seconds"] > STALL_SECONDS_MAX
        report.demand(not slow, f"nothing went on for {stalls['stall_max_seconds']} s after a kill")


async def lost_when_killed(server: OwnedPostgres, options: Options) -> list[str]:
    """The same kill where commits return before they are written; what is lost of ten.

    The server writes late of itself (LOSE_LATE_COMMITS).
    """
    url = server.create_database()
    async with inner_callers(url, options.place("control")) as callers:
        await callers.publish()
        # Behind the back of the check at the start; for connections made from now on.
        _set_commits(url, "off")
        await asyncio.to_thread(server.kill)
        await server.revive()
        for number in range(1, 11):
            await callers.quick_story(number)
        await asyncio.to_thread(server.kill)
        await server.revive()
    _set_commits(url, "on")
    async with opened(url) as store:
        log = await whole_log(store)
    broken = check_answers(log, callers.history)
    return [f"{each.invariant} {each.where}: {each.what}" for each in broken]


def _set_commits(url: str, value: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        statement = f'ALTER DATABASE "{name}" SET synchronous_commit = {value}'
        connection.execute(statement.encode())


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def _until(stories: Iterator[int], done: asyncio.Event) -> Iterator[int]:
    for number in stories:
        yield number
        if done.is_set():
            return


if __name__ == "__main__":
    main("F1", run)
