"""Workers that ask for work: what they get, when, and what becomes of what they send back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from application.ports import EventLog, StoreUnavailable
from application.requests import ExecuteOptions
from application.tasks import Ask, OfferedTask, Tasks, TaskSettled
from application.views import ExecutionView
from domain import events as ev
from domain.dispatching import TaskResult
from domain.errors import Invalid, LeaseLost, NotFound, NotReady, TaskEnded
from domain.json_values import Json
from domain.outcomes import DELIVERIES_MAX
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.runner import PAUSE_SECONDS, ProjectionRunner
from infrastructure.small_tables import open_small_tables
from infrastructure.task_queue import open_task_queue
from tests.contracts.projected import projection_store
from tests.engine import (
    CALLER,
    PATIENCE_SECONDS,
    Process,
    asked,
    definition,
    process,
    step,
    until,
)

pytestmark = pytest.mark.anyio

AGENTS = {"puller": "pull", "slow": "pull", "topic": "kafka", "caller": "http"}


@dataclass(slots=True)
class Pulling:
    """A process with tables, and what workers ask it."""

    engine: Process
    tasks: Tasks
    reads: ProjectionReads

    async def take(self, *agents: str, worker: str = "w1", count: int = 1) -> OfferedTask:
        """The one task that is there, or comes."""
        (task,) = await self.poll(*agents, worker=worker, max_tasks=count)
        return task

    async def poll(
        self, *agents: str, worker: str = "w1", max_tasks: int = 1, wait: float = PATIENCE_SECONDS
    ) -> Sequence[OfferedTask]:
        ask = Ask(
            agents=agents or ("puller",), worker_id=worker, max_tasks=max_tasks, wait_seconds=wait
        )
        return await self.tasks.poll("default", ask)

    async def let_leases_lapse(self) -> None:
        tables = open_small_tables(self.engine.store, "test")
        await tables.run("UPDATE task_leases SET lease_until = 0")
        await tables.aclose()

    async def run(self, **fields: Json) -> ExecutionView:
        return await self.engine.run(definition(a=asked("puller", **fields)))


@asynccontextmanager
async def pulling(
    url: str, *, working: bool = True, pause_seconds: float = PAUSE_SECONDS
) -> AsyncIterator[Pulling]:
    """A process that answers workers."""
    async with process(url, agents=AGENTS, working=working) as engine:
        store = engine.store
        tables = [projection_store(store, url) for _ in range(2)]
        runner = ProjectionRunner(tables[0], store.clock.now, pause_seconds=pause_seconds)
        store.feed.subscribe(runner.wake)
        runner.start()
        threads = store.query_threads
        reads = ProjectionReads(
            store.engine, tables[1], store.clock.now, threads=threads, runner=runner
        )
        queue = open_task_queue(store)
        tasks = Tasks(
            queue, reads, engine.ledger, engine.workflows, engine.agents, engine.results, store.feed
        )
        try:
            yield Pulling(engine, tasks, reads)
        finally:
            tasks.close()
            await asyncio.to_thread(runner.stop)
            await queue.aclose()
            tables[1].close()


class Failing:
    """The real log; reads of the streams in `fails` end with an error."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.fails: dict[UUID, Exception] = {}

    async def read_stream(self, stream_id: UUID, **window: int) -> Sequence[ev.Recorded]:
        if stream_id in self.fails:
            raise self.fails[stream_id]
        return await self._log.read_stream(stream_id, **window)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def result_of(task: OfferedTask) -> TaskResult:
    return TaskResult(correlation_id=task.correlation_id, output="done")


async def fail(pull: Pulling, task: OfferedTask) -> TaskSettled:
    return await pull.tasks.fail(
        "default",
        task.task_id,
        task.epoch,
        code="no_luck",
        message="it cannot be done",
        error_class="permanent",
        retryable=False,
        output=None,
    )


