"""Executions that nobody looks after are found on both back ends; those that wait are not."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from application.ledger import Ledger
from application.ports import Append, Claim, Enqueue, QueueStatistics
from application.stuck import StuckExecutions, why_not_moving
from infrastructure.clock import DatabaseClock
from infrastructure.database import Store
from infrastructure.projections.reads import ProjectionReads
from tests.builders import Run, linear, task, workflow
from tests.contracts import projected as told
from tests.contracts.appends import FAR_AHEAD, LONG_AGO
from tests.contracts.conftest import OpenStore

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 1.0


class Later(DatabaseClock):
    """The clock of a store, a while ahead."""

    def __init__(self, clock: DatabaseClock, ahead: timedelta) -> None:
        super().__init__(0)
        self._clock = clock
        self._ahead = ahead

    def now(self) -> datetime:
        return self._clock.now() + self._ahead


def busy() -> Run:
    """An execution in the middle of a step."""
    run = Run(linear(2))
    run.go()
    return run


def asking() -> Run:
    """An execution that waits for a person."""
    run = Run(workflow({"ask": task()}))
    run.go()
    return run


async def put(store: Store, run: Run, number: int, *, ready_at: datetime, lease: bool) -> Claim:
    """Store it with a row in the queue."""
    events = told.as_another(run.events, number)
    queue = Enqueue("default", 5, ready_at, lease)
    done = await store.log.append(Append(events[0].execution_id, events, queue))
    return Claim(events[0].execution_id, done.epoch or 0, events[-1].version)


async def test_what_should_move_and_does_not_is_found(
    open_ledger: OpenStore, ledger_url: str
) -> None:
    silent = await open_ledger(worker="silent", lease_seconds=0.5)
    alive = await open_ledger(worker="alive", lease_seconds=600.0)
    expected: dict[UUID, str] = {}

    lost = told.as_another(busy().events, 1)
    await alive.log.append(Append(lost[0].execution_id, lost))
    expected[lost[0].execution_id] = "no_queue_row"
    lapsed = await put(silent, busy(), 2, ready_at=LONG_AGO, lease=True)
    expected[lapsed.execution_id] = "lease_lapsed"
    waiting = await put(alive, busy(), 3, ready_at=LONG_AGO, lease=False)
    expected[waiting.execution_id] = "not_taken"
    dropped = await put(alive, busy(), 4, ready_at=LONG_AGO, lease=True)
    assert await alive.queue.hand_back(dropped, None)
    expected[dropped.execution_id] = "nothing_due"

    await put(alive, busy(), 5, ready_at=LONG_AGO, lease=True)
    await put(alive, busy(), 6, ready_at=FAR_AHEAD, lease=False)
    asked = await put(alive, asking(), 7, ready_at=LONG_AGO, lease=True)
    assert await alive.queue.hand_back(asked, None)
    ended = busy()
    tables = told.projection_store(alive, ledger_url)
    first = told.as_another(ended.events, 8)
    await alive.log.append(Append(first[0].execution_id, first))
    told.catch_up(tables)
    rest = told.as_another(ended.succeed_all().events, 8)[len(first) :]
    await alive.log.append(Append(first[0].execution_id, rest))

    clock = Later(alive.clock, timedelta(seconds=10))
    reads = ProjectionReads(alive.engine, tables, clock.now, threads=alive.query_threads)
    ledger = Ledger(alive.queries, clock, uuid7, 1_000_000)
    stuck = await StuckExecutions(reads, ledger, LEASE_SECONDS).find("default")
    tables.close()

    assert {UUID(each.execution_id): each.why for each in stuck} == expected
    assert all(each.advice for each in stuck)
    assert await StuckExecutions(reads, ledger, LEASE_SECONDS).find("other") == []


async def test_nothing_is_stuck_before_its_time(open_ledger: OpenStore, ledger_url: str) -> None:
    store = await open_ledger()
    await put(store, busy(), 1, ready_at=LONG_AGO, lease=True)
    tables = told.projection_store(store, ledger_url)
    told.catch_up(tables)
    reads = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)
    ledger = Ledger(store.queries, store.clock, uuid7, 1_000_000)
    assert await StuckExecutions(reads, ledger, LEASE_SECONDS).find("default") == []
    tables.close()


async def test_the_queue_tells_who_works(open_ledger: OpenStore) -> None:
    one = await open_ledger(worker="one", lease_seconds=600.0)
    two = await open_ledger(worker="two", lease_seconds=600.0)
    for number, store in enumerate((one, one, two)):
        await put(store, busy(), number, ready_at=LONG_AGO, lease=True)
    await put(one, busy(), 3, ready_at=LONG_AGO, lease=False)
    seen = await one.queue.statistics()
    assert (seen.depth, seen.ready, seen.leased, seen.lapsed, seen.workers) == (4, 1, 3, 0, 2)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (QueueStatistics(3, 2, 1, 0, 1, 4.0), None),
        (QueueStatistics(3, 2, 0, 0, 0, 40.0), "2 executions are ready, the oldest for 40 s, and"),
        (QueueStatistics(3, 1, 2, 0, 1, 40.0), "1 execution is ready, the oldest for 40 s; 1 work"),
    ],
)
def test_it_says_why_the_queue_does_not_get_shorter(
    figures: QueueStatistics, said: str | None
) -> None:
    sentence = why_not_moving(figures)
    assert sentence == said if said is None else str(sentence).startswith(said)
