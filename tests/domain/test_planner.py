"""What comes next, told as stories: order, gates, branches, waits, failures, verdicts."""

from datetime import timedelta

import pytest

from domain.json_values import PAYLOAD_BYTES_MAX, JsonObject
from domain.outcomes import OUTPUT_BYTES_MAX
from domain.planner import next_due, plan
from domain.simulation import simulated_output
from tests.builders import (
    START,
    Run,
    branch,
    linear,
    loop,
    step,
    task,
    wait,
    with_condition,
    with_wait,
    workflow,
)
from tests.specs import given

RETRY: JsonObject = {"attempts": 2, "base_delay_ms": 100, "multiplier": 2, "max_delay_ms": 150}


# --- order ---


def test_a_chain_runs_in_order_and_one_append_ends_a_step_and_begins_the_next() -> None:
    run = Run(linear(3))
    assert run.state.status == "PENDING"
    given(run).when(Run.go).then("started", "step_started s1 #1")
    given(run).when(lambda r: r.succeed("s1")).then("step_completed s1", "step_started s2 #1")
    given(run).when(lambda r: r.succeed("s2")).then("step_completed s2", "step_started s3 #1")
    given(run).when(lambda r: r.succeed("s3", {"n": 3})).then("step_completed s3", "completed")
    assert run.state.output == {"n": 3}
    assert run.state.version == 2 + 2 * 3 + 1


def test_nothing_follows_while_a_step_runs_nor_after_the_end() -> None:
    run = Run(linear(1))
    run.go()
    assert plan(run.definition, run.state, run.now) == ()
    run.succeed("s1")
    assert plan(run.definition, run.state, run.now) == ()


def test_a_start_in_the_future_is_waited_for() -> None:
    later = START + timedelta(hours=1)
    run = Run(linear(1), start_at=later)
    given(run).when(Run.go).then_nothing()
    assert next_due(run.state) == later
    given(run).when(Run.pass_to_due).then("started", "step_started s1 #1")


def test_input_mapping_lies_over_config() -> None:
    mapped = {"b": "${workflow.input.n}", "c": "n is ${workflow.input.n}"}
    run = Run(
        workflow({"a": step(config={"a": 1, "b": 2}, input_mapping=mapped)}), {"n": [1, {"x": 2}]}
    )
    run.go()
    assert run.state.steps["a"].input == {"a": 1, "b": [1, {"x": 2}], "c": 'n is [1,{"x":2}]'}


def test_an_unresolved_reference_fails_the_step_and_is_not_tried_again() -> None:
    run = Run(workflow({"a": step(config={"x": "${workflow.input.none}"}, retry={})}))
    told = given(run).when(Run.go)
    told.then(
        "started", "step_started a #1", "step_failed a bad_step_input", "failed critical_step"
    )
    assert run.state.error is not None
    assert "${workflow.input.none}" in run.state.error.message


# --- gates ---


def test_a_gate_that_does_not_hold_skips_the_step() -> None:
    steps = {"a": step("b", conditions=["false"]), "b": step()}
    run = Run(workflow(steps))
    given(run).when(Run.go).then("started", "step_skipped a condition", "step_started b #1")
    assert run.succeed("b", 1) == ["step_completed b", "completed"]


def test_all_gates_must_hold_and_an_error_counts_as_false() -> None:
    gates = ["true", {"field": "trigger.n", "operator": "greater_than", "value": 1}]
    run = Run(workflow({"a": step(conditions=gates)}), {"n": "text"})
    given(run).when(Run.go).then("started", "step_skipped a condition", "completed")
    assert "cannot compare" in (run.state.steps["a"].why or "")
    assert run.state.output is None


def test_the_output_of_a_skipped_step_is_null() -> None:
    steps = {"a": step("b", conditions=["false"]), "b": step(config={"x": "${a.output}"})}
    run = Run(workflow(steps))
    run.go()
    assert run.state.steps["b"].input == {"x": None}


# --- conditionals ---


