"""What a failure, a time-out or a slow person leads to."""

from datetime import timedelta

import pytest

from domain.json_values import JsonObject
from domain.planner import next_due
from domain.recovery import retry_delay_ms
from domain.recovery_stages import RetryPolicy
from tests.builders import START, Run, step, task, workflow
from tests.specs import given

RETRY: JsonObject = {"attempts": 2, "base_delay_ms": 100, "multiplier": 2, "max_delay_ms": 150}


# --- failures ---


def test_three_retries_after_1_2_and_4_seconds_are_the_default() -> None:
    run = Run(workflow({"a": step(on_error="retry")}))
    run.go()
    for number, delay_ms in enumerate((1_000, 2_000, 4_000)):
        began = ["recovery_started a"] if number == 0 else []
        given(run).when(lambda r: r.fail("a")).then(
            "step_failed a boom", *began, f"retry_scheduled a {delay_ms}ms"
        )
        assert next_due(run.state) == run.now + timedelta(milliseconds=delay_ms)
        run.pass_to_due()
    assert run.state.steps["a"].try_no == 4
    given(run).when(lambda r: r.fail("a")).then(
        "step_failed a boom", "recovery_exhausted a nothing_left", "failed critical_step"
    )


def test_a_delay_is_capped() -> None:
    run = Run(workflow({"a": step(retry=RETRY)}))
    run.go()
    assert run.fail("a")[-1] == "retry_scheduled a 100ms"
    run.pass_to_due()
    assert run.fail("a")[-1] == "retry_scheduled a 150ms"


def test_delays_of_a_hundred_retries_stay_numbers() -> None:
    policy = RetryPolicy(
        attempts=100, base_delay_ms=1, multiplier=100.0, max_delay_ms=31_536_000_000
    )
    assert [retry_delay_ms(policy, number) for number in (1, 2, 100)] == [1, 100, 31_536_000_000]


@pytest.mark.parametrize(("error_class", "retryable"), [("permanent", True), ("transient", False)])
def test_what_will_not_go_away_is_not_tried_again(error_class: str, retryable: bool) -> None:
    run = Run(workflow({"a": step(retry={})}))
    run.go()
    given(run).when(lambda r: r.fail("a", error_class, retryable=retryable)).then(
        "step_failed a boom", "failed critical_step"
    )


def test_continue_goes_on_and_the_result_is_partial() -> None:
    run = Run(workflow({"a": step("b", on_error="continue"), "b": step()}))
    run.go()
    given(run).when(lambda r: r.fail("a")).then("step_failed a boom", "step_started b #1")
    given(run).when(lambda r: r.succeed("b", 2)).then("step_completed b", "completed partial")


def test_a_step_times_out_and_is_tried_again() -> None:
    run = Run(workflow({"a": step(timeout_seconds=2, retry=RETRY)}))
    run.go()
    assert next_due(run.state) == START + timedelta(seconds=2)
    given(run).when(lambda r: r.pass_time(2)).then(
        "step_failed a step_timeout", "recovery_started a", "retry_scheduled a 100ms"
    )
    given(run).when(Run.pass_to_due).then("step_started a #2")


def test_an_execution_times_out_with_what_it_was_doing() -> None:
    run = Run(workflow({"a": step()}, timeout_seconds=60))
    run.go()
    assert next_due(run.state) == START + timedelta(seconds=60)
    given(run).when(lambda r: r.pass_time(60)).then("failed timeout")
    assert run.state.error is not None
    assert run.state.error.path == "a"
    assert run.statuses() == {"a": "CANCELLED"}


# --- human tasks ---


def test_a_task_that_is_not_waited_for_is_created_and_the_walk_goes_on() -> None:
    run = Run(workflow({"ask": task("b", waits=False), "b": step()}))
    given(run).when(Run.go).then(
        "started",
        "step_started ask #1",
        "human_task_created ask",
        "step_completed ask",
        "step_started b #1",
    )
    assert run.state.steps["ask"].output == {
        "taskId": f"ht-{run.state.id.hex}-1",
        "title": "Sign it",
        "status": "TODO",
    }


def test_a_task_that_is_waited_for_ends_its_step() -> None:
    run = Run(workflow({"ask": task("b"), "b": step(config={"x": "${ask.output.result.ok}"})}))
    run.go()
    (task_id,) = run.state.tasks
    given(run).when(lambda r: r.complete_task(task_id, {"ok": True})).then(
        "human_task_completed ask", "step_completed ask"
    )
    given(run).when(Run.go).then("step_started b #1")
    assert run.state.steps["b"].input == {"x": True}


def test_a_person_who_was_too_slow_is_asked_again() -> None:
    run = Run(workflow({"ask": task(timeout_seconds=60, retry=RETRY)}))
    run.go()
    run.pass_time(60)
    given(run).when(Run.pass_to_due).then("step_started ask #2", "human_task_created ask")
    first, second = sorted(run.state.tasks)
    assert run.state.steps["ask"].task_id == second
    assert run.complete_task(second) == [
        "human_task_completed ask",
        "step_completed ask",
        "recovery_succeeded ask retry",
    ]
    assert run.state.tasks[first].status == "TODO"


@pytest.mark.parametrize(
    "config",
    [{"title": "${workflow.input.none}"}, {"title": "t", "priority": "${workflow.input.p}"}],
)
def test_a_task_whose_settings_resolve_to_nonsense_fails(config: dict[str, str]) -> None:
    run = Run(
        workflow({"ask": step(action="create_task", config=dict(config))}),
        {"p": "soon", "none": ""},
    )
    assert "step_failed ask bad_step_input" in run.go()
