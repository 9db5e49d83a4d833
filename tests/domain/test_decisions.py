"""Commands: cancel, retry, results, lost workers, human tasks."""

import pytest

from domain.errors import Invalid, NotFound, StateConflict, StepNotReached
from domain.json_values import PAYLOAD_BYTES_MAX, JsonObject
from domain.planner import running_actions
from tests.builders import (
    EXECUTION_ID,
    START,
    Run,
    branch,
    linear,
    loop,
    parallel,
    step,
    task,
    wait,
    with_condition,
    with_wait,
    workflow,
)
from tests.specs import given


def begun(run: Run) -> Run:
    run.go()
    return run


def failed(count: int = 3) -> Run:
    """s1 worked, s2 failed."""
    run = begun(Run(linear(count)))
    run.succeed("s1", {"n": 1})
    run.fail("s2")
    return run


# --- cancel ---


def waiting() -> Run:
    return begun(Run(workflow({"w": wait(None, 60_000)})))


def retrying() -> Run:
    run = begun(Run(workflow({"a": step(retry={})})))
    run.fail("a")
    return run


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        (Run(linear(2)), {}),
        (begun(Run(linear(2))), {"s1": "CANCELLED"}),
        (waiting(), {"w": "CANCELLED"}),
        (retrying(), {"a": "CANCELLED"}),
        (
            begun(Run(with_condition(), {"big": True})),
            {"check": "CANCELLED", "check/hi": "CANCELLED", "check/lo": "SKIPPED"},
        ),
        (begun(Run(workflow({"ask": task()}))), {"ask": "CANCELLED"}),
    ],
    ids=["pending", "running", "waiting", "retrying", "in a branch", "asked a person"],
)
def test_cancel_ends_it_at_once(run: Run, steps: dict[str, str]) -> None:
    given(run).when(lambda r: r.cancel("enough")).then("cancel_requested", "cancelled")
    assert run.state.status == "CANCELLED"
    assert (run.state.cancelled_by, run.state.cancel_reason) == ("ann", "enough")
    assert run.statuses() == steps
    assert run.state.live == frozenset()


def test_cancel_of_a_cancelled_execution_changes_nothing() -> None:
    given(waiting(), Run.cancel).when(Run.cancel).then_nothing()


@pytest.mark.parametrize(
    "run", [Run(linear(1)).succeed_all(), failed()], ids=["completed", "failed"]
)
def test_cancel_is_refused_after_the_end(run: Run) -> None:
    refusal = given(run).when_refused(Run.cancel, StateConflict)
    assert isinstance(refusal, StateConflict)
    assert refusal.current_status == run.state.status
    assert refusal.allowed_actions == (
        ("retry", "fork") if run.state.status == "FAILED" else ("fork",)
    )


def test_a_result_after_cancel_is_ignored_and_noted() -> None:
    run = begun(Run(linear(2)))
    late = run.outcome("s1", output={"n": 1})
    run.cancel()
    given(run).when(lambda r: r.settle(late)).then("late_result_ignored s1 completed")
    assert run.state.status == "CANCELLED"
    assert run.state.steps["s1"].output is None


# --- retry ---


def test_retry_keeps_what_is_finished() -> None:
    run = failed()
    given(run).when(Run.retry).then("retried")
    assert run.state.status == "PENDING"
    assert run.statuses() == {"s1": "COMPLETED"}
    assert run.state.error is None
    given(run).when(Run.go).then("started", "step_started s2 #1")
    assert run.state.steps["s2"].attempt == 2
    assert run.succeed_all().state.status == "COMPLETED"
    assert run.state.steps["s1"].attempt == 1


def test_retry_from_an_earlier_step_does_it_and_all_after_it_again() -> None:
    run = failed()
    given(run).when(lambda r: r.retry("s1")).then("retried")
    assert run.statuses() == {}
    given(run).when(Run.go).then("started", "step_started s1 #1")


def test_retry_of_a_cancelled_execution_goes_on() -> None:
    run = begun(Run(with_wait()))
    run.succeed("first")
    run.cancel()
    run.retry()
    given(run).when(Run.go).then("started", "step_started pause #1")
    assert (run.state.cancelled_by, run.state.cancelled_at) == (None, None)


def test_retry_of_what_was_cancelled_before_it_began_begins() -> None:
    run = (
        given(Run(linear(1)), Run.cancel, Run.retry)
        .when(Run.go)
        .then("started", "step_started s1 #1")
    )
    assert run.state.attempt == 2


def test_retry_keeps_steps_that_a_gate_skipped_and_undoes_branches_not_taken() -> None:
    steps = {
        "a": step("c", conditions=["false"]),
        "c": branch("true", "x", "y", None),
        "x": step(),
        "y": step(),
    }
    run = begun(Run(workflow(steps)))
    run.fail("c/x")
    run.retry()
    assert run.statuses() == {"a": "SKIPPED"}
    given(run).when(Run.go).then(
        "started",
        "step_started c #1",
        "branch_taken c then",
        "step_skipped c/y branch_not_taken",
        "step_started c/x #1",
    )


