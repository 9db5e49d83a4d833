"""Strict mode is all or nothing: what has finished is undone, last first, before the end."""

from typing import Any

import pytest

from domain.definition import declared_at
from domain.errors import StateConflict
from domain.json_values import JsonObject
from domain.lifecycle import CANCELLING, EXECUTION_TABLE, follow
from domain.planner import next_due
from tests.builders import Run, branch, compiled, mistakes_of, step, workflow
from tests.specs import given

UNDO: JsonObject = {"config": {"was": "${undo.output}", "from": "${undo.input.n}"}}


def order(**last: Any) -> JsonObject:
    """reserve -> pay -> ship; the first two can be undone."""
    return workflow(
        {
            "reserve": step("pay", config={"n": 1}, compensate_with="release"),
            "pay": step("ship", config={"n": 2}, compensate_with="refund"),
            "ship": step(**last),
            "release": step(**UNDO),
            "refund": step(**UNDO, retry={"attempts": 1, "base_delay_ms": 100}),
        }
    )


def shipping(mode: str = "strict", **last: Any) -> Run:
    run = Run(order(**last), mode=mode)
    run.go()
    run.succeed("reserve", {"place": 7})
    run.succeed("pay", {"receipt": 8})
    return run


def test_finished_steps_are_undone_in_reverse_order_of_completion() -> None:
    run = shipping()
    given(run).when(lambda r: r.fail("ship")).then(
        "step_failed ship boom",
        "compensation_started critical_step: pay reserve",
        "step_started pay~undo #1",
    )
    assert run.state.state == "RUNNING.compensating"
    assert run.state.steps["pay~undo"].input == {"was": {"receipt": 8}, "from": 2}
    given(run).when(lambda r: r.succeed("pay~undo")).then(
        "step_completed pay~undo", "compensation_finished pay", "step_started reserve~undo #1"
    )
    assert run.state.steps["reserve~undo"].input == {"was": {"place": 7}, "from": 1}
    given(run).when(lambda r: r.succeed("reserve~undo")).then(
        "step_completed reserve~undo", "compensation_finished reserve", "failed critical_step"
    )
    assert run.state.error is not None
    assert (run.state.error.path, run.state.error.code) == ("ship", "boom")
    assert run.state.steps_total == 3
    assert (run.state.steps_done, run.state.steps_failed) == (2, 1)


@pytest.mark.parametrize("mode", ["strict", "conditional", "lenient"])
@pytest.mark.parametrize("critical", [True, False])
def test_what_a_failed_step_means_in_each_mode(mode: str, critical: bool) -> None:
    run = shipping(mode, critical=critical)
    run.fail("ship")
    if not critical or mode == "lenient":
        assert (run.state.status, run.state.partial) == ("COMPLETED", True)
    elif mode == "conditional":
        assert (run.state.status, run.state.to_undo) == ("FAILED", ())
    else:
        assert run.state.state == "RUNNING.compensating"


@pytest.mark.parametrize("place", ["reserve", "pay", "ship"])
def test_only_what_has_finished_is_undone(place: str) -> None:
    run = Run(order())
    run.go()
    names = ["reserve", "pay", "ship"]
    for name in names[: names.index(place)]:
        run.succeed(name)
    run.fail(place)
    undone = []
    while not run.state.terminal:
        (path,) = run.state.live
        undone.append(path)
        run.succeed(path)
    assert undone == [f"{name}~undo" for name in names[: names.index(place)][::-1]]
    assert run.state.status == "FAILED"


def test_conditional_without_compensations_is_as_strict() -> None:
    for mode in ("strict", "conditional"):
        run = Run(workflow({"a": step("b"), "b": step()}), mode=mode)
        run.go()
        run.succeed("a")
        assert run.fail("b") == ["step_failed b boom", "failed critical_step"]


