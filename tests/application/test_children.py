"""Executions that run others: begun once, waited for without a worker, told when nobody waits."""

from uuid import UUID

import pytest

from application.ports import Append, Appended
from application.requests import ExecuteOptions
from application.views import ExecutionView
from domain import events as ev
from domain.children import DEPTH_MAX, child_uuid
from domain.json_values import Json, JsonObject
from tests.engine import (
    CALLER,
    Deeds,
    Process,
    before_append,
    definition,
    process,
    step,
    store_full,
    until,
)

pytestmark = pytest.mark.anyio


def call(workflow: str = "inner", **fields: Json) -> JsonObject:
    return {"type": "sub_workflow", "workflow_id": workflow, **fields}


async def publish(engine: Process, flow: JsonObject) -> None:
    await engine.workflows.publish(CALLER, flow)


def child_of(view: ExecutionView, path: str = "sub", try_no: int = 1, attempt: int = 1) -> str:
    return str(child_uuid(UUID(view.id), path, attempt, try_no))


async def gone(engine: Process, execution: ExecutionView | str) -> None:
    """Nothing is owed any more: the queue has no row."""
    wanted = UUID(execution if isinstance(execution, str) else execution.id)

    async def row() -> bool:
        return await engine.store.queue.row(wanted) is None

    for _ in range(4_000):
        if await row():
            return
        await engine.store.clock.sleep(0.005)
    raise AssertionError(f"{wanted} has a row in the work queue")


async def dies_before_the_child(engine: Process, execution: ExecutionView) -> None:
    """The process ends between the append of the parent and that of the child."""
    append = engine.ledger.log.append

    async def without_children(what: Append) -> Appended:
        if what.stream_id != UUID(execution.id):
            engine.queue.cut = True
            raise RuntimeError("the process dies here")
        return await append(what)

    engine.ledger.log.append = without_children  # type: ignore[method-assign]  # the crash
    await until(lambda: engine.queue.cut)


async def test_the_output_of_the_child_is_the_output_of_the_step(ledger_url: str) -> None:
    inner = definition("inner", a=step(config={"n": "${workflow.input.n}"}))
    outer = definition(
        sub=call(input_mapping={"n": "${workflow.input.number}"}),
        after=step(config={"got": "${sub.output.n}"}),
    )
    async with process(ledger_url) as engine:
        await publish(engine, inner)
        execution = await engine.run(outer, ExecuteOptions(input_data={"number": 7}))
        view = await engine.ended(execution)
        assert (view.status, view.error_message) == ("COMPLETED", None)
        assert view.output == {"ok": True, "got": 7}
        child = await engine.ended(child_of(view))
        assert (child.workflow_name, child.output) == ("inner", {"ok": True, "n": 7})
        assert await engine.topics(execution) == [
            "requested",
            "started",
            "step_started",
            "child_started",
            "child_ended",
            "step_completed",
            "step_started",
            "step_completed",
            "completed",
        ]
        await gone(engine, view)
        await gone(engine, child)


async def test_the_version_is_pinned_when_the_step_begins(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step(config={"v": 1})))
        await publish(engine, definition("inner", a=step(config={"v": 2})))
        newest = await engine.ended(await engine.run(definition(sub=call())))
        first = await engine.ended(await engine.run(definition(sub=call(version=1))))
        named = await engine.ended(await engine.run(definition(sub=call("wf-inner-1"))))
        outputs = [view.output for view in (newest, first, named)]
        assert outputs == [{"ok": True, "v": 2}, {"ok": True, "v": 1}, {"ok": True, "v": 1}]


async def test_a_failed_child_fails_the_step_with_its_code_and_class(ledger_url: str) -> None:
    flow = definition(sub=call())
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step("fail", config={"permanent": True})))
        view = await engine.ended(await engine.run(flow))
        assert view.status == "FAILED"
        assert view.error is not None
        assert (view.error.code, view.error.error_class) == ("made_to_fail", "permanent")
        assert "call 1 fails" in view.error.message
        assert child_of(view) in view.error.message


async def test_every_try_runs_a_child_of_its_own(ledger_url: str) -> None:
    retry: JsonObject = {"attempts": 2, "base_delay_ms": 0}
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step("hold", config={"gate": "g"})))
        execution = await engine.run(definition(sub=call(retry=retry, timeout_seconds=0.2)))
        view = await engine.ended(execution)
        assert view.error is not None
        assert (view.status, view.error.code) == ("FAILED", "step_timeout")
        for try_no in (1, 2, 3):
            child = await engine.ended(child_of(view, try_no=try_no))
            assert child.status == "CANCELLED"
        await gone(engine, view)
        facts = await engine.facts(execution)
        ignored = [each for each in facts if isinstance(each, ev.LateResultIgnored)]
        assert [(each.try_no, each.outcome) for each in ignored] == [
            (1, "cancelled"),
            (2, "cancelled"),
            (3, "cancelled"),
        ]


