"""A fork_join runs branches side by side, each in order, until enough of them have completed."""

from datetime import timedelta
from typing import Any

import pytest

from domain.planner import next_due
from tests.builders import START, Run, fork, loop, step, wait, workflow
from tests.specs import given

RETRY = {"attempts": 1, "base_delay_ms": 100}


def forked(policy: str = "all", count: int = 3, **fields: Any) -> Run:
    """Branches a, b, c of one step each (pa, pb, pc) -> end."""
    names = "abcde"[:count]
    steps: dict[str, Any] = {
        "split": fork({name: [f"p{name}"] for name in names}, "end", policy, **fields),
        **{f"p{name}": step() for name in names},
        "end": step(config={"got": "${split.output}"}),
    }
    return Run(workflow(steps))


def test_branches_run_side_by_side_and_their_steps_in_order() -> None:
    steps = {
        "split": fork({"left": ["p", "q"], "right": ["r"]}),
        "p": step(),
        "q": step(config={"p": "${p.output}"}),
        "r": step(),
    }
    run = Run(workflow(steps))
    given(run).when(Run.go).then(
        "started",
        "step_started split #1",
        "branch_started split/left",
        "step_started split/left/p #1",
        "branch_started split/right",
        "step_started split/right/r #1",
    )
    assert run.succeed("split/left/p", 1) == [
        "step_completed split/left/p",
        "step_started split/left/q #1",
    ]
    assert run.state.steps["split/left/q"].input == {"p": 1}
    assert run.succeed("split/right/r", 3) == [
        "step_completed split/right/r",
        "branch_finished split/right COMPLETED",
    ]
    assert run.succeed("split/left/q", 2) == [
        "step_completed split/left/q",
        "branch_finished split/left COMPLETED",
        "joined split",
        "step_completed split",
        "completed",
    ]
    assert list((run.state.output or {}).items()) == [("left", 2), ("right", 3)]  # type: ignore[union-attr]  # an object


@pytest.mark.parametrize(
    ("policy", "count", "needed", "fields"),
    [
        ("any", 3, 1, {}),
        ("majority", 3, 2, {}),
        ("majority", 4, 3, {}),
        ("majority", 2, 2, {}),
        ("n_of_m", 4, 2, {"n_required": 2}),
        ("all", 3, 3, {}),
    ],
)
def test_enough_branches_join_and_the_others_are_cancelled(
    policy: str, count: int, needed: int, fields: dict[str, Any]
) -> None:
    run = forked(policy, count, **fields)
    run.go()
    names = "abcde"[:count]
    late = run.outcome(f"split/{names[-1]}/p{names[-1]}", output="late")
    for name in names[: needed - 1]:
        assert run.succeed(f"split/{name}/p{name}", name)[-1].startswith("branch_finished")
    others = names[needed:]
    name = names[needed - 1]
    assert run.succeed(f"split/{name}/p{name}", name)[-3:] == [
        " ".join(["joined split", *(f"-{other}" for other in others)]),
        "step_completed split",
        "step_started end #1",
    ]
    assert run.state.steps["end"].input == {
        "got": {each: each if each not in others else None for each in names}
    }
    for other in others:
        left = run.state.steps[f"split/{other}/p{other}"]
        assert (left.state, left.why) == ("CANCELLED", "join_satisfied")
    if others:
        assert run.settle(late)[0].startswith("late_result_ignored")
    assert not run.state.lanes
    assert run.succeed("end")[-1] == "completed"


@pytest.mark.parametrize(
    ("policy", "failures", "last"),
    [
        ("all", 1, "failed critical_step"),
        ("any", 2, "step_started end #1"),
        ("any", 3, "failed critical_step"),
        ("majority", 1, "step_started end #1"),
        ("majority", 2, "failed critical_step"),
    ],
)
def test_it_waits_for_all_before_it_fails(policy: str, failures: int, last: str) -> None:
    run = forked(policy)
    run.go()
    told: list[str] = []
    for number, name in enumerate("abc"):
        act = run.fail if number < failures else run.succeed
        told = act(f"split/{name}/p{name}")
        if run.state.steps["split"].state == "COMPLETED":
            break
    assert told[-1] == last
    if last.startswith("failed"):
        assert run.state.error is not None
        assert run.state.error.code == "branches_failed"
        assert "a (boom): it broke" in run.state.error.message


def test_the_failure_of_a_branch_ends_that_branch() -> None:
    steps = {
        "split": fork({"left": ["p", "q"], "right": ["r"]}, policy="any"),
        "p": step(),
        "q": step(),
        "r": step(),
    }
    run = Run(workflow(steps))
    run.go()
    assert run.fail("split/left/p") == [
        "step_failed split/left/p boom",
        "branch_finished split/left FAILED",
    ]
    assert run.succeed("split/right/r", 1)[-1] == "completed partial"
    assert run.state.output == {"left": None, "right": 1}


