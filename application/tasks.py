"""What workers that ask for work do: take tasks of agents, keep them, send back what came of them.

A worker holds a task by a lease with a number, its epoch. The lease that lapses is given to the
next one who asks, with another epoch; what the worker before sends then is refused.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from msgspec import Struct, structs

from application.agent_directory import AgentDirectory, unknown_agent
from application.agent_results import AgentResults, TaskAnswer
from application.ledger import Ledger
from application.ports import ChangeFeed, Clock, Overloaded, StoreUnavailable
from application.run import step_key
from application.task_bell import TaskBell
from application.workflows import Workflows
from domain.agent_names import PULL
from domain.definition import declared_at, step_id_of
from domain.dispatching import TaskResult, awaits_result, dispatched_at
from domain.errors import ConcurrentUpdate, Invalid, LeaseLost, NotFound, NotReady, TaskEnded
from domain.execution_state import ExecutionState
from domain.json_values import Json, pointer_join
from domain.mistakes import Mistake
from domain.outcomes import DELIVERIES_MAX

AGENTS_MAX: Final = 100
TASKS_MAX: Final = 100
WAIT_SECONDS_MAX: Final = 30
LEASE_SECONDS_MIN: Final = 5
LEASE_SECONDS_MAX: Final = 3_600
LEASE_SECONDS: Final = 30
WORKER_CHARACTERS_MAX: Final = 200
MESSAGE_CHARACTERS_MAX: Final = 10_000
TIDY_SECONDS: Final = 60.0
"""How often leases of ended tasks are looked for."""


class TaskLease(Struct, frozen=True, kw_only=True):
    """A task in the hands of a worker; `delivery` counts hand-overs from 1.

    One that was given back unseen was none of them. `settled` says that the task has ended in the
    log.
    """

    workspace_id: str
    run_id: str
    path: str
    attempt: int
    try_no: int
    task_id: str
    correlation_id: str
    worker_id: str
    epoch: int
    lease_until: datetime
    delivery: int
    settled: bool


class TaskQueue(Protocol):
    """Leases over the open tasks of agents. Every call may raise StoreUnavailable, Overloaded."""

    async def claim(
        self,
        workspace_id: str,
        agents: Collection[str],
        worker_id: str,
        *,
        limit: int,
        lease_seconds: float,
    ) -> Sequence[TaskLease]:
        """Lease open tasks that nobody holds, by priority and age, each with a new epoch."""

    async def offered(
        self, workspace_id: str, agents: Collection[str], limit: int
    ) -> Mapping[str, int]:
        """By agent, how many a claim would find now; `limit` stands for more."""

    async def leases(self, workspace_id: str, task_id: str) -> Sequence[TaskLease]:
        """The newest lease on each task of that id, of which there is hardly ever a second one."""

    async def extend(self, lease: TaskLease, lease_seconds: float) -> datetime | None:
        """Until when the lease holds now; None when it is another's, or settled."""

    async def give_back(self, leases: Collection[TaskLease]) -> None:
        """Nobody was handed these tasks: the leases end now, and were no deliveries.

        One that has become another's since, or is settled, stays as it is.
        """

    async def settle(self, lease: TaskLease) -> None:
        """The task has ended: nobody is given it any more, whatever the tables say."""

    async def forget(self) -> int:
        """Drop old leases of tasks that have ended; how many these were."""


class TaskKnown(Protocol):
    """Looks tasks up in the tables."""

    def hurry(self) -> None:
        """Somebody waits for what was stored a moment ago: let the tables follow at once."""

    async def agent_task(self, workspace_id: str, task_id: str) -> object | None:
        """The task, None when there is none of that id."""


class Ask(Struct, frozen=True, kw_only=True):
    """What a worker asks for."""

    agents: tuple[str, ...]
    worker_id: str
    max_tasks: int = 1
    wait_seconds: float = 0
    lease_seconds: float = LEASE_SECONDS


class OfferedTask(Struct, frozen=True, kw_only=True):
    """A task as a worker gets it.

    `epoch` goes into every request about it. `idempotency_key` is the same for all deliveries.
    """

    task_id: str
    correlation_id: str
    execution_id: str
    run_id: str
    workflow_name: str
    path: str
    step_id: str
    agent_name: str
    attempt: int
    try_no: int
    delivery: int
    epoch: int
    idempotency_key: str
    input_data: Json
    lease_until: datetime
    deadline_at: datetime | None


class TaskSettled(NamedTuple):
    """What became of a result."""

    lease: TaskLease
    answer: TaskAnswer


async def _stays() -> bool:
    return False


