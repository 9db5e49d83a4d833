"""The engine over real stores: order, appends, waits, re-tries, time-outs."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from application.requests import ExecuteOptions
from application.run import Run
from domain import events as ev
from domain.json_values import JsonObject
from tests.engine import CALLER, Deeds, Process, chain, definition, process, step, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[Process]:
    async with process(ledger_url) as opened:
        yield opened


async def test_three_steps_run_in_order_and_pass_their_outputs_on(engine: Process) -> None:
    flow = definition(
        a=step(config={"value": 1}),
        b=step(config={"value": "${a.output.value}"}),
        c=step(config={"value": "${b.output.value}"}),
    )
    view = await engine.ended(await engine.run(flow))

    assert (view.status, view.output) == ("COMPLETED", {"ok": True, "value": 1})
    assert engine.deeds.paths() == ["a", "b", "c"]


@pytest.mark.parametrize("length", [1, 3, 20])
async def test_a_chain_of_n_steps_costs_n_and_two_appends(engine: Process, length: int) -> None:
    execution = await engine.run(chain(length))
    view = await engine.ended(execution)

    assert view.status == "COMPLETED"
    assert await engine.commands(execution) == length + 2


async def test_an_execution_is_pending_at_its_first_version(engine: Process) -> None:
    execution = await engine.run(chain(1))
    await engine.ended(execution)

    assert execution.status == "PENDING"
    assert (await engine.history.view("default", execution.id, as_of=1)).status == "PENDING"


async def test_a_wait_occupies_no_slot(ledger_url: str) -> None:
    async with process(ledger_url, slots=1) as engine:
        wait: JsonObject = {"type": "wait", "duration_ms": 600_000}
        waiting = await engine.run(definition(pause=wait, last=step()))
        await engine.until(waiting, lambda view: view.waiting_on[0].kind == "timer")
        await until(lambda: engine.worker.holds() == 0)

        assert (await engine.ended(await engine.run(chain(2)))).status == "COMPLETED"
        assert (await engine.store.queue.statistics()).leased == 0


async def test_a_wait_longer_than_the_lease_ends_when_it_is_due(ledger_url: str) -> None:
    async with process(ledger_url, lease_seconds=0.3) as engine:
        wait: JsonObject = {"type": "wait", "duration_ms": 1_000}
        execution = await engine.run(definition(pause=wait, last=step()))
        view = await engine.ended(execution)

        assert view.status == "COMPLETED"
        assert "step_redelivered" not in await engine.topics(execution)
        pause, _ = await engine.history.steps("default", execution.id)
        assert pause.duration_ms is not None
        assert pause.duration_ms >= 1_000


async def test_a_failing_step_is_tried_again_after_growing_pauses(engine: Process) -> None:
    retry: JsonObject = {"attempts": 3, "base_delay_ms": 10, "multiplier": 2}
    flow = definition(shaky=step("fail", config={"times": 3}, retry=retry))
    execution = await engine.run(flow)
    view = await engine.ended(execution)

    assert (view.status, view.output) == ("COMPLETED", {"calls": 4})
    facts = await engine.facts(execution)
    delays = [fact.delay_ms for fact in facts if isinstance(fact, ev.RetryScheduled)]
    assert delays == [10, 20, 40]
    assert len({deed.key for deed in engine.deeds.done}) == 1


async def test_retries_pause_one_two_and_four_seconds_by_default(engine: Process) -> None:
    execution = await engine.run(definition(shaky=step("fail", on_error="retry")))
    view = await engine.until(execution, lambda view: view.sub_status == "retrying")

    scheduled = [
        fact for fact in await engine.facts(execution) if isinstance(fact, ev.RetryScheduled)
    ]
    assert [fact.delay_ms for fact in scheduled] == [1_000]
    assert view.waiting_on[0].until == scheduled[0].due_at
    assert engine.worker.holds() == 0


async def test_a_permanent_failure_is_not_tried_again(engine: Process) -> None:
    flow = definition(broken=step("fail", config={"permanent": True}, on_error="retry"))
    view = await engine.ended(await engine.run(flow))

    assert view.status == "FAILED"
    assert len(engine.deeds.done) == 1


async def test_a_step_that_calls_exit_fails_and_the_worker_goes_on(engine: Process) -> None:
    failed = await engine.ended(await engine.run(definition(a=step("exit"))))
    assert failed.status == "FAILED"
    assert (await engine.ended(await engine.run(chain(1)))).status == "COMPLETED"


@pytest.mark.parametrize("action", ["hold", "block", "deaf"])
async def test_a_time_out_ends_a_step_whatever_its_handler_does(
    engine: Process, action: str
) -> None:
    execution = await engine.run(definition(slow=step(action, timeout_seconds=0.1)))
    view = await engine.ended(execution)
    engine.deeds.open("")

    assert (view.status, view.error and view.error.code) == ("FAILED", "step_timeout")
    await engine.until(execution, lambda view: view.version == 6)
    topics = await engine.topics(execution)
    assert topics[-3:] == ["step_failed", "failed", "late_result_ignored"]


async def test_a_timed_out_step_is_tried_again(engine: Process) -> None:
    retry: JsonObject = {"attempts": 1, "base_delay_ms": 0}
    flow = definition(slow=step("hold", timeout_seconds=0.1, retry=retry))
    execution = await engine.run(flow)
    await until(lambda: len(engine.deeds.done) == 2)
    engine.deeds.open("")
    view = await engine.ended(execution)

    assert view.status == "COMPLETED"
    assert [deed.try_no for deed in engine.deeds.done] == [1, 2]


async def test_the_time_out_of_an_execution_interrupts_its_step(engine: Process) -> None:
    flow = definition(fast=step(), slow=step("hold")) | {"timeout_seconds": 0.2}
    execution = await engine.run(flow)
    view = await engine.ended(execution)

    assert (view.status, view.error and view.error.code) == ("FAILED", "execution_timeout")
    await until(lambda: engine.deeds.interrupted)
    await until(lambda: engine.worker.holds() == 0)


async def test_the_time_out_of_an_execution_ends_a_wait(engine: Process) -> None:
    wait: JsonObject = {"type": "wait", "duration_ms": 600_000}
    view = await engine.ended(await engine.run(definition(pause=wait) | {"timeout_seconds": 0.2}))

    assert (view.status, view.error and view.error.code) == ("FAILED", "execution_timeout")


async def test_a_step_may_go_on_after_a_failure_that_is_not_critical(engine: Process) -> None:
    flow = definition(a=step("fail", on_error="continue"), b=step())
    view = await engine.ended(await engine.run(flow))

    assert (view.status, view.partial) == ("COMPLETED", True)


async def test_a_long_chain_takes_linear_time(engine: Process) -> None:
    execution = await engine.run(chain(1_000))
    view = await engine.ended(execution)

    assert view.status == "COMPLETED"
    assert len(engine.deeds.done) == 1_000
    assert await engine.commands(execution) == 1_002


async def test_progress_is_recorded_while_the_handler_runs(engine: Process) -> None:
    kept = {"at": 1}
    engine.deeds.to_report = [kept]
    execution = await engine.run(definition(a=step("report")))
    await engine.until(execution, lambda view: view.version == 4)
    kept["at"] = 2  # by a handler that counts in a value of its own
    (seen,) = await engine.history.steps("default", execution.id)
    live = await engine.ledger.find("default", execution.id)
    engine.deeds.open("")

    assert seen.progress == live.state.steps["a"].progress == {"at": 1}
    assert (await engine.ended(execution)).status == "COMPLETED"


@pytest.mark.parametrize(
    "value", [float("nan"), "a\x00b", "\ud800", 2**60, "x" * 300_000, object()]
)
async def test_progress_that_cannot_be_kept_is_dropped(engine: Process, value: object) -> None:
    engine.deeds.to_report = [value]
    execution = await engine.run(definition(a=step("report")))
    await until(lambda: engine.reports)
    engine.deeds.open("")
    view = await engine.ended(execution)

    assert view.status == "COMPLETED"
    assert [event for event, _ in engine.reports] == ["progress_not_storable"]
    assert "step_progressed" not in await engine.topics(execution)


async def test_two_hundred_executions_at_once_all_end(engine: Process) -> None:
    executions = [await engine.run(chain(3)) for _ in range(200)]
    views = [await engine.ended(each) for each in executions]

    assert {view.status for view in views} == {"COMPLETED"}
    assert set(engine.deeds.per_step().values()) == {1}
    await until(lambda: engine.worker.holds() == 0)
    assert (await engine.store.queue.statistics()).depth == 0


async def test_what_is_claimed_ahead_waits_for_a_slot(ledger_url: str) -> None:
    async with process(ledger_url, Deeds(), working=False) as idle:
        executions = [await idle.run(definition(a=step("hold"))) for _ in range(12)]
    async with process(ledger_url, Deeds(), slots=4) as engine:
        await engine.deeds.count(4)
        await until(lambda: engine.worker.holds() == 6)
        assert len(engine.deeds.done) == 4

        engine.deeds.open("")

        for execution in executions:
            assert (await engine.ended(execution)).status == "COMPLETED"
        assert len(engine.deeds.done) == 12


async def test_a_cancel_of_what_was_claimed_ahead_frees_no_slot(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as idle:
        options = [ExecuteOptions(priority=number) for number in range(6)]
        flow = definition(a=step("hold"))
        executions = [await idle.run(flow, each) for each in options]
    async with process(ledger_url, slots=4, renew_seconds=0.05) as engine:
        await engine.deeds.count(4)
        await until(lambda: engine.worker.holds() == 6)
        await engine.control.cancel(CALLER, executions[-1].id, None)
        await until(lambda: engine.worker.holds() == 5)
        renewals = engine.worker.figures.renewals
        await until(lambda: engine.worker.figures.renewals > renewals + 2)
        assert len(engine.deeds.done) == 4

        engine.deeds.open("")

        for execution in executions[:-1]:
            assert (await engine.ended(execution)).status == "COMPLETED"
        assert len(engine.deeds.done) == 5


async def test_an_end_recorded_here_is_no_reason_to_ask_the_queue(engine: Process) -> None:
    before = engine.queue.claims
    for _ in range(40):
        await engine.ended(await engine.run(chain(1)))

    assert engine.queue.claims - before < 20  # what is left are the looks of every second


async def test_work_that_a_stop_keeps_from_beginning_is_closed(engine: Process) -> None:
    async def never_begun() -> None:
        raise AssertionError("it began")

    work = never_begun()
    engine.worker.spawn(Run(uuid4(), 1, engine.store.clock.now()), work)
    for task in engine.worker._tasks:
        task.cancel()
    await until(lambda: work.cr_frame is None)