async def test_a_cancel_reaches_the_children_of_children(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        await publish(engine, definition("leaf", a=step("hold")))
        await publish(engine, definition("inner", sub=call("leaf")))
        fan = definition(fan={"type": "parallel", "parallel_steps": ["one", "two"]})
        steps = fan["steps"]
        assert isinstance(steps, dict)
        fan = {**fan, "steps": steps | {"one": call(), "two": call()}}
        execution = await engine.run(fan)
        await engine.deeds.count(2)
        await engine.control.cancel(CALLER, execution.id, "enough")
        view = await engine.ended(execution)
        assert view.status == "CANCELLED"
        await until(lambda: len(engine.deeds.interrupted) == 2)
        for name in ("one", "two"):
            child = await engine.ended(child_of(view, f"fan/{name}"))
            leaf = await engine.ended(child_of(child))
            assert (child.status, leaf.status) == ("CANCELLED", "CANCELLED")
            await gone(engine, child)
            await gone(engine, leaf)
        await gone(engine, view)
        facts = await engine.facts(execution)
        assert sum(isinstance(each, ev.LateResultIgnored) for each in facts) == 2


async def test_a_cancelled_child_fails_the_step_for_good(ledger_url: str) -> None:
    retry: JsonObject = {"attempts": 3, "base_delay_ms": 0}
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step("hold")))
        execution = await engine.run(definition(sub=call(retry=retry)))
        await engine.deeds.count(1)
        await engine.control.cancel(CALLER, child_of(execution), None)
        view = await engine.ended(execution)
        assert view.error is not None
        assert (view.status, view.error.code) == ("FAILED", "child_cancelled")


async def test_a_child_that_nobody_waits_for_goes_on_alone(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step("hold", config={"gate": "g"})))
        view = await engine.ended(await engine.run(definition(sub=call(wait=False))))
        assert view.output == {
            "execution_id": child_of(view),
            "workflow_id": "wf-inner-1",
            "workflow_version": 1,
        }
        await gone(engine, view)
        engine.deeds.open("g")
        assert (await engine.ended(child_of(view))).status == "COMPLETED"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"workflow_id": "nobody"}, "workflow_not_found"),
        ({"version": 9}, "workflow_not_found"),
        ({"input_mapping": {"n": "text"}}, "invalid_child_input"),
    ],
)
async def test_a_child_that_cannot_begin_fails_the_step(
    sqlite_ledger_url: str, fields: JsonObject, code: str
) -> None:
    schema: JsonObject = {"properties": {"n": {"type": "integer"}}}
    async with process(sqlite_ledger_url) as engine:
        await publish(engine, {**definition("inner", a=step()), "input_schema": schema})
        view = await engine.ended(await engine.run(definition(sub=call() | fields)))
        assert view.error is not None
        assert (view.status, view.error.code) == ("FAILED", code)
        assert not any(isinstance(each, ev.ChildStarted) for each in await engine.facts(view))


async def test_an_inactive_workflow_begins_no_child(sqlite_ledger_url: str) -> None:
    async with process(sqlite_ledger_url) as engine:
        await publish(engine, definition("inner", a=step()))
        await engine.workflows.set_status(CALLER, "inner", "inactive")
        view = await engine.ended(await engine.run(definition(sub=call())))
        assert view.error is not None
        assert view.error.code == "workflow_inactive"


@pytest.mark.parametrize("action", ["fail", "noop"])
async def test_what_becomes_of_a_child_that_nobody_waits_for_is_not_the_parent_s(
    ledger_url: str, action: str
) -> None:
    """Also when it has ended before the parent noted that it exists."""
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step(action, config={"permanent": True})))
        refused = before_append(engine, ev.ChildEnded, store_full)
        view = await engine.ended(await engine.run(definition(sub=call(wait=False))))
        assert (len(refused), view.status) == (1, "COMPLETED")
        assert view.output == {
            "execution_id": child_of(view),
            "workflow_id": "wf-inner-1",
            "workflow_version": 1,
        }


