"""Steps that wait for a signal: kept, taken once, in order, in time."""

from typing import Any

import pytest

from domain import decisions
from domain.decisions import allowed_actions
from domain.errors import StateConflict, TooManySignals
from domain.signals import SIGNALS_KEPT_MAX
from tests.builders import Run, event, fork, loop, mistakes_of, normalised, step, workflow
from tests.specs import given


def waiting(**fields: Any) -> Run:
    return Run(workflow({"a": event("b", **fields), "b": step()}))


def test_a_signal_ends_the_step_with_its_payload() -> None:
    run = given(waiting(), Run.go).when(lambda run: run.signal(payload={"n": 1}))
    run.then("signal_received paid", "signal_consumed a", "step_completed a", "step_started b #1")
    assert run.run.state.steps["a"].output == {"n": 1}
    assert run.run.state.signals == ()


def test_a_signal_that_came_before_its_step_is_kept_and_taken_once() -> None:
    run = Run(workflow({"a": step("b"), "b": event("c"), "c": event()}))
    run.go()
    run.signal(payload=1)
    run.signal(payload=2)
    run.signal("other", 3)
    run.succeed("a")
    outputs = {path: state.output for path, state in run.state.steps.items()}
    assert outputs == {"a": None, "b": 1, "c": 2}
    assert run.state.status == "COMPLETED"
    assert [each.name for each in run.state.signals] == ["other"]


@pytest.mark.parametrize("one", [1, 1.0])
def test_true_and_one_are_two_values_wherever_they_stand(one: float) -> None:
    run = Run(workflow({"a": event(event_filter={"order": {"states": [{"paid": True}]}})}))
    run.go()
    assert run.signal(payload={"order": {"states": [{"paid": one}]}}) == ["signal_received paid"]
    assert run.signal(payload={"order": {"states": [{"paid": True}]}})[-1] == "completed"


def test_only_a_signal_with_the_members_of_the_filter_is_taken() -> None:
    wanted = {"order": "${workflow.input.order}", "ok": True}
    run = Run(workflow({"a": event(event_filter=wanted)}), {"order": 7})
    run.go()
    for payload in ({"order": 8, "ok": True}, {"order": 7}, {"order": 7, "ok": 1}, "text", None):
        assert run.signal(payload=payload) == ["signal_received paid"]
    run.signal(payload={"order": 7, "ok": True, "more": 1})
    assert run.state.status == "COMPLETED"
    assert len(run.state.signals) == 5


@pytest.mark.parametrize(
    ("on_timeout", "facts", "status"),
    [
        ("fail", ["step_failed a event_timeout", "failed critical_step"], "FAILED"),
        ("continue", ["step_completed a", "step_started b #1"], "RUNNING"),
        ("skip", ["step_skipped a event_timeout", "step_started b #1"], "RUNNING"),
    ],
)
def test_what_happens_when_nothing_comes(on_timeout: str, facts: list[str], status: str) -> None:
    run = waiting(timeout_seconds=60, on_timeout=on_timeout)
    run.go()
    assert run.pass_time(59) == []
    assert run.pass_time(1) == facts
    assert run.state.status == status
    assert run.state.steps["a"].output is None


def test_a_signal_that_came_in_time_counts_though_nobody_looked() -> None:
    run = waiting(timeout_seconds=60)
    run.go()
    draft = run.draft()
    decisions.signal(draft, "paid", 1)
    run.store(draft)
    assert run.pass_time(3_600)[:2] == ["signal_consumed a", "step_completed a"]


def test_a_signal_that_came_late_is_kept() -> None:
    run = waiting(timeout_seconds=60)
    run.go()
    run.now = run.now.replace(year=run.now.year + 1)
    assert run.signal()[1:] == ["step_failed a event_timeout", "failed critical_step"]
    assert len(run.state.signals) == 1


def test_a_time_out_may_be_retried() -> None:
    run = waiting(timeout_seconds=60, retry={"attempts": 1, "base_delay_ms": 0})
    run.go()
    assert "retry_scheduled a 0ms" in run.pass_time(60)
    run.signal()
    assert run.state.steps["a"].state == "COMPLETED"


def test_steps_in_branches_and_iterations_wait_for_themselves() -> None:
    steps = {
        "split": fork({"left": ["l"], "right": ["each"]}),
        "l": event(name="left"),
        "each": loop([1, 2], ["p"], execution_mode="parallel"),
        "p": event(event_filter={"n": "${loop.item}"}),
    }
    run = Run(workflow(steps))
    run.go()
    run.signal(payload={"n": 2})
    assert run.state.steps["split/right/each[0]/p"].state == "RUNNING"
    run.signal(payload={"n": 1})
    run.signal("left", "x")
    assert run.state.status == "COMPLETED"
    assert run.state.steps["split"].output == {
        "left": "x",
        "right": {"iterations": [{"n": 1}, {"n": 2}], "total_count": 2},
    }


def test_a_cancel_ends_the_wait_and_then_nothing_takes_signals() -> None:
    told = given(waiting(), Run.go, Run.cancel)
    assert told.run.state.steps["a"].state == "CANCELLED"
    told.when_refused(lambda run: run.signal(), StateConflict)


def test_more_signals_than_it_may_keep_are_refused() -> None:
    run = Run(workflow({"a": step()}))
    for _ in range(SIGNALS_KEPT_MAX):
        run.signal()
    given(run).when_refused(lambda run: run.signal(), TooManySignals)


def test_signal_is_an_allowed_action_while_a_step_waits_for_one() -> None:
    run = waiting()
    assert "signal" not in allowed_actions(run.state)
    run.go()
    assert allowed_actions(run.state)[-1] == "signal"
    run.signal()
    assert "signal" not in allowed_actions(run.state)


def test_a_simulation_does_not_wait() -> None:
    run = Run(workflow({"a": event()}), simulate=True)
    run.go()
    assert run.state.status == "COMPLETED"


def test_the_normal_form_is_one_for_all_spellings() -> None:
    short, long = event(), event()
    long["event_source"] = {"type": "signal", "name": "paid"}
    assert normalised(workflow({"a": short})) == normalised(workflow({"a": long}))


@pytest.mark.parametrize(
    ("fields", "place", "code"),
    [
        ({"event_source": None}, "/event_source", "missing_field"),
        ({"event_source": 5}, "/event_source", "bad_identifier"),
        ({"event_source": "a b"}, "/event_source", "bad_identifier"),
        (
            {"event_source": {"type": "kafka", "name": "x"}},
            "/event_source/type",
            "not_available_yet",
        ),
        ({"event_source": {"type": "carrier", "name": "x"}}, "/event_source/type", "bad_value"),
        ({"event_source": {"type": ["signal"], "name": "x"}}, "/event_source/type", "bad_value"),
        ({"event_source": {"name": "x", "y": 1}}, "/event_source/y", "unknown_field"),
        ({"on_timeout": "explode", "timeout_seconds": 1}, "/on_timeout", "bad_value"),
        ({"on_timeout": "skip"}, "/on_timeout", "contradiction"),
        ({"event_filter": []}, "/event_filter", "bad_value"),
        ({"event_filter": {"a": "${loop.item}"}}, "/event_filter/a", "bad_reference"),
        ({"event_filter": {"a": "${secret.KEY}"}}, "/event_filter/a", "bad_reference"),
    ],
)
def test_mistakes_have_their_place(fields: dict[str, Any], place: str, code: str) -> None:
    raw = workflow({"a": event() | fields})
    assert mistakes_of(raw) == {f"/steps/a{place}": code}
