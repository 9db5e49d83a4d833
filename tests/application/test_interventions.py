"""Pauses, settled steps and forks in a real engine: handlers, timers, leases and repeats."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from application.callers import Caller
from application.ports import Append, Appended, EventLog
from application.requests import ExecuteOptions
from application.views import ExecutionView
from domain import events as ev
from domain.errors import InvalidInput, KeyReused, NotFound, PreconditionFailed, StepNotReached
from domain.json_values import JsonObject
from tests.builders import call, fork, loop
from tests.engine import (
    CALLER,
    Process,
    before_append,
    chain,
    definition,
    process,
    step,
    store_full,
    until,
)

pytestmark = pytest.mark.anyio

HOLD = definition(a=step("hold", "b"), b=step())


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[Process]:
    async with process(ledger_url) as opened:
        yield opened


async def held(engine: Process, raw: JsonObject = HOLD) -> ExecutionView:
    """An execution whose handler waits at its gate."""
    execution = await engine.run(raw)
    await until(lambda: engine.deeds.calls("a", execution.id))
    return execution


def paused(view: ExecutionView) -> bool:
    return view.sub_status == "paused"


# --- pauses ---


async def test_a_handler_in_flight_ends_and_the_next_step_waits_for_the_resume(
    engine: Process,
) -> None:
    execution = await held(engine)
    answer = await engine.control.pause(CALLER, execution.id, None, "look at it")
    assert (answer.view.status, answer.view.sub_status) == ("RUNNING", "paused")
    engine.deeds.open("")
    view = await engine.until(execution, lambda each: each.progress.done == 1)
    await until(lambda: engine.worker.holds() == 0)

    assert paused(view)
    assert engine.deeds.paths() == ["a"]
    assert not engine.deeds.interrupted
    await engine.control.resume(CALLER, execution.id)
    assert (await engine.ended(execution)).status == "COMPLETED"
    assert engine.deeds.paths() == ["a", "b"]


async def test_a_wait_is_recorded_in_a_pause_and_costs_no_worker(engine: Process) -> None:
    execution = await engine.run(
        definition(w={"type": "wait", "duration_ms": 100, "next_step": "b"}, b=step())
    )
    await engine.until(execution, lambda view: view.status == "RUNNING")
    await engine.control.pause(CALLER, execution.id)
    await engine.until(execution, lambda view: view.progress.done == 1)
    await until(lambda: engine.worker.holds() == 0)
    row = await engine.queue.row((await engine.events(execution))[0].event.execution_id)
    assert row is not None
    assert (row.leased, row.ready_at) == (False, None)
    await engine.control.resume(CALLER, execution.id)
    assert (await engine.ended(execution)).status == "COMPLETED"


async def test_a_pause_that_lasts_too_long_fails_and_interrupts(engine: Process) -> None:
    execution = await held(engine)
    await engine.control.pause(CALLER, execution.id, 0.2)
    view = await engine.ended(execution)
    assert view.error is not None
    assert (view.status, view.error.code) == ("FAILED", "pause_timeout")
    await until(lambda: engine.deeds.interrupted)


async def test_a_pause_survives_the_process_and_what_it_ran_is_delivered_after_it(
    ledger_url: str,
) -> None:
    async with process(ledger_url, lease_seconds=0.5, grace_seconds=0) as first:
        execution = await held(first)
        await first.control.pause(CALLER, execution.id)
        first.queue.cut = True
    async with process(ledger_url, lease_seconds=0.5, deeds=first.deeds) as second:
        await until(lambda: second.worker.figures.claimed)
        await until(lambda: second.worker.holds() == 0)
        assert paused(await second.history.view("default", execution.id))
        assert len(first.deeds.calls("a")) == 1
        second.deeds.open("")
        await second.control.resume(CALLER, execution.id)
        assert (await second.ended(execution)).status == "COMPLETED"
        assert [each.delivery for each in first.deeds.calls("a")] == [1, 2]


async def test_another_process_pauses_and_resumes(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as api, process(ledger_url) as engine:
        execution = await held(engine)
        await api.control.pause(CALLER, execution.id)
        engine.deeds.open("")
        await api.until(execution, lambda view: view.progress.done == 1)
        await api.control.resume(CALLER, execution.id)
        assert (await api.ended(execution)).status == "COMPLETED"


async def test_a_pause_right_after_the_request_is_never_too_early(engine: Process) -> None:
    execution = await engine.run(chain(3), ExecuteOptions(delay_seconds=0.1))
    await engine.control.pause(CALLER, execution.id)
    await until(lambda: engine.worker.holds() == 0)
    await engine.control.resume(CALLER, execution.id)
    assert (await engine.ended(execution)).status == "COMPLETED"
    assert (await engine.topics(execution))[:4] == ["requested", "paused", "resumed", "started"]


# --- settled steps ---


@pytest.mark.parametrize("kind", ["hold", "deaf"])
async def test_a_running_handler_is_interrupted_and_its_result_ignored(
    engine: Process, kind: str
) -> None:
    execution = await held(engine, definition(a=step(kind, "b"), b=step("hold")))
    answer = await engine.control.settle_step(
        replace(CALLER, actor="olga"), execution.id, "a", "complete", "done by hand", {"n": 1}
    )
    assert answer.view.progress.done == 1
    await until(lambda: engine.deeds.interrupted)
    engine.deeds.open("")
    assert (await engine.ended(execution)).status == "COMPLETED"
    await engine.until(execution, lambda view: view.version == 8)
    events = await engine.events(execution)
    (settled,) = [each.event for each in events if isinstance(each.event.data, ev.StepSettled)]
    assert isinstance(settled.data, ev.StepSettled)
    assert (settled.meta.actor, settled.data.reason) == ("olga", "done by hand")
    assert [type(each.event.data) for each in events].count(ev.LateResultIgnored) == 1


async def test_a_step_in_a_loop_is_settled_and_the_loop_goes_on(engine: Process) -> None:
    execution = await engine.run(
        {
            "name": "looping",
            "start_step": "each",
            "steps": {
                "each": {
                    "type": "loop",
                    "loop_config": {"collection": [1, 2], "loop_body": ["a"]},
                },
                "a": step("hold"),
            },
        }
    )
    for number in range(2):
        path = f"each[{number}]/a"
        await until(lambda path=path: engine.deeds.calls(path))
        await engine.control.settle_step(CALLER, execution.id, path, "complete", "by hand", number)
    view = await engine.ended(execution)
    assert view.output == {"iterations": [0, 1], "total_count": 2}


async def test_a_retry_of_a_settled_execution_calls_with_a_new_key(engine: Process) -> None:
    execution = await held(engine, definition(a=step("hold", "b"), b=step("fail")))
    await engine.control.settle_step(CALLER, execution.id, "a", "skip", "not needed")
    await engine.ended(execution)
    engine.deeds.open("")
    engine.deeds.fails = False
    await engine.control.retry(CALLER, execution.id, "a", None)
    assert (await engine.ended(execution)).status == "COMPLETED"
    keys = [each.key for each in engine.deeds.calls("a")]
    assert len(keys) == len(set(keys)) == 2


async def test_a_repeated_command_is_answered_as_the_first_time(engine: Process) -> None:
    execution = await held(engine)
    caller = Caller(actor="olga", route="skip", idempotency_key="k1", fingerprint="f1")
    first = await engine.control.settle_step(caller, execution.id, "a", "skip", "why")
    again = await engine.control.settle_step(caller, execution.id, "a", "skip", "why")
    assert (again.replayed, again.view.version) == (True, first.view.version)


# --- forks ---


SEES = definition(
    a=step("noop", "b", config={"n": 7}), b=step("noop", config={"n": "${a.output.n}"})
)


async def test_a_fork_runs_from_the_step_with_what_was_done_before(engine: Process) -> None:
    first = await engine.run(SEES)
    await engine.ended(first)
    before = len(await engine.events(first))
    answer = await engine.requests.fork(CALLER, first.id, "b", None, "what if")
    view = await engine.ended(answer.view)

    assert (view.status, view.output) == ("COMPLETED", {"ok": True, "n": 7})
    assert view.forked_from is not None
    assert view.forked_from.execution_id == first.id
    assert [each.path for each in engine.deeds.done if each.execution_id == view.id] == ["b"]
    assert len(await engine.events(first)) == before
    third = await engine.requests.fork(CALLER, view.id, "b", None)
    ancestors = await engine.history.ancestors("default", third.view.id)
    assert [each.id for each in ancestors] == [first.id, view.id, third.view.id]


async def test_a_fork_is_made_once_for_each_key(engine: Process) -> None:
    first = await engine.run(SEES)
    await engine.ended(first)
    caller = Caller(actor="olga", route="fork", idempotency_key="k1", fingerprint="f1")
    made = await engine.requests.fork(caller, first.id, "b", None)
    again = await engine.requests.fork(caller, first.id, "b", None)
    assert (made.replayed, again.replayed, again.view.id) == (False, True, made.view.id)
    assert again.view.version == made.view.version
    with pytest.raises(KeyReused):
        await engine.requests.fork(replace(caller, fingerprint="f2"), first.id, "a", None)


async def test_what_a_fork_refuses(engine: Process) -> None:
    schema: JsonObject = {"type": "object", "properties": {"n": {"type": "integer"}}}
    first = await engine.run({**SEES, "input_schema": schema})
    view = await engine.ended(first)
    with pytest.raises(StepNotReached):
        await engine.requests.fork(CALLER, first.id, "c", None)
    with pytest.raises(InvalidInput):
        await engine.requests.fork(CALLER, first.id, "b", {"n": "text"})
    with pytest.raises(PreconditionFailed):
        await engine.requests.fork(replace(CALLER, if_match=view.version - 1), first.id, "b", None)
    with pytest.raises(NotFound):
        await engine.requests.fork(replace(CALLER, workspace_id="other"), first.id, "b", None)
    for verb in (engine.control.pause, engine.control.resume):
        with pytest.raises(NotFound):
            await verb(replace(CALLER, workspace_id="other"), first.id)
    with pytest.raises(NotFound):
        await engine.control.settle_step(
            replace(CALLER, workspace_id="other"), first.id, "a", "skip", "why"
        )


async def test_a_large_loop_is_kept_whole(engine: Process) -> None:
    raw = definition(
        each={
            "type": "loop",
            "loop_config": {
                "collection": "${workflow.input.items}",
                "loop_body": ["a"],
                "execution_mode": "parallel",
                "max_parallelism": 50,
            },
            "next_step": "b",
        },
        a=step("noop", config={"text": "x" * 1_000, "n": "${loop.index}"}),
        b=step("noop", config={"last": "${each.output.iterations.599.n}"}),
    )
    first = await engine.run(raw, ExecuteOptions(input_data={"items": list(range(600))}))
    assert (await engine.ended(first)).status == "COMPLETED"
    fork = await engine.requests.fork(CALLER, first.id, "b", None)
    assert (await engine.ended(fork.view)).output == {"ok": True, "last": 599}


class WhenAChildIsCancelled:
    """The real log; `then` comes first when an execution is asked to stop."""

    def __init__(self, log: EventLog, then: Callable[[], Awaitable[object]]) -> None:
        self._log = log
        self._then = then

    async def append(self, append: Append) -> Appended:
        if any(isinstance(each.data, ev.CancelRequested) for each in append.events):
            await self._then()
        return await self._log.append(append)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def test_what_a_person_settles_before_it_is_performed_does_not_begin(
    engine: Process,
) -> None:
    """The loop begins in the append that ends the fork; before its step is performed the child of
    the other branch is told that nobody waits for it, which takes a while.
    """
    await engine.workflows.publish(CALLER, definition("inner", x=step("hold")))
    raw: JsonObject = {
        "name": "flow",
        "start_step": "f",
        "steps": {
            "f": fork({"one": ["a"], "other": ["b"]}, "each", "any"),
            "a": step("hold", config={"gate": "a"}),
            "b": call(),
            "each": loop([1], ["p"], "last"),
            "p": step("hold"),
            "last": step(),
        },
    }
    execution = await engine.run(raw)
    await until(lambda: engine.deeds.calls("x") and engine.deeds.calls("f/one/a"))

    async def settle() -> None:
        await engine.control.settle_step(CALLER, execution.id, "each", "complete", "enough")

    engine.ledger.log = WhenAChildIsCancelled(engine.store.log, settle)
    engine.deeds.open("a")
    assert (await engine.ended(execution)).status == "COMPLETED"
    assert not engine.deeds.calls("each[0]/p")
    assert [event for event, _ in engine.reports if event == "execution_set_aside"] == []


async def test_a_skip_is_noticed_after_a_report_of_progress_that_was_not_stored(
    engine: Process,
) -> None:
    refused = before_append(engine, ev.StepProgressed, store_full)
    engine.deeds.to_report = [{"percent": 1}]
    flow = definition(a=step("report", "b", config={"gate": "never"}), b=step())
    execution = await engine.run(flow)
    await until(lambda: refused)
    await engine.control.settle_step(CALLER, execution.id, "a", "skip", "it is stuck")
    assert (await engine.ended(execution)).status == "COMPLETED"


async def test_a_skip_is_noticed_after_another_one_that_came_first(engine: Process) -> None:
    """The worker was about to write more than was written instead."""

    async def skip(what: Append) -> None:
        await engine.control.settle_step(CALLER, str(what.stream_id), "both/x", "skip", "first")

    raw = definition(both={"type": "parallel", "parallel_steps": ["x", "y"]})
    steps = raw["steps"]
    assert isinstance(steps, dict)
    steps["x"] = step("fail", retry={"attempts": 3, "base_delay_ms": 60_000})
    steps["y"] = step("hold", config={"gate": "never"})
    met = before_append(engine, ev.StepFailed, skip)
    execution = await engine.run(raw)
    await until(lambda: met)
    skipped_at = met[0].events[0].version
    await engine.until(execution, lambda view: view.version > skipped_at)
    await engine.control.settle_step(CALLER, execution.id, "both/y", "skip", "it is stuck")
    assert (await engine.ended(execution)).status == "COMPLETED"
