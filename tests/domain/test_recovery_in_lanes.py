"""Recovery inside parallels, loops and forks: the same as on the main line, in the step's lane."""

from typing import Any

import pytest

from domain.events import Recorded
from domain.execution_state import ExecutionState
from domain.json_values import JsonObject
from domain.lane_paths import counts
from tests.builders import Run, fork, loop, mistakes_of, parallel, replay, step, workflow
from tests.invariants import check_all

RETRY = {"attempts": 1, "base_delay_ms": 100, "multiplier": 2.0, "max_delay_ms": 1_000}
CHEAP = {"id": "cheap", "when": {}, "do": {"action": "call_api"}}


def around(kind: str, **fields: Any) -> tuple[JsonObject, str]:
    """A definition with step `p` in a composite, and the path it has there."""
    held = {"p": step(**fields), "q": step(), "end": step()}
    match kind:
        case "parallel":
            return workflow({"c": parallel(["p", "q"], "end"), **held}), "c/p"
        case "loop":
            return workflow({"c": loop([1], ["p", "q"], "end"), **held}), "c[0]/p"
    return workflow({"c": fork({"left": ["p"], "right": ["q"]}, "end"), **held}), "c/left/p"


def finish(run: Run) -> ExecutionState:
    run.succeed_all()
    assert_sound(run)
    return run.state


def assert_sound(run: Run) -> None:
    log = [Recorded(position, event) for position, event in enumerate(run.events, start=1)]
    assert check_all(log) == []
    assert replay(run.events)[-1] == run.state


KINDS = pytest.mark.parametrize("kind", ["parallel", "loop", "fork"])


@KINDS
def test_an_alternative_does_the_work_in_the_lane(kind: str) -> None:
    raw, path = around(kind, alternatives=[CHEAP])
    run = Run(raw)
    run.go()
    run.fail(path)
    assert run.state.steps[path].state == "RECOVERING.rerouted"
    assert f"{path}~alt.cheap" in run.state.live
    run.succeed(f"{path}~alt.cheap", {"done": 1})
    state = finish(run)
    assert (state.status, state.partial) == ("COMPLETED", False)
    assert state.steps_recovered == counts(path)


@KINDS
def test_a_person_is_asked_and_may_skip_or_abort(kind: str) -> None:
    for told, status in (("retry", "COMPLETED"), ("abort", "FAILED")):
        raw, path = around(kind, ask={})
        run = Run(raw, mode="lenient")
        run.go()
        run.fail(path)
        assert run.state.steps[path].state == "RECOVERING.awaiting_answer"
        run.answer(told)
        run.go()
        state = finish(run)
        assert state.status == status
        if told == "abort":
            assert state.error is not None
            assert state.error.path == path


@KINDS
def test_a_failed_step_in_a_lane_is_tried_again(kind: str) -> None:
    raw, path = around(kind, retry=RETRY)
    run = Run(raw)
    run.go()
    run.fail(path)
    run.pass_to_due()
    run.succeed(path)
    assert finish(run).status == "COMPLETED"


@pytest.mark.parametrize("kind", ["parallel", "fork"])
def test_what_finished_in_a_lane_is_undone(kind: str) -> None:
    raw, path = around(kind, compensate_with="unpay")
    steps = raw["steps"]
    assert isinstance(steps, dict)
    steps["unpay"] = step(config={"what": "${undo.output}"})
    run = Run(raw)
    run.go()
    run.succeed(path, {"id": 7})
    run.succeed("c/q" if kind == "parallel" else "c/right/q")
    run.fail("end")
    assert run.state.steps[f"{path}~undo"].input == {"what": {"id": 7}}
    run.succeed(f"{path}~undo")
    assert run.state.status == "FAILED"
    run.retry()
    run.go()
    assert path in run.state.live  # it was undone, so it runs again
    assert finish(run).status == "COMPLETED"


def test_a_step_in_a_loop_cannot_be_undone_by_itself() -> None:
    raw, _ = around("loop", compensate_with="unpay")
    steps = raw["steps"]
    assert isinstance(steps, dict)
    steps["unpay"] = step()
    assert mistakes_of(raw) == {"/steps/p/compensate_with": "contradiction"}


def test_a_composite_does_not_recover_by_the_settings_of_the_execution() -> None:
    raw, path = around("parallel")
    run = Run(raw, recovery={"retry_attempts": 1})
    run.go()
    run.succeed("c/q")
    assert run.fail(path)[-1] == f"step_started {path} #2"
    assert run.fail(path)[-1] == "failed critical_step"
    assert_sound(run)


def test_a_branch_that_is_over_costs_the_time_its_recovery_took() -> None:
    raw, path = around("fork", retry={**RETRY, "base_delay_ms": 60_000, "max_delay_ms": 60_000})
    steps = raw["steps"]
    assert isinstance(steps, dict)
    steps["c"] = fork({"left": ["p"], "right": ["q"]}, "end", "any")
    run = Run(raw)
    run.go()
    run.fail(path)
    run.pass_time(2)
    run.succeed("c/right/q")
    assert run.state.recovery_spent_ms == 2_000
    assert finish(run).status == "COMPLETED"


@pytest.mark.parametrize("told_in_a_pause", [False, True])
def test_an_abort_counts_though_the_rest_ends_before_anybody_looked(told_in_a_pause: bool) -> None:
    """What ends next would satisfy the join and cancel the branch that was aborted."""
    steps = {
        "c": fork({"left": ["p"], "right": ["q"]}, "end", "any"),
        "p": step(ask=True),
        "q": step(),
        "end": step(),
    }
    run = Run(workflow(steps))
    run.go()
    run.fail("c/left/p")
    if told_in_a_pause:
        run.pause()
    run.answer("abort")
    facts = run.succeed("c/right/q")
    if told_in_a_pause:
        facts += run.go_on()
    assert facts[-1] == "failed user_abort"
    assert_sound(run)