class Tasks:
    """The use cases."""

    def __init__(
        self,
        queue: TaskQueue,
        known: TaskKnown,
        ledger: Ledger,
        workflows: Workflows,
        agents: AgentDirectory,
        results: AgentResults,
        feed: ChangeFeed,
    ) -> None:
        self._queue = queue
        self._known = known
        self._ledger = ledger
        self._clock: Clock = ledger.clock
        self._workflows = workflows
        self._agents = agents
        self._results = results
        self._bell = TaskBell(queue.offered, feed, ledger.clock, known.hurry)
        self._tidy_at = self._clock.now()

    def close(self) -> None:
        """Answer those who wait for tasks; no new wait begins."""
        self._bell.close()

    async def poll(
        self, workspace_id: str, ask: Ask, gone: Callable[[], Awaitable[bool]] = _stays
    ) -> Sequence[OfferedTask]:
        """Tasks for the worker, as soon as there are any; none when the wait is over.

        `gone` tells whether the asker has left, who then gets nothing. Raises Invalid for agents
        that are unknown or get their work another way, NotReady when the store does not answer.
        """
        agents = tuple(dict.fromkeys(ask.agents))
        until = self._clock.now() + timedelta(seconds=ask.wait_seconds)
        await self._tidy()
        checked = False
        while True:
            found = await self._take(workspace_id, agents, ask)
            if found:
                return found
            if not checked:
                await self._check(workspace_id, ask.agents)
                checked = True
            if self._clock.now() >= until or self._bell.closed:
                return ()
            await self._bell.wait(workspace_id, agents, until)
            if await gone():
                return ()

    async def heartbeat(
        self, workspace_id: str, task_id: str, epoch: int, lease_seconds: float = LEASE_SECONDS
    ) -> TaskLease:
        """Keep a task for longer. Raises NotFound, LeaseLost, TaskEnded."""
        lease = await self._held(workspace_id, task_id, epoch)
        if await self._awaited(lease) is None:
            raise await self._ended(lease)
        until = await self._queue.extend(lease, lease_seconds)
        if until is None:
            raise _lost(task_id)
        return structs.replace(lease, lease_until=until)

    async def progress(self, workspace_id: str, task_id: str, epoch: int, value: Json) -> TaskLease:
        """Say how far a task is. Raises NotFound, LeaseLost, TaskEnded, Invalid."""
        lease = await self._held(workspace_id, task_id, epoch)
        if not await self._results.progress(
            workspace_id, lease.run_id, lease.correlation_id, value
        ):
            raise await self._ended(lease)
        return lease

    async def complete(
        self, workspace_id: str, task_id: str, epoch: int, output: Json
    ) -> TaskSettled:
        """The task is done. Raises NotFound, LeaseLost, Invalid."""
        lease = await self._held(workspace_id, task_id, epoch)
        return await self._record(
            lease, TaskResult(correlation_id=lease.correlation_id, output=output)
        )

    async def fail(
        self,
        workspace_id: str,
        task_id: str,
        epoch: int,
        *,
        code: str,
        message: str,
        error_class: str,
        retryable: bool,
        output: Json,
    ) -> TaskSettled:
        """The task cannot be done. Raises NotFound, LeaseLost, Invalid."""
        lease = await self._held(workspace_id, task_id, epoch)
        return await self._record(
            lease,
            TaskResult(
                correlation_id=lease.correlation_id,
                output=output,
                error_class=error_class,
                code=code,
                message=message,
                retryable=retryable,
            ),
        )

    # --- taking ---

    async def _take(
        self, workspace_id: str, agents: Collection[str], ask: Ask
    ) -> list[OfferedTask]:
        leases = await self._queue.claim(
            workspace_id,
            agents,
            ask.worker_id,
            limit=ask.max_tasks,
            lease_seconds=ask.lease_seconds,
        )
        handed = await asyncio.gather(*map(self._hand_out, leases), return_exceptions=True)
        offered = [each for each in handed if isinstance(each, OfferedTask)]
        errors = [each for each in handed if isinstance(each, BaseException)]
        # What nobody foresaw is told first. The lease of its task is left to lapse, so that the
        # tasks behind it are got at meanwhile.
        errors.sort(key=lambda each: isinstance(each, NotReady))
        fails = bool(errors) and not (offered and isinstance(errors[0], NotReady))
        free = (NotReady, OfferedTask) if fails else NotReady
        await self._give_back(
            [lease for lease, each in zip(leases, handed, strict=True) if isinstance(each, free)]
        )
        if fails:
            raise errors[0]
        return offered

    async def _give_back(self, leases: Collection[TaskLease]) -> None:
        if leases:
            # While the store is away they lapse in their time, and count as deliveries.
            with suppress(StoreUnavailable, Overloaded):
                await self._queue.give_back(leases)

    async def _hand_out(self, lease: TaskLease) -> OfferedTask | None:
        """What the worker gets; None when there is nothing to do any more."""
        if lease.delivery > DELIVERIES_MAX:
            with suppress(ConcurrentUpdate, NotReady):  # again when this lease lapses
                await self._record(lease, _given_up(lease))
            return None
        state = await self._awaited(lease)
        if state is None:  # it ended a moment ago, and the tables do not know yet
            await self._settle(lease)
            return None
        return await self._offer(lease, state)

    async def _offer(self, lease: TaskLease, state: ExecutionState) -> OfferedTask:
        step = state.steps[lease.path]
        definition = await self._workflows.definition(state)
        assert step.dispatched is not None, "who is awaited was sent"  # noqa: S101 - a slip of ours
        return OfferedTask(
            task_id=lease.task_id,
            correlation_id=lease.correlation_id,
            execution_id=str(state.id),
            run_id=lease.run_id,
            workflow_name=state.workflow_name,
            path=lease.path,
            step_id=step_id_of(lease.path),
            agent_name=step.dispatched.agent,
            attempt=step.attempt,
            try_no=step.try_no,
            delivery=lease.delivery,
            epoch=lease.epoch,
            idempotency_key=step_key(state, lease.path, declared_at(definition, lease.path)),
            input_data=step.input,
            lease_until=lease.lease_until,
            deadline_at=step.deadline_at,
        )

    async def _check(self, workspace_id: str, agents: Sequence[str]) -> None:
        transports = await self._agents.transports(workspace_id, agents)
        mistakes = []
        for place, name in enumerate(agents):
            transport = transports.get(name)
            pointer = pointer_join("", "agents", place)
            if transport is None:
                mistakes.append(Mistake(pointer, "unknown_agent", unknown_agent(name)))
            elif transport != PULL:
                message = (
                    f"The agent {name!r} gets its work by {transport}; to ask for it, set its "
                    f"transport to {PULL} with PUT /api/v1/agents/{name}."
                )
                mistakes.append(Mistake(pointer, "wrong_transport", message))
        if mistakes:
            raise Invalid(mistakes[0].message, mistakes)

    # --- holding ---

    async def _held(self, workspace_id: str, task_id: str, epoch: int) -> TaskLease:
        """The lease of that epoch."""
        leases = await self._queue.leases(workspace_id, task_id)
        found = next((each for each in leases if each.epoch == epoch), None)
        if found is not None:
            return found
        if not leases and await self._known.agent_task(workspace_id, task_id) is None:
            raise NotFound(
                f"There is no task {task_id[:200]!r}; send its id back as POST /api/v1/tasks/poll "
                "gave it."
            )
        raise _lost(task_id)

    async def _awaited(self, lease: TaskLease) -> ExecutionState | None:
        """The execution, while it waits for the result of this task."""
        state = (await self._ledger.find(lease.workspace_id, lease.run_id)).state
        path = dispatched_at(state, lease.correlation_id)
        return state if path == lease.path and awaits_result(state, path) else None

    async def _ended(self, lease: TaskLease) -> TaskEnded:
        await self._settle(lease)
        return TaskEnded(
            f"Task {lease.task_id} has ended: it has a result, its time was over, or the execution "
            "was cancelled. Stop working on it."
        )

    async def _record(self, lease: TaskLease, result: TaskResult) -> TaskSettled:
        answer = await self._results.record(lease.workspace_id, lease.run_id, lease.task_id, result)
        await self._settle(lease)
        return TaskSettled(lease, answer)

    async def _settle(self, lease: TaskLease) -> None:
        # Without it the lease lapses, and the next claim finds that the task has ended.
        with suppress(StoreUnavailable, Overloaded):
            await self._queue.settle(lease)

    async def _tidy(self) -> None:
        now = self._clock.now()
        if now >= self._tidy_at:
            self._tidy_at = now + timedelta(seconds=TIDY_SECONDS)
            await self._queue.forget()


def _given_up(lease: TaskLease) -> TaskResult:
    message = (
        f"{DELIVERIES_MAX} workers took this task and went silent; it is not handed out again. "
        "Look at the workers' memory and exits, then retry the execution."
    )
    return TaskResult(
        correlation_id=lease.correlation_id,
        error_class="permanent",
        code="worker_lost",
        message=message,
        retryable=False,
    )


def _lost(task_id: str) -> LeaseLost:
    return LeaseLost(
        f"The lease of task {task_id[:200]} under this epoch has lapsed, and the task was given to "
        "another worker. Stop working on it; POST /api/v1/tasks/poll gives you the next one."
    )