async def test_a_cancel_does_not_reach_a_child_that_nobody_waits_for(ledger_url: str) -> None:
    """It comes just before the parent notes that the child exists."""
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step("hold", config={"gate": "g"})))

        async def cancel(what: Append) -> None:
            await engine.control.cancel(CALLER, str(what.stream_id), None)

        before_append(engine, ev.ChildEnded, cancel)
        execution = await engine.run(definition(sub=call(wait=False), after=step()))
        assert (await engine.ended(execution)).status == "CANCELLED"
        await gone(engine, execution)
        engine.deeds.open("g")
        assert (await engine.ended(child_of(execution))).status == "COMPLETED"


async def test_executions_run_one_another_to_a_limit_only(sqlite_ledger_url: str) -> None:
    """The ring is closed by a version that was published before the workflow it calls."""
    async with process(sqlite_ledger_url) as engine:
        for number in range(DEPTH_MAX, 0, -1):
            last = number == DEPTH_MAX
            flow = definition(f"w{number}", sub=step() if last else call(f"w{number + 1}"))
            await publish(engine, flow)
        deep = await engine.ended(await engine.run(definition(sub=call("w1"))))
        fits = await engine.ended(await engine.run(definition(sub=call("w2"))))
        assert (deep.status, fits.status) == ("FAILED", "COMPLETED")
        assert deep.error is not None
        assert deep.error.code == "too_deep"


async def test_an_alternative_may_be_another_workflow(ledger_url: str) -> None:
    cheap: JsonObject = {
        "id": "cheap",
        "do": {"workflow": "inner"},
        "input": [{"path": "amount", "multiply": 0.5}],
    }
    pay = step("fail", config={"amount": 8, "permanent": True}, alternatives=[cheap])
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step(config={"n": "${workflow.input.amount}"})))
        view = await engine.ended(await engine.run(definition(pay=pay)))
        assert (view.status, view.output) == ("COMPLETED", {"ok": True, "n": 4})
        child = await engine.ended(child_of(view, "pay~alt.cheap"))
        assert child.status == "COMPLETED"


