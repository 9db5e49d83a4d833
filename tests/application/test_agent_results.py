"""Dispatched tasks and what comes back: recorded once, with what follows, by whoever carries it."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from application.agent_results import TaskAnswer
from application.ledger import StateCache
from application.requests import ExecuteOptions
from application.views import ExecutionView
from domain import events as ev
from domain.dispatching import TaskResult
from domain.errors import FlowledgerError, Invalid, InvalidDefinition, NotFound
from domain.json_values import Json
from tests.engine import CALLER, Process, asked, definition, process, step

pytestmark = pytest.mark.anyio

AGENTS = {"puller": "pull", "topic": "kafka", "caller": "http"}


async def tasks(
    engine: Process, execution: ExecutionView, count: int = 1
) -> list[ev.TaskDispatched]:
    """The tasks of an execution, once there are `count` of them."""
    found: list[ev.TaskDispatched] = []
    while len(found) < count:
        view = await engine.history.view("default", execution.id)
        facts = await engine.facts(execution)
        found = [fact for fact in facts if isinstance(fact, ev.TaskDispatched)]
        if len(found) < count:
            await engine.history.wait_changed("default", view.id, view.version, 1.0)
    return found


async def answer(
    engine: Process, execution: ExecutionView, task: ev.TaskDispatched, **fields: Any
) -> TaskAnswer:
    result = TaskResult(correlation_id=task.correlation_id, **fields)
    return await engine.results.record("default", execution.run_id, task.task_id, result)


async def handed_back(engine: Process, execution: ExecutionView) -> None:
    """Return once nobody holds the execution."""
    async with asyncio.timeout(20):
        while True:
            row = await engine.store.queue.row(UUID(execution.id))
            if row is not None and not row.leased:
                return
            await asyncio.sleep(0.005)


class TestOneResult:
    async def test_ends_the_step_and_begins_the_next_in_one_append(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller"), b=asked("topic")))
            (task,) = await tasks(engine, execution)
            assert task.transport == "pull"
            assert (await answer(engine, execution, task, output={"n": 1})).accepted
            *_, second = await tasks(engine, execution, 2)
            assert (second.agent, second.transport) == ("topic", "kafka")
            await answer(engine, execution, second, output={"n": 2})
            ended = await engine.ended(execution)
            assert (ended.status, ended.output) == ("COMPLETED", {"n": 2})
            assert await engine.topics(execution) == [
                "requested",
                "started",
                "step_started",
                "task_dispatched",
                "step_completed",
                "step_started",
                "task_dispatched",
                "step_completed",
                "completed",
            ]
            assert await engine.commands(execution) == 4
            assert await engine.store.queue.row(UUID(execution.id)) is None

    async def test_waits_without_a_lease_until_the_time_out(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller", timeout_seconds=600)))
            await tasks(engine, execution)
            await handed_back(engine, execution)
            row = await engine.store.queue.row(UUID(execution.id))
            view = await engine.history.view("default", execution.id)
            assert row is not None
            assert row.ready_at == view.waiting_on[0].until
            (wait,) = view.waiting_on
            assert (wait.kind, wait.detail) == ("agent", "puller")

    async def test_that_is_a_failure_leads_to_the_next_try(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            again = asked("puller", retry={"attempts": 1, "base_delay_ms": 0})
            execution = await engine.run(definition(a=again))
            (first,) = await tasks(engine, execution)
            failure = {"error_class": "transient", "code": "agent_error", "message": "no luck"}
            assert (await answer(engine, execution, first, **failure)).accepted
            *_, second = await tasks(engine, execution, 2)
            assert (second.try_no, second.path) == (2, "a")
            assert second.correlation_id != first.correlation_id
            assert not (await answer(engine, execution, first, output="late")).accepted
            await answer(engine, execution, second, output="done")
            assert (await engine.ended(execution)).output == "done"

    async def test_leaves_what_a_worker_performs_to_a_worker(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(
                definition(a=asked("puller"), b=step(), c=asked("caller"), d=asked("topic"))
            )
            await answer(engine, execution, (await tasks(engine, execution))[0])
            *_, last = await tasks(engine, execution, 2)
            await answer(engine, execution, last, output=4)
            assert (await engine.ended(execution)).output == 4
            assert [(deed.action, deed.delivery) for deed in engine.deeds.done] == [
                ("noop", 1),
                ("agent:caller", 1),
            ]

    async def test_is_taken_where_no_worker_runs(self, postgresql_ledger_url: str) -> None:
        url = postgresql_ledger_url
        async with (
            process(url, agents=AGENTS) as working,
            process(url, agents=AGENTS, working=False) as answering,
        ):
            execution = await working.run(definition(a=asked("puller"), b=step()))
            (task,) = await tasks(working, execution)
            assert (await answer(answering, execution, task, output=1)).accepted
            assert (await working.ended(execution)).status == "COMPLETED"

    async def test_that_another_process_was_sent_first_is_late_here(
        self, postgresql_ledger_url: str
    ) -> None:
        """What this process remembers of the execution, it decides on; the log knows better."""
        url = postgresql_ledger_url
        async with (
            process(url, agents=AGENTS) as here,
            process(url, agents=AGENTS, working=False) as there,
        ):
            execution = await here.run(definition(a=asked("puller"), b=asked("topic")))
            (task,) = await tasks(here, execution)
            remembered = here.ledger.cache.get(UUID(execution.id))
            assert (await answer(there, execution, task, output=1)).accepted
            assert remembered is not None
            here.ledger.cache = StateCache(1_000_000)
            here.ledger.cache.put(remembered)
            late = await answer(here, execution, task, output=2)
            assert (late.accepted, late.repeated) == (False, False)
            repeated = await answer(here, execution, task, output=1)
            assert (repeated.accepted, repeated.repeated) == (True, True)

    async def test_of_a_paused_execution_is_kept(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller"), b=asked("topic")))
            (task,) = await tasks(engine, execution)
            await engine.control.pause(CALLER, execution.id)
            assert (await answer(engine, execution, task, output=1)).accepted
            assert len(await tasks(engine, execution)) == 1
            await engine.control.resume(CALLER, execution.id)
            *_, second = await tasks(engine, execution, 2)
            await answer(engine, execution, second)
            assert (await engine.ended(execution)).status == "COMPLETED"


class TestRepeatsAndLateness:
    async def test_the_same_result_again_changes_nothing(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller"), b=asked("topic")))
            (task,) = await tasks(engine, execution)
            first = await answer(engine, execution, task, output={"n": 1})
            before = await engine.topics(execution)
            for _ in range(3):
                again = await answer(engine, execution, task, output={"n": 1})
                assert again == first._replace(repeated=True)
            assert await engine.topics(execution) == before

    async def test_another_result_of_the_same_task_is_late_once(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller"), b=asked("topic")))
            (task,) = await tasks(engine, execution)
            await answer(engine, execution, task, output=1)
            answers = [await answer(engine, execution, task, output=n) for n in (2, 3, 2)]
            assert [each.accepted for each in answers] == [False] * 3
            assert [each.repeated for each in answers] == [False, True, True]
            assert (await engine.topics(execution)).count("late_result_ignored") == 1
            assert (await answer(engine, execution, task, output=1)).accepted

    async def test_a_result_after_the_end_is_late(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller")))
            (task,) = await tasks(engine, execution)
            await engine.control.cancel(CALLER, execution.id, None)
            late = await answer(engine, execution, task, output=1)
            assert (late.accepted, late.repeated) == (False, False)
            assert (await engine.topics(execution))[-1] == "late_result_ignored"
            assert await engine.store.queue.row(UUID(execution.id)) is None

    async def test_a_result_after_the_time_out_is_late(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller", timeout_seconds=0.05)))
            (task,) = await tasks(engine, execution)
            ended = await engine.ended(execution)
            assert ended.error is not None
            assert ended.error.code == "step_timeout"
            assert not (await answer(engine, execution, task)).accepted

    async def test_of_racing_results_one_wins(self, postgresql_ledger_url: str) -> None:
        url = postgresql_ledger_url
        async with (
            process(url, agents=AGENTS) as one,
            process(url, agents=AGENTS, working=False) as other,
        ):
            execution = await one.run(definition(a=asked("puller")))
            (task,) = await tasks(one, execution)
            answers = await asyncio.gather(
                *(answer((one, other)[n % 2], execution, task, output=n) for n in range(8)),
            )
            (winner,) = [n for n, each in enumerate(answers) if each.accepted]
            assert (await one.ended(execution)).output == winner
            topics = await one.topics(execution)
            assert (topics.count("step_completed"), topics.count("late_result_ignored")) == (1, 1)

    async def test_a_result_and_a_cancel_race(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            for _ in range(10):
                execution = await engine.run(definition(a=asked("puller"), b=asked("topic")))
                (task,) = await tasks(engine, execution)
                answered, _ = await asyncio.gather(
                    answer(engine, execution, task), engine.control.cancel(CALLER, execution.id, "")
                )
                topics = await engine.topics(execution)
                assert topics.count("late_result_ignored") == (not answered.accepted)
                assert topics.count("step_completed") == answered.accepted
                assert (await engine.ended(execution)).status == "CANCELLED"

    async def test_results_of_many_lanes_at_once(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            children: dict[str, Any] = {f"c{n}": asked("puller") for n in range(30)}
            around: Any = {"type": "parallel", "parallel_steps": list(children)}
            execution = await engine.run(
                {"name": "fan", "start_step": "all", "steps": {"all": around, **children}}
            )
            found = await tasks(engine, execution, 30)
            answers = await asyncio.gather(
                *(answer(engine, execution, each, output=each.path) for each in found * 3)
            )
            assert all(each.accepted for each in answers)
            ended = await engine.ended(execution)
            assert ended.output == {child: f"all/{child}" for child in children}


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"execution": "run-00000000-0000-4000-8000-000000000000"}, NotFound),
            ({"workspace": "others"}, NotFound),
            ({"correlation": "corr-run-x-a-00000000"}, NotFound),
            ({"task": "task-a-00000000"}, NotFound),
            ({"output": "x" * 300_000}, Invalid),
            ({"output": "lone \ud800"}, Invalid),
        ],
    )
    async def test_what_belongs_to_no_task_is_refused(
        self, sqlite_ledger_url: str, changes: dict[str, Json], error: type[FlowledgerError]
    ) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller")))
            (task,) = await tasks(engine, execution)
            before = await engine.topics(execution)
            result = TaskResult(
                correlation_id=str(changes.get("correlation", task.correlation_id)),
                output=changes.get("output"),
            )
            with pytest.raises(error):
                await engine.results.record(
                    str(changes.get("workspace", "default")),
                    str(changes.get("execution", execution.run_id)),
                    str(changes.get("task", task.task_id)),
                    result,
                )
            assert await engine.topics(execution) == before
            assert (await answer(engine, execution, task)).accepted

    async def test_unknown_and_inactive_agents_are_refused_by_name(
        self, sqlite_ledger_url: str
    ) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS) as engine:
            engine.agents.inactive.add("topic")
            flow = definition(
                a=asked("nobody"),
                b=step(alternatives=[{"id": "x", "do": {"agent": "stranger"}}]),
                c=asked("topic"),
            )
            with pytest.raises(InvalidDefinition) as refused:
                await engine.run(flow)
            found = {each.pointer: (each.code, each.message) for each in refused.value.mistakes}
            assert set(found) == {
                "/steps/a/agent_name",
                "/steps/b/alternatives/0/do/agent",
                "/steps/c/agent_name",
            }
            assert {code for code, _ in found.values()} == {"unknown_agent"}
            assert "POST /api/v1/agents" in found["/steps/a/agent_name"][1]
            with pytest.raises(InvalidDefinition):
                await engine.workflows.publish(CALLER, flow)


class TestProgress:
    async def test_is_noted_while_the_task_runs(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            execution = await engine.run(definition(a=asked("puller")))
            (task,) = await tasks(engine, execution)

            async def report(value: Json) -> bool:
                return await engine.results.progress(
                    "default", execution.run_id, task.correlation_id, value
                )

            assert await report({"done": 1})
            assert await report({"done": 1})
            (row,) = (await engine.history.steps("default", execution.id))[:1]
            assert (row.progress, row.agent_name, row.action) == ({"done": 1}, "puller", "agent")
            assert (await engine.topics(execution)).count("step_progressed") == 1
            with pytest.raises(Invalid):
                await report("x" * 5_000)
            await answer(engine, execution, task)
            assert not await report({"done": 2})
            with pytest.raises(NotFound):
                await engine.results.progress("default", execution.id, "corr-unknown", 1)


class TestWorkers:
    async def test_a_lost_worker_takes_no_dispatched_task_with_it(
        self, postgresql_ledger_url: str
    ) -> None:
        url = postgresql_ledger_url
        async with process(url, agents=AGENTS, lease_seconds=0.4) as survivor:
            async with process(
                url, survivor.deeds, agents=AGENTS, lease_seconds=0.4, grace_seconds=0
            ) as lost:
                children: dict[str, Any] = {
                    "p": asked("puller"),
                    "q": step("hold", config={"gate": "g"}),
                }
                around: Any = {"type": "parallel", "parallel_steps": list(children)}
                execution = await lost.run(
                    {"name": "fan", "start_step": "all", "steps": {"all": around, **children}}
                )
                (task,) = await tasks(lost, execution)
                await lost.deeds.count(1)
                lost.queue.cut = True
            survivor.deeds.open("g")
            await answer(survivor, execution, task, output=1)
            assert (await survivor.ended(execution)).status == "COMPLETED"
            facts = await survivor.facts(execution)
            redelivered = [each.path for each in facts if isinstance(each, ev.StepRedelivered)]
            assert redelivered == ["all/q"]
            assert len(await tasks(survivor, execution)) == 1

    async def test_simulated_executions_dispatch_nothing(self, sqlite_ledger_url: str) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS) as engine:
            options = ExecuteOptions(simulate=True)
            execution = await engine.run(definition(a=asked("puller")), options)
            ended = await engine.ended(execution)
            assert ended.status == "COMPLETED"
            assert "task_dispatched" not in await engine.topics(execution)

    async def test_an_alternative_is_dispatched_too(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            engine.agents.failing.add("caller")
            other: Json = [{"id": "other", "do": {"agent": "topic"}}]
            flow = definition(a=asked("caller", alternatives=other, input_mapping={"n": 1}))
            execution = await engine.run(flow)
            (task,) = await tasks(engine, execution)
            assert task.path == "a~alt.other"
            await answer(engine, execution, task, output="from topic")
            assert (await engine.ended(execution)).output == "from topic"
