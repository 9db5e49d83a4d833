"""Executions are requested once, however often and by how many at once they are asked for."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from application.callers import Caller
from application.requests import ExecuteOptions
from domain.errors import (
    Invalid,
    InvalidDefinition,
    InvalidInput,
    KeyReused,
    NotFound,
    WorkflowInactive,
)
from domain.json_values import JsonObject
from tests.engine import CALLER, Process, chain, definition, process, step, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[Process]:
    async with process(ledger_url) as opened:
        yield opened


def keyed(key: str, fingerprint: str = "same") -> Caller:
    return Caller(actor="a", route="execute", idempotency_key=key, fingerprint=fingerprint)


async def test_a_repeat_gives_the_first_answer(engine: Process) -> None:
    first = await engine.requests.execute_inline(keyed("k"), chain(2), ExecuteOptions())
    await engine.ended(first.view)
    second = await engine.requests.execute_inline(keyed("k"), chain(2), ExecuteOptions())

    assert (first.replayed, second.replayed) == (False, True)
    assert (second.view.id, second.view.version, second.view.status) == (
        first.view.id,
        1,
        "PENDING",
    )
    assert engine.deeds.paths() == ["s1", "s2"]


async def test_of_many_equal_requests_at_once_one_is_carried_out(engine: Process) -> None:
    answers = await asyncio.gather(
        *(engine.requests.execute_inline(keyed("k"), chain(1), ExecuteOptions()) for _ in range(10))
    )
    await engine.ended(answers[0].view)

    assert len({answer.view.id for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 9
    assert len(engine.deeds.done) == 1
    await until(lambda: engine.worker.holds() == 0)


async def test_a_repeat_is_answered_whatever_became_of_the_workflow(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    first = await engine.requests.execute(keyed("k"), "chain", ExecuteOptions())
    schema: JsonObject = {"type": "object", "required": ["n"]}
    await engine.workflows.publish(CALLER, chain(1) | {"input_schema": schema})
    again = await engine.requests.execute(keyed("k"), "chain", ExecuteOptions())
    await engine.workflows.set_status(CALLER, "chain", "inactive")
    later = await engine.requests.execute(keyed("k"), "chain", ExecuteOptions())
    assert {each.view.id for each in (first, again, later)} == {first.view.id}
    assert [each.replayed for each in (first, again, later)] == [False, True, True]
    with pytest.raises(KeyReused):
        await engine.requests.execute(keyed("k", "other"), "chain", ExecuteOptions())
    with pytest.raises(WorkflowInactive):
        await engine.requests.execute(keyed("new"), "chain", ExecuteOptions())


async def test_equal_requests_to_two_processes_are_one(ledger_url: str) -> None:
    async with process(ledger_url) as one, process(ledger_url, one.deeds) as two:
        for number in range(10):
            answers = await asyncio.gather(
                *(
                    each.requests.execute_inline(keyed(f"k{number}"), chain(1), ExecuteOptions())
                    for each in (one, two)
                )
            )
            assert answers[0].view.id == answers[1].view.id
            assert sorted(answer.replayed for answer in answers) == [False, True]
            await one.ended(answers[0].view)
        assert len(one.deeds.done) == 10


async def test_a_key_with_another_body_is_refused(engine: Process) -> None:
    await engine.requests.execute_inline(keyed("k", "one"), chain(1), ExecuteOptions())
    with pytest.raises(KeyReused):
        await engine.requests.execute_inline(keyed("k", "two"), chain(2), ExecuteOptions())


async def test_keys_of_different_actors_and_workspaces_are_different(engine: Process) -> None:
    callers = [
        Caller(actor=actor, workspace_id=workspace, route="r", idempotency_key="k", fingerprint="f")
        for actor in ("a", "b")
        for workspace in ("default", "other")
    ]
    answers = [
        await engine.requests.execute_inline(each, chain(1), ExecuteOptions()) for each in callers
    ]
    assert len({answer.view.id for answer in answers}) == 4


@pytest.mark.parametrize("by", ["delay", "time"])
async def test_a_start_can_be_put_off(engine: Process, by: str) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.5)
    options = ExecuteOptions(delay_seconds=0.5) if by == "delay" else ExecuteOptions(start_at=due)
    execution = await engine.run(chain(1), options)
    assert engine.worker.holds() == 0
    view = await engine.ended(execution)

    assert view.started_at is not None
    assert view.start_at is not None
    assert view.started_at >= view.start_at


async def test_a_start_in_the_past_is_now(engine: Process) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    view = await engine.ended(await engine.run(chain(1), ExecuteOptions(start_at=past)))
    assert view.status == "COMPLETED"


@pytest.mark.parametrize(
    "options",
    [
        ExecuteOptions(atomic_mode="hopeful"),
        ExecuteOptions(start_at=datetime(2999, 1, 1, tzinfo=UTC)),
        ExecuteOptions(delay_seconds=1.0, start_at=datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
async def test_bad_options_are_refused_and_nothing_is_stored(
    engine: Process, options: ExecuteOptions
) -> None:
    with pytest.raises(Invalid):
        await engine.run(chain(1), options)
    assert await engine.store.log.head() == 0


async def test_bad_definitions_and_inputs_are_refused_and_nothing_is_stored(
    engine: Process,
) -> None:
    schema: JsonObject = {"type": "object", "required": ["n"]}
    with pytest.raises(InvalidDefinition):
        await engine.run(definition(a=step("no_such_action")))
    with pytest.raises(InvalidInput):
        await engine.run(chain(1) | {"input_schema": schema})
    with pytest.raises(NotFound):
        await engine.requests.execute(CALLER, "no-such-workflow", ExecuteOptions())
    assert await engine.store.log.head() == 0
    assert engine.worker.holds() == 0


async def test_simulate_performs_nothing(engine: Process) -> None:
    flow = definition(
        a=step("fail"),
        w={"type": "wait", "duration_ms": 600_000},
        ask=step("create_task", config={"title": "t", "wait": True}),
        b=step(config={"x": "${a.output.wouldExecute}"}),
    )
    view = await engine.ended(await engine.run(flow, ExecuteOptions(simulate=True)))

    assert (view.status, view.simulate) == ("COMPLETED", True)
    assert engine.deeds.done == []
    assert isinstance(view.output, dict)
    assert view.output["config"] == {"x": "fail"}


async def test_a_simulation_performs_what_touches_nothing_outside(engine: Process) -> None:
    flow = definition(
        a=step("fail"),
        look={
            "type": "validate",
            "validation_schema": {"type": "object", "required": ["n"]},
            "data_source": "${workflow.input}",
            "validation_mode": "warn",
        },
        b=step(config={"valid": "${look.output.valid}"}),
    )
    view = await engine.ended(await engine.run(flow, ExecuteOptions(simulate=True)))

    assert engine.deeds.done == []
    assert isinstance(view.output, dict)
    assert (view.status, view.output["config"]) == ("COMPLETED", {"valid": False})


async def test_an_inactive_workflow_is_not_executed(engine: Process) -> None:
    await engine.workflows.publish(CALLER, chain(1))
    await engine.workflows.set_status(CALLER, "chain", "inactive")
    with pytest.raises(WorkflowInactive):
        await engine.requests.execute(CALLER, "chain", ExecuteOptions())


async def test_a_new_workflow_can_be_executed_at_once_by_another_process(ledger_url: str) -> None:
    async with process(ledger_url) as one, process(ledger_url) as two:
        await one.workflows.publish(CALLER, chain(1))
        answer = await two.requests.execute(CALLER, "chain", ExecuteOptions())
        assert (await two.ended(answer.view)).status == "COMPLETED"


async def test_what_another_process_has_just_changed_is_no_reason_to_refuse(
    ledger_url: str,
) -> None:
    async with process(ledger_url) as one, process(ledger_url) as two:
        await one.workflows.publish(CALLER, chain(1))
        await two.workflows.find("default", "chain")
        await one.workflows.publish(CALLER, chain(2))
        answer = await two.requests.execute(CALLER, "chain", ExecuteOptions(), version=2)
        assert answer.view.workflow_version == 2
        await one.workflows.publish(CALLER, chain(3))
        answer = await two.requests.execute(CALLER, "wf-chain-3", ExecuteOptions())
        assert answer.view.workflow_version == 3

        await one.workflows.set_status(CALLER, "chain", "inactive")
        inactive, _ = await two.workflows.find("default", "chain", trusted=False)
        assert inactive.status == "inactive"
        await one.workflows.set_status(CALLER, "chain", "active")
        await two.requests.execute(CALLER, "chain", ExecuteOptions())


async def test_a_running_execution_keeps_its_version(engine: Process) -> None:
    await engine.workflows.publish(CALLER, definition("flow", a=step("hold"), b=step()))
    first = await engine.requests.execute(CALLER, "flow", ExecuteOptions())
    await until(lambda: engine.deeds.done)
    await engine.workflows.publish(CALLER, definition("flow", a=step("hold"), z=step()))
    engine.deeds.open("")
    await engine.ended(first.view)
    second = await engine.requests.execute(CALLER, "flow", ExecuteOptions())
    await engine.ended(second.view)

    assert [first.view.workflow_version, second.view.workflow_version] == [1, 2]
    assert engine.deeds.paths() == ["a", "b", "a", "z"]
