"""A parallel runs its children side by side, waits for all, and judges their failures itself."""

import pytest

from domain.planner import plan, running_actions
from tests.builders import Run, branch, parallel, step, task, wait, workflow
from tests.specs import given

RETRY = {"attempts": 1, "base_delay_ms": 100}


def three(**fields: object) -> Run:
    """fan(a, b, c) -> end."""
    steps = {
        "fan": parallel(["a", "b", "c"], "end", **fields),
        "a": step(),
        "b": step(),
        "c": step(),
        "end": step(config={"got": "${fan.output}"}),
    }
    return Run(workflow(steps))


def test_all_children_begin_and_the_last_to_end_ends_it() -> None:
    run = three()
    given(run).when(Run.go).then(
        "started",
        "step_started fan #1",
        "step_started fan/a #1",
        "step_started fan/b #1",
        "step_started fan/c #1",
    )
    given(run).when(lambda r: r.succeed("fan/c", 3)).then("step_completed fan/c")
    given(run).when(lambda r: r.succeed("fan/a", 1)).then("step_completed fan/a")
    given(run).when(lambda r: r.succeed("fan/b", 2)).then(
        "step_completed fan/b", "joined fan", "step_completed fan", "step_started end #1"
    )


def test_the_output_is_by_child_in_the_order_of_the_definition() -> None:
    run = three()
    run.go()
    for path, output in (("fan/c", 3), ("fan/a", 1), ("fan/b", 2)):
        run.succeed(path, output)
    assert list(run.state.steps["end"].input["got"].items()) == [("a", 1), ("b", 2), ("c", 3)]  # type: ignore[call-overload, index]  # an object


def test_at_most_so_many_run_at_a_time() -> None:
    run = three(max_parallelism=2)
    run.go()
    assert running_actions(run.definition, run.state) == ["fan/a", "fan/b"]
    assert run.succeed("fan/b") == ["step_completed fan/b", "step_started fan/c #1"]
    assert run.succeed("fan/c") == ["step_completed fan/c"]
    assert run.succeed("fan/a")[-1] == "step_started end #1"


def test_it_waits_for_all_and_then_fails_naming_those_that_did() -> None:
    run = three()
    run.go()
    assert run.fail("fan/b", "permanent") == ["step_failed fan/b boom"]
    assert run.fail("fan/a") == ["step_failed fan/a boom"]
    given(run).when(lambda r: r.succeed("fan/c", 3)).then(
        "step_completed fan/c",
        "joined fan",
        "step_failed fan children_failed",
        "failed critical_step",
    )
    error = run.state.error
    assert error is not None
    assert error.message == "2 of 3 children failed: a (boom): it broke; b (boom): it broke."
    assert (error.path, error.error_class) == ("fan", "unknown")
    assert run.state.steps["fan"].output == {"a": None, "b": None, "c": 3}


def test_a_child_that_may_fail_does_not_fail_it() -> None:
    steps = {"fan": parallel(["a", "b"]), "a": step(critical=False), "b": step()}
    run = Run(workflow(steps))
    run.go()
    run.fail("fan/a")
    assert run.succeed("fan/b", 2)[-1] == "completed partial"
    assert run.state.output == {"a": None, "b": 2}


@pytest.mark.parametrize("mode", ["strict", "conditional", "lenient"])
def test_its_own_failure_counts_as_that_of_any_step(mode: str) -> None:
    steps = {
        "fan": parallel(["a", "b"], "end", critical=mode == "lenient"),
        "a": step(),
        "b": step(),
        "end": step(),
    }
    run = Run(workflow(steps), mode=mode)
    run.go()
    run.fail("fan/a")
    assert run.succeed("fan/b")[-1] == "step_started end #1"
    assert run.succeed("end") == ["step_completed end", "completed partial"]


def test_a_new_try_does_not_run_again_what_is_finished() -> None:
    run = three(retry=RETRY)
    run.go()
    run.succeed("fan/a", 1)
    run.succeed("fan/b", 2)
    assert run.fail("fan/c")[-2:] == [
        "step_failed fan children_failed",
        "retry_scheduled fan 100ms",
    ]
    given(run).when(Run.pass_to_due).then("step_started fan #2", "step_started fan/c #2")
    assert run.succeed("fan/c", 3)[-1] == "step_started end #1"
    assert run.state.steps["fan"].output == {"a": 1, "b": 2, "c": 3}


