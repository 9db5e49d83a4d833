"""What everybody who asked must find: each execution once, each of its steps with one outcome."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final
from uuid import UUID

import psycopg

from domain.events import Cancelled, Completed, Failed, Recorded, Requested, StepCompleted
from tests.faults.report import Report

ENDS: Final = (Cancelled, Completed, Failed)
ENDED: Final = """
SELECT count(*) FROM workflow_runs WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED')"""
LOOK_SECONDS: Final = 0.2


def other_than_once(log: Sequence[Recorded], asked: Collection[UUID], steps: int) -> Iterator[str]:
    """Executions that nobody asked for, or that are not there; outcomes that are missing or come
    twice. All are to complete, with so many steps.
    """
    begun = Counter(_executions(log, Requested))
    ended = Counter(
        each.event.execution_id for each in log if isinstance(each.event.data, Completed)
    )
    outcomes = Counter(
        (each.event.execution_id, each.event.data.path)
        for each in log
        if isinstance(each.event.data, StepCompleted)
    )
    of_each = Counter(execution for execution, _ in outcomes)
    for execution in begun.keys() - set(asked):
        yield f"{execution} is there, and nobody asked for it"
    for execution in asked:
        if begun[execution] != 1 or ended[execution] != 1:
            yield f"{execution} was begun {begun[execution]} and ended {ended[execution]} times"
        if of_each[execution] != steps:
            yield f"{execution} has outcomes of {of_each[execution]} steps, not of {steps}"
    for (execution, path), times in outcomes.items():
        if times > 1:
            yield f"{execution} {path} has {times} outcomes"


def _executions(log: Sequence[Recorded], kind: type) -> Iterator[UUID]:
    for each in log:
        if isinstance(each.event.data, kind):
            yield each.event.execution_id


async def count_ended(url: str) -> int:
    """How many executions are over, as the tables tell."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute(ENDED)).fetchone()
        return int(row[0]) if row else 0


async def all_ended(url: str, wanted: int, patience_seconds: float, report: Report) -> None:
    """Return once so many are over, or when none ended for so long: the judges say what of it."""
    ended, waited = -1, 0.0
    report.now(lambda: f"{ended} of {wanted} executions ended")
    while ended < wanted and waited < patience_seconds:
        before, ended = ended, await count_ended(url)
        waited = waited + LOOK_SECONDS if ended == before else 0.0
        await asyncio.sleep(LOOK_SECONDS)
