"""What an agent's record says of failure is pinned at publish and carried out, on real stores."""

from typing import Any

import pytest

from application.agent_results import TaskAnswer
from application.callers import Caller
from application.requests import ExecuteOptions
from application.views import ExecutionView
from domain import events as ev
from domain.agent_policy import AgentPolicy
from domain.agents import AgentRecovery, RetryConfig
from domain.dispatching import TaskResult
from domain.errors import InvalidDefinition
from tests.engine import CALLER, Process, asked, definition, process, step

pytestmark = pytest.mark.anyio

AGENTS = {"caller": "http", "spare": "http", "puller": "pull", "topic": "kafka"}


def soon(max_retries: int, recovery: AgentRecovery | None = None) -> AgentPolicy:
    """Waits of 1, 2, 3, 3, ... milliseconds."""
    return AgentPolicy(
        RetryConfig(max_retries=max_retries, initial_delay_ms=1, max_delay_ms=3), recovery
    )


TO_SPARE = AgentRecovery(on_failure="FALLBACK", fallback_agent="spare")


async def waits(engine: Process, execution: ExecutionView) -> list[int]:
    facts = await engine.facts(execution)
    return [fact.delay_ms for fact in facts if isinstance(fact, ev.RetryScheduled)]


def stages(engine_state: Any, number: int) -> list[Any]:
    """(kind, attempts or agent) of the stages of step `a` in a published version."""
    recovery: Any = engine_state.numbered(number).definition["steps"]["a"]["recovery"]
    return [
        (each["kind"], each["attempts"] if each["kind"] == "retry" else each["do"]["agent"])
        for each in recovery
    ]


class TestCalled:
    """Agents that the engine calls itself."""

    async def test_once_and_as_often_again_as_the_record_says(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            engine.agents.failing.add("caller")
            engine.agents.recoveries["caller"] = soon(4)
            execution = await engine.run(definition(a=asked("caller")))
            assert (await engine.ended(execution)).status == "FAILED"
            assert [deed.try_no for deed in engine.deeds.done] == [1, 2, 3, 4, 5]
            assert await waits(engine, execution) == [1, 2, 3, 3]

    @pytest.mark.parametrize("policy", [soon(0), soon(4, AgentRecovery(on_failure="FAIL"))])
    async def test_once_only_whatever_the_execution_says(
        self, sqlite_ledger_url: str, policy: AgentPolicy
    ) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS) as engine:
            engine.agents.failing.add("caller")
            engine.agents.recoveries["caller"] = policy
            options = ExecuteOptions(recovery={"retry_attempts": 2, "base_retry_delay_ms": 1})
            execution = await engine.run(definition(a=asked("caller")), options)
            assert (await engine.ended(execution)).status == "FAILED"
            assert len(engine.deeds.done) == 1

    async def test_then_its_fallback_with_the_same_input(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            engine.agents.failing.add("caller")
            engine.agents.recoveries["caller"] = soon(2, TO_SPARE)
            flow = definition(a=asked("caller", input_mapping={"n": 1}), b=step())
            ended = await engine.ended(await engine.run(flow))
            assert (ended.status, ended.progress.failed) == ("COMPLETED", 0)
            assert [deed.action for deed in engine.deeds.done] == (
                ["agent:caller"] * 3 + ["agent:spare", "noop"]
            )
            rows = await engine.history.steps("default", ended.id)
            by_path = {each.path: each for each in rows}
            assert by_path["a~alt.fallback-agent"].agent_name == "spare"
            assert by_path["a"].output_data == {"from": "spare", "input": {"n": 1}}

    async def test_as_the_step_says_where_it_says_something(self, sqlite_ledger_url: str) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS) as engine:
            engine.agents.failing.add("caller")
            engine.agents.recoveries["caller"] = soon(4, TO_SPARE)
            own = {"recovery": [{"kind": "retry", "attempts": 1, "base_delay_ms": 2}]}
            execution = await engine.run(definition(a=asked("caller", **own)))
            assert (await engine.ended(execution)).status == "FAILED"
            assert await waits(engine, execution) == [2]
            assert [deed.action for deed in engine.deeds.done] == ["agent:caller"] * 2


