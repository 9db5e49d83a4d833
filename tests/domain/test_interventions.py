"""An operator settles a stuck step: skip or complete, whatever it waits for."""

from typing import Any

import pytest
from msgspec import structs

from domain.errors import Invalid, NotFound, StateConflict
from domain.json_values import JsonObject
from domain.outcomes import OUTPUT_BYTES_MAX
from domain.verbs import allowed_actions
from tests.builders import (
    Run,
    branch,
    fork,
    linear,
    loop,
    parallel,
    step,
    task,
    wait,
    workflow,
)
from tests.specs import given

RETRY = {"attempts": 2, "base_delay_ms": 1_000}


def begun(raw: Any, **fields: Any) -> Run:
    run = Run(raw, **fields)
    run.go()
    return run


def retrying() -> Run:
    run = begun(linear(2, on_error="retry", retry=RETRY))
    run.fail("s1")
    return run


def asking() -> Run:
    run = begun(linear(2, recovery=[{"kind": "ask"}]))
    run.fail("s1")
    return run


def rerouted() -> Run:
    other = {"kind": "alternative", "id": "half", "do": {"action": "call_api"}}
    run = begun(linear(2, recovery=[other]))
    run.fail("s1")
    assert run.state.steps["s1~alt.half"].state == "RUNNING"
    return run


def redelivered() -> Run:
    run = begun(linear(2))
    run.lose_worker()
    return run


STUCK = {
    "running": lambda: begun(linear(2)),
    "redelivered": redelivered,
    "retrying": retrying,
    "asking": asking,
    "rerouted": rerouted,
    "waiting": lambda: begun(workflow({"s1": wait("s2"), "s2": step()})),
    "task": lambda: begun(workflow({"s1": task("s2"), "s2": step()})),
}


@pytest.mark.parametrize("stuck", STUCK)
def test_a_stuck_step_is_completed_with_an_output_that_others_see(stuck: str) -> None:
    run = STUCK[stuck]()
    assert {"skip", "complete"} <= set(allowed_actions(run.state))
    assert run.settle_by_hand("complete", "s1", {"n": 7}) == ["step_settled s1 COMPLETED"]
    settled = run.state.steps["s1"]
    assert (settled.output, settled.error, settled.recovery) == ({"n": 7}, None, None)
    assert settled.why == "operator: it is stuck"
    assert run.go() == ["step_started s2 #1"]
    assert (run.state.steps_done, run.state.steps_failed) == (1, 0)
    assert run.state.live == {"s2"}


@pytest.mark.parametrize("stuck", STUCK)
def test_a_stuck_step_is_skipped(stuck: str) -> None:
    run = STUCK[stuck]()
    assert run.settle_by_hand("skip", "s1") == ["step_settled s1 SKIPPED"]
    assert run.go() == ["step_started s2 #1"]
    assert (run.state.steps_skipped, run.state.steps_done) == (1, 0)
    run.succeed("s2")
    assert run.state.status == "COMPLETED"


def test_a_result_that_still_comes_is_ignored() -> None:
    run = begun(linear(2))
    late = run.outcome("s1", output={"late": True})
    run.settle_by_hand("complete", "s1", {"n": 1})
    assert run.settle(late) == ["late_result_ignored s1 completed", "step_started s2 #1"]


def test_the_question_and_the_task_of_a_settled_step_are_closed() -> None:
    asked = asking()
    asked.settle_by_hand("skip", "s1")
    given(asked).when_refused(lambda run: run.answer("retry"), StateConflict)

    waiting = STUCK["task"]()
    waiting.settle_by_hand("skip", "s1")
    (task_id,) = waiting.state.tasks
    given(waiting).when_refused(lambda run: run.complete_task(task_id), StateConflict)


def test_time_that_a_recovery_used_before_is_counted() -> None:
    run = retrying()
    run.now = run.now.replace(microsecond=250_000)
    run.settle_by_hand("skip", "s1")
    assert run.state.recovery_spent_ms == 250


@pytest.mark.parametrize("verb", ["skip", "complete"])
def test_inside_loops_forks_and_branches(verb: str) -> None:
    run = begun(
        workflow(
            {
                "split": fork({"left": ["each"], "right": ["check"]}),
                "each": loop([1, 2], ["p"]),
                "p": step(),
                "check": branch("1 == 1", "q"),
                "q": step(),
            }
        )
    )
    run.settle_by_hand(verb, "split/left/each[0]/p")
    run.go()
    run.settle_by_hand(verb, "split/left/each[1]/p")
    run.settle_by_hand(verb, "split/right/check/q")
    assert run.go()[-1] == "completed"


