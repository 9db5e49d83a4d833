"""F3: the connection to PostgreSQL ends when the commit is done and the answer is under way.

The engine must not repeat such an append blindly, nor tell a conflict: it looks for the command in
the log. Every execution and command is there once, and a repeat is answered as the first time. The
control is the event store library as it comes, which repeats its insert and reports a conflict with
itself.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from tests.faults.inner_callers import InnerCallers, inner_callers
from tests.faults.judging import judge, keep
from tests.faults.report import Options, Report, main, tell
from tests.infrastructure.event_store.cutting_proxy import CuttingProxy, Fault, cutting_proxy
from tests.postgres_server import running_postgres

HELD_SHARE = 2
ANSWERS_LOST_SHARE = 0.8
"""The others lose the request: the same to a caller, but nothing is stored."""
LIBRARY_CUTS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How many answers are cut off, at how many callers at a time."""

    cuts: int
    callers: int
    asked_again: int


FULL = Plan(500, 32, 500)
QUICK = Plan(12, 6, 20)


async def run(options: Options, report: Report) -> None:
    """The campaign through the proxy, its verdict on the log behind it, and the control."""
    plan = QUICK if options.quick else FULL
    chance = random.Random(options.seed)
    with running_postgres() as server:
        direct = server.create_database()
        with cutting_proxy(direct, options.place("proxy")) as (proxy, url):
            async with inner_callers(url, options.folder) as callers:
                await _campaign(proxy, callers, plan, chance, report)
                report.violations += await callers.ended()
                head = await callers.services.store.log.head()
                await callers.services.reads.wait_for(head, 60)
        log, broken = await judge(direct, callers.history)
        report.violations += broken
        report.figures["events"] = len(log)
        keep(options, "F3", log, callers.history)
        control = server.create_database()
        with cutting_proxy(control, options.place("library")) as (proxy, url):
            report.control("the library's own retry", await asyncio.to_thread(_library, proxy, url))


async def _campaign(
    proxy: CuttingProxy,
    callers: InnerCallers,
    plan: Plan,
    chance: random.Random,
    report: Report,
) -> None:
    await callers.publish()
    lost = dict.fromkeys((Fault.ANSWER_LOST, Fault.REQUEST_LOST), 0)
    numbers = _numbers(proxy, plan)
    working = [asyncio.create_task(callers.work(numbers, HELD_SHARE)) for _ in range(plan.callers)]
    while not _all_done(working):
        if proxy.fault is Fault.NONE and proxy.hits < plan.cuts:
            answers = chance.random() < ANSWERS_LOST_SHARE
            chosen = Fault.ANSWER_LOST if answers else Fault.REQUEST_LOST
            before = proxy.hits
            proxy.fault = chosen
            while proxy.hits == before and not _all_done(working):  # noqa: ASYNC110 - a thread's count
                await asyncio.sleep(0.001)
            lost[chosen] += proxy.hits - before
            if proxy.hits % 100 == 0:
                tell(f"{proxy.hits} cuts, {callers.acknowledged} acknowledged")
        await asyncio.sleep(chance.uniform(0.0, 0.05))
    proxy.fault = Fault.NONE
    await asyncio.gather(*working)
    report.bit("cut answer", lost[Fault.ANSWER_LOST])
    report.bit("cut request", lost[Fault.REQUEST_LOST])
    report.figures["acknowledged"] = callers.acknowledged
    report.figures["told_unavailable"] = callers.unavailable
    report.figures["false_refusals"] = len(callers.false_refusals)
    report.violations += [f"false refusal: {each}" for each in callers.false_refusals]
    await callers.work(iter(range(1, plan.asked_again + 1)), HELD_SHARE)


def _numbers(proxy: CuttingProxy, plan: Plan) -> Iterator[int]:
    number = 0
    while proxy.hits < plan.cuts:
        number += 1
        yield number


def _all_done(working: Sequence["asyncio.Task[None]"]) -> bool:
    return all(task.done() for task in working)


def _library(proxy: CuttingProxy, url: str) -> list[str]:
    """Saves through the library's recorder whose commits are cut; the conflicts it reports."""
    parts = urlsplit(url)
    datastore = PostgresDatastore(
        dbname=parts.path.removeprefix("/"),
        host=parse_qs(parts.query)["host"][0],
        port="5432",
        user=parts.username or "postgres",
        password="",
    )
    recorder = PostgresApplicationRecorder(datastore, events_table_name="library_events")
    recorder.create_table()
    proxy.marker = b"COMMIT"
    wrong = []
    for _ in range(LIBRARY_CUTS):
        stream = uuid4()
        event = StoredEvent(originator_id=stream, originator_version=1, topic="t", state=b"{}")
        proxy.fault = Fault.ANSWER_LOST
        try:
            recorder.insert_events([event])
        except IntegrityError as error:
            if recorder.select_events(stream):
                wrong.append(f"I1 {stream}: {type(error).__name__} for an event that is stored")
    proxy.fault = Fault.NONE
    datastore.close()
    return wrong


if __name__ == "__main__":
    main("F3", run)
