"""Every try of every step, told by the events."""

from datetime import timedelta

from application.step_history import step_history
from tests import recoveries
from tests.builders import Run, agent, linear, loop, step, wait, workflow


def told(run: Run) -> list[tuple[str, int, int, str, str | None]]:
    return [
        (view.path, view.attempt, view.try_no, view.status, view.sub_status)
        for view in step_history(run.events)
    ]


def test_each_try_keeps_its_own_outcome() -> None:
    run = Run(linear(1, on_error="retry"))
    run.go()
    run.fail("s1")
    run.pass_to_due()
    run.succeed("s1", {"ok": 1})

    first, second = step_history(run.events)

    assert (first.status, first.error_message, first.completed_at) == (
        "FAILED",
        "it broke",
        first.started_at,
    )
    assert (second.status, second.output_data, second.error) == ("COMPLETED", {"ok": 1}, None)
    assert (first.step_execution_id[-5:], second.step_execution_id[-5:]) == (":s1:1", ":s1:2")


def test_a_scheduled_try_is_there_before_it_starts() -> None:
    run = Run(linear(1, on_error="retry"))
    run.go()
    run.fail("s1")

    waiting = step_history(run.events)[-1]

    assert told(run) == [("s1", 1, 1, "FAILED", None), ("s1", 1, 2, "RECOVERING", "retrying")]
    assert (waiting.started_at, waiting.error, waiting.due_at) == (
        None,
        None,
        run.state.steps["s1"].due_at,
    )


def test_a_cancelled_wait_for_a_try_leaves_the_failed_one_as_it_was() -> None:
    run = Run(linear(1, on_error="retry"))
    run.go()
    run.fail("s1")
    run.cancel()

    assert told(run) == [("s1", 1, 1, "FAILED", None), ("s1", 1, 2, "CANCELLED", None)]


def test_a_try_that_a_person_was_asked_about_ends_with_the_answer_retry() -> None:
    run = recoveries.asked()
    run.now += timedelta(seconds=30)
    answered_at = run.now
    run.answer("retry")
    run.go()

    *_, third, fourth = (view for view in step_history(run.events) if view.path == "swap")

    assert (third.try_no, third.status, third.sub_status) == (3, "FAILED", None)
    assert (third.completed_at, third.due_at) == (answered_at, None)
    assert (third.error_message, fourth.try_no, fourth.status) == ("timeout", 4, "RUNNING")


def test_a_try_with_an_alternative_ends_when_a_re_try_follows() -> None:
    stages = [
        {"kind": "alternative", "id": "cheap", "do": {"action": "call_api"}},
        {"kind": "retry", "attempts": 1, "base_delay_ms": 1_000},
    ]
    run = Run(workflow({"a": step(recovery=stages)}), recovery={})
    run.go()
    run.fail("a", "transient")
    run.fail("a~alt.cheap", "transient")

    assert told(run) == [
        ("a", 1, 1, "FAILED", None),
        ("a~alt.cheap", 1, 1, "FAILED", None),
        ("a", 1, 2, "RECOVERING", "retrying"),
    ]


def test_a_try_for_which_no_time_was_left_fails_without_having_begun() -> None:
    run = Run(workflow({"a": step()}), recovery={"base_retry_delay_ms": 1_000})
    run.go()
    run.fail("a")
    run.fail("a")
    run.pass_time(31)

    *_, second, third = step_history(run.events)

    assert (second.status, second.error_message, second.why) == ("FAILED", "it broke", None)
    assert (third.status, third.started_at, third.error, third.why) == (
        "FAILED",
        None,
        None,
        "budget",
    )
    assert (third.completed_at, third.due_at) == (run.now, None)


def test_an_explicit_retry_adds_tries_of_the_next_attempt() -> None:
    run = Run(linear(2))
    run.go()
    run.succeed("s1")
    run.fail("s2", "permanent", retryable=False)
    run.retry()
    run.succeed_all()

    assert told(run) == [
        ("s1", 1, 1, "COMPLETED", None),
        ("s2", 1, 1, "FAILED", None),
        ("s2", 2, 1, "COMPLETED", None),
    ]


def test_cancellation_ends_what_is_live() -> None:
    run = Run(workflow({"pause": wait()}))
    run.go()
    run.cancel()

    assert told(run) == [("pause", 1, 1, "CANCELLED", None)]


def test_steps_can_be_named() -> None:
    run = Run(linear(2)).succeed_all()

    assert [view.step_name for view in step_history(run.events, {"s1": "Fetch"})] == ["Fetch", "s2"]
    assert step_history([]) == ()


def test_what_runs_in_a_loop_that_a_person_settles_is_cancelled() -> None:
    run = Run(
        workflow({"each": loop([1, 2], ["p"], execution_mode="parallel"), "p": agent()}),
        transports={"far": "pull"},
    )
    run.go()
    run.pass_time(1)
    run.send_back("each[0]/p")
    run.settle_by_hand("skip", "each")

    views = {view.path: (view.status, view.completed_at) for view in step_history(run.events)}
    assert views["each[0]/p"] == ("COMPLETED", run.now)
    assert views["each[1]/p"] == ("CANCELLED", run.now)
