"""The table of agents' tasks, and the leases on them, on both back ends."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta

import pytest

from application.reads import AgentTaskView
from application.tasks import TaskLease
from infrastructure.database import Store
from infrastructure.event_store.queue_writes import from_microseconds
from infrastructure.projections.reads import ProjectionReads
from infrastructure.small_tables import open_small_tables
from infrastructure.task_queue import KEPT_SECONDS, StoredTaskQueue, open_task_queue
from tests.contracts import projected as told
from tests.contracts.conftest import OpenStore

pytestmark = pytest.mark.anyio


class Installation:
    """Tables filled with tasks, and processes that lease them."""

    def __init__(self, store: Store, reads: ProjectionReads, queue: StoredTaskQueue) -> None:
        self.store = store
        self.reads = reads
        self.queue = queue

    async def listed(self, status: str | None = None) -> Sequence[AgentTaskView]:
        page = await self.reads.agent_tasks(
            "default", status=status, agent=None, execution_id=None, page=1, page_size=100
        )
        return page.items

    async def let_time_pass(self, seconds: float) -> None:
        """Move every lease so far into the past."""
        tables = open_small_tables(self.store, "test")
        await tables.run(
            "UPDATE task_leases SET lease_until = lease_until - ?", (int(seconds * 1_000_000),)
        )
        await tables.aclose()


async def claim(
    queue: StoredTaskQueue, limit: int = 100, agents: Collection[str] = ("far",), worker: str = "w"
) -> Sequence[TaskLease]:
    return await queue.claim("default", agents, worker, limit=limit, lease_seconds=30)


@pytest.fixture
async def installation(store: Store, ledger_url: str) -> AsyncIterator[Installation]:
    """Six executions that ask `far` and one that asks `away`; four tasks of `far` are open."""
    stories = told.agent_stories()
    first = stories[0]
    more = [told.as_another(first, 950 + number, priority=number) for number in (7, 1, 4)]
    await told.append_mixed(store, [*stories, *more])
    tables = told.projection_store(store, ledger_url)
    told.catch_up(tables)
    reads = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)
    queue = open_task_queue(store)
    yield Installation(store, reads, queue)
    await queue.aclose()
    tables.close()


async def test_rows_say_how_each_task_ended(installation: Installation) -> None:
    tasks = await installation.listed()
    statuses = [task.status for task in tasks]
    assert statuses == sorted(statuses, key=["OPEN", "DONE", "TIMED_OUT", "CANCELLED"].index)
    assert {status: statuses.count(status) for status in statuses} == {
        "OPEN": 4,
        "DONE": 3,
        "TIMED_OUT": 1,
        "CANCELLED": 1,
    }
    assert all((task.ended_at is None) == (task.status == "OPEN") for task in tasks[:4])
    assert {(task.agent_name, task.transport) for task in tasks} == {
        ("far", "pull"),
        ("away", "kafka"),
    }


async def test_a_claim_takes_by_priority_and_leaves_nothing_to_the_next(
    installation: Installation, open_ledger: OpenStore
) -> None:
    other = open_task_queue(await open_ledger(worker="w2"))
    mine = await claim(installation.queue, 2)
    rest = await claim(other, worker="v")
    order = {task.task_id + task.run_id: task.priority for task in await installation.listed()}
    taken = [order[lease.task_id + lease.run_id] for lease in (*mine, *rest)]
    assert taken == sorted(taken)
    assert (len(mine), len(rest)) == (2, 2)
    assert await claim(other) == []
    epochs = [lease.epoch for lease in (*mine, *rest)]
    assert len(set(epochs)) == 4
    held = [task for task in await installation.listed("OPEN") if task.worker_id == "v"]
    assert {(task.delivery, task.lease_until) for task in held} == {(1, rest[0].lease_until)}
    await other.aclose()


async def test_only_the_agents_named_of_the_workspace_are_served(
    installation: Installation,
) -> None:
    queue = installation.queue
    assert await claim(queue, agents=("away", "nobody")) == []
    assert await queue.claim("other", ["far"], "w", limit=9, lease_seconds=30) == []
    assert await queue.offered("default", ["far", "away"], 3) == {"far": 3, "away": 0}
    assert len(await claim(queue, agents=("nobody", "far"))) == 4
    assert await queue.offered("default", ["far"], 3) == {"far": 0}


async def test_a_lapsed_lease_is_given_on_with_another_epoch(installation: Installation) -> None:
    queue = installation.queue
    (first,) = await claim(queue, 1)
    await installation.let_time_pass(31)
    again = {lease.run_id: lease for lease in await claim(queue, worker="other")}
    taken = again[first.run_id]
    assert (taken.delivery, taken.worker_id) == (2, "other")
    assert taken.epoch > first.epoch
    assert await queue.extend(first, 60) is None
    until = await queue.extend(taken, 600)
    assert until is not None
    assert until - taken.lease_until > timedelta(seconds=500)
    (found,) = (x for x in await queue.leases("default", first.task_id) if x.run_id == first.run_id)
    assert (found.epoch, found.lease_until) == (taken.epoch, until)
    assert await queue.leases("other", first.task_id) == []


async def test_a_lease_that_is_given_back_is_free_at_once_and_was_no_delivery(
    installation: Installation,
) -> None:
    queue = installation.queue
    mine = await claim(queue, 3)
    await queue.give_back(mine[1:])
    again = {lease.run_id: lease for lease in await claim(queue, worker="other")}
    assert mine[0].run_id not in again
    assert {lease.run_id for lease in mine[1:]} < set(again)
    assert {lease.delivery for lease in again.values()} == {1}
    await installation.let_time_pass(31)
    later = await claim(queue)
    await queue.give_back(later)
    assert [lease.delivery for lease in await claim(queue)] == [2] * 4


async def test_only_ones_own_lease_is_given_back(installation: Installation) -> None:
    """Not another worker's, who has the task since, and not what has ended."""
    queue = installation.queue
    first, second = await claim(queue, 2)
    await queue.settle(second)
    await installation.let_time_pass(31)
    taken = {lease.run_id: lease for lease in await claim(queue, worker="other")}[first.run_id]
    await queue.give_back([first, second])
    await queue.give_back([])
    assert await claim(queue) == []
    (found,) = (x for x in await queue.leases("default", first.task_id) if x.run_id == first.run_id)
    assert found == taken