class TestDispatched:
    """Agents whose tasks go out, by either way."""

    async def answered(self, engine: Process, execution: ExecutionView, count: int) -> TaskAnswer:
        """The answer to task number `count`, which fails."""
        found: list[ev.TaskDispatched] = []
        while len(found) < count:
            view = await engine.history.view("default", execution.id)
            facts = await engine.facts(execution)
            found = [fact for fact in facts if isinstance(fact, ev.TaskDispatched)]
            if len(found) < count:
                await engine.history.wait_changed("default", view.id, view.version, 1.0)
        task = found[count - 1]
        result = TaskResult(
            correlation_id=task.correlation_id,
            code="busy",
            message="busy",
            error_class="transient",
        )
        return await engine.results.record("default", execution.run_id, task.task_id, result)

    @pytest.mark.parametrize("agent", ["puller", "topic"])
    async def test_tasks_that_fail_go_out_again_and_then_to_the_fallback(
        self, ledger_url: str, agent: str
    ) -> None:
        async with process(ledger_url, agents=AGENTS) as engine:
            engine.agents.recoveries[agent] = soon(2, TO_SPARE)
            execution = await engine.run(definition(a=asked(agent)))
            for count in (1, 2, 3):
                assert (await self.answered(engine, execution, count)).accepted
            ended = await engine.ended(execution)
            assert (ended.status, ended.output) == ("COMPLETED", {"from": "spare", "input": {}})
            assert (await engine.topics(execution)).count("task_dispatched") == 3
            assert await waits(engine, execution) == [1, 2]


class TestPublished:
    """The record is read once, when a definition is taken."""

    async def test_a_later_change_of_the_agent_is_for_later_versions(self, ledger_url: str) -> None:
        async with process(ledger_url, agents=AGENTS, working=False) as engine:
            flow = definition(a=asked("caller"))
            engine.agents.recoveries["caller"] = soon(1)
            first = await engine.workflows.publish(CALLER, flow)
            engine.agents.recoveries["caller"] = soon(2, TO_SPARE)
            same, _ = await engine.workflows.find("default", "flow")
            assert stages(same, 1) == [("retry", 1)]
            again = await engine.workflows.publish(CALLER, flow)
            assert (first.number, again.number) == (1, 2)
            assert stages(again.state, 1) == [("retry", 1)]
            assert stages(again.state, 2) == [("retry", 2), ("alternative", "spare")]
            assert len({version.sha256 for version in again.state.versions}) == 2
            assert [version.source for version in again.state.versions] == [flow, flow]

    async def test_a_revision_has_what_the_record_says_then(self, sqlite_ledger_url: str) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS, working=False) as engine:
            engine.agents.recoveries["caller"] = soon(1)
            await engine.workflows.publish(CALLER, definition(a=asked("caller")))
            engine.agents.recoveries["caller"] = soon(3)
            revised = await engine.workflows.revise(CALLER, "flow", {"description": "new"})
            assert [stages(revised.state, n) for n in (1, 2)] == [[("retry", 1)], [("retry", 3)]]

    async def test_a_repeat_with_its_key_is_the_first_answer(self, sqlite_ledger_url: str) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS, working=False) as engine:
            keyed = Caller(actor="a", route="r", idempotency_key="k", fingerprint="f")
            engine.agents.recoveries["caller"] = soon(1)
            inline = definition(a=asked("caller"))
            first = await engine.requests.execute_inline(keyed, inline, ExecuteOptions())
            engine.agents.recoveries["caller"] = soon(2)
            again = await engine.requests.execute_inline(keyed, inline, ExecuteOptions())
            assert (again.view.id, again.replayed) == (first.view.id, True)
            assert again.view.workflow_id == first.view.workflow_id

    @pytest.mark.parametrize("inactive", [True, False])
    async def test_the_fallback_agent_is_checked_as_any_other(
        self, sqlite_ledger_url: str, *, inactive: bool
    ) -> None:
        async with process(sqlite_ledger_url, agents=AGENTS, working=False) as engine:
            engine.agents.recoveries["caller"] = soon(1, TO_SPARE)
            if inactive:
                engine.agents.inactive.add("spare")
            else:
                del engine.agents.by_name["spare"]
            with pytest.raises(InvalidDefinition) as refused:
                await engine.workflows.publish(CALLER, definition(a=asked("caller")))
            (mistake,) = refused.value.mistakes
            assert (mistake.pointer, mistake.code) == ("/steps/a/agent_name", "unknown_agent")
            assert mistake.message.startswith("'caller' falls back to 'spare'. ")
            own = definition(a=asked("caller", on_error="stop"))
            assert (await engine.workflows.publish(CALLER, own)).number == 1
