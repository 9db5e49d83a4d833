"""Leases: taken over, lost, never orphaned; a slow or dead worker harms nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from application.callers import Caller
from application.ports import Append, Appended, Claim, EventLog
from application.requests import ExecuteOptions
from application.views import ExecutionView
from application.worker import TICK_SECONDS
from domain import events as ev
from domain.errors import NotFound
from domain.json_values import JsonObject
from tests.engine import CALLER, Deeds, Process, chain, definition, process, step, until

pytestmark = pytest.mark.anyio

ASK: JsonObject = {"title": "Look at it"}


def ask(*, wait: bool) -> JsonObject:
    return step("create_task", config={**ASK, "wait": wait})


def task_id(view_id: str, number: int) -> str:
    return f"ht-{view_id.replace('-', '')}-{number}"


async def statuses(engine: Process) -> list[str]:
    """The status of every execution in the log."""
    recorded = await engine.history.all_events("default", limit=10_000)
    ids = dict.fromkeys(str(each.event.execution_id) for each in recorded)
    return [(await engine.history.view("default", each)).status for each in ids]


# --- nothing is left behind under a lease that is renewed for ever ---


async def test_an_execution_whose_caller_left_runs_all_the_same(ledger_url: str) -> None:
    async with process(ledger_url, lease_seconds=0.9, renew_seconds=0.1) as engine:
        for turns in range(1, 30):
            request = asyncio.create_task(engine.run(chain(1)))
            for _ in range(turns):
                await asyncio.sleep(0)
            request.cancel()
            with suppress(asyncio.CancelledError):
                await request
        await until(lambda: engine.worker.holds() == 0)
        await engine.ended(await engine.run(chain(1)))
        for each in await engine.history.all_events("default", limit=1_000):
            await engine.ended(str(each.event.execution_id))
        assert (await engine.store.queue.statistics()).depth == 0


async def test_a_claim_whose_answer_was_lost_is_worked_on(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as api:
        executions = [await api.run(chain(2)) for _ in range(5)]
        async with process(ledger_url, lease_seconds=0.9, renew_seconds=0.1) as engine:
            engine.queue.answers_lost = 1
            for execution in executions:
                assert (await engine.ended(execution)).status == "COMPLETED"


async def test_a_claim_whose_answer_comes_after_a_renewal_is_begun_once(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        process(ledger_url, working=False) as api,
        process(ledger_url, lease_seconds=0.9, renew_seconds=0.1) as engine,
    ):
        claim, answered = engine.queue.claim, asyncio.Event()

        async def slow_claim(limit: int) -> Sequence[Claim]:
            claims = await claim(limit)
            if claims:
                await until(lambda: engine.deeds.done)  # a renewal told of it first
                answered.set()
            return claims

        monkeypatch.setattr(engine.queue, "claim", slow_claim)
        execution = await api.run(definition(a=step("hold")))
        await answered.wait()
        await asyncio.sleep(0)
        engine.deeds.open("")
        assert (await engine.ended(execution)).status == "COMPLETED"
        assert [deed.delivery for deed in engine.deeds.done] == [1]


async def test_an_answer_that_comes_while_a_lease_is_handed_back_is_seen(ledger_url: str) -> None:
    async with (
        process(ledger_url, working=False) as api,
        process(ledger_url, lease_seconds=0.9, renew_seconds=0.1) as engine,
    ):
        execution = await api.run(definition(fyi=ask(wait=False), ask=ask(wait=True), last=step()))
        await engine.until(execution, lambda view: view.waiting_on[0].kind == "human_task")
        await until(lambda: engine.worker.holds() == 0)

        async def answer() -> None:
            await api.control.complete_human_task(CALLER, task_id(execution.id, 2), {"ok": True})

        engine.queue.before_hand_back = answer
        await api.control.complete_human_task(CALLER, task_id(execution.id, 1), None)

        assert (await api.ended(execution)).status == "COMPLETED"
        await until(lambda: engine.worker.holds() == 0)


async def test_work_goes_on_after_the_queue_was_away(ledger_url: str) -> None:
    async with process(ledger_url, lease_seconds=0.6, renew_seconds=0.1) as engine:
        executions = [await engine.run(definition(a=step(), b=step("hold"))) for _ in range(3)]
        await until(lambda: len(engine.deeds.calls("b")) == 3)
        engine.queue.cut = True
        await until(lambda: len(engine.deeds.interrupted) == 3)
        assert not engine.worker.fresh()
        engine.queue.cut = False
        engine.deeds.open("")

        for execution in executions:
            assert (await engine.ended(execution)).status == "COMPLETED"
        assert len(engine.deeds.calls("a")) == 3


# --- the answer to a handed-over append comes late ---


class SlowAnswer:
    """The real log; `meanwhile` runs between the next commit and its answer."""

    def __init__(self, log: EventLog, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._log = log
        self._meanwhile: Callable[[], Awaitable[object]] | None = meanwhile

    async def append(self, append: Append) -> Appended:
        meanwhile, self._meanwhile = self._meanwhile, None
        done = await self._log.append(append)
        if meanwhile is not None:
            await meanwhile()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def failed(engine: Process) -> ExecutionView:
    """An execution that a retry brings to its end once the gate is open."""
    flow = definition(a=step("fail", config={"permanent": True}), b=step("hold"))
    view = await engine.ended(await engine.run(flow))
    engine.deeds.fails = False
    return view


async def claimed_anew(engine: Process) -> None:
    """The lease runs out, and the same worker claims what it does not know to be its own."""
    engine.queue.unrenewed = True
    await until(lambda: engine.deeds.calls("b"))


async def test_a_retry_is_acknowledged_though_its_worker_stopped_meanwhile(
    ledger_url: str,
) -> None:
    async with process(ledger_url, lease_seconds=0.9) as engine:
        view = await failed(engine)
        engine.ledger.log = SlowAnswer(engine.store.log, engine.worker.stop)
        answer = await engine.control.retry(CALLER, view.id, None, None)
        assert (answer.view.status, answer.view.attempt) == ("PENDING", 2)
        async with process(ledger_url, engine.deeds, lease_seconds=0.9):
            engine.deeds.open("")
            assert (await engine.ended(view)).status == "COMPLETED"


async def test_a_retry_is_acknowledged_though_it_was_claimed_and_ended_meanwhile(
    ledger_url: str,
) -> None:
    async with process(ledger_url, lease_seconds=0.5, renew_seconds=0.1) as engine:
        view = await failed(engine)
        engine.deeds.open("")

        async def claimed_and_ended() -> None:
            await claimed_anew(engine)
            await until(lambda: engine.worker.holds() == 0)

        engine.ledger.log = SlowAnswer(engine.store.log, claimed_and_ended)
        answer = await engine.control.retry(CALLER, view.id, None, None)
        assert (answer.view.status, answer.view.attempt) == ("PENDING", 2)
        assert (await engine.ended(view)).status == "COMPLETED"


async def test_what_was_claimed_before_it_could_be_handed_over_has_one_driver(
    ledger_url: str,
) -> None:
    async with process(ledger_url, lease_seconds=0.5, renew_seconds=0.1) as engine:
        view = await failed(engine)
        engine.ledger.log = SlowAnswer(engine.store.log, lambda: claimed_anew(engine))
        await engine.control.retry(CALLER, view.id, None, None)
        (claimed,) = engine.deeds.calls("b")
        engine.deeds.open("")
        assert (await engine.ended(view)).status == "COMPLETED"
        assert engine.deeds.calls("b") == [claimed]
        results = [fact for fact in await engine.facts(view) if isinstance(fact, ev.StepCompleted)]
        assert [each.epoch for each in results if each.path == "b"] == [claimed.epoch]


async def test_a_renewal_that_failed_is_tried_again_while_there_is_time(ledger_url: str) -> None:
    async with process(ledger_url, lease_seconds=4.5, renew_seconds=1.5) as engine:
        execution = await engine.run(definition(a=step("hold")))
        await until(lambda: engine.deeds.done)
        engine.queue.renewals_lost = 2
        await until(lambda: engine.worker.figures.renewals or engine.deeds.interrupted)
        engine.deeds.open("")

        assert (await engine.ended(execution)).status == "COMPLETED"
        assert engine.worker.figures.leases_lost == 0


async def test_what_was_leased_since_the_last_renewal_is_not_given_up_with_the_rest(
    ledger_url: str,
) -> None:
    async with process(ledger_url, lease_seconds=3.0, renew_seconds=0.1) as engine:
        old = await engine.run(definition(a=step("hold", config={"gate": "old"})))
        engine.queue.renewals_lost = 1_000
        await until(lambda: engine.deeds.interrupted)
        new = await engine.run(definition(a=step("hold", config={"gate": "new"})))
        await until(lambda: engine.deeds.calls("a", new.id))
        for _ in range(5):
            await asyncio.sleep(TICK_SECONDS)
        engine.deeds.open("new")

        assert (await engine.ended(new)).status == "COMPLETED"
        assert {deed.execution_id for deed in engine.deeds.interrupted} == {old.id}
        engine.queue.renewals_lost = 0
        engine.deeds.open("old")
        assert (await engine.ended(old)).status == "COMPLETED"


# --- another worker takes over ---


async def test_the_late_result_of_a_worker_whose_lease_ran_out_is_refused(
    ledger_url: str,
) -> None:
    slow, fast = Deeds(), Deeds()
    async with (
        process(ledger_url, slow, lease_seconds=0.5, renew_seconds=0.1) as first,
        process(ledger_url, fast, lease_seconds=0.5, renew_seconds=0.1) as second,
    ):
        second.queue.cut = True
        execution = await first.run(definition(a=step("hold"), b=step()))
        await until(lambda: slow.done)
        first.queue.stale = True
        second.queue.cut = False
        await until(lambda: fast.done)
        slow.open("")
        await until(lambda: first.worker.figures.leases_lost)
        assert (await first.history.view("default", execution.id)).status == "RUNNING"
        fast.open("")
        view = await second.ended(execution)

        assert (view.status, view.output) == ("COMPLETED", {"ok": True})
        assert [deed.delivery for deed in (*slow.done[:1], *fast.done[:1])] == [1, 2]
        assert slow.done[0].key == fast.done[0].key
        (done, _) = [
            fact for fact in await second.facts(execution) if isinstance(fact, ev.StepCompleted)
        ]
        assert done.epoch == fast.done[0].epoch > slow.done[0].epoch


async def crash_in_the_middle(url: str, deeds: Deeds) -> None:
    """Work until a handler runs, then be gone without a word."""
    before = len(deeds.done)
    async with process(url, deeds, lease_seconds=0.3, grace_seconds=0.0) as engine:
        await until(lambda: len(deeds.done) > before)
        engine.queue.cut = True


async def test_a_step_that_costs_three_workers_is_given_up(ledger_url: str) -> None:
    deeds = Deeds()
    async with process(ledger_url, working=False) as api:
        execution = await api.run(definition(a=step("hold"), b=step()))
        for _ in range(3):
            await crash_in_the_middle(ledger_url, deeds)
        async with process(ledger_url, deeds, lease_seconds=0.3):
            view = await api.ended(execution)

    assert (view.status, view.error and view.error.code) == ("FAILED", "worker_lost")
    assert [deed.delivery for deed in deeds.done] == [1, 2, 3]


async def test_a_restart_goes_on_where_the_crash_was(ledger_url: str) -> None:
    deeds = Deeds()
    async with process(ledger_url, working=False) as api:
        flow = definition(a=step(), b=step(), c=step("hold"), d=step())
        executions = [await api.run(flow) for _ in range(10)]
        before = len(deeds.done)
        async with process(ledger_url, deeds, lease_seconds=0.3, grace_seconds=0.0) as engine:
            await until(lambda: len(deeds.calls("c")) == 10)
            engine.queue.cut = True
        deeds.open("")
        async with process(ledger_url, deeds, lease_seconds=0.3):
            views = [await api.ended(execution) for execution in executions]

    assert before == 0
    assert {view.status for view in views} == {"COMPLETED"}
    assert [len(deeds.calls(path)) for path in "abcd"] == [10, 10, 20, 10]
    assert {deed.delivery for deed in deeds.calls("c")} == {1, 2}


# --- a worker stops as it should ---


async def test_a_stopping_worker_lets_its_handlers_end_and_begins_nothing(ledger_url: str) -> None:
    deeds = Deeds()
    async with process(ledger_url, working=False) as api:
        execution = await api.run(definition(a=step("hold"), b=step()))
        async with process(ledger_url, deeds) as engine:
            await until(lambda: deeds.done)
            stopping = asyncio.create_task(engine.worker.stop())
            await asyncio.sleep(0)
            deeds.open("")
            await stopping
        assert deeds.paths() == ["a"]
        assert (await api.store.queue.statistics()).leased == 0
        assert (await api.history.view("default", execution.id)).progress.done == 1

        async with process(ledger_url, deeds):
            assert (await api.ended(execution)).status == "COMPLETED"
    assert deeds.paths() == ["a", "b"]


async def test_a_handler_that_outlasts_the_grace_is_done_again_at_once(ledger_url: str) -> None:
    deeds = Deeds()
    async with process(ledger_url, working=False) as api:
        execution = await api.run(definition(a=step("hold"), b=step()))
        async with process(ledger_url, deeds, grace_seconds=0.1, lease_seconds=600):
            await until(lambda: deeds.done)
        deeds.open("")
        async with process(ledger_url, deeds):
            assert (await api.ended(execution)).status == "COMPLETED"
    assert [deed.delivery for deed in deeds.calls("a")] == [1, 2]


async def test_stopping_in_the_middle_of_load_loses_nothing(ledger_url: str) -> None:
    deeds = Deeds()
    async with process(ledger_url, working=False) as api:
        executions = [await api.run(chain(5)) for _ in range(50)]
        for _ in range(3):
            enough = len(deeds.done) + 40
            async with process(ledger_url, deeds, slots=10):
                await deeds.count(enough)
        async with process(ledger_url, deeds):
            views = [await api.ended(execution) for execution in executions]

    assert {view.status for view in views} == {"COMPLETED"}
    assert set(deeds.per_step().values()) == {1}


# --- several workers ---


async def test_two_workers_share_the_load_and_do_no_step_twice(ledger_url: str) -> None:
    first, second = Deeds(), Deeds()
    async with process(ledger_url, working=False) as api:
        flow = definition(a=step(), b=step("hold"), c=step())
        executions = [await api.run(flow) for _ in range(100)]
        async with (
            process(ledger_url, first, slots=5),
            process(ledger_url, second, slots=5),
        ):
            await until(lambda: first.calls("b") and second.calls("b"))
            first.open("")
            second.open("")
            views = [await api.ended(execution) for execution in executions]

    assert {view.status for view in views} == {"COMPLETED"}
    assert set((first.per_step() + second.per_step()).values()) == {1}
    assert (first.per_step() + second.per_step()).total() == 300


async def test_lower_priorities_are_claimed_first(ledger_url: str) -> None:
    deeds = Deeds()
    async with process(ledger_url, working=False) as api:
        order = [9, 5, 0, 7, 2]
        for priority in order:
            await api.run(chain(1), ExecuteOptions(priority=priority, labels={"p": str(priority)}))
        async with process(ledger_url, deeds, slots=1) as engine:
            await until(lambda: len(deeds.done) == 5)
            views = [await engine.history.view("default", deed.execution_id) for deed in deeds.done]
    assert [view.priority for view in views] == sorted(order)


async def test_a_workspace_does_not_see_what_another_runs(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        execution = await engine.run(chain(1), caller=Caller(workspace_id="a", actor="x"))
        with pytest.raises(NotFound):
            await engine.history.view("b", execution.id)
        with pytest.raises(NotFound):
            await engine.control.cancel(Caller(workspace_id="b"), execution.id, None)


async def test_an_old_claim_whose_answer_comes_late_ends_nothing(ledger_url: str) -> None:
    """Cancelled and retried since: the row was leased anew, to the same worker."""
    async with process(ledger_url) as engine:
        view = await engine.run(definition(a=step("hold")))
        await until(lambda: engine.deeds.calls("a"))
        (deed,) = engine.deeds.calls("a")
        old = Claim(UUID(view.id), deed.epoch - 1, 1)
        engine.worker.take(old, engine.store.clock.now())
        engine.deeds.open("")
        assert (await engine.ended(view)).status == "COMPLETED"
        assert engine.deeds.calls("a") == [deed]
        assert engine.worker.figures.claimed == 0
