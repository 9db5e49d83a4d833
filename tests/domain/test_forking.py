"""A fork: another execution from a step on, with what was finished before it."""

from typing import Any

import pytest

from domain.errors import StateConflict, StepNotReached
from domain.execution import fold
from domain.forking import fork_points
from domain.planner import running_actions
from tests.builders import (
    EXECUTION_ID,
    FORK_ID,
    Run,
    branch,
    fork,
    linear,
    loop,
    parallel,
    step,
    workflow,
)
from tests.specs import given


def begun(raw: Any, **fields: Any) -> Run:
    run = Run(raw, **fields)
    run.go()
    return run


SEES = workflow(
    {
        "a": step("b"),
        "b": step("c", config={"seen": "${a.output.n}"}),
        "c": step(config={"seen": "${b.output.n}", "asked": "${workflow.input.x}"}),
    }
)


def at_c(**fields: Any) -> Run:
    run = begun(SEES, given={"x": 1}, **fields)
    run.succeed("a", {"n": "from a"})
    run.succeed("b", {"n": "from b"})
    return run


def test_it_begins_at_the_step_with_what_was_finished_before() -> None:
    run = at_c()
    other = run.fork("b")
    assert [type(event.data).__name__ for event in other.events] == [
        *("Requested", "ForkedFrom", "StepKept")
    ]
    assert other.go() == ["started", "step_started b #1"]
    assert other.state.steps["b"].input == {"seen": "from a"}
    assert other.state.steps_done == 1
    lineage = other.state.forked_from
    assert lineage is not None
    assert (lineage.execution_id, lineage.version, lineage.from_step) == (
        EXECUTION_ID,
        run.state.version,
        "b",
    )
    other.succeed("b", {"n": "anew"})
    assert other.succeed("c") == ["step_completed c", "completed"]


def test_its_own_log_is_all_that_it_needs() -> None:
    other = at_c().fork("c")
    assert other.state == fold(other.events)
    assert {event.execution_id for event in other.events} == {FORK_ID}
    assert [event.version for event in other.events] == [1, 2, 3, 4]


def test_with_another_input_or_the_same() -> None:
    run = at_c()
    same, changed = run.fork("c"), run.fork("c", {"x": 2})
    for each in (same, changed):
        each.go()
    assert same.state.steps["c"].input == {"seen": "from b", "asked": 1}
    assert changed.state.steps["c"].input == {"seen": "from b", "asked": 2}


def test_how_it_runs_is_that_of_the_first_one() -> None:
    run = at_c(mode="lenient", recovery={"retry_attempts": 1})
    other = run.fork("c")
    for name in ("atomic_mode", "priority", "labels", "recovery", "sha256", "steps_total"):
        assert getattr(other.state, name) == getattr(run.state, name)


@pytest.mark.parametrize("end", ["running", "paused", "completed", "failed", "cancelled"])
def test_in_any_state_but_being_undone(end: str) -> None:
    run = at_c()
    match end:
        case "paused":
            run.pause()
        case "completed":
            run.succeed("c")
        case "failed":
            run.fail("c")
        case "cancelled":
            run.cancel()
    before = run.state
    assert run.fork("c").go() == ["started", "step_started c #1"]
    assert run.state is before


def test_a_step_inside_stands_for_the_composite_around_it() -> None:
    steps = {"a": step("each"), "each": loop([1, 2], ["p"]), "p": step()}
    run = begun(workflow(steps))
    run.succeed("a")
    run.succeed("each[0]/p")
    other = run.fork("p")
    assert other.go()[:2] == ["started", "step_started each #1"]
    assert set(other.state.steps) == {"a", "each", "each[0]/p"}


def test_composites_are_kept_whole_with_what_is_left_in_them() -> None:
    steps = {
        "all": parallel(["p", "q"], "each"),
        "each": loop([1, 2, 3], ["r"], "split"),
        "split": fork({"left": ["s"], "right": ["t"]}, "check", "any"),
        "check": branch("1 == 1", "u", "v", "end"),
        "end": step(
            config={
                "p": "${all.output.p.ok}",
                "each": "${each.output.iterations.2.ok}",
                "u": "${check.output.branch_output.ok}",
            }
        ),
    } | {name: step() for name in "pqrstuv"}
    run = begun(workflow(steps))
    while "end" not in run.state.live:
        path = min(running_actions(run.definition, run.state))
        run.succeed(path, {"ok": path})
    other = run.fork("end")
    counted = ("steps_done", "steps_skipped", "steps_failed", "output_bytes")
    assert {name: getattr(other.state, name) for name in counted} == {
        name: getattr(run.state, name) for name in counted
    }
    assert other.go() == ["started", "step_started end #1"]
    assert other.state.steps["end"].input == run.state.steps["end"].input
    assert other.state.output_bytes == sum(step.size for step in other.state.steps.values())
    other.succeed("end")
    assert other.state.status == "COMPLETED"