def test_a_cancel_undoes_first_and_then_it_is_cancelled() -> None:
    run = shipping()
    late = run.outcome("ship", output=1)
    given(run).when(lambda r: r.cancel("enough")).then(
        "cancel_requested", "compensation_started cancelled: pay reserve"
    )
    assert run.state.state == "RUNNING.cancelling"
    assert run.state.steps["ship"].state == "CANCELLED"
    given(run).when(Run.cancel).then_nothing()
    given(run).when(Run.go).then("step_started pay~undo #1")
    given(run).when(lambda r: r.settle(late)).then("late_result_ignored ship completed")
    run.succeed("pay~undo")
    assert run.succeed("reserve~undo")[-1] == "cancelled"
    assert (run.state.status, run.state.cancel_reason) == ("CANCELLED", "enough")


def test_a_failing_execution_cannot_be_cancelled_while_it_is_undone() -> None:
    run = shipping()
    run.fail("ship")
    given(run).when_refused(Run.cancel, StateConflict)


def test_a_compensation_has_re_tries_of_its_own() -> None:
    run = shipping()
    run.fail("ship")
    given(run).when(lambda r: r.fail("pay~undo")).then(
        "step_failed pay~undo boom", "recovery_started pay~undo", "retry_scheduled pay~undo 100ms"
    )
    assert next_due(run.state) is not None
    given(run).when(Run.pass_to_due).then("step_started pay~undo #2")
    given(run).when(lambda r: r.succeed("pay~undo")).then(
        "step_completed pay~undo",
        "recovery_succeeded pay~undo retry",
        "compensation_finished pay",
        "step_started reserve~undo #1",
    )
    assert run.state.steps_recovered == 0


def test_one_that_fails_for_good_ends_it_and_names_what_is_left() -> None:
    run = shipping()
    run.fail("ship")
    run.fail("pay~undo", "permanent", message="no such receipt")
    assert run.state.status == "FAILED"
    assert run.state.error is not None
    assert run.state.error.code == "compensation_failed"
    assert "Not undone: pay, reserve." in run.state.error.message
    assert "no such receipt" in run.state.error.message
    assert run.state.steps_failed == 1


def test_a_cancel_whose_compensation_fails_is_a_failure() -> None:
    run = shipping()
    run.cancel()
    run.go()
    assert run.fail("pay~undo", "permanent")[-1] == "failed compensation_failed"


def test_a_lost_worker_hands_a_compensation_over() -> None:
    run = shipping()
    run.fail("ship")
    given(run).when(Run.lose_worker).then("step_redelivered pay~undo x2")


def test_a_time_out_of_the_execution_undoes_too() -> None:
    run = Run({**order(), "timeout_seconds": 10})
    run.go()
    run.succeed("reserve", 1)
    given(run).when(lambda r: r.pass_time(10)).then(
        "compensation_started timeout: reserve", "step_started reserve~undo #1"
    )
    assert run.succeed("reserve~undo")[-1] == "failed timeout"


def test_retry_does_again_what_was_undone_and_all_after_it() -> None:
    run = shipping()
    run.fail("ship")
    run.succeed("pay~undo")
    run.succeed("reserve~undo")
    run.retry()
    assert run.statuses() == {}
    assert run.state.to_undo == ()
    given(run).when(Run.go).then("started", "step_started reserve #1")


def test_retry_keeps_what_could_not_be_undone() -> None:
    run = shipping()
    run.fail("ship")
    run.succeed("pay~undo")
    run.fail("reserve~undo", "permanent")
    run.retry()
    assert run.statuses() == {"reserve": "COMPLETED"}
    assert run.state.to_undo == ("reserve",)
    given(run).when(Run.go).then("started", "step_started pay #1")
    run.succeed("pay")
    run.fail("ship")
    assert run.state.to_undo == ("reserve", "pay")


def test_a_cancel_before_the_retry_begins_undoes_what_was_left() -> None:
    """And that is the way that the table of the lifecycle tells."""
    run = shipping()
    run.fail("ship")
    run.succeed("pay~undo")
    run.fail("reserve~undo", "permanent")
    run.retry()
    assert follow(EXECUTION_TABLE, run.state.state, "cancel", run.state) == CANCELLING
    given(run).when(Run.cancel).then("cancel_requested", "compensation_started cancelled: reserve")
    assert run.state.state == CANCELLING
    run.go()
    assert run.succeed("reserve~undo")[-1] == "cancelled"


