"""Cancel, retry and human tasks, also against a busy engine and from another process."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from application.callers import Answer, Caller
from domain import events as ev
from domain.errors import (
    KeyReused,
    NotFound,
    PreconditionFailed,
    StateConflict,
    StepNotReached,
)
from domain.json_values import JsonObject
from tests.engine import CALLER, Process, chain, definition, process, step, until

pytestmark = pytest.mark.anyio

ASK = step("create_task", config={"title": "Approve it", "wait": True})


def task_id(execution_id: str, number: int = 1) -> str:
    return f"ht-{execution_id.replace('-', '')}-{number}"


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[Process]:
    async with process(ledger_url) as opened:
        yield opened


# --- cancel ---


async def test_cancel_reaches_a_running_handler_and_its_result_is_ignored(
    engine: Process,
) -> None:
    execution = await engine.run(definition(a=step("hold"), b=step()))
    await until(lambda: engine.deeds.done)
    answer = await engine.control.cancel(CALLER, execution.id, "enough")
    await until(lambda: engine.deeds.interrupted)
    await engine.until(execution, lambda view: view.version == 6)

    assert (answer.view.status, answer.view.error_message) == ("CANCELLED", "Cancelled: enough")
    assert (await engine.topics(execution))[-3:] == [
        "cancel_requested",
        "cancelled",
        "late_result_ignored",
    ]
    await until(lambda: engine.worker.holds() == 0)
    assert (await engine.store.queue.statistics()).depth == 0


async def test_cancel_by_another_process_reaches_the_handler(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as api, process(ledger_url) as engine:
        execution = await api.run(definition(a=step("hold")))
        await until(lambda: engine.deeds.done)
        await api.control.cancel(CALLER, execution.id, None)
        await until(lambda: engine.deeds.interrupted)
        await api.until(execution, lambda view: view.version == 6)


async def test_the_late_result_of_a_deaf_handler_is_noted_even_after_renewals(
    ledger_url: str,
) -> None:
    async with process(ledger_url, lease_seconds=0.6, renew_seconds=0.05) as engine:
        execution = await engine.run(definition(a=step("deaf")))
        await until(lambda: engine.deeds.done)
        await engine.control.cancel(CALLER, execution.id, None)
        await until(lambda: engine.deeds.interrupted)
        other = await engine.run(
            definition(pause={"type": "wait", "duration_ms": 300})
        )  # several renewals pass meanwhile
        await engine.ended(other)
        engine.deeds.open("")
        await engine.until(execution, lambda view: view.version == 6)

        (late,) = [
            each for each in await engine.facts(execution) if isinstance(each, ev.LateResultIgnored)
        ]
        assert late.outcome == "completed"
        assert not engine.worker.figures.leases_lost


async def test_cancel_before_the_start_leaves_nothing_to_do(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as engine:
        execution = await engine.run(chain(1))
        answer = await engine.control.cancel(CALLER, execution.id, None)

        assert answer.view.status == "CANCELLED"
        assert (await engine.store.queue.statistics()).depth == 0


async def test_cancel_ends_a_wait(engine: Process) -> None:
    execution = await engine.run(definition(w={"type": "wait", "duration_ms": 600_000}))
    await engine.until(execution, lambda view: view.status == "RUNNING")
    await engine.control.cancel(CALLER, execution.id, None)

    steps = await engine.history.steps("default", execution.id)
    assert [each.status for each in steps] == ["CANCELLED"]


async def test_cancelling_twice_is_no_error_and_records_nothing_more(engine: Process) -> None:
    execution = await engine.run(definition(w={"type": "wait", "duration_ms": 600_000}))
    await engine.until(execution, lambda view: view.status == "RUNNING")
    first = await engine.control.cancel(CALLER, execution.id, None)
    second = await engine.control.cancel(CALLER, execution.id, "again")

    assert second.view.version == first.view.version


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED"])
async def test_what_has_ended_cannot_be_cancelled(engine: Process, end: str) -> None:
    execution = await engine.run(definition(a=step("noop" if end == "COMPLETED" else "fail")))
    assert (await engine.ended(execution)).status == end
    with pytest.raises(StateConflict):
        await engine.control.cancel(CALLER, execution.id, None)


async def test_cancel_stops_a_fast_chain(engine: Process) -> None:
    """The worker writes as fast as it can; the cancel must get in between all the same."""
    for _ in range(5):
        execution = await engine.run(chain(600))
        await until(lambda: engine.deeds.calls("s3"))
        answer = await engine.control.cancel(CALLER, execution.id, None)
        assert answer.view.status == "CANCELLED"
        assert (await engine.ended(execution)).status == "CANCELLED"
        engine.deeds.done.clear()


async def test_cancel_and_completion_have_one_winner(engine: Process) -> None:
    wins = {"CANCELLED": 0, "COMPLETED": 0}
    for turns in range(60):
        # Short chains are often over before the cancel; the long ones never are.
        execution = await engine.run(chain(1 + turns % 15 if turns % 10 else 300))
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        try:
            answer = await engine.control.cancel(CALLER, execution.id, None)
            told = answer.view.status
        except StateConflict:
            told = "COMPLETED"
        view = await engine.ended(execution)
        assert view.status == told
        wins[told] += 1
        ends = [
            each
            for each in await engine.facts(execution)
            if isinstance(each, ev.Cancelled | ev.Completed)
        ]
        assert len(ends) == 1
    assert wins["CANCELLED"] > 0


async def test_of_two_cancels_at_once_with_one_key_one_is_a_replay(engine: Process) -> None:
    execution = await engine.run(definition(w={"type": "wait", "duration_ms": 600_000}))
    await engine.until(execution, lambda view: view.status == "RUNNING")
    caller = Caller(actor="a", route="cancel", idempotency_key="k", fingerprint="f")
    answers = await asyncio.gather(
        *(engine.control.cancel(caller, execution.id, None) for _ in range(4))
    )

    assert {answer.view.version for answer in answers} == {answers[0].view.version}
    assert sorted(answer.replayed for answer in answers) == [False, True, True, True]


async def test_a_key_of_another_request_is_refused(engine: Process) -> None:
    execution = await engine.run(definition(w={"type": "wait", "duration_ms": 600_000}))
    caller = Caller(route="cancel", idempotency_key="k", fingerprint="one")
    await engine.control.cancel(caller, execution.id, "one")
    other = Caller(route="cancel", idempotency_key="k", fingerprint="two")
    with pytest.raises(KeyReused):
        await engine.control.cancel(other, execution.id, "two")


async def test_if_match_refuses_a_version_that_is_past(engine: Process) -> None:
    execution = await engine.run(definition(w={"type": "wait", "duration_ms": 600_000}))
    view = await engine.until(execution, lambda view: view.status == "RUNNING")
    with pytest.raises(PreconditionFailed):
        await engine.control.cancel(Caller(if_match=1), execution.id, None)
    answer = await engine.control.cancel(Caller(if_match=view.version), execution.id, None)
    assert answer.view.status == "CANCELLED"


async def test_an_unknown_execution_cannot_be_commanded(engine: Process) -> None:
    for command in (
        engine.control.cancel(CALLER, "nobody", None),
        engine.control.retry(CALLER, "nobody", None, None),
        engine.control.complete_human_task(CALLER, "ht-nobody-1", None),
    ):
        with pytest.raises(NotFound):
            await command


# --- retry ---


async def failed_in_the_middle(engine: Process) -> str:
    retry: JsonObject = {"attempts": 0}
    flow = definition(a=step(), b=step("fail", config={"times": 1}, retry=retry), c=step())
    execution = await engine.run(flow)
    assert (await engine.ended(execution)).status == "FAILED"
    return execution.id


async def retried(engine: Process, execution_id: str, resume_from: str | None = None) -> Answer:
    # The handler counts calls by key, and a new attempt has new keys.
    engine.deeds.fails = False
    return await engine.control.retry(CALLER, execution_id, resume_from, "mended")


async def test_retry_goes_on_from_the_failed_step(engine: Process) -> None:
    execution_id = await failed_in_the_middle(engine)
    answer = await retried(engine, execution_id)
    view = await engine.ended(execution_id)

    assert (answer.view.status, answer.view.attempt) == ("PENDING", 2)
    assert (view.status, view.attempt) == ("COMPLETED", 2)
    assert engine.deeds.paths() == ["a", "b", "b", "c"]
    first, second = engine.deeds.calls("b")
    assert first.key != second.key


async def test_retry_from_an_earlier_step_does_everything_after_it_again(engine: Process) -> None:
    execution_id = await failed_in_the_middle(engine)
    await retried(engine, execution_id, "a")
    await engine.ended(execution_id)

    assert engine.deeds.paths() == ["a", "b", "a", "b", "c"]


async def test_retry_from_a_step_that_was_never_reached_is_refused(engine: Process) -> None:
    execution_id = await failed_in_the_middle(engine)
    for name in ("c", "nowhere"):
        with pytest.raises(StepNotReached):
            await retried(engine, execution_id, name)
    assert engine.worker.holds() == 0


async def test_retry_of_what_runs_or_completed_is_refused(engine: Process) -> None:
    execution = await engine.run(definition(a=step("hold")))
    await until(lambda: engine.deeds.done)
    with pytest.raises(StateConflict):
        await engine.control.retry(CALLER, execution.id, None, None)
    engine.deeds.open("")
    await engine.ended(execution)
    with pytest.raises(StateConflict):
        await engine.control.retry(CALLER, execution.id, None, None)
    await until(lambda: engine.worker.holds() == 0)


async def test_a_cancelled_execution_can_be_retried_while_its_handler_still_runs(
    engine: Process,
) -> None:
    execution = await engine.run(definition(a=step("deaf"), b=step()))
    await until(lambda: engine.deeds.done)
    await engine.control.cancel(CALLER, execution.id, None)
    await engine.control.retry(CALLER, execution.id, None, None)
    await until(lambda: len(engine.deeds.done) == 2)
    engine.deeds.open("")
    view = await engine.ended(execution)

    assert (view.status, view.attempt) == ("COMPLETED", 2)
    assert len(engine.deeds.calls("b")) == 1


async def test_retry_by_a_process_without_a_worker_runs_elsewhere(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        execution_id = await failed_in_the_middle(engine)
        async with process(ledger_url, engine.deeds, working=False) as api:
            await retried(api, execution_id)
            assert (await api.ended(execution_id)).status == "COMPLETED"


# --- human tasks ---


async def test_a_person_is_waited_for_without_a_slot(engine: Process) -> None:
    execution = await engine.run(
        definition(ask=ASK, b=step(config={"said": "${ask.output.result}"}))
    )
    await engine.until(execution, lambda view: bool(view.waiting_on[0].detail))
    await until(lambda: engine.worker.holds() == 0)
    await engine.control.complete_human_task(CALLER, task_id(execution.id), {"yes": True})
    view = await engine.ended(execution)

    assert (view.status, view.output) == ("COMPLETED", {"ok": True, "said": {"yes": True}})


async def test_an_answer_given_to_another_process_moves_the_execution(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as api, process(ledger_url) as engine:
        execution = await api.run(definition(ask=ASK, b=step()))
        await engine.until(execution, lambda view: view.waiting_on[0].kind == "human_task")
        await api.control.complete_human_task(CALLER, task_id(execution.id), None)

        assert (await api.ended(execution)).status == "COMPLETED"


async def test_of_two_answers_at_once_one_counts(engine: Process) -> None:
    execution = await engine.run(definition(ask=ASK, b=step(config={"by": "${ask.output.result}"})))
    await engine.until(execution, lambda view: view.waiting_on[0].kind == "human_task")
    answers = await asyncio.gather(
        *(
            engine.control.complete_human_task(CALLER, task_id(execution.id), number)
            for number in range(5)
        ),
        return_exceptions=True,
    )
    won = [number for number, each in enumerate(answers) if isinstance(each, Answer)]
    view = await engine.ended(execution)

    assert len(won) == 1
    assert all(isinstance(each, Answer | StateConflict) for each in answers)
    assert view.output == {"ok": True, "by": won[0]}


async def test_an_answer_after_a_cancel_is_refused(engine: Process) -> None:
    execution = await engine.run(definition(ask=ASK))
    await engine.until(execution, lambda view: view.waiting_on[0].kind == "human_task")
    await engine.control.cancel(CALLER, execution.id, None)
    with pytest.raises(StateConflict):
        await engine.control.complete_human_task(CALLER, task_id(execution.id), None)