async def test_what_is_settled_is_neither_given_out_nor_kept_for_ever(
    installation: Installation,
) -> None:
    queue = installation.queue
    (lease,) = await claim(queue, 1)
    await queue.settle(lease)
    await installation.let_time_pass(31)
    assert lease.run_id not in {each.run_id for each in await claim(queue)}
    assert await queue.extend(lease, 60) is None
    await installation.let_time_pass(KEPT_SECONDS + 60)
    assert await queue.forget() == 0  # the tables still call it open
    tables = open_small_tables(installation.store, "test")
    await tables.run("UPDATE agent_tasks_v1 SET status = 'DONE' WHERE run_id = ?", (lease.run_id,))
    await tables.aclose()
    assert await queue.forget() == 1
    assert await queue.forget() == 0


async def test_times_are_those_of_the_store(installation: Installation) -> None:
    before = installation.store.clock.now()
    (lease,) = await claim(installation.queue, 1)
    after = installation.store.clock.now()
    assert before <= lease.lease_until - timedelta(seconds=30) <= after
    assert lease.lease_until > from_microseconds(0)


async def test_what_may_be_taken_is_found_by_its_index(installation: Installation) -> None:
    """However many tasks have ended."""
    query = (
        "SELECT task_id FROM agent_tasks_v1 WHERE workspace_id = 'default' AND agent_name = 'far'"
        " AND status = 'OPEN' AND transport = 'pull' ORDER BY priority, dispatched_at LIMIT 1"
    )
    with installation.store.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")
            connection.exec_driver_sql("SET enable_sort = off")
            plan = connection.exec_driver_sql(f"EXPLAIN {query}").scalars()
        else:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").scalars(3)
        assert "agent_tasks_v1_offered_g0" in " ".join(map(str, plan))