def test_the_undone_step_shows_the_input_of_the_alternative_that_did_its_work() -> None:
    steps = {
        "pay": step(
            "ship",
            config={"n": 10},
            alternatives=[{"id": "half", "input": [{"path": "n", "multiply": 0.5}]}],
            compensate_with="refund",
        ),
        "ship": step(),
        "refund": step(**UNDO),
    }
    run = Run(workflow(steps))
    run.go()
    run.fail("pay")
    run.succeed("pay~alt.half", {"receipt": 5})
    run.fail("ship")
    assert run.state.steps["pay~undo"].input == {"was": {"receipt": 5}, "from": 5}


def test_a_step_in_a_branch_is_undone_too() -> None:
    steps = {
        "choose": branch("true", "pay", None, "ship"),
        "pay": step(config={"n": 2}, compensate_with="refund"),
        "ship": step(),
        "refund": step(**UNDO),
    }
    run = Run(workflow(steps))
    run.go()
    run.succeed("choose/pay", 5)
    assert run.fail("ship")[-1] == "step_started choose/pay~undo #1"
    assert run.state.steps["choose/pay~undo"].input == {"was": 5, "from": 2}
    run.succeed("choose/pay~undo")
    run.retry()
    assert run.statuses() == {}


def test_the_declared_step_of_a_path() -> None:
    definition = compiled(order())
    assert declared_at(definition, "pay").id == "pay"
    assert declared_at(definition, "pay~undo").id == "refund"
    assert declared_at(definition, "pay~alt.cheap").id == "pay"
    assert not declared_at(definition, "pay~alt.cheap").critical


@pytest.mark.parametrize(
    ("steps", "pointer", "code"),
    [
        ({"a": step(compensate_with="a")}, "/steps/a/compensate_with", "cycle"),
        ({"a": step(compensate_with="z")}, "/steps/a/compensate_with", "dangling_next"),
        ({"a": step(compensate_with=1)}, "/steps/a/compensate_with", "bad_value"),
        (
            {"a": step("b", compensate_with="b"), "b": step()},
            "/steps/a/compensate_with",
            "two_parents",
        ),
        (
            {"a": step(compensate_with="u"), "u": step("a")},
            "/steps/u/next_step",
            "contradiction",
        ),
        (
            {"a": step(compensate_with="u"), "u": step(ask=True)},
            "/steps/u/ask",
            "contradiction",
        ),
        (
            {"a": step(compensate_with="u"), "u": branch("true", "x"), "x": step()},
            "/steps/u/type",
            "contradiction",
        ),
        (
            {"a": step(config={"x": "${undo.output}"})},
            "/steps/a/config/x",
            "bad_reference",
        ),
        (
            {
                "a": step("b", compensate_with="u"),
                "b": step(),
                "u": step(config={"x": "${b.output}"}),
            },
            "/steps/u/config/x",
            "bad_reference",
        ),
        ({"undo": step()}, "/steps/undo", "reserved_name"),
    ],
)
def test_mistakes_of_compensations(steps: JsonObject, pointer: str, code: str) -> None:
    assert mistakes_of(workflow(steps))[pointer] == code


def test_a_compensation_may_be_shared_and_may_use_what_ran_before() -> None:
    steps = {
        "a": step("b", compensate_with="u"),
        "b": step("c", compensate_with="v"),
        "c": step(compensate_with="v"),
        "u": step(config={"x": "${workflow.input.n}"}),
        "v": step(config={"x": "${a.output}", "y": "${undo.output.z}"}),
    }
    assert mistakes_of(workflow(steps)) == {}


def test_a_late_result_is_noted_and_the_undoing_begins_with_it() -> None:
    """The worker may learn of the cancel from the conflict that its result ran into."""
    run = shipping()
    late = run.outcome("ship")
    run.cancel("enough")
    given(run).when(lambda r: r.settle(late)).then(
        "late_result_ignored ship completed", "step_started pay~undo #1"
    )