def test_retry_runs_a_failed_step_again_that_was_not_critical() -> None:
    steps = {"a": step("b", on_error="continue"), "b": step("d"), "d": step()}
    run = begun(Run(workflow(steps)))
    run.fail("a")
    run.succeed("b")
    run.fail("d")
    run.retry()
    given(run).when(Run.go).then("started", "step_started a #1")
    given(run).when(lambda r: r.succeed("a")).then("step_completed a", "step_started d #1")
    given(run).when(lambda r: r.succeed("d")).then("step_completed d", "completed")
    assert (run.state.steps_done, run.state.steps_failed) == (3, 0)


@pytest.mark.parametrize(
    ("around", "held", "path"),
    [
        (branch("true", "a"), {"a": step()}, "c/a"),
        (
            parallel(["a", "b"]),
            {"a": step(critical=False), "b": branch("true", "d"), "d": step(critical=False)},
            "c/b/d",
        ),
        (loop([1], ["a"], errors="continue"), {"a": step()}, "c[0]/a"),
    ],
)
def test_retry_where_nothing_worked_runs_again_what_failed_in_what_completed(
    around: JsonObject, held: JsonObject, path: str
) -> None:
    """A lenient walk goes on after a composite around failures, which has completed then."""
    steps = {"c": {**around, "next_step": "end"}, **held, "end": step()}
    run = Run(workflow(steps), mode="lenient")
    run.go()
    for each in [*running_actions(run.definition, run.state)]:
        run.fail(each, "permanent")
    given(run).when(lambda r: r.fail("end", "permanent")).then(
        "step_failed end boom", "failed no_success"
    )
    run.retry()
    assert f"step_started {path} #1" in run.go()
    assert run.succeed_all().state.status == "COMPLETED"
    assert not run.state.partial


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_an_action_that_fails_with_the_same_code_makes_no_finished_step_run_again(
    mode: str,
) -> None:
    run = Run(workflow({"a": step("b"), "b": step(ask=True)}), mode=mode)
    run.go()
    run.succeed("a")
    run.fail("b", "permanent", code="no_success")
    run.answer("abort")
    assert run.go() == ["failed user_abort"]
    run.retry()
    assert run.statuses() == {"a": "COMPLETED"}


def test_retry_where_nothing_worked_leaves_what_a_person_has_settled() -> None:
    steps = {
        "c": parallel(["a", "b"], "end"),
        "a": step(critical=False),
        "b": step(),
        "end": step(),
    }
    run = Run(workflow(steps), mode="lenient")
    run.go()
    run.settle_by_hand("skip", "c/b")
    run.fail("c/a", "permanent")
    run.fail("end", "permanent")
    run.retry()
    assert run.statuses() == {"c/b": "SKIPPED"}


def test_retry_from_inside_a_branch_does_the_whole_conditional_again() -> None:
    run = begun(Run(with_condition(), {"big": True}))
    run.succeed("check/hi")
    run.fail("end")
    run.retry("hi")
    assert run.statuses() == {}


def test_a_finished_conditional_stays_finished() -> None:
    run = begun(Run(with_condition(), {"big": True}))
    run.succeed("check/hi")
    run.fail("end")
    run.retry()
    given(run).when(Run.go).then("started", "step_started end #1")


@pytest.mark.parametrize("name", ["s3", "nowhere"])
def test_retry_from_a_step_that_was_never_reached_is_refused(name: str) -> None:
    given(failed()).when_refused(lambda r: r.retry(name), StepNotReached)


@pytest.mark.parametrize(
    "run",
    [Run(linear(1)), waiting(), Run(linear(1)).succeed_all()],
    ids=["pending", "running", "completed"],
)
def test_retry_is_refused_unless_failed_or_cancelled(run: Run) -> None:
    given(run).when_refused(Run.retry, StateConflict)


def test_a_result_of_the_last_attempt_is_ignored() -> None:
    run = begun(Run(linear(1)))
    late = run.outcome("s1", output=1)
    given(run, Run.cancel, Run.retry, Run.go).when(lambda r: r.settle(late)).then(
        "late_result_ignored s1 completed"
    )
    assert run.state.steps["s1"].state == "RUNNING"


def test_tries_start_anew_in_a_new_attempt() -> None:
    run = retrying()
    run.pass_to_due()
    run.cancel()
    run.retry()
    given(run).when(Run.go).then("started", "step_started a #1")


def test_retry_after_the_execution_timed_out_counts_the_time_anew() -> None:
    run = begun(Run({**linear(1), "timeout_seconds": 10}))
    run.pass_time(11)
    assert run.state.status == "FAILED"
    run.retry()
    given(run).when(Run.go).then("started", "step_started s1 #1")
    assert run.succeed("s1")[-1] == "completed"


