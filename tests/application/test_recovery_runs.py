"""Recovery on real stores: alternatives and compensations are performed, questions answered."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from application.requests import ExecuteOptions
from domain import events as ev
from domain.errors import StateConflict
from domain.json_values import JsonObject
from tests.engine import CALLER, Process, definition, process, step

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[Process]:
    async with process(ledger_url) as opened:
        yield opened


def failing(**fields: Any) -> JsonObject:
    return step("fail", config={"amount": 10}, **fields)


def with_undo(**steps: JsonObject) -> JsonObject:
    """A line of steps, and `release` beside it."""
    line = definition(**steps)
    inside: Any = line["steps"]
    inside["release"] = step("noop", config={"was": "${undo.output.ok}"})
    return line


async def test_an_alternative_is_performed_in_the_place_of_its_step(engine: Process) -> None:
    other = {
        "id": "half",
        "do": {"action": "noop"},
        "input": [{"path": "amount", "multiply": 0.5}],
    }
    flow = definition(pay=failing(alternatives=[other]), last=step())
    execution = await engine.run(flow)
    view = await engine.ended(execution)

    assert (view.status, view.progress.failed) == ("COMPLETED", 0)
    assert engine.deeds.paths() == ["pay", "pay~alt.half", "last"]
    key = engine.deeds.calls("pay~alt.half")[0].key
    assert key == f"{execution.id}:1:pay~alt.half"
    steps = await engine.history.steps("default", execution.id)
    by_path = {each.path: each for each in steps}
    assert by_path["pay"].status == "COMPLETED"
    assert by_path["pay~alt.half"].input_data == {"amount": 5}
    assert by_path["pay~alt.half"].step_id == "pay"


async def test_a_question_waits_for_a_person_and_a_worker_does_what_was_answered(
    engine: Process,
) -> None:
    flow = definition(pay=failing(ask=True, critical=False), last=step())
    execution = await engine.run(flow)
    waiting = await engine.until(execution, lambda view: view.sub_status == "awaiting_answer")
    assert [each.kind for each in waiting.waiting_on] == ["question"]
    (question,) = await engine.history.questions("default", execution.id)
    assert (question.status, question.options) == ("OPEN", ("retry", "skip", "abort"))

    await engine.control.answer(CALLER, execution.id, question.question_id, "retry")
    await engine.ended(execution)
    assert engine.deeds.paths() == ["pay", "pay", "last"]
    (question,) = await engine.history.questions("default", execution.id)
    assert (question.status, question.kind, question.answered_by) == ("ANSWERED", "retry", "tester")
    with pytest.raises(StateConflict):
        await engine.control.answer(CALLER, execution.id, question.question_id, "skip")


async def test_a_failed_execution_undoes_what_has_finished(engine: Process) -> None:
    flow = with_undo(
        a=step(compensate_with="release"), b=step(compensate_with="release"), c=step("fail")
    )
    view = await engine.ended(await engine.run(flow))

    assert view.status == "FAILED"
    assert engine.deeds.paths() == ["a", "b", "c", "b~undo", "a~undo"]
    assert view.progress.total == 3


async def test_a_cancelled_execution_undoes_what_has_finished(engine: Process) -> None:
    flow = with_undo(a=step(compensate_with="release"), b=step("hold", config={"gate": "b"}))
    execution = await engine.run(flow)
    await engine.deeds.count(2)
    answer = await engine.control.cancel(CALLER, execution.id, "enough")

    assert (answer.view.status, answer.view.sub_status) == ("RUNNING", "cancelling")
    view = await engine.ended(execution)
    assert view.status == "CANCELLED"
    assert engine.deeds.paths() == ["a", "b", "a~undo"]


async def test_the_settings_of_an_execution_are_stored_complete(engine: Process) -> None:
    options = ExecuteOptions(recovery={"retry_attempts": 1})
    answer = await engine.requests.execute_inline(CALLER, definition(pay=failing()), options)
    view = await engine.ended(answer.view)

    assert view.status == "FAILED"
    assert engine.deeds.paths() == ["pay", "pay"]
    first, *rest = await engine.history.events("default", view.id)
    assert isinstance(first.event.data, ev.Requested)
    assert first.event.data.recovery is not None
    assert first.event.data.recovery["max_recovery_time_ms"] == 30_000
    kinds = {type(each.event.data) for each in rest}
    assert {ev.RecoveryStarted, ev.RecoveryExhausted} <= kinds
