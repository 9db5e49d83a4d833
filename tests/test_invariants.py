"""Every check of `tests/invariants.py` finds a planted violation, and none where all is well."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec import structs

from application.views import summarise
from domain import events as ev
from domain.events import Event, Recorded
from domain.json_values import JsonObject
from domain.lifecycle import status_of
from tests.builders import (
    EXECUTION_ID,
    Run,
    call,
    fork,
    linear,
    normalised,
    step,
    wait,
    with_condition,
    workflow,
)
from tests.invariants import Answer, Tables, check_all


def lived() -> Run:
    """A failure, a retry of a step, a lost worker, a cancel, a late result, a retry, the end."""
    run = Run(workflow({"a": step("b", retry={}), "b": step("c"), "c": step()}))
    run.go()
    run.fail("a")
    run.pass_to_due()
    run.lose_worker()
    run.succeed("a", 1)
    late = run.outcome("b", output=2)
    run.cancel("enough")
    run.settle(late)
    run.retry()
    return run.succeed_all()


def recorded(events: Sequence[Event]) -> list[Recorded]:
    return [Recorded(position, event) for position, event in enumerate(events, start=10)]


def numbered(events: Sequence[Event]) -> list[Event]:
    return [structs.replace(event, version=n) for n, event in enumerate(events, start=1)]


def broken(log: Sequence[Recorded], **more: Any) -> set[str]:
    return {violation.invariant for violation in check_all(log, **more)}


def find(run: Run, kind: type[ev.Payload]) -> Event:
    return next(event for event in run.events if type(event.data) is kind)


def insert(run: Run, after: type[ev.Payload], data: ev.Payload) -> list[Recorded]:
    """The log with one more fact after the first of a kind."""
    place = run.events.index(find(run, after)) + 1
    more = structs.replace(run.events[place - 1], data=data)
    return recorded(numbered([*run.events[:place], more, *run.events[place:]]))


def recovered() -> Run:
    """Re-tries, an alternative, a question and its answer, all within a budget."""
    other = [{"id": "b", "do": {"action": "call_api"}}]
    run = Run(
        workflow({"a": step(alternatives=other, ask=True)}), recovery={"total_budget_ms": 20_000}
    )
    run.go()
    run.fail("a")
    run.fail("a")
    run.pass_to_due()
    run.fail("a", "permanent")
    run.fail("a~alt.b")
    run.now += timedelta(minutes=5)
    run.answer("retry")
    return run.succeed_all()


def undone() -> Run:
    """Two finished steps are undone, one of them at the second try."""
    steps = {
        "a": step("b", compensate_with="u"),
        "b": step("c", compensate_with="u"),
        "c": step(),
        "u": step(retry={}),
    }
    run = Run(workflow(steps))
    run.go()
    run.succeed("a")
    run.succeed("b")
    run.fail("c")
    run.fail("b~undo")
    return run.succeed_all()


def changed(run: Run, kind: type[ev.Payload], **fields: Any) -> list[Recorded]:
    """The log with the last fact of a kind told otherwise."""
    place = max(n for n, event in enumerate(run.events) if type(event.data) is kind)
    event = run.events[place]
    other = structs.replace(event, data=structs.replace(event.data, **fields))
    return recorded([*run.events[:place], other, *run.events[place + 1 :]])


def without(run: Run, kind: type[ev.Payload]) -> list[Recorded]:
    """The log without the first fact of a kind."""
    kept = [event for event in run.events if event is not find(run, kind)]
    return recorded(numbered(kept))


def test_recovery_beyond_its_budget_is_found() -> None:
    run = recovered()
    assert run.state.status == "COMPLETED"
    late = run.now + timedelta(minutes=10)
    assert broken(changed(run, ev.StepStarted, deadline_at=late)) == {"I15"}
    assert broken(changed(run, ev.StepStarted, deadline_at=None)) == {"I15"}
    assert broken(changed(run, ev.RetryScheduled, due_at=late)) == {"I15", "I19"}
    assert "I15" in broken(changed(run, ev.RecoveryStarted, budget_ms=30_000))
    assert "I15" in broken(without(run, ev.RecoveryStarted))


def test_a_mode_that_is_not_kept_is_found() -> None:
    run = undone()
    assert (run.state.status, run.state.to_undo) == ("FAILED", ())
    assert "I16" in broken(changed(run, ev.CompensationStarted, paths=("a", "b")))
    assert "I16" in broken(changed(run, ev.CompensationFinished, path="b"))
    assert "I16" in broken(without(run, ev.CompensationFinished))
    assert "I16" in broken(without(run, ev.CompensationStarted))
    assert "I16" in broken(changed(run, ev.Requested, atomic_mode="lenient"))
    started = ev.StepStarted("d", 1, 1, "x", "c", None, None, None)
    assert "I16" in broken(insert(run, ev.CompensationStarted, started))


def test_a_life_with_faults_breaks_nothing() -> None:
    branched = Run(with_condition(), {"big": True}).succeed_all()
    for run in (lived(), branched, recovered(), undone()):
        assert check_all(recorded(run.events), history(run), tables(run)) == []


def history(run: Run) -> list[Answer]:
    """What a client would have been told about its cancel."""
    if not any(type(event.data) is ev.Cancelled for event in run.events):
        return []
    event = find(run, ev.Cancelled)
    return [
        Answer(event.meta.cmd, EXECUTION_ID, "done", "cancel", event.version),
        Answer(event.meta.cmd, EXECUTION_ID, "done", "cancel", event.version),
        Answer("never-stored", EXECUTION_ID, "refused", "cancel"),
        Answer("lost", EXECUTION_ID, "unknown", "cancel"),
        Answer("again", EXECUTION_ID, "nothing", "cancel"),
    ]


def tables(run: Run) -> Tables:
    view = summarise(run.state, 0)
    row: dict[str, object] = {
        "run_id": view.run_id,
        "position": 9 + len(run.events),
        "status": view.status,
        "version": view.version,
        "steps_done": view.progress.done,
    }
    steps: list[dict[str, object]] = [
        {
            "run_id": view.run_id,
            "path": path,
            "attempt": each.attempt,
            "try_no": each.try_no,
            "status": status_of(each.state),
        }
        for path, each in run.state.steps.items()
    ]
    return Tables([row], steps)


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ([Answer("not-there", EXECUTION_ID, "done")], "I1"),
        ([Answer("c4", EXECUTION_ID, "refused")], "I1"),
        ([Answer("c4", EXECUTION_ID, "nothing")], "I1"),
        (
            [Answer("x", EXECUTION_ID, "done", version=n) for n in (3, 4)],
            "I2",
        ),
        ([Answer("c4", EXECUTION_ID, "done", "cancel")], "I6"),
    ],
)
def test_wrong_answers_are_found(answers: list[Answer], wanted: str) -> None:
    assert wanted in broken(recorded(lived().events), history=answers)


@pytest.mark.parametrize(("outcome", "wanted"), [("done", "I1"), ("unknown", "I2")])
def test_a_command_that_is_stored_twice_is_found(outcome: Any, wanted: str) -> None:
    run = lived()
    event = find(run, ev.CancelRequested)
    twice = [*run.events, structs.replace(event, version=run.state.version + 1)]
    told = [Answer(event.meta.cmd, EXECUTION_ID, outcome)]
    assert wanted in broken(recorded(twice), history=told)


def test_a_hole_is_found() -> None:
    events = lived().events
    assert "I3" in broken(recorded(events[:5] + events[6:]))


def test_a_time_that_goes_back_is_found() -> None:
    run = lived()
    last = run.events[-1]
    early = structs.replace(last, meta=structs.replace(last.meta, at=run.events[0].meta.at))
    assert broken(recorded([*run.events[:-1], early])) == {"I3"}


@pytest.mark.parametrize(
    ("after", "data"),
    [
        (ev.Started, ev.Started(1, None)),
        (ev.Started, ev.StepCompleted("nowhere", 1, 1, 0, 0, None)),
        (ev.StepFailed, ev.StepProgressed("a", 1, 1, None)),
        (ev.StepCompleted, ev.RetryScheduled("a", 1, 3, 0, lived().now)),
        (ev.StepStarted, ev.StepSkipped("a", 1, "", "condition", None)),
        (ev.Cancelled, ev.CancelRequested(None)),
        (ev.Completed, ev.Retried(3, (), None, None)),
    ],
)
def test_an_illegal_transition_is_found(after: type[ev.Payload], data: ev.Payload) -> None:
    assert "I4" in broken(insert(lived(), after, data))


def test_life_after_the_end_is_found() -> None:
    assert "I5" in broken(insert(lived(), ev.Completed, ev.CancelRequested(None)))
    assert "I5" in broken(insert(lived(), ev.Started, ev.Retried(2, (), None, None)))


def test_two_winners_are_found() -> None:
    assert "I6" in broken(insert(lived(), ev.Completed, ev.Cancelled(2)))


@pytest.mark.parametrize(
    "data",
    [
        ev.StepCompleted("a", 1, 2, 2, 1, 1),
        ev.StepCompleted("a", 1, 1, 2, 1, 1),
        ev.StepStarted("a", 1, 2, "x", "", None, None, None),
    ],
)
def test_a_second_outcome_or_a_repeated_try_is_found(data: ev.Payload) -> None:
    assert "I7" in broken(insert(lived(), ev.StepCompleted, data))


def test_a_result_of_an_old_epoch_is_found() -> None:
    run = lived()
    done = find(run, ev.StepCompleted)
    assert isinstance(done.data, ev.StepCompleted)
    old = structs.replace(done, data=structs.replace(done.data, epoch=1))
    assert broken(recorded([old if event is done else event for event in run.events])) == {"I8"}
    again = ev.StepRedelivered("a", 1, 2, 3, 1, None)
    assert "I8" in broken(insert(run, ev.StepRedelivered, again))


def test_a_late_result_that_counts_and_an_awaited_one_that_does_not_are_found() -> None:
    run = lived()
    late = ev.StepCompleted("b", 1, 1, 2, 1, 2)
    assert "I13" in broken(insert(run, ev.Cancelled, late))
    ignored = ev.LateResultIgnored("a", 1, 1, 1, "completed", None)
    assert broken(insert(run, ev.StepStarted, ignored)) == {"I13"}


def test_positions_that_do_not_grow_are_found() -> None:
    log = recorded(lived().events)
    assert broken([*log[:-1], structs.replace(log[-1], position=3)]) == {"I11"}


def test_rows_that_differ_from_the_log_are_found() -> None:
    run = lived()
    log, right = recorded(run.events), tables(run)
    for column, value in (("status", "RUNNING"), ("version", 3), ("position", 12)):
        assert broken(log, tables=Tables([{**right.runs[0], column: value}])) == {"I9"}
    stranger = {**right.runs[0], "run_id": f"run-{UUID(int=0)}"}
    assert broken(log, tables=Tables([*right.runs, stranger])) == {"I9"}
    assert broken(log, tables=Tables([])) == {"I9"}
    assert broken(log, tables=Tables(right.runs, right.steps[1:])) == {"I9"}


def test_a_try_that_is_left_open_is_found() -> None:
    run = lived()
    log, right = recorded(run.events), tables(run)
    row = next(row for row in right.steps if row["path"] == "a")
    earlier = {**row, "try_no": 0, "status": "RECOVERING"}
    assert broken(log, tables=Tables(right.runs, [*right.steps, earlier])) == {"I23"}
    later = {**row, "try_no": 9, "status": "RUNNING"}
    assert broken(log, tables=Tables(right.runs, [*right.steps, later])) == {"I23"}
    going = Run(linear(1, on_error="retry"))
    going.go()
    going.fail("s1")
    going.pass_to_due()
    at_work, shown = recorded(going.events), tables(going)
    assert check_all(at_work, tables=shown) == []
    older = {**shown.steps[0], "try_no": 1, "status": "RECOVERING"}
    assert broken(at_work, tables=Tables(shown.runs, [*shown.steps, older])) == {"I23"}


def test_streams_of_workflows_are_held_to_versions_only() -> None:
    published = ev.WorkflowPublished("w", 1, "0" * 64, {}, {})
    meta = lived().events[0].meta
    log = [Recorded(1, Event(UUID(int=5), 1, meta, published))]
    assert check_all(log, [], Tables([])) == []


def test_the_chain_of_a_long_run_is_checked_too() -> None:
    assert check_all(recorded(Run(linear(50)).succeed_all().events)) == []


def inline(raw: JsonObject) -> Run:
    """A run that brings its definition with it."""
    run = Run(raw)
    first = run.events[0]
    data = structs.replace(first.data, definition=normalised(raw))
    run.events[0] = structs.replace(first, data=data)
    return run


def waited() -> Run:
    """A wait, and a fork of which one branch is enough."""
    steps = {
        "pause": wait("split"),
        "split": fork({"a": ["p"], "b": ["q"]}, policy="all"),
        "p": step(),
        "q": step(),
    }
    return inline(workflow(steps)).succeed_all()


def test_what_happens_before_its_time_is_found() -> None:
    run = waited()
    later = run.now + timedelta(seconds=1)
    started = find(run, ev.StepStarted)
    place = run.events.index(started)
    other = structs.replace(started, data=structs.replace(started.data, due_at=later))
    early = recorded([*run.events[:place], other, *run.events[place + 1 :]])
    assert broken(early) == {"I19"}


def test_a_join_that_counts_what_did_not_complete_is_found() -> None:
    run = waited()
    assert broken(recorded(run.events)) == set()
    assert "I20" in broken(changed(run, ev.BranchFinished, state="FAILED"))


def test_finished_work_that_is_done_again_is_found() -> None:
    run = Run(linear(2)).succeed_all()
    begun = find(run, ev.StepStarted)
    assert "I7" in broken(insert(run, ev.StepCompleted, begun.data))


def test_a_step_that_times_out_too_early_is_found_and_the_time_out_of_its_child_is_not() -> None:
    run = inline(workflow({"sub": call(timeout_seconds=60)}))
    run.go()
    run.pin("sub")
    (child,) = run.state.children
    run.end_child(child, error_class="timeout", code="step_timeout")
    assert broken(recorded(run.events)) == set()
    assert broken(changed(run, ev.StepFailed, epoch=0)) == {"I19"}