def test_a_part_that_failed_inside_still_makes_it_partial() -> None:
    steps = {"each": loop([1, 2], ["p"], "end", errors="continue"), "p": step(), "end": step()}
    run = begun(workflow(steps))
    run.fail("each[0]/p")
    run.succeed("each[1]/p")
    other = run.fork("end")
    other.go()
    assert other.succeed("end")[-1] == "completed partial"


def test_what_failed_before_runs_again_as_in_a_retry() -> None:
    run = begun(linear(3, on_error="continue"))
    run.fail("s1")
    run.succeed("s2")
    other = run.fork("s3")
    assert other.go() == ["started", "step_started s1 #1"]
    assert other.succeed("s1") == ["step_completed s1", "step_started s3 #1"]


def test_it_never_undoes_what_the_first_one_did() -> None:
    steps = {"s1": step("s2", compensate_with="back"), "s2": step(), "back": step()}
    run = begun(workflow(steps))
    run.succeed("s1")
    other = run.fork("s2")
    other.go()
    assert other.fail("s2") == ["step_failed s2 boom", "failed critical_step"]


def test_what_was_undone_cannot_be_kept() -> None:
    steps = {"s1": step("s2", compensate_with="back"), "s2": step(), "back": step()}
    run = begun(workflow(steps))
    run.succeed("s1")
    run.fail("s2")
    given(run).when_refused(lambda each: each.fork("s2").statuses(), StateConflict)  # going on
    run.succeed("s1~undo")
    refusal = given(run).when_refused(lambda each: each.fork("s2").statuses(), StateConflict)
    assert "fork from 's1'" in refusal.message
    assert run.fork("s1").go() == ["started", "step_started s1 #1"]


def test_the_refusal_names_the_first_step_that_was_undone() -> None:
    """Alphabetically `flight` comes first, on the line `hotel` does."""
    steps = {
        "book": step("hotel"),
        "hotel": step("flight", compensate_with="back"),
        "flight": step("car", compensate_with="back"),
        "car": step(),
        "back": step(),
    }
    run = begun(workflow(steps))
    for path in ("book", "hotel", "flight"):
        run.succeed(path)
    run.fail("car")
    run.succeed("flight~undo")
    run.succeed("hotel~undo")
    assert fork_points(run.definition, run.state) == ["book", "hotel"]
    for late in ("car", "flight"):
        with pytest.raises(
            StateConflict, match=r"'hotel' of that execution was undone.* 'hotel' or"
        ):
            run.fork(late)
    for name in fork_points(run.definition, run.state):
        assert run.fork(name).go() == ["started", f"step_started {name} #1"]


def test_what_could_not_be_undone_can_be_kept() -> None:
    steps = {
        "a": step("b", compensate_with="back"),
        "b": step("c", compensate_with="back"),
        "c": step(),
        "back": step(),
    }
    run = begun(workflow(steps))
    run.succeed("a")
    run.succeed("b")
    run.fail("c")
    run.succeed("b~undo")
    run.fail("a~undo")
    assert fork_points(run.definition, run.state) == ["a", "b"]
    assert run.fork("b").go() == ["started", "step_started b #1"]


def test_what_was_undone_inside_a_composite_is_named_and_the_composite_begins_anew() -> None:
    steps = {
        "z": step("a"),
        "a": parallel(["p", "q"], "end"),
        "p": step(compensate_with="back"),
        "q": step(),
        "end": step(),
        "back": step(),
    }
    run = begun(workflow(steps))
    for path in ("z", "a/p", "a/q"):
        run.succeed(path)
    run.fail("end")
    run.succeed("a/p~undo")
    assert fork_points(run.definition, run.state) == ["z", "a"]
    refusal = given(run).when_refused(lambda each: each.fork("end").statuses(), StateConflict)
    assert "Step 'a/p' of that execution was undone" in refusal.message
    assert "fork from 'a' or" in refusal.message


@pytest.mark.parametrize("name", ["s3", "nowhere", "", "s" * 2_000])
def test_a_step_that_was_never_reached_is_refused(name: str) -> None:
    run = begun(linear(3))
    given(run).when_refused(lambda each: each.fork(name).statuses(), StepNotReached)


def test_a_fork_can_be_forked_retried_and_resumed_from_a_kept_step() -> None:
    other = at_c().fork("c")
    other.go()
    other.fail("c")
    other.retry()
    assert other.go() == ["started", "step_started c #1"]
    other.fail("c")
    other.retry("b")
    assert other.go() == ["started", "step_started b #1"]
    other.succeed("b", {"n": "new"})
    third = other.fork("c")
    third.go()
    assert third.state.steps["c"].input == {"seen": "new", "asked": 1}