# --- results ---


@pytest.mark.parametrize("ended", ["completed", "failed"])
def test_a_result_is_recorded_once(ended: str) -> None:
    run = begun(Run(linear(2)))
    again = run.outcome("s1", error_class="" if ended == "completed" else "transient", code="boom")
    run.succeed("s1")
    given(run).when(lambda r: r.settle(again)).then(f"late_result_ignored s1 {ended}")


def test_an_interrupted_handler_is_noted_as_such() -> None:
    run = begun(Run(linear(1)))
    late = run.outcome("s1", error_class="transient", code="interrupted")
    run.cancel()
    given(run).when(lambda r: r.settle(late)).then("late_result_ignored s1 interrupted")


def test_a_result_of_an_earlier_try_is_ignored() -> None:
    run = begun(Run(workflow({"a": step(timeout_seconds=1, retry={})})))
    late = run.outcome("a", output=1)
    run.pass_time(1)
    run.pass_to_due()
    given(run).when(lambda r: r.settle(late)).then("late_result_ignored a completed")


# --- lost workers ---


def test_a_try_is_delivered_three_times_and_then_given_up() -> None:
    run = begun(Run(workflow({"a": step(retry={})})))
    for delivery in (2, 3):
        given(run).when(Run.lose_worker).then(f"step_redelivered a x{delivery}")
    given(run).when(Run.lose_worker).then("step_failed a worker_lost", "failed critical_step")


def test_a_worker_that_still_runs_the_try_does_not_deliver_it_again() -> None:
    given(begun(Run(linear(1)))).when(lambda r: r.resume({"s1"})).then_nothing()


def test_a_result_from_the_worker_that_lost_the_try_is_ignored() -> None:
    run = begun(Run(linear(1)))
    lost = run.outcome("s1", output=1)
    run.lose_worker()
    given(run).when(lambda r: r.settle(lost)).then("late_result_ignored s1 completed")
    given(run).when(lambda r: r.succeed("s1", 2)).then("step_completed s1", "completed")


def test_a_wait_is_not_delivered() -> None:
    given(waiting()).when(Run.lose_worker).then_nothing()


def test_a_try_that_timed_out_while_nobody_looked_is_not_delivered_again() -> None:
    run = begun(Run(workflow({"a": step(timeout_seconds=5)})))
    run.now = START.replace(hour=13)
    given(run).when(Run.lose_worker).then("step_failed a step_timeout", "failed critical_step")


def test_a_new_delivery_gets_the_whole_time_again() -> None:
    run = begun(Run(workflow({"a": step(timeout_seconds=60)})))
    run.now = START.replace(second=50)
    run.lose_worker()
    assert run.state.steps["a"].deadline_at == START.replace(minute=1, second=50)


# --- human tasks ---


def test_a_task_is_done_once() -> None:
    run = begun(Run(workflow({"ask": task()})))
    (task_id,) = run.state.tasks
    given(run, lambda r: r.complete_task(task_id)).when_refused(
        lambda r: r.complete_task(task_id), StateConflict
    )


def test_an_unknown_task_is_not_found() -> None:
    given(Run(linear(1))).when_refused(lambda r: r.complete_task("ht-1"), NotFound)


@pytest.mark.parametrize("room", [0, 50])
def test_a_result_that_cannot_be_kept_is_refused_and_the_person_may_send_less(room: int) -> None:
    """What the step adds to the result counts too."""
    run = begun(Run(workflow({"ask": task()})))
    task_id = f"ht-{EXECUTION_ID.hex}-1"
    given(run).when_refused(
        lambda r: r.complete_task(task_id, "x" * (PAYLOAD_BYTES_MAX - room)), Invalid
    )
    assert run.state.tasks[task_id].status == "TODO"
    run.complete_task(task_id, "less")
    assert run.go() == ["completed"]


def test_a_task_nobody_waits_for_may_be_done_after_the_end() -> None:
    run = begun(Run(workflow({"ask": task(waits=False)})))
    assert run.state.status == "COMPLETED"
    (task_id,) = run.state.tasks
    given(run).when(lambda r: r.complete_task(task_id)).then("human_task_completed ask")


def test_a_task_of_a_cancelled_execution_is_refused() -> None:
    run = begun(Run(workflow({"ask": task()})))
    run.cancel()
    given(run).when_refused(lambda r: r.complete_task(f"ht-{EXECUTION_ID.hex}-1"), StateConflict)


def test_the_task_of_a_try_that_timed_out_is_refused() -> None:
    run = begun(Run(workflow({"ask": task(timeout_seconds=1, retry={})})))
    run.pass_time(1)
    run.pass_to_due()
    given(run).when_refused(lambda r: r.complete_task(f"ht-{EXECUTION_ID.hex}-1"), StateConflict)
