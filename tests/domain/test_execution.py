"""`evolve` and `fold`: what the events say, whatever today's rules are."""

from datetime import timedelta

import pytest

from domain import events as ev
from domain.errors import LogDamaged
from domain.execution import COMMANDS_KEPT, ExecutionState, evolve, fold
from tests.builders import (
    EXECUTION_ID,
    START,
    Run,
    fork,
    linear,
    loop,
    replay,
    step,
    with_condition,
    workflow,
)


def after(run: Run, *data: ev.Payload, seconds: float = 1) -> ExecutionState:
    """The state after more facts, as a later release might write them."""
    state = run.state
    for fact in data:
        meta = ev.Meta(at=START + timedelta(seconds=seconds), cmd="x", actor="bob")
        state = evolve(state, ev.Event(EXECUTION_ID, state.version + 1, meta, fact))
    return state


def test_replay_equals_what_was_lived() -> None:
    run = Run(with_condition(), {"big": True}).succeed_all()
    assert replay(run.events)[-1] == run.state
    assert fold(run.events) == run.state
    assert fold(run.events[4:], run.as_of(4)) == run.state


def test_as_of_the_first_version_is_pending() -> None:
    run = Run(linear(2)).succeed_all()
    assert run.as_of(1).status == "PENDING"
    assert run.as_of(2).status == "RUNNING"


def test_a_first_event_must_be_a_request() -> None:
    event = ev.Event(EXECUTION_ID, 1, ev.Meta(at=START, cmd="c", actor="a"), ev.Started(1, None))
    with pytest.raises(TypeError, match=r"execution\.requested\.v1"):
        evolve(None, event)
    assert fold([]) is None


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_a_gap_in_the_log_is_told_and_not_passed_over(missing: int) -> None:
    events = Run(linear(3)).succeed_all().events
    told = rf"{EXECUTION_ID} is damaged: version {missing + 1} follows version {missing - 1}\."
    with pytest.raises(LogDamaged, match=told):
        fold(events[: missing - 1] + events[missing:])


def test_an_event_that_is_there_twice_is_told() -> None:
    events = Run(linear(1)).succeed_all().events
    with pytest.raises(LogDamaged, match="version 2 follows version 2"):
        fold([*events[:2], *events[1:]])