async def test_a_retry_of_the_parent_runs_a_new_child(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        await publish(engine, definition("inner", a=step("fail")))
        flow = definition(before=step(), sub=call())
        view = await engine.ended(await engine.run(flow))
        assert view.status == "FAILED"
        engine.deeds.fails = False
        await engine.control.retry(CALLER, view.id, None, None)
        again = await engine.until(view, lambda each: each.attempt == 2)
        again = await engine.ended(again)
        assert again.status == "COMPLETED"
        assert (await engine.ended(child_of(view))).status == "FAILED"
        assert (await engine.ended(child_of(view, attempt=2))).status == "COMPLETED"


# --- workers that die ---


async def test_a_parent_whose_worker_dies_hears_of_its_child_all_the_same(ledger_url: str) -> None:
    first, second = Deeds(), Deeds()
    async with process(ledger_url, first, lease_seconds=1.0, grace_seconds=0.0) as engine:
        await publish(engine, definition("inner", a=step("hold", config={"gate": "g"})))
        execution = await engine.run(definition(sub=call(), after=step()))
        await first.count(1)
        engine.queue.cut = True
    second.open("g")
    async with process(ledger_url, second, lease_seconds=1.0) as engine:
        view = await engine.ended(execution)
        assert view.status == "COMPLETED"
        assert second.paths() == ["a", "after"]
        assert (await engine.topics(execution)).count("child_started") == 1


async def test_a_cancel_that_nobody_was_there_to_spread_is_owed(ledger_url: str) -> None:
    """Only an API process is there when the parent is cancelled, and the worker has died."""
    first = Deeds()
    async with process(ledger_url, first, lease_seconds=1.0, grace_seconds=0.0) as engine:
        await publish(engine, definition("inner", a=step("hold")))
        execution = await engine.run(definition(sub=call()))
        await first.count(1)
        engine.queue.cut = True
    async with process(ledger_url, working=False) as api:
        await api.control.cancel(CALLER, execution.id, None)
        assert (await api.history.view("default", execution.id)).status == "CANCELLED"
        assert (await api.history.view("default", child_of(execution))).status == "RUNNING"
    async with process(ledger_url, lease_seconds=1.0) as engine:
        child = await engine.ended(child_of(execution))
        assert child.status == "CANCELLED"
        await gone(engine, execution)
        await gone(engine, child)
        assert (await engine.topics(execution))[-2:] == ["child_ended", "late_result_ignored"]


async def test_a_child_that_was_pinned_and_never_begun_is_begun_by_the_next(
    ledger_url: str,
) -> None:
    """The worker dies between the parent's append and the child's."""
    async with process(ledger_url, working=False) as api:
        await publish(api, definition("inner", a=step()))
        execution = await api.run(definition(sub=call()))
    async with process(ledger_url, lease_seconds=1.0, grace_seconds=0.0) as engine:
        await dies_before_the_child(engine, execution)
        assert (await engine.topics(execution))[-1] == "child_started"
    async with process(ledger_url, lease_seconds=1.0) as engine:
        view = await engine.ended(execution)
        assert (view.status, (await engine.ended(child_of(view))).status) == (
            "COMPLETED",
            "COMPLETED",
        )


async def test_a_child_that_was_pinned_and_never_begun_does_nothing_for_a_cancelled_parent(
    ledger_url: str,
) -> None:
    async with process(ledger_url, working=False) as api:
        await publish(api, definition("inner", pay=step(), more=step()))
        execution = await api.run(definition(sub=call()))
    async with process(ledger_url, lease_seconds=1.0, grace_seconds=0.0) as engine:
        await dies_before_the_child(engine, execution)
    async with process(ledger_url, working=False) as api:
        answer = await api.control.cancel(CALLER, execution.id, None)
        assert answer.view.status == "CANCELLED"
    async with process(ledger_url, lease_seconds=1.0) as engine:
        await gone(engine, execution)
        child = await engine.ended(child_of(execution))
        assert (child.status, engine.deeds.paths()) == ("CANCELLED", [])
        assert await engine.topics(child) == ["requested", "cancel_requested", "cancelled"]
        await gone(engine, child)


async def test_many_children_of_one_loop_end_at_once(ledger_url: str) -> None:
    each: JsonObject = {
        "collection": list(range(30)),
        "loop_body": ["sub"],
        "execution_mode": "parallel",
        "max_parallelism": 10,
    }
    flow = definition(each={"type": "loop", "loop_config": each})
    steps = flow["steps"]
    assert isinstance(steps, dict)
    flow = {**flow, "steps": steps | {"sub": call(input_mapping={"n": "${loop.item}"})}}
    async with process(ledger_url) as engine, process(ledger_url) as other:
        await publish(engine, definition("inner", a=step(config={"n": "${workflow.input.n}"})))
        view = await engine.ended(await engine.run(flow))
        assert (view.status, view.error_message) == ("COMPLETED", None)
        assert isinstance(view.output, dict)
        assert view.output["iterations"] == [{"ok": True, "n": n} for n in range(30)]
        assert len(engine.deeds.done) + len(other.deeds.done) == 30
        await gone(engine, view)


# --- signals ---


def awaits(**fields: Json) -> JsonObject:
    return {"type": "wait_for_event", "event_source": "paid", **fields}


async def test_a_signal_is_kept_until_its_step_waits(ledger_url: str) -> None:
    flow = definition(first=step("hold", config={"gate": "g"}), paid=awaits(), last=step())
    async with process(ledger_url) as engine:
        execution = await engine.run(flow)
        await engine.deeds.count(1)
        await engine.control.signal(CALLER, execution.id, "paid", {"n": 1})
        await engine.control.signal(CALLER, execution.id, "paid", {"n": 2})
        engine.deeds.open("g")
        view = await engine.ended(execution)
        assert view.status == "COMPLETED"
        steps = await engine.history.steps("default", execution.id)
        outputs = {each.path: each.output_data for each in steps}
        assert outputs["paid"] == {"n": 1}


async def test_a_signal_to_an_api_process_reaches_the_worker(ledger_url: str) -> None:
    async with process(ledger_url) as engine, process(ledger_url, working=False) as api:
        execution = await engine.run(definition(paid=awaits(), last=step()))
        await engine.until(execution, lambda view: "signal" in view.allowed_actions)
        await api.control.signal(CALLER, execution.id, "paid", None)
        assert (await engine.ended(execution)).status == "COMPLETED"


async def test_a_signal_while_no_worker_lives_is_taken_later(ledger_url: str) -> None:
    async with process(ledger_url, lease_seconds=1.0, grace_seconds=0.0) as engine:
        execution = await engine.run(definition(paid=awaits(timeout_seconds=600), last=step()))
        await engine.until(execution, lambda view: "signal" in view.allowed_actions)
        engine.queue.cut = True
    async with process(ledger_url, working=False) as api:
        await api.control.signal(CALLER, execution.id, "paid", "x")
    async with process(ledger_url, lease_seconds=1.0) as engine:
        view = await engine.ended(execution)
        assert view.status == "COMPLETED"
        assert (await engine.topics(execution)).count("signal_consumed") == 1
