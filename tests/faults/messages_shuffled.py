"""F12. Every message over Kafka comes three times and in any order, and one in a hundred is poison:
each execution and each step has one outcome, poison waits with its cause, and delays nobody.

`python -m tests.faults F12`: 10,000 tasks on a real broker; the quick form uses the mock cluster.
Executions are requested over Kafka, their steps are tasks on a topic, and an agent of one line
answers them. Now and then it is called twice and answers differently: only one answer counts.
"""

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final
from uuid import UUID

import psycopg

from domain.events import LateResultIgnored, Recorded, Requested, StepCompleted, TaskDispatched
from domain.json_values import JsonObject
from tests.faults.fleet import Fleet
from tests.faults.judging import judge, keep, prepared
from tests.faults.kafka_traffic import AGENT, PATIENCE_SECONDS, Traffic, register
from tests.faults.kafka_wire import (
    Scrambler,
    Sender,
    Sent,
    Wire,
    kafka,
    plan_of,
    request,
    result_of,
    sending,
    tasks_of,
)
from tests.faults.one_outcome import all_ended, other_than_once
from tests.faults.owned_postgres import OwnedPostgres, owned_postgres
from tests.faults.programs import running
from tests.faults.report import Options, Report, main

TWO_ANSWERS_OF: Final = 10
BEHIND_SECONDS: Final = 1.0
DELAY_SECONDS_MAX: Final = 1.0
BUG: Final = "requests-not-told-apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """So many executions of so many tasks, some at a time; one poison to `poison_every` tasks.
    Copies of a message come within `spread_seconds`. Only a full run asserts times.
    """

    executions: int
    steps: int = 4
    at_a_time: int = 40
    poison_every: int = 100
    spread_seconds: float = 0.6
    patience_seconds: float = PATIENCE_SECONDS
    timed: bool = False


QUICK: Final = Plan(executions=75)
FULL: Final = Plan(executions=2_500, timed=True)
CONTROL: Final = Plan(executions=5, steps=1, spread_seconds=0.2, patience_seconds=3.0)


async def run(options: Options, report: Report) -> None:
    """The campaign, and one whose consumer does not know a request again."""
    plan = QUICK if options.quick else FULL
    async with owned_postgres() as postgres, kafka(options) as brokers:
        report.violations += await _campaign(postgres, brokers, options, report, plan)
        control = Report(fault="F12", seed=options.seed, quick=True)
        report.now("the control")
        broken = await _campaign(postgres, brokers, options, control, CONTROL, BUG)
        report.control(BUG, [each for each in broken if "nobody asked for it" in each])


async def _campaign(
    postgres: OwnedPostgres,
    brokers: str,
    options: Options,
    report: Report,
    plan: Plan,
    bug: str = "",
) -> list[str]:
    url = await asyncio.to_thread(postgres.create_database, prepared)
    wire = Wire(brokers)
    await asyncio.to_thread(wire.make)
    fleet = Fleet(url, options.place(bug or "scrambled"), bug=bug, settings=wire.settings())
    server, chance = fleet.server(), random.Random(options.seed)
    async with running(server, fleet.consumer()), sending(wire) as sender:
        await register(server, {"name": AGENT, "transport": "kafka"})
        campaign = _Shuffled(plan, chance, sender)
        async with tasks_of(wire, campaign.answer):
            report.now(campaign.told)
            await campaign.ask(plan.executions)
            await all_ended(url, len(campaign.asked), plan.patience_seconds, report)
            waits = await campaign.not_taken(wire)
        report.now("judging")
        log, broken = await judge(url, [])
    broken += other_than_once(log, campaign.asked, plan.steps)
    broken += _letters_other_than(await _letters(url), campaign.poison)
    keep(options, f"F12-{bug or 'scrambled'}", log, [])
    _tell(report, log, campaign)
    return [*waits, *broken, *_late(report, plan)]


class _Shuffled(Traffic):
    """Every message three times, poison among them, and two answers to some tasks."""

    def __init__(self, plan: Plan, chance: random.Random, sender: Sender) -> None:
        self.scrambler = Scrambler(sender, chance, plan.spread_seconds)
        super().__init__(self.scrambler.send, chance, plan.steps, at_a_time=plan.at_a_time)
        self.poison: list[Sent] = []
        self._scale = plan
        self._sender = sender
        self._kinds = cycle((_no_json, _no_status, _other_run, _no_task, _no_steps, _no_run))

    def told(self) -> str:
        """For the lines of progress."""
        return f"{super().told()}, {len(self.poison)} poison"

    def first(self, task: JsonObject, name: str) -> None:
        """Poison of the same key, or another answer."""
        count = len(self.tasks)
        if count % self._scale.poison_every == 0:
            kind, body = next(self._kinds)(task)
            self._sender.send(kind, name, body, self.poison.append)
        if count % TWO_ANSWERS_OF == 0:
            self.send("result", name, result_of(task, call=2), name)

    async def not_taken(self, wire: Wire) -> list[str]:
        """Wait until everything that was sent is taken, or put aside; what is not."""
        await asyncio.sleep(self._scale.spread_seconds)
        await self._sender.all_stand()
        ends = await asyncio.to_thread(wire.ends)
        for _ in range(int(self._scale.patience_seconds)):
            committed = await asyncio.to_thread(wire.committed)
            if committed == ends:
                return []
            await asyncio.sleep(1.0)
        return [
            f"{place}: {committed[place]} of {end} messages taken"
            for place, end in ends.items()
            if committed[place] != end
        ]


# --- poison: a kind of message, and a body that can never be taken ---


def _no_json(task: JsonObject) -> tuple[str, JsonObject | bytes]:
    return "result", b"\xff{"


def _no_status(task: JsonObject) -> tuple[str, JsonObject | bytes]:
    return "result", {**result_of(task), "status": "PERHAPS"}


def _other_run(task: JsonObject) -> tuple[str, JsonObject | bytes]:
    return "result", {**result_of(task), "run_id": "run-of-nobody"}


def _no_task(task: JsonObject) -> tuple[str, JsonObject | bytes]:
    return "result", {**result_of(task), "correlation_id": "corr-of-nobody"}


def _no_steps(task: JsonObject) -> tuple[str, JsonObject | bytes]:
    return "execution", request("run-without-steps", {"name": "x", "steps": {}}, 0)


def _no_run(task: JsonObject) -> tuple[str, JsonObject | bytes]:
    return "execution", {"workflow_plan": plan_of(AGENT, 1), "message_type": "execution_request"}


# --- the verdict ---


async def _letters(url: str) -> list[dict[str, Any]]:
    statement = "SELECT topic, partition_number, message_offset, cause FROM dead_letters"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        rows = await (await connection.execute(statement)).fetchall()
    return [dict(zip(("topic", "partition", "offset", "cause"), row, strict=True)) for row in rows]


def _letters_other_than(letters: Sequence[dict[str, Any]], poison: Sequence[Sent]) -> Iterator[str]:
    """Poison without a letter, letters without poison, letters without a cause."""
    kept = Counter((each["topic"], each["partition"], each["offset"]) for each in letters)
    sent = Counter((each.topic, each.partition, each.offset) for each in poison)
    for place, times in ((kept - sent) + (sent - kept)).items():
        yield f"{place}: {kept[place]} dead letters for {sent[place]} poison ({times} too many)"
    for each in letters:
        if not each["cause"]:
            yield f"{each['topic']} {each['offset']}: a dead letter without a cause"


def _tell(report: Report, log: Sequence[Recorded], campaign: _Shuffled) -> None:
    scrambler = campaign.scrambler
    ignored = sum(isinstance(each.event.data, LateResultIgnored) for each in log)
    report.bit("copy of a message", scrambler.copies - len(scrambler.firsts))
    report.bit("poison", len(campaign.poison))
    report.bit("second answer ignored", ignored)
    times = dict(_recorded(log))
    seconds = {
        name: times[name] - first.at for name, first in scrambler.firsts.items() if name in times
    }
    behind = {name for name in seconds if _is_behind(scrambler.firsts[name], campaign.poison)}
    begun = [each.event.meta.at for each in log]
    span = (max(begun) - min(begun)).total_seconds() if begun else 0.0
    report.figures |= {
        "executions": len(campaign.asked),
        "tasks": len(campaign.tasks),
        "messages": scrambler.copies + len(campaign.poison),
        "poison": len(campaign.poison),
        "events": len(log),
        "tasks_per_second": round(len(campaign.tasks) / span, 1) if span else 0.0,
        "seconds_from_message_to_log": {
            "behind_poison": _spread(seconds[name] for name in behind),
            "others": _spread(seconds[name] for name in seconds.keys() - behind),
        },
    }


def _recorded(log: Sequence[Recorded]) -> Iterator[tuple[str, float]]:
    """When the first of what each message asks for stood in the log (Unix seconds)."""
    names: dict[tuple[UUID, str], str] = {}
    for each in log:
        data, execution = each.event.data, each.event.execution_id
        at = each.event.meta.at.timestamp()
        if isinstance(data, Requested):
            yield f"run-{execution}", at
        elif isinstance(data, TaskDispatched):
            names[execution, data.path] = data.correlation_id
        elif isinstance(data, StepCompleted) and (execution, data.path) in names:
            yield names[execution, data.path], at


def _is_behind(message: Sent, poison: Sequence[Sent]) -> bool:
    """Whether it was sent to where poison had come shortly before."""
    return any(
        0 <= message.at - each.at <= BEHIND_SECONDS
        and (message.topic, message.partition) == (each.topic, each.partition)
        for each in poison
    )


def _spread(seconds: Iterable[float]) -> dict[str, float]:
    found = sorted(seconds)
    if not found:
        return {"messages": 0}
    return {
        "messages": len(found),
        "median": round(statistics.median(found), 3),
        "p99": round(found[int(len(found) * 0.99)], 3),
        "max": round(found[-1], 3),
    }


def _late(report: Report, plan: Plan) -> Iterator[str]:
    if not plan.timed:
        return
    told = report.figures["seconds_from_message_to_log"]
    behind, others = told["behind_poison"], told["others"]
    delay = behind["max"] - others["median"]
    if delay > DELAY_SECONDS_MAX:
        yield f"a message behind poison waited {delay:.2f} s longer than others in the median"


if __name__ == "__main__":
    main("F12", run)