def test_every_payload_of_an_execution_can_be_applied() -> None:
    """A new payload without its place in `evolve` would stop every replay."""
    steps = {
        "split": fork({"left": ["a"], "right": ["each"]}),
        "a": step(action="create_task", config={"title": "t", "wait": True}),
        "each": loop([1, 2], ["p"]),
        "p": step(),
    }
    run = Run(workflow(steps))
    run.go()
    path, around = "split/left/a", "split/right/each"
    (task_id,) = run.state.tasks
    facts: dict[type[ev.Payload], ev.Payload] = {
        type(fact): fact
        for fact in (
            ev.Started(1, None),
            ev.StepStarted("b", 1, 1, "x", path, None, None, None),
            ev.StepRedelivered(path, 1, 1, 2, 7, None),
            ev.StepProgressed(path, 1, 1, 0.5),
            ev.StepCompleted(path, 1, 1, 7, 2, {}),
            ev.StepFailed(path, 1, 1, 7, "transient", "boom", True, "it broke", None),
            ev.StepSkipped("c", 1, path, "condition", None),
            ev.BranchTaken(path, 1, "then", None, None, None),
            ev.IterationStarted(around, 1, 1),
            ev.IterationFinished(around, 1, 0, "COMPLETED", None, None, None, None),
            ev.BranchStarted("split", 1, "left", None),
            ev.BranchFinished(
                "split", 1, "left", "FAILED", None, "timeout", "branch_timeout", "late"
            ),
            ev.Joined(around, 1, "loop", 2, (), (), None),
            ev.RetryScheduled(path, 1, 2, 1_000, START),
            ev.HumanTaskCreated("t2", path, 1, "LOW", True, "t", None, None),
            ev.HumanTaskCompleted(task_id, path, 1, None),
            ev.RecoveryStarted(path, 1, 30_000, "transient", "boom", ("retry",)),
            ev.AlternativeSelected(path, 1, "cheap", "x"),
            ev.QuestionAsked("q1", path, 1, ("retry",), START, "skip", ("Retry?",)),
            ev.QuestionAnswered("q1", path, 1, "retry", None, "exact", "retry"),
            ev.RecoverySucceeded(path, 1, "retry", 1, 5),
            ev.RecoveryExhausted(path, 1, "nothing_left", 1, 5),
            ev.CancelRequested(None),
            ev.CompensationStarted(1, "cancelled", "", "", "", (path,), ""),
            ev.CompensationFinished(path, 1),
            ev.Cancelled(1),
            ev.Completed(1, False, None),
            ev.Failed(1, "critical_step", "transient", "boom", path, "it broke"),
            ev.Retried(2, (path,), None, None),
            ev.LateResultIgnored(path, 1, 1, 7, "completed", None),
            ev.Paused(1, None, "look at it"),
            ev.Resumed(1, None),
            ev.StepSettled(path, 1, 1, "COMPLETED", 2, "done by hand", {}),
            ev.ForkedFrom(EXECUTION_ID, 7, 1, "split", None),
            ev.StepKept(
                *(path, "COMPLETED", "x", "", 1, None, None, 2, None, None, None, 0, 0),
                *(None, None, None, None, {}),
            ),
            ev.ChildStarted(path, 1, 1, EXECUTION_ID, "wf-x-1", "x", 1, EXECUTION_ID, "", 1, True),
            ev.ChildEnded(path, 1, 1, EXECUTION_ID, "COMPLETED"),
            ev.SignalReceived(1, "paid", None),
            ev.SignalConsumed(path, 1, 1, 1),
            ev.TaskDispatched(path, 1, 1, "task-a-1", "corr-run-1-a-1", "x", "kafka"),
            ev.DispatchFailed("no broker"),
        )
    }
    run.state = after(run, facts[ev.QuestionAsked])  # or there was nothing to answer
    assert set(facts) == set(ev.EXECUTION_PAYLOADS) - {ev.Requested}
    for fact in facts.values():
        assert after(run, fact).version == run.state.version + 1


def test_facts_that_todays_rules_forbid_are_folded_all_the_same() -> None:
    run = Run(linear(1)).succeed_all()
    state = after(run, ev.CancelRequested("late"), ev.Cancelled(1))
    assert state.status == "CANCELLED"


def test_progress_is_kept() -> None:
    run = Run(linear(1))
    run.go()
    assert after(run, ev.StepProgressed("s1", 1, 1, {"done": 3})).steps["s1"].progress == {
        "done": 3
    }


def test_counters_follow_the_steps() -> None:
    steps = {
        "a": step("b", on_error="continue"),
        "b": step("c", conditions=["false"]),
        "c": step("d", retry={}),
        "d": step(),
    }
    run = Run(workflow(steps))
    run.go()
    run.fail("a")
    run.fail("c")
    assert (run.state.steps_failed, run.state.steps_skipped) == (1, 1)
    run.pass_to_due()
    run.succeed("c", "12")
    run.fail("d")
    counted = run.state
    assert (counted.steps_done, counted.steps_failed, counted.steps_skipped) == (1, 2, 1)
    assert counted.output_bytes == len('"12"')
    run.retry("a")
    reset = run.state
    assert (reset.steps_done, reset.steps_failed, reset.steps_skipped) == (0, 0, 0)
    assert reset.output_bytes == 0


def test_commands_with_a_key_are_remembered_and_old_ones_forgotten() -> None:
    state = Run(linear(1)).state
    for number in range(COMMANDS_KEPT + 5):
        meta = ev.Meta(at=START, cmd=f"k{number}", actor="a", fingerprint="f")
        for _ in range(2):  # one command of two events
            event = ev.Event(EXECUTION_ID, state.version + 1, meta, ev.CancelRequested(None))
            state = evolve(state, event)
    assert len(state.commands) == COMMANDS_KEPT
    assert state.commands[0].id == "k5"
    assert state.commands[-1].version == state.version


def test_recorded_times_never_go_back() -> None:
    run = Run(linear(2))
    run.go()
    run.now -= timedelta(hours=1)
    run.succeed("s1")
    assert [event.meta.at for event in run.events] == [START] * len(run.events)