@pytest.mark.parametrize("verb", ["skip", "complete"])
@pytest.mark.parametrize(
    "steps",
    [
        {"top": parallel(["p", "q"], "end"), "p": step(), "q": step(), "end": step()},
        {
            "top": loop([1, 2, 3], ["p", "q"], "end"),
            "p": step(),
            "q": step(),
            "end": step(),
        },
        {
            "top": fork({"left": ["p"], "right": ["q"]}, "end"),
            "p": step(),
            "q": step(),
            "end": step(),
        },
    ],
    ids=["parallel", "loop", "fork"],
)
def test_a_composite_goes_with_all_that_runs_in_it(steps: dict[str, Any], verb: str) -> None:
    run = begun(workflow(steps))
    first = min(path for path in run.state.live if path.endswith("/p"))
    run.succeed(first, {"big": "x" * 100})
    late = [run.outcome(path) for path in sorted(run.state.live) if path.endswith(("/p", "/q"))]
    run.settle_by_hand(verb, "top", {"all": "mine"} if verb == "complete" else None)
    assert not run.state.lanes
    assert run.go() == ["step_started end #1"]
    assert run.state.live == {"end"}
    assert late
    for each in late:
        assert run.settle(each)[0].startswith("late_result_ignored")
    run.succeed("end")
    assert run.state.status == "COMPLETED"
    assert run.state.output_bytes == sum(step.size for step in run.state.steps.values())


def test_a_completed_step_is_undone_when_all_is() -> None:
    steps = {"s1": step("s2", compensate_with="back"), "s2": step(), "back": step()}
    run = begun(workflow(steps))
    run.settle_by_hand("complete", "s1", {"paid": 5})
    run.go()
    assert "compensation_started critical_step: s1" in run.fail("s2")
    assert run.state.steps["s1~undo"].state == "RUNNING"

    skipped = begun(workflow(steps))
    skipped.settle_by_hand("skip", "s1")
    skipped.go()
    assert skipped.fail("s2")[-1] == "failed critical_step"


@pytest.mark.parametrize("verb", ["skip", "complete"])
def test_a_compensation_that_is_stuck_is_settled(verb: str) -> None:
    run = begun(workflow({"s1": step("s2", compensate_with="back"), "s2": step(), "back": step()}))
    run.succeed("s1")
    run.fail("s2")
    run.settle_by_hand(verb, "s1~undo")
    assert run.go() == ["compensation_finished s1", "failed critical_step"]


@pytest.mark.parametrize(
    "around", [parallel(["a", "b"]), loop([1], ["a", "b"]), branch("true", "a", "b")]
)
def test_a_composite_that_a_person_completes_has_worked(around: JsonObject) -> None:
    """So a lenient execution has had its success."""
    steps = {"c": {**around, "next_step": "end"}, "a": step(), "b": step(), "end": step()}
    run = Run(workflow(steps), mode="lenient")
    run.go()
    run.settle_by_hand("complete", "c", {"done": "by hand"})
    run.go()
    assert run.fail("end", "permanent")[-1] == "completed partial"


def test_a_retry_leaves_what_a_person_has_settled() -> None:
    run = begun(linear(3))
    run.settle_by_hand("skip", "s1")
    run.go()
    run.settle_by_hand("complete", "s2", {"n": 1})
    run.go()
    run.fail("s3")
    run.retry()
    assert run.go() == ["started", "step_started s3 #1"]
    run.fail("s3")
    run.retry("s1")
    assert run.go() == ["started", "step_started s1 #1"]


def test_in_a_pause_it_is_recorded_and_what_follows_waits() -> None:
    run = begun(linear(2))
    run.pause()
    run.settle_by_hand("skip", "s1")
    assert run.go() == []
    assert run.go_on() == ["resumed", "step_started s2 #1"]


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("nowhere", NotFound, "no step at 'nowhere'"),
        ("each[0]/nowhere", NotFound, "no step"),
        ("", NotFound, "no step"),
        ("end", StateConflict, "has not begun"),
        ("each[7]/p", StateConflict, "has not begun"),
        ("first", StateConflict, "COMPLETED already"),
        ("each[0]/p~alt.half", StateConflict, "settle the step that it stands for, 'each[0]/p'"),
    ],
)
def test_a_path_that_is_not_live_is_refused(path: str, error: Any, words: str) -> None:
    other = {"kind": "alternative", "id": "half", "do": {"action": "call_api"}}
    run = begun(
        workflow(
            {
                "first": step("each"),
                "each": loop([1, 2], ["p"], "end"),
                "p": step(recovery=[other]),
                "end": step(),
            }
        )
    )
    run.succeed("first")
    run.fail("each[0]/p")
    refusal = given(run).when_refused(lambda each: each.settle_by_hand("skip", path), error)
    assert words in refusal.message


def test_before_the_start_and_after_the_end_there_is_nothing_to_settle() -> None:
    given(Run(linear(1))).when_refused(lambda run: run.settle_by_hand("skip", "s1"), StateConflict)
    done = Run(linear(1)).succeed_all()
    given(done).when_refused(lambda run: run.settle_by_hand("skip", "s1"), StateConflict)


@pytest.mark.parametrize("output", [{"n": float("nan")}, "x" * 300_000, {"n": 2**60}])
def test_an_output_that_cannot_be_kept_is_refused(output: Any) -> None:
    refusal = given(begun(linear(1))).when_refused(
        lambda run: run.settle_by_hand("complete", "s1", output), Invalid
    )
    assert isinstance(refusal, Invalid)
    assert refusal.mistakes[0].pointer.startswith("/output")


def test_the_outputs_of_one_execution_stay_bounded() -> None:
    run = begun(linear(2))
    run.state = structs.replace(run.state, output_bytes=OUTPUT_BYTES_MAX)
    given(run).when_refused(lambda each: each.settle_by_hand("complete", "s1", {}), Invalid)
