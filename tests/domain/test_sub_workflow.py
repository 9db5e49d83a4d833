"""Steps that run another workflow: what is recorded, and what is owed to a child."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from application.run import context_for
from domain.children import DEPTH_MAX, child_uuid, depth_of, is_wanted, request_of
from domain.execution_state import Parent
from domain.planner import running_actions
from tests.builders import (
    EXECUTION_ID,
    START,
    Run,
    call,
    fork,
    loop,
    mistakes_of,
    normalised,
    parallel,
    step,
    workflow,
)
from tests.specs import given


def calling(**fields: Any) -> Run:
    return Run(workflow({"sub": call("after", **fields), "after": step()}), {"n": 3})


def child(run: Run, path: str = "sub", try_no: int = 1, attempt: int = 1) -> UUID:
    return child_uuid(run.state.id, path, attempt, try_no)


def pinned(**fields: Any) -> Run:
    run = calling(**fields)
    run.go()
    run.pin("sub")
    return run


def test_the_step_waits_for_its_child_and_has_its_output() -> None:
    run = pinned(input_mapping={"n": "${workflow.input.n}"})
    assert running_actions(run.definition, run.state) == []
    wanted = request_of(run.state, run.state.children[child(run)])
    assert (wanted.input, wanted.workflow_version) == ({"n": 3}, 1)
    assert wanted.parent == Parent(EXECUTION_ID, "sub", 1, 1, 1, True)
    given(run).when(lambda run: run.end_child(child(run), output={"r": 1})).then(
        "child_ended sub", "step_completed sub", "step_started after #1"
    )
    assert run.state.steps["sub"].output == {"r": 1}
    assert not run.state.children


def test_a_lost_worker_does_not_begin_the_child_again() -> None:
    run = pinned()
    assert run.lose_worker() == []
    before = calling()
    before.go()
    assert before.lose_worker() == ["step_redelivered sub x2"]


def test_a_failed_child_fails_the_step_and_the_next_try_has_a_child_of_its_own() -> None:
    run = pinned(retry={"attempts": 1, "base_delay_ms": 0})
    first = child(run)
    facts = run.end_child(first, error_class="transient", code="boom", message="it broke")
    assert facts[:2] == ["child_ended sub", "step_failed sub boom"]
    run.pin("sub")
    assert set(run.state.children) == {child(run, try_no=2)} != {first}
    run.end_child(child(run, try_no=2))
    assert run.state.steps["sub"].recovered


def test_a_permanent_failure_of_a_child_is_not_tried_again() -> None:
    run = pinned(retry={"attempts": 3})
    run.end_child(child(run), error_class="permanent", code="boom", message="it broke")
    assert run.state.status == "FAILED"


def test_a_time_out_leaves_a_child_that_is_not_wanted_any_more() -> None:
    run = pinned(timeout_seconds=5)
    (owed,) = run.state.children.values()
    assert is_wanted(run.state, owed)
    run.pass_time(5)
    assert run.state.status == "FAILED"
    assert not is_wanted(run.state, owed)
    assert list(run.state.children) == [owed.id]
    assert run.end_child(owed.id, error_class="permanent", code="child_cancelled") == [
        "child_ended sub",
        "late_result_ignored sub cancelled",
    ]
    assert not run.state.children


@pytest.mark.parametrize("end", [Run.cancel, lambda run: run.pass_time(60)])
def test_whatever_ends_the_execution_leaves_its_children_owed(end: Any) -> None:
    steps = {
        "split": fork({"l": ["one"], "r": ["each"]}),
        "one": call(),
        "each": loop([1, 2], ["two"], execution_mode="parallel"),
        "two": call(),
    }
    run = Run(workflow(steps, timeout_seconds=60))
    run.go()
    paths = running_actions(run.definition, run.state)
    assert len(paths) == 3
    for path in paths:
        run.pin(path)
    end(run)
    assert run.state.terminal
    assert len(run.state.children) == 3
    assert not any(is_wanted(run.state, each) for each in run.state.children.values())


def test_a_branch_that_is_not_needed_leaves_its_child_owed() -> None:
    steps = {"split": fork({"l": ["a"], "r": ["sub"]}, "end", "any"), "a": step(), "sub": call()}
    run = Run(workflow({**steps, "end": step()}))
    run.go()
    run.pin("split/r/sub")
    run.succeed("split/l/a")
    (owed,) = run.state.children.values()
    assert not is_wanted(run.state, owed)
    assert run.end_child(owed.id, output=1) == [
        "child_ended split/r/sub",
        "late_result_ignored split/r/sub completed",
    ]
    run.succeed("end")
    assert run.state.status == "COMPLETED"


def test_a_pin_that_comes_too_late_begins_nothing() -> None:
    run = calling()
    run.go()
    run.cancel()
    assert run.pin("sub") == ["late_result_ignored sub interrupted"]
    assert not run.state.children


def test_a_pin_that_comes_too_late_goes_on_with_what_made_it_late() -> None:
    run = Run(workflow({"a": step("sub", compensate_with="back"), "sub": call(), "back": step()}))
    run.go()
    run.succeed("a")
    run.cancel()
    assert run.pin("sub") == ["late_result_ignored sub interrupted", "step_started a~undo #1"]


def test_a_retry_of_the_execution_has_a_new_child_while_the_old_one_is_owed() -> None:
    run = pinned(timeout_seconds=5)
    run.pass_time(5)
    run.retry()
    run.go()
    run.pin("sub")
    old, new = child(run), child(run, attempt=2)
    assert set(run.state.children) == {old, new}
    assert [is_wanted(run.state, run.state.children[each]) for each in (old, new)] == [False, True]
    run.end_child(old, error_class="permanent", code="child_cancelled")
    run.end_child(new, output="done")
    assert run.state.steps["sub"].output == "done"


def test_an_alternative_runs_another_workflow_with_the_changed_input() -> None:
    cheap = {"id": "x", "do": {"workflow": "cheap"}, "input": [{"path": "n", "multiply": 0.5}]}
    run = Run(workflow({"pay": step(config={"n": 8}, alternatives=[cheap])}))
    run.go()
    run.fail("pay", "permanent")
    step_there = run.state.steps["pay~alt.x"]
    assert step_there.action == "sub_workflow"
    assert step_there.input == {
        "workflow_id": "cheap",
        "version": None,
        "wait": True,
        "input": {"n": 4},
    }
    run.pin("pay~alt.x")
    run.end_child(child(run, "pay~alt.x"), output="paid")
    assert (run.state.status, run.state.steps["pay"].output) == ("COMPLETED", "paid")


@pytest.mark.parametrize(
    ("work", "seconds"),
    [({"action": "call_api"}, 300), ({"agent": "spare"}, 300), ({"workflow": "by-hand"}, None)],
)
def test_an_action_in_place_of_another_workflow_has_the_time_of_an_action(
    work: dict[str, Any], seconds: int | None
) -> None:
    """The step has none, for another workflow takes the time it takes."""
    run = pinned(alternatives=[{"id": "other", "do": work}])
    path = "sub~alt.other"
    run.end_child(child(run), error_class="permanent", code="boom", message="it broke")
    allowed = seconds and START + timedelta(seconds=seconds)
    assert run.state.steps[path].deadline_at == allowed
    context, _ = context_for(run.state, run.definition, path, 1, lambda _: None)
    assert context.timeout_seconds == (seconds or 0)
    run.now += timedelta(seconds=100)
    run.lose_worker()
    assert run.state.steps[path].deadline_at == (allowed and allowed + timedelta(seconds=100))
    if seconds is not None:
        run.pass_time(seconds)
        error = run.state.steps[path].error
        assert error is not None
        assert error.message == "The step did not end within 300 seconds."


def test_an_alternative_of_a_called_workflow_changes_what_it_is_given() -> None:
    less = {"id": "less", "input": [{"path": "n", "set": 1}]}
    run = pinned(input_mapping={"n": 9}, alternatives=[less])
    run.end_child(child(run), error_class="permanent", code="boom")
    given_there = run.state.steps["sub~alt.less"].input
    assert isinstance(given_there, dict)
    assert given_there["input"] == {"n": 1}
    assert running_actions(run.definition, run.state) == ["sub~alt.less"]


def test_a_compensation_may_be_a_workflow() -> None:
    steps = {"a": step("b", compensate_with="back"), "b": step(), "back": call()}
    run = Run(workflow(steps))
    run.go()
    run.succeed("a")
    run.fail("b", "permanent")
    run.pin("a~undo")
    run.end_child(child(run, "a~undo"))
    assert run.state.status == "FAILED"
    assert "a~undo" in run.state.steps


def test_a_simulation_begins_no_child() -> None:
    run = Run(workflow({"sub": call()}), simulate=True)
    run.go()
    assert running_actions(run.definition, run.state) == ["sub"]
    assert not run.state.children


def test_depth_is_counted_through_the_parents() -> None:
    run = calling()
    assert depth_of(run.state) == 1 < DEPTH_MAX


def test_children_of_a_parallel_are_told_apart() -> None:
    steps = {"fan": parallel(["a", "b"]), "a": call(), "b": call()}
    run = Run(workflow(steps))
    run.go()
    for path in ("fan/a", "fan/b"):
        run.pin(path)
    run.end_child(child(run, "fan/b"), output=2)
    run.end_child(child(run, "fan/a"), output=1)
    assert run.state.output == {"a": 1, "b": 2}


def test_the_older_spelling_of_the_version() -> None:
    assert normalised(workflow({"a": call(workflow_version=2)})) == normalised(
        workflow({"a": call(version=2)})
    )


@pytest.mark.parametrize(
    ("fields", "place", "code"),
    [
        ({"workflow_id": None}, "/workflow_id", "missing_field"),
        ({"workflow_id": ""}, "/workflow_id", "bad_identifier"),
        ({"workflow_id": 7}, "/workflow_id", "bad_identifier"),
        ({"workflow_id": "${workflow.input.w}"}, "/workflow_id", "bad_identifier"),
        ({"version": 0}, "/version", "out_of_range"),
        ({"version": "1"}, "/version", "bad_value"),
        ({"workflow_version": -1}, "/workflow_version", "out_of_range"),
        ({"version": 1, "workflow_version": 1}, "/workflow_version", "contradiction"),
        ({"workflow_id": "wf-x-1", "version": 1}, "/version", "contradiction"),
        ({"wait": "yes"}, "/wait", "bad_value"),
        ({"input_mapping": []}, "/input_mapping", "bad_value"),
        ({"input_mapping": {"k": "${secret.KEY}"}}, "/input_mapping/k", "bad_reference"),
        ({"timeout_seconds": 0}, "/timeout_seconds", "out_of_range"),
        ({"action": "call_api"}, "/action", "unknown_field"),
        ({"alternatives": [{"id": "x"}]}, "/alternatives/0", "cycle"),
    ],
)
def test_mistakes_have_their_place(fields: dict[str, Any], place: str, code: str) -> None:
    raw = workflow({"a": call() | fields})
    assert mistakes_of(raw) == {f"/steps/a{place}": code}


@pytest.mark.parametrize(
    ("work", "place", "code"),
    [
        ({"workflow": 5}, "/workflow", "bad_identifier"),
        ({"workflow": "a b"}, "/workflow", "bad_identifier"),
        ({"workflow": "x", "action": "call_api"}, "/workflow", "contradiction"),
        ({"workflow": "x", "agent": "y"}, "/workflow", "contradiction"),
        ({"action": "call_api", "agent": "y"}, "/agent", "contradiction"),
        ({"agent": 5}, "/agent", "bad_identifier"),
    ],
)
def test_mistakes_in_what_an_alternative_does(work: dict[str, Any], place: str, code: str) -> None:
    change = [{"path": "n", "set": 1}]
    raw = workflow({"a": step(alternatives=[{"id": "x", "do": work, "input": change}])})
    assert mistakes_of(raw) == {f"/steps/a/alternatives/0/do{place}": code}