def test_the_deadline_of_a_branch_fails_only_that_branch() -> None:
    branches = {"slow": {"steps": ["p"], "timeout_seconds": 2}, "fast": ["q"]}
    steps = {
        "split": fork(branches, None, "any", branch_timeout_seconds=60),
        "p": step(timeout_seconds=600),
        "q": step(timeout_seconds=600),
    }
    run = Run(workflow(steps))
    run.go()
    late = run.outcome("split/slow/p")
    assert next_due(run.state) == START + timedelta(seconds=2)
    assert run.pass_to_due() == ["branch_finished split/slow FAILED"]
    assert run.statuses()["split/slow/p"] == "CANCELLED"
    assert run.settle(late) == ["late_result_ignored split/slow/p completed"]
    assert next_due(run.state) == START + timedelta(seconds=60)
    assert run.succeed("split/fast/q", 1)[-1] == "completed partial"


def test_waits_in_branches_run_at_the_same_time() -> None:
    steps = {
        "split": fork({"a": ["w", "p"], "b": ["v"]}),
        "w": wait("p", 1_000),
        "v": wait(None, 3_000),
        "p": step(),
    }
    run = Run(workflow(steps))
    run.go()
    assert run.pass_to_due()[-1] == "step_started split/a/p #1"
    run.succeed("split/a/p")
    assert run.pass_to_due()[-1] == "completed"
    assert run.now == START + timedelta(seconds=3)


def test_a_new_try_keeps_the_finished_branches() -> None:
    run = forked(retry=RETRY)
    run.go()
    run.succeed("split/a/pa", 1)
    run.succeed("split/b/pb", 2)
    assert run.fail("split/c/pc")[-1] == "retry_scheduled split 100ms"
    given(run).when(Run.pass_to_due).then(
        "step_started split #2", "branch_started split/c", "step_started split/c/pc #2"
    )
    assert run.succeed("split/c/pc", 3)[-1] == "step_started end #1"


def test_an_explicit_retry_keeps_finished_branches_and_finished_steps() -> None:
    steps = {
        "split": fork({"left": ["p", "q"], "right": ["r", "s"]}),
        "p": step(),
        "q": step(),
        "r": step(critical=False),
        "s": step(),
    }
    run = Run(workflow(steps))
    run.go()
    run.succeed("split/left/p", 1)
    run.fail("split/right/r")
    run.succeed("split/right/s", 4)
    run.fail("split/left/q")
    assert run.state.status == "FAILED"
    run.retry()
    given(run).when(Run.go).then(
        "started",
        "step_started split #1",
        "branch_started split/left",
        "step_started split/left/q #1",
    )
    assert run.succeed("split/left/q", 2)[-1] == "completed partial"
    assert run.state.output == {"left": 2, "right": 4}


def test_a_cancel_closes_every_branch() -> None:
    run = forked()
    run.go()
    run.succeed("split/a/pa", 1)
    run.cancel()
    assert not run.state.lanes
    assert run.statuses() == {
        "split": "CANCELLED",
        "split/a/pa": "COMPLETED",
        "split/b/pb": "CANCELLED",
        "split/c/pc": "CANCELLED",
    }
    run.retry()
    assert [fact for fact in run.go() if fact.startswith("step_started split/")] == [
        "step_started split/b/pb #1",
        "step_started split/c/pc #1",
    ]


def test_joining_cancels_loops_inside_the_other_branches() -> None:
    steps = {
        "split": fork({"fast": ["p"], "slow": ["each"]}, "end", "any"),
        "p": step(),
        "each": loop([1, 2], ["q"], execution_mode="parallel"),
        "q": step(),
        "end": step(),
    }
    run = Run(workflow(steps))
    run.go()
    assert run.succeed("split/fast/p")[-1] == "step_started end #1"
    assert not run.state.lanes
    assert run.statuses()["split/slow/each[1]/q"] == "CANCELLED"
    assert run.state.live == {"end"}


def test_a_loop_in_a_cancelled_branch_leaves_with_the_iteration_around_the_fork() -> None:
    steps = {
        "each": loop([1, 2], ["split"]),
        "split": fork({"fast": ["f"], "slow": ["rows"]}, None, "any"),
        "f": step(),
        "rows": loop([1], ["cells"]),
        "cells": loop([1, 2], ["p", "q"]),
        "p": step(),
        "q": step(),
    }
    run = Run(workflow(steps))
    run.go()
    for index in range(2):
        run.succeed(f"each[{index}]/split/slow/rows[0]/cells[0]/p", "x" * 100)
        run.succeed(f"each[{index}]/split/fast/f", "fast")
    assert run.state.status == "COMPLETED"
    assert set(run.state.steps) == {"each"}
    assert run.state.output_bytes == run.state.steps["each"].size == 2 * len('"fast"')
