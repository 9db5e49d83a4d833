"""Leases over the open tasks of pull agents, as both real back ends keep them beside the tables.

What they must do is what `tests/contracts/test_agent_tasks.py` asks of the real ones;
`test_task_leases.py` compares them with those of SQLite, call by call.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from msgspec import structs

from application.ports import Clock
from application.tasks import TaskLease
from infrastructure.event_store.queue_writes import from_microseconds, to_microseconds
from infrastructure.projections.agent_tasks import OPEN, AgentTask
from infrastructure.task_queue import KEPT_SECONDS, MICROSECONDS
from tests.simulation.line import Line
from tests.simulation.projector import ProjectedTables

PULL: Final = "pull"
TaskKey: TypeAlias = tuple[str, int, str, int]
"""Run id, attempt, path and number of the try."""


def key_of(task: TaskLease | AgentTask) -> TaskKey:
    """Which try it is."""
    return task.run_id, task.attempt, task.path, task.try_no


class TaskLeases:
    """Every method is one transaction; times are microseconds since 1970."""

    def __init__(self, tables: ProjectedTables, draw_epoch: Callable[[], int]) -> None:
        self.newest: dict[TaskKey, TaskLease] = {}
        self._tables = tables
        self._draw_epoch = draw_epoch

    def tasks(self) -> Iterator[AgentTask]:
        """The rows of `agent_tasks`."""
        for row in self._tables.rows["agent_tasks"].values():
            if isinstance(row, AgentTask):
                yield row

    def claim(
        self,
        workspace_id: str,
        agents: Collection[str],
        worker_id: str,
        limit: int,
        now: int,
        until: int,
    ) -> Sequence[TaskLease]:
        """Lease what is offered, by priority and age."""
        offers = [each for name in agents for each in self._offers(workspace_id, name, now)]
        offers.sort(key=lambda each: (each.priority, each.dispatched_at))
        return [self._lease(each, worker_id, until) for each in offers[:limit]]

    def offered(self, workspace_id: str, agent: str, limit: int, now: int) -> int:
        """How many tasks of the agent a claim would find."""
        return min(limit, len(self._offers(workspace_id, agent, now)))

    def _offers(self, workspace_id: str, agent: str, now: int) -> list[AgentTask]:
        return [
            each
            for each in self.tasks()
            if each.status == OPEN
            and each.agent_name == agent
            and each.transport == PULL
            and each.workspace_id == workspace_id
            and self._free(each, now)
        ]

    def _free(self, task: AgentTask, now: int) -> bool:
        lease = self.newest.get(key_of(task))
        return lease is None or (not lease.settled and to_microseconds(lease.lease_until) <= now)

    def _lease(self, task: AgentTask, worker_id: str, until: int) -> TaskLease:
        key = key_of(task)
        before = self.newest.get(key)
        self.newest[key] = lease = TaskLease(
            workspace_id=task.workspace_id,
            run_id=task.run_id,
            path=task.path,
            attempt=task.attempt,
            try_no=task.try_no,
            task_id=task.task_id,
            correlation_id=task.correlation_id,
            worker_id=worker_id,
            epoch=self._draw_epoch(),
            lease_until=from_microseconds(until),
            delivery=1 if before is None else before.delivery + 1,
            settled=False,
        )
        return lease

    def leases(self, workspace_id: str, task_id: str) -> Sequence[TaskLease]:
        """The newest lease on each task of that id."""
        return [
            each
            for each in self.newest.values()
            if each.task_id == task_id and each.workspace_id == workspace_id
        ]

    def extend(self, lease: TaskLease, until: int) -> bool:
        """Let it hold longer; False when it is another's, or settled."""
        held = self.newest.get(key_of(lease))
        if held is None or held.settled or held.epoch != lease.epoch:
            return False
        self.newest[key_of(lease)] = structs.replace(held, lease_until=from_microseconds(until))
        return True

    def give_back(self, leases: Collection[TaskLease], now: int) -> None:
        """Let those that are still these end now, as if they had been no deliveries."""
        for lease in leases:
            held = self.newest.get(key_of(lease))
            if held is not None and not held.settled and held.epoch == lease.epoch:
                self.newest[key_of(lease)] = structs.replace(
                    held, lease_until=from_microseconds(now), delivery=held.delivery - 1
                )

    def settle(self, lease: TaskLease, now: int) -> None:
        """Nobody is given the task any more, whoever has it."""
        held = self.newest.get(key_of(lease))
        if held is not None:
            self.newest[key_of(lease)] = structs.replace(
                held, settled=True, lease_until=from_microseconds(now)
            )

    def forget(self, now: int) -> int:
        """Drop old leases of tasks that the tables do not call open."""
        open_keys = {key_of(each) for each in self.tasks() if each.status == OPEN}
        before = from_microseconds(now - KEPT_SECONDS * MICROSECONDS)
        old = [
            key
            for key, lease in self.newest.items()
            if lease.lease_until <= before and key not in open_keys
        ]
        for key in old:
            del self.newest[key]
        return len(old)


class LeaseQueue:
    """The TaskQueue and TaskKnown of one process, whose clock the leases go by."""

    def __init__(self, leases: TaskLeases, line: Line, clock: Clock) -> None:
        self._leases = leases
        self._line = line
        self._clock = clock

    def _now(self) -> int:
        return to_microseconds(self._clock.now())

    async def claim(
        self,
        workspace_id: str,
        agents: Collection[str],
        worker_id: str,
        *,
        limit: int,
        lease_seconds: float,
    ) -> Sequence[TaskLease]:
        now = self._now()
        until = now + int(lease_seconds * MICROSECONDS)
        return await self._line.call(
            lambda: self._leases.claim(workspace_id, agents, worker_id, limit, now, until)
        )

    async def offered(
        self, workspace_id: str, agents: Collection[str], limit: int
    ) -> Mapping[str, int]:
        now = self._now()
        return await self._line.call(
            lambda: {
                name: self._leases.offered(workspace_id, name, limit, now)
                for name in sorted(agents)
            }
        )

    async def leases(self, workspace_id: str, task_id: str) -> Sequence[TaskLease]:
        return await self._line.call(lambda: self._leases.leases(workspace_id, task_id))

    async def extend(self, lease: TaskLease, lease_seconds: float) -> datetime | None:
        until = self._now() + int(lease_seconds * MICROSECONDS)
        held = await self._line.call(lambda: self._leases.extend(lease, until))
        return from_microseconds(until) if held else None

    async def give_back(self, leases: Collection[TaskLease]) -> None:
        now = self._now()
        await self._line.call(lambda: self._leases.give_back(leases, now))

    async def settle(self, lease: TaskLease) -> None:
        now = self._now()
        await self._line.call(lambda: self._leases.settle(lease, now))

    async def forget(self) -> int:
        now = self._now()
        return await self._line.call(lambda: self._leases.forget(now))

    def hurry(self) -> None:
        """The simulated projector has a pace of its own."""

    async def agent_task(self, workspace_id: str, task_id: str) -> object | None:
        return await self._line.call(
            lambda: next(
                (
                    each
                    for each in self._leases.tasks()
                    if each.task_id == task_id and each.workspace_id == workspace_id
                ),
                None,
            )
        )