@pytest.mark.parametrize(
    ("big", "taken", "other", "word"), [(True, "hi", "lo", "then"), (False, "lo", "hi", "else")]
)
def test_a_conditional_runs_one_branch(big: bool, taken: str, other: str, word: str) -> None:
    run = Run(with_condition(), {"big": big})
    given(run).when(Run.go).then(
        "started",
        "step_started check #1",
        f"branch_taken check {word}",
        f"step_skipped check/{other} branch_not_taken",
        f"step_started check/{taken} #1",
    )
    given(run).when(lambda r: r.succeed(f"check/{taken}", {"v": 1})).then(
        f"step_completed check/{taken}", "step_completed check", "step_started end #1"
    )
    assert run.state.steps["check"].output == {
        "condition_result": big,
        "branch_taken": word,
        "branch_step_id": taken,
        "branch_output": {"v": 1},
    }


def test_without_an_else_the_walk_goes_on() -> None:
    run = Run(workflow({"c": branch("false", "a", None, "b"), "a": step(), "b": step()}))
    given(run).when(Run.go).then(
        "started",
        "step_started c #1",
        "branch_taken c else",
        "step_skipped c/a branch_not_taken",
        "step_completed c",
        "step_started b #1",
    )


def test_a_condition_that_cannot_be_evaluated_is_false_and_says_so() -> None:
    run = Run(with_condition("${workflow.input.big} > 1"), {"big": "text"})
    assert "branch_taken check else" in run.go()
    assert "cannot compare" in (run.state.steps["check"].why or "")


def test_a_named_condition_reports_what_it_saw() -> None:
    actions = [
        {
            "type": "condition",
            "config": {"field": "trigger.n", "operator": "gt", "value": 3},
        }
    ]
    run = Run({"name": "w", "actions": actions}, {"n": 5})
    run.go()
    assert run.state.output == {
        "condition_result": True,
        "branch_taken": "then",
        "branch_step_id": None,
        "branch_output": None,
        "conditionMet": True,
        "field": "trigger.n",
        "operator": "gt",
        "value": 3,
        "actualValue": 5,
    }


def nested() -> Run:
    steps = {
        "outer": branch("true", "inner", "no", "end"),
        "inner": branch("true", "leaf", None, timeout_seconds=10, retry=RETRY),
        "leaf": step(config={"x": "${workflow.input.x}"}),
        "no": step(),
        "end": step(config={"got": "${outer.output.branch_output.branch_output.v}"}),
    }
    return Run(workflow(steps), {"x": 1})


def test_conditionals_nest() -> None:
    run = nested()
    run.go()
    given(run).when(lambda r: r.succeed("outer/inner/leaf", {"v": 7})).then(
        "step_completed outer/inner/leaf",
        "step_completed outer/inner",
        "step_completed outer",
        "step_started end #1",
    )
    assert run.state.steps["end"].input == {"got": 7}


def test_a_retried_conditional_takes_up_its_branch_with_a_new_try() -> None:
    run = nested()
    run.go()
    late = run.outcome("outer/inner/leaf", output={"v": 1})
    given(run).when(lambda r: r.pass_time(10)).then(
        "step_failed outer/inner step_timeout",
        "recovery_started outer/inner",
        "retry_scheduled outer/inner 100ms",
    )
    assert run.state.steps["outer/inner/leaf"].state == "CANCELLED"
    given(run).when(Run.pass_to_due).then(
        "step_started outer/inner #2",
        "branch_taken outer/inner then",
        "step_started outer/inner/leaf #2",
    )
    given(run).when(lambda r: r.settle(late)).then("late_result_ignored outer/inner/leaf completed")
    assert run.succeed("outer/inner/leaf", {"v": 2})[-1] == "step_started end #1"


def test_a_critical_failure_in_a_branch_fails_the_execution() -> None:
    run = Run(with_condition(), {"big": True})
    run.go()
    given(run).when(lambda r: r.fail("check/hi")).then(
        "step_failed check/hi boom", "failed critical_step"
    )
    assert run.statuses()["check"] == "CANCELLED"