class TestWaiting:
    async def test_whoever_waits_makes_the_tables_hurry(self, ledger_url: str) -> None:
        """Nothing else moves them here: their pause is longer than a test's patience."""
        async with pulling(ledger_url, pause_seconds=3_600.0) as pull:
            for _ in range(3):
                waiting = asyncio.create_task(pull.take())
                await asyncio.sleep(0)
                await pull.run()
                task = await waiting
                await pull.tasks.complete("default", task.task_id, task.epoch, "done")


class TestTaking:
    async def test_a_task_is_what_the_step_asks_for(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            mapped = asked("puller", input_mapping={"n": "${workflow.input.n}"})
            execution = await pull.engine.requests.execute_inline(
                CALLER, definition("sums", a=mapped), ExecuteOptions(input_data={"n": 7})
            )
            task = await pull.take()
            view = execution.view
            assert (task.execution_id, task.run_id) == (view.id, f"run-{view.id}")
            assert (task.workflow_name, task.path, task.step_id) == ("sums", "a", "a")
            assert (task.attempt, task.try_no, task.delivery) == (1, 1, 1)
            assert (task.agent_name, task.input_data) == ("puller", {"n": 7})
            assert task.idempotency_key == f"{view.id}:1:a"
            assert task.task_id.startswith("task-a-")
            settled = await pull.tasks.complete("default", task.task_id, task.epoch, {"sum": 8})
            assert settled.answer.accepted
            assert (await pull.engine.ended(view)).output == {"sum": 8}
            again = await pull.tasks.complete("default", task.task_id, task.epoch, {"sum": 8})
            assert (again.answer.accepted, again.answer.repeated) == (True, True)
            assert await pull.poll(wait=0) == ()

    async def test_who_waits_is_woken_by_the_task(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            first = asyncio.create_task(pull.take("slow", "puller"))
            second = asyncio.create_task(pull.take("puller"))
            one = await pull.run()
            other = await pull.run()
            tasks = [await first, await second]
            assert {task.execution_id for task in tasks} == {one.id, other.id}

    async def test_the_next_step_is_there_when_a_result_has_come(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            view = await pull.engine.run(definition(a=asked("puller"), b=asked("slow"), c=step()))
            first = await pull.take()
            await pull.tasks.complete("default", first.task_id, first.epoch, 1)
            second = await pull.take("slow")
            await pull.tasks.complete("default", second.task_id, second.epoch, 2)
            assert (await pull.engine.ended(view)).status == "COMPLETED"

    async def test_nothing_is_said_when_the_wait_is_over(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            assert await pull.poll(wait=0.1) == ()
            assert await pull.poll(wait=0) == ()

    async def test_a_process_that_stops_answers_who_waits(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            waiting = asyncio.create_task(pull.poll())
            await asyncio.sleep(0)
            pull.tasks.close()
            assert await waiting == ()
            assert await pull.poll() == ()

    async def test_who_has_left_gets_nothing(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:

            async def gone() -> bool:
                return True

            ask = Ask(agents=("puller",), worker_id="w", wait_seconds=PATIENCE_SECONDS)
            waiting = asyncio.create_task(pull.tasks.poll("default", ask, gone))
            await asyncio.sleep(0)
            await pull.run()
            assert await waiting == ()
            assert (await pull.take()).delivery == 1

    async def test_agents_that_give_no_work_are_named(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            with pytest.raises(Invalid) as refused:
                await pull.poll("puller", "nobody", "caller")
            found = [(each.pointer, each.code) for each in refused.value.mistakes]
            assert found == [("/agents/1", "unknown_agent"), ("/agents/2", "wrong_transport")]
            assert "PUT /api/v1/agents/caller" in refused.value.mistakes[1].message


class TestTasksThatCannotBeHandedOut:
    async def test_the_others_are_handed_out_and_these_to_the_next_who_asks(
        self, ledger_url: str
    ) -> None:
        async with pulling(ledger_url) as pull:
            log = pull.engine.ledger.log = Failing(pull.engine.store.log)
            first, second = await two_that_lapsed(pull)
            log.fails[UUID(first.execution_id)] = StoreUnavailable("it does not answer")
            task = await pull.take(count=2)
            assert (task.task_id, task.delivery) == (second.task_id, 2)
            log.fails.clear()
            task = await pull.take(count=2)
            assert (task.task_id, task.delivery) == (first.task_id, 2)

    async def test_the_step_is_not_given_up_for_workers_that_were_given_nothing(
        self, ledger_url: str
    ) -> None:
        async with pulling(ledger_url) as pull:
            log = pull.engine.ledger.log = Failing(pull.engine.store.log)
            view = await pull.run()
            await until(lambda: pull.engine.worker.holds() == 0)
            log.fails[UUID(view.id)] = StoreUnavailable("it does not answer")
            for _ in range(DELIVERIES_MAX + 1):
                with pytest.raises(NotReady, match="does not answer"):
                    await pull.poll()
            log.fails.clear()
            assert (await pull.take()).delivery == 1

    async def test_one_that_nobody_foresaw_keeps_its_lease_and_lets_the_others_pass(
        self, ledger_url: str
    ) -> None:
        async with pulling(ledger_url) as pull:
            log = pull.engine.ledger.log = Failing(pull.engine.store.log)
            first, second = await two_that_lapsed(pull)
            log.fails[UUID(first.execution_id)] = ValueError("an event of a later release")
            with pytest.raises(ValueError, match="later release"):
                await pull.poll(max_tasks=2)
            task = await pull.take(count=2)
            assert (task.task_id, task.delivery) == (second.task_id, 2)


async def two_that_lapsed(pull: Pulling) -> list[OfferedTask]:
    """Tasks that are offered both at once: workers went silent over them."""
    for _ in range(2):
        await pull.run()
    tasks = [await pull.take() for _ in range(2)]
    await until(lambda: pull.engine.worker.holds() == 0)
    await pull.let_leases_lapse()
    return tasks


class TestHolding:
    async def test_of_two_workers_only_the_later_one_is_heard(self, ledger_url: str) -> None:
        """The first one was paused beyond its lease, and comes back with a result."""
        async with pulling(ledger_url) as pull:
            view = await pull.run()
            paused = await pull.take(worker="paused")
            await pull.let_leases_lapse()
            taken = await pull.take(worker="awake")
            assert (taken.task_id, taken.delivery) == (paused.task_id, 2)
            assert taken.idempotency_key == paused.idempotency_key
            before = len(await pull.engine.events(view))
            for refused in (
                pull.tasks.complete("default", paused.task_id, paused.epoch, "old"),
                pull.tasks.heartbeat("default", paused.task_id, paused.epoch),
                pull.tasks.progress("default", paused.task_id, paused.epoch, 1),
                fail(pull, paused),
            ):
                with pytest.raises(LeaseLost, match="another worker"):
                    await refused
            assert len(await pull.engine.events(view)) == before
            await pull.tasks.complete("default", taken.task_id, taken.epoch, "new")
            assert (await pull.engine.ended(view)).output == "new"
            topics = await pull.engine.topics(view)
            assert topics.count("step_completed") == 1
            assert "late_result_ignored" not in topics

    async def test_a_lapsed_lease_that_nobody_took_still_counts(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            view = await pull.run()
            task = await pull.take()
            await pull.let_leases_lapse()
            kept = await pull.tasks.heartbeat("default", task.task_id, task.epoch, 60)
            assert kept.lease_until > task.lease_until
            assert await pull.poll(wait=0) == ()
            assert (await pull.tasks.progress("default", task.task_id, task.epoch, 0.5)) == kept
            await pull.tasks.complete("default", task.task_id, task.epoch, None)
            assert (await pull.engine.ended(view)).status == "COMPLETED"

    async def test_three_silent_workers_are_enough(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            view = await pull.run()
            for delivery in range(1, DELIVERIES_MAX + 1):
                assert (await pull.take(worker=f"w{delivery}")).delivery == delivery
                await pull.let_leases_lapse()
            assert await pull.poll(wait=0) == ()
            ended = await pull.engine.ended(view)
            assert ended.error is not None
            assert (ended.status, ended.error.code) == ("FAILED", "worker_lost")

    async def test_a_task_that_ended_tells_its_worker(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            view = await pull.run()
            task = await pull.take()
            await pull.engine.control.cancel(CALLER, view.id, "not wanted")
            with pytest.raises(TaskEnded, match="Stop working"):
                await pull.tasks.heartbeat("default", task.task_id, task.epoch)
            with pytest.raises(TaskEnded):
                await pull.tasks.progress("default", task.task_id, task.epoch, 1)
            late = await pull.tasks.complete("default", task.task_id, task.epoch, "late")
            assert not late.answer.accepted
            facts = await pull.engine.facts(view)
            assert sum(isinstance(fact, ev.LateResultIgnored) for fact in facts) == 1
            assert (await pull.engine.ended(view)).status == "CANCELLED"

    async def test_what_ended_before_the_tables_knew_is_not_given_out(
        self, ledger_url: str
    ) -> None:
        async with pulling(ledger_url) as pull:
            view = await pull.run()
            task = await pull.take()
            result = await pull.engine.results.record(
                "default", view.run_id, task.task_id, result_of(task)
            )
            assert result.accepted
            await pull.let_leases_lapse()
            assert await pull.poll(wait=0) == ()

    async def test_a_failure_is_recorded_as_it_was_told(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            view = await pull.run(on_error="stop")
            task = await pull.take()
            settled = await fail(pull, task)
            assert settled.answer.accepted
            ended = await pull.engine.ended(view)
            assert ended.error is not None
            told = (ended.error.code, ended.error.error_class, ended.error.message)
            assert told == ("no_luck", "permanent", "it cannot be done")

    async def test_a_result_that_cannot_be_kept_leaves_the_task_to_its_worker(
        self, ledger_url: str
    ) -> None:
        async with pulling(ledger_url) as pull:
            view = await pull.run()
            task = await pull.take()
            with pytest.raises(Invalid, match="/output"):
                await pull.tasks.complete("default", task.task_id, task.epoch, "x" * 300_000)
            await pull.tasks.complete("default", task.task_id, task.epoch, "short")
            assert (await pull.engine.ended(view)).output == "short"

    async def test_a_task_that_nobody_knows_or_took(self, ledger_url: str) -> None:
        async with pulling(ledger_url) as pull:
            with pytest.raises(NotFound, match="/tasks/poll"):
                await pull.tasks.complete("default", "task-a-12345678", 1, None)
            await pull.run()
            task = await pull.take()
            for workspace_id, refusal in (("default", LeaseLost), ("other", NotFound)):
                with pytest.raises(refusal):
                    await pull.tasks.complete(workspace_id, task.task_id, task.epoch + 1, None)


async def test_a_process_without_a_worker_serves_as_well(postgresql_ledger_url: str) -> None:
    async with (
        process(postgresql_ledger_url, agents=AGENTS) as engine,
        pulling(postgresql_ledger_url, working=False) as pull,
    ):
        waiting = asyncio.create_task(pull.take())
        view = await engine.run(definition(a=asked("puller"), b=step()))
        task = await waiting
        await pull.tasks.complete("default", task.task_id, task.epoch, 1)
        assert (await engine.ended(view)).status == "COMPLETED"


async def test_a_crowd_shares_the_tasks(ledger_url: str) -> None:
    """Each task goes to one worker, whoever asks at the same time."""
    async with pulling(ledger_url) as pull:
        waiting = [asyncio.create_task(pull.poll(worker=f"w{n}", max_tasks=2)) for n in range(10)]
        views = [await pull.run() for _ in range(20)]
        done: list[OfferedTask] = []
        while len(done) < len(views):
            for polled in asyncio.as_completed(waiting):
                for task in await polled:
                    await pull.tasks.complete("default", task.task_id, task.epoch, 1)
                    done.append(task)
            waiting = [asyncio.create_task(pull.poll(max_tasks=2, wait=0.2)) for _ in range(4)]
        for waiter in waiting:
            await waiter
        assert sorted(UUID(task.execution_id) for task in done) == sorted(
            UUID(view.id) for view in views
        )
        assert {task.delivery for task in done} == {1}
        for view in views:
            assert (await pull.engine.ended(view)).status == "COMPLETED"
