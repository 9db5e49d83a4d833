"""The leases that the simulation has are those of both back ends, call by call."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Any

import pytest
from msgspec import structs

from application.tasks import TaskLease, TaskQueue
from infrastructure.clock import DatabaseClock
from infrastructure.database import Store
from infrastructure.event_store.queue_writes import from_microseconds, to_microseconds
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.projections.folding import States
from infrastructure.small_tables import SmallTables, open_small_tables
from infrastructure.task_queue import KEPT_SECONDS, open_task_queue
from tests.builders import START
from tests.contracts import projected as told
from tests.simulation.line import Life, Line, Weather
from tests.simulation.projector import ProjectedTables, rows_of
from tests.simulation.task_leases import LeaseQueue, TaskLeases

pytestmark = pytest.mark.anyio

CALLS = 400
Call = Callable[[TaskQueue, "Known"], Awaitable[object]]


class HandClock(DatabaseClock):
    """Goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__(0)
        self.microseconds = to_microseconds(START)

    def now(self) -> datetime:
        return from_microseconds(self.microseconds)


class Known:
    """The leases that one of the two has given, numbered in their order: epochs are its own."""

    def __init__(self) -> None:
        self.given: list[TaskLease] = []

    def numbered(self, leases: Sequence[TaskLease]) -> list[tuple[int, TaskLease]]:
        """The same without epochs, which number lease had that of each."""
        epochs = [each.epoch for each in self.given]
        return sorted(
            (epochs.index(lease.epoch), structs.replace(lease, epoch=0)) for lease in leases
        )


def a_call(chance: Random, given: int) -> Call:
    """Anything that is asked of leases; of `given` leases any may be meant, also an old one."""
    which = chance.randrange(given) if given else -1
    workspace = chance.choice(("default", "default", "other"))
    agents = chance.choice((["far"], ["far", "away"], ["nobody"]))
    limit, seconds = chance.randint(1, 3), chance.choice((10, 30, 90))
    kinds = ("claim", "claim", "give_back", "extend", "settle", "leases", "offered", "forget")
    kind = chance.choice(kinds)

    async def call(queue: TaskQueue, known: Known) -> object:
        if kind == "claim":
            leases = await queue.claim(workspace, agents, "w", limit=limit, lease_seconds=seconds)
            known.given += leases
            return known.numbered(leases)
        if kind == "offered":
            return await queue.offered(workspace, agents, limit)
        if kind == "forget":
            return await queue.forget()
        if which < 0:
            return None
        lease = known.given[which]
        if kind == "extend":
            return await queue.extend(lease, seconds)
        if kind == "give_back":
            return await queue.give_back(known.given[which : which + limit])
        if kind == "settle":
            return await queue.settle(lease)
        return known.numbered(await queue.leases(workspace, lease.task_id))

    return call


class Ending:
    """Lets a task end in the tables of both."""

    def __init__(self, tables: SmallTables, simulated: ProjectedTables) -> None:
        self._tables = tables
        self._rows = simulated.rows["agent_tasks"]

    async def end(self, chance: Random) -> None:
        key: Any = chance.choice(sorted(self._rows))
        row: Any = self._rows[key]
        self._rows[key] = structs.replace(row, status="DONE")
        await self._tables.run(
            "UPDATE agent_tasks_v1 SET status = 'DONE' WHERE run_id = ?", (row.run_id,)
        )


@pytest.mark.parametrize("seed", range(3))
async def test_every_answer_is_the_same(store: Store, ledger_url: str, seed: int) -> None:
    chance, clock = Random(seed), HandClock()
    first = told.agent_stories()[0]
    stories = [told.as_another(first, 950 + number, priority=number) for number in range(9)]
    await told.append_mixed(store, [*told.agent_stories()[1:], *stories])
    stored = told.projection_store(store, ledger_url)
    told.catch_up(stored)
    stored.close()
    tables = ProjectedTables()
    states = States(lambda _: (), filling=PROJECTIONS)
    for _ in tables.begin(rows_of(states, await store.log.read_all(limit=1_000)), 1):
        continue
    epochs = iter(range(1, 1_000_000))
    fair = Weather(Random(0))
    fair.stormy = False
    leases = TaskLeases(tables, lambda: next(epochs))
    simulated = LeaseQueue(leases, Line(Life(), fair), clock)
    real = open_task_queue(replace(store, clock=clock))
    small = open_small_tables(store, "test")
    ending, both = Ending(small, tables), (Known(), Known())
    for _ in range(CALLS):
        call = a_call(chance, len(both[0].given))
        assert await call(real, both[0]) == await call(simulated, both[1])
        clock.microseconds += round(chance.choice((0, 1, 11, 31)) * 1_000_000)
        if chance.random() < 0.02:
            clock.microseconds += (KEPT_SECONDS + 1) * 1_000_000
        if chance.random() < 0.02:
            await ending.end(chance)
    assert max(each.delivery for each in both[0].given) > 3
    await real.aclose()
    await small.aclose()
