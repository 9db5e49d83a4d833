"""`evolve` and `fold`: what the events say, whatever today's rules are."""

from datetime import timedelta

import pytest

from domain import events as ev
from domain.execution import COMMANDS_KEPT, ExecutionState, evolve, fold
from tests.builders import EXECUTION_ID, START, Run, linear, replay, step, with_condition, workflow


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


def test_every_payload_of_an_execution_can_be_applied() -> None:
    """A new payload without its place in `evolve` would stop every replay."""
    run = Run(workflow({"a": step(action="create_task", config={"title": "t", "wait": True})}))
    run.go()
    (task_id,) = run.state.tasks
    facts: dict[type[ev.Payload], ev.Payload] = {
        type(fact): fact
        for fact in (
            ev.Started(1, None),
            ev.StepStarted("b", 1, 1, "x", "a", None, None, None),
            ev.StepRedelivered("a", 1, 1, 2, 7, None),
            ev.StepProgressed("a", 1, 1, 0.5),
            ev.StepCompleted("a", 1, 1, 7, 2, {}),
            ev.StepFailed("a", 1, 1, 7, "transient", "boom", True, "it broke", None),
            ev.StepSkipped("c", 1, "a", "condition", None),
            ev.BranchTaken("a", 1, "then", None, None, None),
            ev.RecoveryStarted("a", 1, 30_000, "transient", "boom", ("retry",)),
            ev.AlternativeSelected("a", 1, "cheap", "x"),
            ev.RetryScheduled("a", 1, 2, 1_000, START),
            ev.QuestionAsked("q1", "a", 1, ("retry",), START, "skip", ("Retry?",)),
            ev.QuestionAnswered("q1", "a", 1, "retry", None, "exact", "retry"),
            ev.RecoverySucceeded("a", 1, "retry", 1, 5),
            ev.RecoveryExhausted("a", 1, "nothing_left", 1, 5),
            ev.HumanTaskCreated("t2", "a", 1, "LOW", True, "t", None, None),
            ev.HumanTaskCompleted(task_id, "a", 1, None),
            ev.CancelRequested(None),
            ev.CompensationStarted(1, "cancelled", "", "", "", ("a",), ""),
            ev.CompensationFinished("a", 1),
            ev.Cancelled(1),
            ev.Completed(1, False, None),
            ev.Failed(1, "critical_step", "transient", "boom", "a", "it broke"),
            ev.Retried(2, ("a",), None, None),
            ev.LateResultIgnored("a", 1, 1, 7, "completed", None),
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