def test_a_failure_in_a_branch_that_is_not_critical_lets_the_walk_go_on() -> None:
    raw = with_condition()
    steps = raw["steps"]
    assert isinstance(steps, dict)
    steps["hi"] = step(critical=False)
    run = Run(raw, {"big": True})
    run.go()
    given(run).when(lambda r: r.fail("check/hi")).then(
        "step_failed check/hi boom", "step_completed check", "step_started end #1"
    )
    assert run.succeed("end")[-1] == "completed partial"


def test_a_conditional_may_wrap_an_output_of_the_full_size() -> None:
    run = Run(with_condition(), {"big": True})
    run.go()
    full = "x" * (PAYLOAD_BYTES_MAX - 2)
    assert run.succeed("check/hi", full)[-1] == "step_started end #1"
    assert run.state.output_bytes == PAYLOAD_BYTES_MAX


# --- waits ---


def test_a_wait_ends_by_itself() -> None:
    run = Run(with_wait(5_000))
    run.go()
    run.succeed("first")
    assert next_due(run.state) == START + timedelta(seconds=5)
    given(run).when(lambda r: r.pass_time(4.999)).then_nothing()
    given(run).when(lambda r: r.pass_time(0.001)).then(
        "step_completed pause", "step_started last #1"
    )
    assert run.state.steps["pause"].output == {"waited": True, "durationMs": 5_000}


@pytest.mark.parametrize("bad", [-1, True, "soon", None, 31_536_000_001, [1]])
def test_a_wait_for_no_length_of_time_fails(bad: object) -> None:
    run = Run(workflow({"w": wait(None, "${workflow.input.ms}")}), {"ms": bad})
    assert "step_failed w bad_step_input" in run.go()


def test_a_wait_takes_its_length_from_a_reference() -> None:
    run = Run(workflow({"w": wait(None, "${workflow.input.ms}")}), {"ms": 1500})
    run.go()
    assert next_due(run.state) == START + timedelta(milliseconds=1500)


def test_a_wait_that_was_over_before_its_time_out_has_worked_even_when_nobody_looked() -> None:
    run = Run(workflow({"w": wait(None, 1_000, timeout_seconds=5)}))
    run.go()
    given(run).when(lambda r: r.pass_time(3_600)).then("step_completed w", "completed")


def test_a_wait_longer_than_its_time_out_fails() -> None:
    run = Run(workflow({"w": wait(None, 10_000, timeout_seconds=5)}))
    run.go()
    given(run).when(lambda r: r.pass_time(5)).then(
        "step_failed w step_timeout", "failed critical_step"
    )


# --- simulation, verdicts, limits ---


def test_a_simulation_neither_waits_nor_asks() -> None:
    run = Run(workflow({"w": wait("ask", 60_000), "ask": task()}), simulate=True)
    given(run).when(Run.go).then(
        "started",
        "step_started w #1",
        "step_completed w",
        "step_started ask #1",
        "step_completed ask",
        "completed",
    )
    assert run.state.output == {
        "simulated": True,
        "wouldExecute": "create_task",
        "config": {"title": "Sign it", "wait": True},
        "conditionsMet": True,
    }


def test_a_simulation_has_null_for_what_only_the_work_would_have_told() -> None:
    told = {
        "whole": "${each.output.iterations[0].data.id}",
        "text": "Order ${fetch.output.data[0].id}",
    }
    raw = workflow(
        {
            "fetch": step("each", action="call_api"),
            "each": loop([1], ["call"], following="use"),
            "call": step(action="call_api"),
            "use": step(config=told),
        }
    )
    run = Run(raw, simulate=True)
    run.go()
    for path in ("fetch", "each[0]/call"):
        run.succeed(path, simulated_output("call_api", {}))
    assert run.state.steps["use"].input == {"whole": None, "text": "Order null"}


def test_a_simulation_fails_where_a_step_that_was_performed_has_no_such_output() -> None:
    raw = workflow({"a": step("b"), "b": step(config={"x": "${a.output.missing}"})})
    run = Run(raw, simulate=True)
    run.go()
    given(run).when(lambda r: r.succeed("a", {"here": 1})).then(
        "step_completed a",
        "step_started b #1",
        "step_failed b bad_step_input",
        "failed critical_step",
    )


