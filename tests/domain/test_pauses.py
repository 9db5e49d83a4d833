"""A pause: nothing new begins, what is in flight goes on, and each clock does what it should."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from application.views import sub_status_of, waiting_on
from domain.errors import Invalid, StateConflict
from domain.interventions import PAUSE_SECONDS_MAX
from domain.planner import next_due, plan
from tests.builders import START, Run, fork, linear, loop, step, task, wait, with_wait, workflow
from tests.specs import given

RETRY = {"attempts": 3, "base_delay_ms": 1_000, "multiplier": 1.0}
BUDGET = {"max_recovery_time_ms": 10_000, "retry_attempts": 3, "base_retry_delay_ms": 4_000}


def begun(raw: Any, **fields: Any) -> Run:
    run = Run(raw, **fields)
    run.go()
    return run


def undoable() -> Run:
    """`s1` is done and can be undone; `s2` runs."""
    run = begun(workflow({"s1": step("s2", compensate_with="back"), "s2": step(), "back": step()}))
    run.succeed("s1", {"n": 1})
    return run


# --- the verbs ---


def test_a_step_in_flight_is_recorded_and_nothing_new_begins() -> None:
    run = given(begun(linear(3))).when(Run.pause).then("paused")
    assert run.succeed("s1") == ["step_completed s1"]
    assert plan(run.definition, run.state, run.now) == ()
    assert next_due(run.state) is None
    assert run.go_on() == ["resumed", "step_started s2 #1"]


def test_pausing_twice_and_resuming_twice_change_nothing() -> None:
    run = begun(linear(1))
    run.pause(60, "look at it")
    given(run).when(lambda each: each.pause(5, "again")).then_nothing()
    assert run.state.pause is not None
    assert (run.state.pause.by, run.state.pause.reason) == ("ann", "look at it")
    run.go_on()
    assert run.go_on() == []


ENDS: dict[str, Callable[[], Run]] = {
    "COMPLETED": lambda: Run(linear(1)).succeed_all(),
    "FAILED": lambda: _failed(),
    "CANCELLED": lambda: _cancelled(),
    "RUNNING": lambda: _compensating(),
}


def _failed() -> Run:
    run = begun(linear(1))
    run.fail("s1")
    return run


def _cancelled() -> Run:
    run = begun(linear(1))
    run.cancel()
    return run


def _compensating() -> Run:
    run = undoable()
    run.fail("s2")
    return run


@pytest.mark.parametrize("status", ENDS)
def test_what_has_ended_or_is_being_undone_is_neither_paused_nor_resumed(status: str) -> None:
    run = ENDS[status]()
    refusal = given(run).when_refused(Run.pause, StateConflict)
    assert isinstance(refusal, StateConflict)
    assert refusal.current_status == status
    given(run).when_refused(Run.go_on, StateConflict)


@pytest.mark.parametrize("seconds", [0, -1, PAUSE_SECONDS_MAX + 1, float("inf"), float("nan")])
def test_the_longest_pause_is_bounded(seconds: float) -> None:
    refusal = given(begun(linear(1))).when_refused(lambda run: run.pause(seconds), Invalid)
    assert isinstance(refusal, Invalid)
    assert [each.pointer for each in refusal.mistakes] == ["/max_pause_duration_seconds"]


def test_a_pause_before_the_start_keeps_it_from_starting() -> None:
    run = Run(linear(1), start_at=START + timedelta(seconds=10))
    run.pause()
    assert (run.state.status, sub_status_of(run.state), run.state.started_at) == (
        *("RUNNING", "paused"),
        None,
    )
    assert run.pass_time(60) == []
    assert run.go_on() == ["resumed", "started", "step_started s1 #1"]

    early = Run(linear(1), start_at=START + timedelta(seconds=10))
    early.pause()
    assert early.go_on() == ["resumed"]
    assert (early.state.status, next_due(early.state)) == ("PENDING", early.state.start_at)


def test_a_cancel_works_at_once() -> None:
    run = begun(linear(2))
    run.pause()
    given(run).when(Run.cancel).then("cancel_requested", "cancelled")

    undoing = undoable()
    undoing.pause()
    assert undoing.cancel() == ["cancel_requested", "compensation_started cancelled: s1"]
    assert undoing.go() == ["step_started s1~undo #1"]


# --- an end to the pause ---


def test_a_pause_that_lasts_too_long_fails_the_execution() -> None:
    run = begun(linear(2))
    run.pause(60)
    assert next_due(run.state) == run.now + timedelta(seconds=60)
    assert run.pass_time(59.999) == []
    assert run.pass_time(0.001) == ["failed pause_timeout"]
    assert run.state.error is not None
    assert (run.state.error.code, run.state.error.error_class) == ("pause_timeout", "timeout")
    assert run.state.pause is None


def test_a_pause_that_lasts_too_long_undoes_what_is_done_in_strict_mode() -> None:
    run = undoable()
    run.pause(60)
    assert run.pass_time(60) == [
        "compensation_started pause_timeout: s1",
        "step_started s1~undo #1",
    ]
    assert run.succeed("s1~undo") == ["step_completed s1~undo", *UNDONE]


UNDONE = ["compensation_finished s1", "failed pause_timeout"]


# --- timers fire, effects wait ---


def test_a_wait_that_is_over_is_recorded_and_what_follows_waits() -> None:
    run = begun(with_wait(5_000))
    run.succeed("first")
    run.pause()
    assert run.pass_to_due() == ["step_completed pause"]
    assert next_due(run.state) is None
    assert run.go_on() == ["resumed", "step_started last #1"]


def test_a_step_that_fails_is_judged_and_its_next_try_waits() -> None:
    run = begun(linear(1, on_error="retry", retry=RETRY))
    run.pause()
    assert run.fail("s1") == ["step_failed s1 boom", *BEGUN]
    assert sub_status_of(run.state) == "paused"
    assert (run.pass_time(3_600), next_due(run.state)) == ([], None)
    assert run.go_on() == ["resumed", "step_started s1 #2"]


BEGUN = ["recovery_started s1", "retry_scheduled s1 1000ms"]


def test_a_retry_that_is_not_due_yet_keeps_its_time() -> None:
    run = begun(linear(1, on_error="retry", retry=RETRY))
    run.fail("s1")
    due = run.state.steps["s1"].due_at
    run.pause()
    run.now += timedelta(milliseconds=400)
    assert run.go_on() == ["resumed"]
    assert next_due(run.state) == due


def test_a_step_in_flight_times_out_in_a_pause() -> None:
    run = begun(linear(2, timeout_seconds=10, on_error="continue"))
    run.pause()
    assert run.pass_to_due() == ["step_failed s1 step_timeout"]
    assert run.go_on() == ["resumed", "step_started s2 #1"]


def test_a_lost_worker_s_try_is_handed_over_after_the_pause() -> None:
    run = begun(linear(1))
    run.pause()
    assert run.lose_worker() == []
    run.pause()
    assert run.state.steps["s1"].delivery == 1
    run.go_on()
    assert run.lose_worker() == ["step_redelivered s1 x2"]


# --- people ---


def asking(**fields: Any) -> Run:
    recovery = [{"kind": "ask", "answer_timeout_ms": 60_000, **fields}]
    run = begun(linear(2, recovery=recovery))
    run.fail("s1")
    assert sub_status_of(run.state) == "awaiting_answer"
    return run


def test_an_answer_is_kept_and_acted_on_afterwards() -> None:
    run = asking()
    run.pause()
    assert run.answer("retry") == ["question_answered s1 retry exact", "retry_scheduled s1 0ms"]
    assert run.pass_time(10) == []
    assert run.go_on() == ["resumed", "step_started s1 #2"]


@pytest.mark.parametrize(
    ("on_timeout", "then", "later"),
    [
        ("skip", "recovery_exhausted s1 answer_timeout", "failed critical_step"),
        ("abort", "recovery_exhausted s1 user_abort", "failed user_abort"),
        ("retry", "retry_scheduled s1 0ms", "step_started s1 #2"),
    ],
)
def test_a_question_that_nobody_answers_in_time_is_settled(
    on_timeout: str, then: str, later: str
) -> None:
    run = asking(on_timeout=on_timeout)
    run.pause()
    assert run.pass_to_due() == [f"question_answered s1 {on_timeout} timeout", then]
    assert run.go_on() == ["resumed", later]


def test_a_person_may_do_his_task_in_a_pause() -> None:
    run = begun(workflow({"ask": task("next"), "next": step()}))
    run.pause()
    (task_id,) = run.state.tasks
    assert run.complete_task(task_id) == [*("human_task_completed ask", "step_completed ask")]
    assert run.go_on() == ["resumed", "step_started next #1"]


# --- what clocks do ---


def test_the_execution_s_own_time_stands_still() -> None:
    run = begun({**linear(1, timeout_seconds=10_000), "timeout_seconds": 60})
    run.now += timedelta(seconds=50)
    run.pause()
    assert run.pass_time(3_600) == []
    run.go_on()
    assert next_due(run.state) == run.now + timedelta(seconds=10)
    assert run.pass_time(10) == ["failed timeout"]


def test_the_recovery_s_time_stands_still_while_its_try_is_held_back() -> None:
    run = begun(linear(1, timeout_seconds=10_000), recovery=BUDGET)
    run.fail("s1")
    run.fail("s1")  # the first re-try came at once
    run.now += timedelta(seconds=1)
    run.pause()
    run.pass_time(3_600)
    assert run.go_on() == ["resumed", "step_started s1 #3"]
    deadline = run.state.steps["s1"].deadline_at
    assert deadline == run.now + timedelta(seconds=9)


def test_the_recovery_s_time_runs_while_its_try_does() -> None:
    run = begun(linear(1), recovery=BUDGET)
    run.fail("s1")
    run.now += timedelta(milliseconds=500)
    run.pause()
    run.now += timedelta(seconds=2)
    run.fail("s1")
    episode = run.state.steps["s1"].recovery
    assert episode is not None
    assert episode.used(run.now + timedelta(hours=1)) == episode.used(run.now)
    before = episode.used(run.now)
    run.pass_time(3_600)
    run.go_on()
    now = run.state.steps["s1"].recovery
    assert now is not None
    assert now.used(run.now) == before


def test_the_time_of_branches_and_composites_stands_still() -> None:
    run = begun(
        workflow(
            {
                "split": fork(
                    {"left": {"steps": ["a", "b"], "timeout_seconds": 30}, "right": ["c"]},
                    timeout_seconds=40,
                ),
                "a": step(),
                "b": step(),
                "c": step(timeout_seconds=10_000),
            }
        )
    )
    run.now += timedelta(seconds=20)
    run.pause()
    run.succeed("split/left/a")
    assert run.pass_time(3_600) == []
    assert run.go_on() == ["resumed", "step_started split/left/b #1"]
    assert run.state.lanes["split/left"].deadline_at == run.now + timedelta(seconds=10)
    assert run.state.steps["split"].deadline_at == run.now + timedelta(seconds=20)
    assert run.pass_time(10)[0] == "branch_finished split/left FAILED"


def test_a_loop_begins_no_further_item_and_is_not_joined_in_a_pause() -> None:
    run = begun(workflow({"each": loop([1, 2], ["p"]), "p": step()}))
    run.pause()
    assert run.succeed("each[0]/p") == ["step_completed each[0]/p"]
    assert run.go_on() == [
        "resumed",
        "iteration_finished each[0] COMPLETED",
        "iteration_started each[1]",
        "step_started each[1]/p #1",
    ]
    run.pause()
    run.succeed("each[1]/p")
    assert run.go_on()[-1] == "completed"


def test_the_last_step_may_end_in_a_pause_and_the_execution_ends_after_it() -> None:
    run = begun(linear(1))
    run.pause()
    run.succeed("s1")
    assert (run.state.status, sub_status_of(run.state)) == ("RUNNING", "paused")
    assert run.go_on() == ["resumed", "completed"]


# --- what people see ---


def test_who_paused_it_and_until_when_is_shown_with_what_goes_on() -> None:
    run = begun(workflow({"w": wait(milliseconds=5_000)}))
    run.pause(60, "look at it")
    assert [(each.kind, each.until, each.detail) for each in waiting_on(run.state)] == [
        ("resume", run.now + timedelta(seconds=60), "paused by ann: look at it"),
        ("timer", run.now + timedelta(seconds=5), None),
    ]
