"""Explanations: what people are told about an execution that does not move."""

from datetime import timedelta

import pytest

from application.explain import Explanation, QueueRow, explain
from tests.application.diagram_flows import (
    Run,
    action,
    branching,
    cancelled,
    completed,
    defined,
    failed,
    linear,
    not_undone,
    retrying,
    small_order,
    undone,
    waiting_for_person,
)


def told(run: Run, row: QueueRow | None = None) -> Explanation:
    return explain(run.state, run.definition, row, run.now)


def allowed(explanation: Explanation) -> list[str]:
    return [each.verb for each in explanation.verbs if each.allowed]


def effect(explanation: Explanation, verb: str) -> str:
    return next(each.effect for each in explanation.verbs if each.verb == verb)


def idle(run: Run, seconds: float | None = None) -> QueueRow:
    ready_at = None if seconds is None else run.now + timedelta(seconds=seconds)
    return QueueRow(leased=False, lease_until=None, ready_at=ready_at)


def leased(run: Run, seconds: float) -> QueueRow:
    return QueueRow(True, run.now + timedelta(seconds=seconds), run.now)


def test_a_worker_that_is_busy_needs_no_reason() -> None:
    run = Run(linear()).begin()
    explanation = told(run, leased(run, 20))
    assert explanation.why_not_moving is None
    assert explanation.summary == "The execution is running; 0 of 6 steps are done."
    assert explanation.waiting_on[0].sentence == (
        "Step 'fetch_orders' has begun (call_api) and has not ended yet, "
        "at the latest until 2026-01-31 12:05:00 UTC."
    )


def test_a_lost_worker_is_named_as_such() -> None:
    run = Run(linear()).begin()
    assert "not been heard of since" in (told(run, leased(run, -1)).why_not_moving or "")


def test_a_ready_execution_waits_for_a_worker() -> None:
    run = Run(linear())
    explanation = told(run, idle(run, 0))
    assert explanation.summary == "The execution has not started yet."
    assert "no worker has taken it yet" in (explanation.why_not_moving or "")
    assert explanation.waiting_on[0].sentence == "A worker that starts it."


def test_an_open_execution_without_a_queue_row_is_a_fault() -> None:
    assert "no row in the work queue" in (told(retrying()).why_not_moving or "")


def test_a_step_that_is_tried_again_says_when_and_why() -> None:
    run = retrying()
    explanation = told(run, idle(run, 4))
    assert explanation.why_not_moving == (
        "Nothing is due now. It goes on by itself at 2026-01-31 12:00:09 UTC."
    )
    (wait,) = explanation.waiting_on
    assert wait.sentence == (
        "Step 'load' is tried again (try 3) at 2026-01-31 12:00:09 UTC. "
        "The last try failed: The service answered 503 Service Unavailable."
    )


def test_a_time_that_has_passed_is_a_workers_turn() -> None:
    run = retrying().pass_time(4).succeed("load")
    late = run.now + timedelta(hours=1)
    (wait,) = explain(run.state, run.definition, idle(run, 60), late).waiting_on
    assert "which has passed" in wait.sentence


def test_a_person_is_waited_for_by_task() -> None:
    run = waiting_for_person()
    explanation = told(run, idle(run))
    assert explanation.why_not_moving == "It waits for a person."
    (wait,) = explanation.waiting_on
    assert "Step 'ask_boss' waits for a person" in wait.sentence
    assert f"POST /api/v1/human-tasks/{next(iter(run.state.tasks))}/complete" in wait.sentence
    assert "Never runs 'book'." in effect(explanation, "cancel")


def test_cancel_says_what_it_interrupts_and_what_never_runs() -> None:
    assert effect(told(retrying()), "cancel") == (
        "Interrupts 'load'; a result that still comes is ignored. "
        "Never runs 'cool_down' and 'notify'. "
        "Finished steps are not undone. A retry can reopen it."
    )


def test_retry_of_a_failed_execution_names_the_steps_that_run_again() -> None:
    explanation = told(failed())
    assert explanation.why_not_moving == "It has ended: FAILED. Only a retry can move it again."
    assert explanation.summary == (
        "The execution failed at 2026-01-31 12:00:10 UTC; 3 of 6 steps are done. "
        "Step 'load': http_client_error (permanent). The service answered 503 Service Unavailable."
    )
    assert effect(explanation, "retry") == (
        "Starts attempt 2. Runs 'load' again. "
        "Then comes, for the first time, 'cool_down' and 'notify'. "
        "Keeps the results of 'fetch_orders', 'check_schema' and 'transform'."
    )
    assert allowed(explanation) == ["retry", "fork"]


def test_retry_decides_anew_about_branches_that_were_not_taken() -> None:
    run = small_order(known=True).fail("is_large/is_known/greet", kind="permanent")
    retry = effect(told(run), "retry")
    assert "Decides anew about 'ask_boss'." in retry


def test_retry_keeps_what_a_finished_conditional_decided() -> None:
    run = small_order().fail("book", kind="permanent")
    assert "Decides anew" not in effect(told(run), "retry")


def test_a_cancelled_execution_says_who_and_why() -> None:
    explanation = told(cancelled())
    assert explanation.summary == (
        "The execution was cancelled by alice at 2026-01-31 12:00:05 UTC; "
        "3 of 6 steps are done: wrong file"
    )
    assert effect(explanation, "cancel").startswith("It is cancelled already")


def test_a_completed_execution_offers_a_fork_only() -> None:
    explanation = told(completed())
    assert "1 step that may fail did" in explanation.summary
    assert explanation.why_not_moving == "It has ended: COMPLETED. It stays as it is."
    assert allowed(explanation) == ["fork"]
    assert "COMPLETED" in effect(explanation, "retry")


def test_after_an_undo_a_fork_begins_where_nothing_undone_is_kept() -> None:
    explanation = told(undone())
    assert effect(explanation, "fork") == (
        "Begins a new execution at 'book_hotel'; this one stays as it is."
    )
    assert (
        "2 of 5 steps were done, but 'book_hotel' and 'pay' are undone again" in explanation.summary
    )


def test_what_could_not_be_undone_counts_as_done() -> None:
    explanation = told(not_undone())
    assert "'book_hotel' and 'pay', whichever is named" in effect(explanation, "fork")
    assert "2 of 5 steps were done, but 'pay' is undone again" in explanation.summary


@pytest.mark.parametrize("steps", [2, 40])
def test_long_lists_of_names_are_cut(steps: int) -> None:
    line = [action(f"s{n}", f"s{n + 1}" if n < steps else None) for n in range(1, steps + 1)]
    words = effect(told(Run(defined("line", line))), "cancel")
    assert ("and 28 more" in words) == (steps == 40)


def test_hostile_texts_stay_one_line() -> None:
    run = waiting_for_person().cancel("a\nb\x00\u202ec" + "x" * 5_000)
    explanation = told(run)
    assert "a b c" in explanation.summary.replace("bc", "b c")
    assert len(explanation.summary) < 600
    assert "\n" not in explanation.summary


def test_every_state_has_an_explanation() -> None:
    for run in (Run(branching()), Run(branching()).begin(), small_order(), completed(), failed()):
        explanation = told(run, idle(run, -5))
        assert explanation.summary
        assert explanation.why_not_moving
        assert all(each.effect for each in explanation.verbs)