def test_outside_of_a_simulation_an_answer_that_looks_like_one_is_an_answer() -> None:
    run = Run(workflow({"a": step("b"), "b": step(config={"x": "${a.output.data}"})}))
    run.go()
    run.succeed("a", simulated_output("call_api", {}))
    assert run.state.steps["b"].error is not None


@pytest.mark.parametrize("mode", ["strict", "conditional"])
def test_strict_and_conditional_stop_at_a_critical_failure(mode: str) -> None:
    run = Run(linear(2), mode=mode)
    run.go()
    given(run).when(lambda r: r.fail("s1")).then("step_failed s1 boom", "failed critical_step")


def test_lenient_goes_on_and_is_content_with_one_success() -> None:
    run = Run(linear(2), mode="lenient")
    run.go()
    given(run).when(lambda r: r.fail("s1")).then("step_failed s1 boom", "step_started s2 #1")
    given(run).when(lambda r: r.succeed("s2")).then("step_completed s2", "completed partial")


def test_lenient_fails_without_a_success_and_a_conditional_is_none() -> None:
    steps = {"c": branch("true", "a", None, "b"), "a": step(), "b": step()}
    run = Run(workflow(steps), mode="lenient")
    run.go()
    run.fail("c/a")
    given(run).when(lambda r: r.fail("b")).then("step_failed b boom", "failed no_success")


def test_all_steps_skipped_is_completed_in_every_mode() -> None:
    run = Run(linear(2, conditions=["false"]), mode="lenient")
    assert run.go()[-1] == "completed"


def test_the_output_is_what_the_definition_says() -> None:
    run = Run(
        {**linear(2), "output": {"sum": "${s1.output.n}", "who": "${workflow.input.who}"}},
        {"who": "ann"},
    )
    run.go()
    run.succeed("s1", {"n": 3})
    run.succeed("s2")
    assert run.state.output == {"sum": 3, "who": "ann"}


def test_an_output_that_cannot_be_made_fails_the_execution() -> None:
    run = Run({**linear(1), "output": "${s1.output.n}"})
    run.go()
    given(run).when(lambda r: r.succeed("s1", {})).then("step_completed s1", "failed bad_output")


def test_without_an_output_the_last_step_that_worked_gives_it() -> None:
    run = Run(workflow({"a": step("b"), "b": step(conditions=["false"])}))
    run.go()
    run.succeed("a", {"n": 1})
    assert run.state.output == {"n": 1}


def test_an_output_of_256_kib_is_kept_and_one_byte_more_is_not() -> None:
    for size, last in (
        (PAYLOAD_BYTES_MAX, "completed"),
        (PAYLOAD_BYTES_MAX + 1, "failed critical_step"),
    ):
        run = Run(linear(1))
        run.go()
        assert run.succeed("s1", "x" * (size - 2))[-1] == last
    assert run.state.error is not None
    assert run.state.error.code == "output_not_storable"


def test_all_outputs_together_have_at_most_32_mib() -> None:
    full, count = "x" * (PAYLOAD_BYTES_MAX - 2), OUTPUT_BYTES_MAX // PAYLOAD_BYTES_MAX
    run = Run(linear(count + 1))
    run.go()
    for number in range(1, count + 1):
        assert run.succeed(f"s{number}", full)[-1] == f"step_started s{number + 1} #1"
    given(run).when(lambda r: r.succeed(f"s{count + 1}", "")).then(
        f"step_failed s{count + 1} outputs_too_large", "failed critical_step"
    )
    run.retry("s1")
    assert run.state.output_bytes == 0


def test_a_chain_of_a_thousand_steps_costs_no_more_per_step_than_a_short_one() -> None:
    """Counted, not timed: the planner looks at one live path, whatever the length."""
    run = Run(linear(1_000))
    run.go()
    for number in range(1, 1_001):
        assert len(run.state.live) == 1
        run.succeed(f"s{number}", {"n": number})
    assert run.state.state == "COMPLETED"
    assert run.state.version == 2 + 2_000 + 1