def test_a_childs_own_tries_come_first() -> None:
    steps = {"fan": parallel(["a", "b"]), "a": step(retry=RETRY), "b": step()}
    run = Run(workflow(steps))
    run.go()
    run.succeed("fan/b")
    assert run.fail("fan/a") == ["step_failed fan/a boom", "retry_scheduled fan/a 100ms"]
    assert run.pass_to_due() == ["step_started fan/a #2"]
    assert run.succeed("fan/a")[-1] == "completed"


def test_an_explicit_retry_runs_what_is_not_finished() -> None:
    run = three()
    run.go()
    run.succeed("fan/a", 1)
    run.fail("fan/b")
    run.succeed("fan/c", 3)
    run.retry()
    given(run).when(Run.go).then("started", "step_started fan #1", "step_started fan/b #1")
    assert run.succeed("fan/b", 2)[-1] == "step_started end #1"
    assert run.state.steps["fan"].output == {"a": 1, "b": 2, "c": 3}


def test_a_child_skipped_by_its_condition_counts_as_ended() -> None:
    steps = {"fan": parallel(["a", "b"]), "a": step(conditions=["false"]), "b": step()}
    run = Run(workflow(steps))
    assert "step_skipped fan/a condition" in run.go()
    assert run.succeed("fan/b", 2)[-1] == "completed"
    assert run.state.output == {"a": None, "b": 2}


def test_children_of_every_kind_run_side_by_side() -> None:
    steps = {
        "fan": parallel(["w", "t", "c", "inner"]),
        "w": wait(None, 5_000),
        "t": task(),
        "c": branch("true", "x"),
        "x": step(),
        "inner": parallel(["p", "q"]),
        "p": step(),
        "q": step(conditions=["false"]),
    }
    run = Run(workflow(steps))
    run.go()
    assert running_actions(run.definition, run.state) == ["fan/c/x", "fan/inner/p"]
    run.succeed("fan/c/x", 1)
    run.succeed("fan/inner/p", 2)
    run.pass_to_due()
    (task_id,) = run.state.tasks
    run.complete_task(task_id)
    run.go()
    assert run.state.status == "COMPLETED"
    assert isinstance(run.state.output, dict)
    assert run.state.output["inner"] == {"p": 2, "q": None}
    assert run.state.output["c"]["branch_output"] == 1  # type: ignore[index, call-overload]  # an object


def test_a_failure_below_a_conditional_reaches_the_parallel_only() -> None:
    steps = {
        "fan": parallel(["c", "b"], "end", critical=False),
        "c": branch("true", "x"),
        "x": step(),
        "b": step(),
        "end": step(),
    }
    run = Run(workflow(steps), mode="strict")
    run.go()
    assert run.fail("fan/c/x") == ["step_failed fan/c/x boom", "step_failed fan/c boom"]
    assert run.succeed("fan/b")[-1] == "step_started end #1"


def test_its_time_out_cancels_what_runs_and_late_results_are_ignored() -> None:
    run = three(timeout_seconds=5)
    run.go()
    run.succeed("fan/a", 1)
    late = run.outcome("fan/b", output=2)
    told = run.pass_time(5)
    assert told == ["step_failed fan step_timeout", "failed critical_step"]
    assert run.statuses()["fan/b"] == "CANCELLED"
    assert run.settle(late) == ["late_result_ignored fan/b completed"]


def test_a_cancel_reaches_every_child() -> None:
    run = three()
    run.go()
    late = run.outcome("fan/a", output=1)
    run.cancel()
    assert set(run.statuses().values()) == {"CANCELLED"}
    assert run.settle(late) == ["late_result_ignored fan/a completed"]


def test_a_lost_worker_loses_every_child_it_ran() -> None:
    run = three()
    run.go()
    run.succeed("fan/a")
    assert run.lose_worker() == ["step_redelivered fan/b x2", "step_redelivered fan/c x2"]
    assert plan(run.definition, run.state, run.now) == ()
