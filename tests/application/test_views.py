"""What callers read: computed from the state, and from nothing else."""

from datetime import timedelta

import pytest

from application.views import step_view, sub_status_of, summarise, waiting_on
from domain.verbs import allowed_actions
from tests.builders import START, Run, linear, step, task, with_condition, with_wait, workflow


def test_progress_counts_steps_and_reaches_100_only_at_the_end() -> None:
    run = Run(linear(4, on_error="continue"))
    run.go()
    run.succeed("s1")
    run.fail("s2")
    progress = summarise(run.state, 7).progress
    assert (progress.total, progress.done, progress.failed, progress.running) == (4, 1, 1, 1)
    assert progress.percentage == 50
    assert summarise(run.succeed_all().state, 7).progress.percentage == 100


def test_progress_of_a_failed_execution_is_not_complete() -> None:
    run = Run(linear(1))
    run.go()
    run.fail("s1")
    assert summarise(run.state, 1).progress.percentage == 99


def test_it_waits_for_its_start() -> None:
    run = Run(linear(1), start_at=START + timedelta(hours=1))
    (wait,) = waiting_on(run.state)
    assert (wait.kind, wait.until) == ("start", START + timedelta(hours=1))


def test_it_waits_for_an_action() -> None:
    run = Run(linear(1))
    run.go()
    (wait,) = waiting_on(run.state)
    assert (wait.kind, wait.path, wait.detail) == ("action", "s1", "set_variables")
    assert wait.until == START + timedelta(seconds=300)


def test_it_waits_for_a_time() -> None:
    run = Run(with_wait(5_000))
    run.go()
    run.succeed("first")
    (wait,) = waiting_on(run.state)
    assert (wait.kind, wait.path, wait.until) == ("timer", "pause", START + timedelta(seconds=5))


def test_it_waits_for_a_retry_and_says_why() -> None:
    run = Run(workflow({"a": step(retry={})}))
    run.go()
    run.fail("a")
    (wait,) = waiting_on(run.state)
    assert (wait.kind, wait.path, wait.detail) == ("retry", "a", "it broke")
    assert sub_status_of(run.state) == "retrying"


def test_it_waits_for_a_person() -> None:
    run = Run(workflow({"ask": task()}))
    run.go()
    (wait,) = waiting_on(run.state)
    assert (wait.kind, wait.path, wait.detail) == ("human_task", "ask", next(iter(run.state.tasks)))


def test_in_a_branch_it_waits_for_the_branch_only() -> None:
    run = Run(with_condition(), {"big": True})
    run.go()
    assert [wait.path for wait in waiting_on(run.state)] == ["check/hi"]


def test_a_conditional_that_will_be_tried_again_is_waited_for() -> None:
    run = Run(with_condition(timeout_seconds=1, retry={}), {"big": True})
    run.go()
    run.pass_time(1)
    assert [(wait.kind, wait.path) for wait in waiting_on(run.state)] == [("retry", "check")]


def ended(kind: str) -> Run:
    run = Run(linear(1))
    run.go()
    match kind:
        case "COMPLETED":
            run.succeed("s1")
        case "FAILED":
            run.fail("s1")
        case "CANCELLED":
            run.cancel("enough")
    return run


@pytest.mark.parametrize(
    ("status", "actions", "message"),
    [
        ("RUNNING", ("cancel", "pause", "fork", "skip", "complete"), None),
        ("COMPLETED", ("fork",), None),
        ("FAILED", ("retry", "fork"), "it broke"),
        ("CANCELLED", ("retry", "fork"), "Cancelled: enough"),
    ],
)
def test_status_decides_what_callers_may_do(
    status: str, actions: tuple[str, ...], message: str | None
) -> None:
    run = ended(status)
    view = summarise(run.state, 1)
    assert (view.status, tuple(view.allowed_actions), view.error_message) == (
        status,
        actions,
        message,
    )
    assert allowed_actions(run.state) == actions
    assert (view.sub_status is None) is (status != "RUNNING")
    assert bool(view.waiting_on) is (status == "RUNNING")


def test_a_view_depends_on_the_state_only() -> None:
    """No clock: the view of a version is the same for ever, and so are its durations."""
    run = Run(linear(2))
    run.go()
    early = summarise(run.state, 5)
    run.now += timedelta(days=1)
    assert summarise(run.state, 5) == early
    assert early.duration_ms is None
    run.succeed("s1")
    assert summarise(run.as_of(3), 5) == early
    run.succeed("s2")
    assert summarise(run.state, 9).duration_ms == 86_400_000


def test_a_step_shows_its_present_try() -> None:
    run = Run(workflow({"a": step(retry={}, config={"x": 1})}))
    run.go()
    run.fail("a")
    shown = step_view("e", "a", run.state.steps["a"])
    assert (shown.status, shown.sub_status, shown.try_no) == ("RECOVERING", "retrying", 1)
    assert (shown.error_message, shown.error_class) == ("it broke", "transient")
    assert shown.duration_ms is None
    run.pass_to_due()
    run.now += timedelta(seconds=2)
    run.succeed("a", {"y": 2})
    shown = step_view("e", "a", run.state.steps["a"])
    assert (shown.status, shown.try_no, shown.output_data) == ("COMPLETED", 2, {"y": 2})
    assert (shown.duration_ms, shown.input_data) == (2_000, {"x": 1})
