"""The terms of recovery as tables: rows of waits, caps, budgets, jitter, classes, order."""

from datetime import timedelta
from typing import Any

import pytest

from domain import events as ev
from domain.error_classes import DEFAULT_LISTS, ErrorLists, Failure, classify
from domain.input_changes import changed_input
from domain.lifecycle import RETRYING
from domain.recovery import may_retry, retry_delay_ms
from domain.recovery_stages import InputChange, RetryPolicy
from tests.builders import Run, step, wait, workflow
from tests.specs import given


def policy(**fields: Any) -> RetryPolicy:
    given_fields: dict[str, Any] = {"base_delay_ms": 1_000, "multiplier": 2.0, **fields}
    return RetryPolicy(**{"attempts": 9, "max_delay_ms": 10_000, **given_fields})


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({}, [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]),
        ({"first_retry_at_once": True}, [0, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]),
        ({"strategy": "fixed"}, [1_000, 1_000, 1_000]),
        ({"strategy": "fixed", "max_delay_ms": 300}, [300, 300]),
        ({"strategy": "linear"}, [1_000, 2_000, 3_000, 4_000]),
        ({"strategy": "linear", "first_retry_at_once": True}, [0, 1_000, 2_000]),
        ({"strategy": "linear", "max_delay_ms": 2_500}, [1_000, 2_000, 2_500, 2_500]),
        ({"strategy": "immediate"}, [0, 0, 0]),
        ({"multiplier": 1.5}, [1_000, 1_500, 2_250]),
        ({"base_delay_ms": 0}, [0, 0]),
        ({"base_delay_ms": 20_000}, [10_000, 10_000]),
    ],
)
def test_rows_of_waits(fields: dict[str, Any], row: list[int]) -> None:
    assert [retry_delay_ms(policy(**fields), number) for number in range(1, len(row) + 1)] == row


# --- budgets ---


def test_a_wait_that_would_use_up_what_is_left_is_cut() -> None:
    config = {"retry_attempts": 5, "base_retry_delay_ms": 4_000, "max_recovery_time_ms": 9_000}
    run = Run(workflow({"a": step()}), recovery=config)
    run.go()
    assert run.fail("a")[2] == "retry_scheduled a 0ms"
    assert run.fail("a")[1] == "retry_scheduled a 4000ms"
    run.pass_to_due()
    assert run.fail("a")[1] == "retry_scheduled a 2500ms"  # 8 s of 5 that are left
    run.pass_to_due()
    assert run.state.steps["a"].deadline_at == run.now + timedelta(milliseconds=2_500)
    given(run).when(Run.pass_to_due).then(
        "step_failed a step_timeout", "recovery_exhausted a budget", "failed critical_step"
    )


def test_a_plain_retry_has_no_budget() -> None:
    run = Run(
        workflow(
            {"a": step(retry={"attempts": 100, "base_delay_ms": 60_000}, timeout_seconds=None)}
        )
    )
    run.go()
    run.fail("a")
    started = next(e.data for e in run.events if isinstance(e.data, ev.RecoveryStarted))
    assert started.budget_ms is None
    run.pass_to_due()
    assert run.state.steps["a"].deadline_at == run.now + timedelta(seconds=300)


def test_a_retry_that_nobody_looked_for_in_time_does_not_begin() -> None:
    run = Run(workflow({"a": step()}), recovery={"base_retry_delay_ms": 1_000})
    run.go()
    run.fail("a")
    run.fail("a")
    given(run).when(lambda r: r.pass_time(31)).then(
        "recovery_exhausted a budget", "failed critical_step"
    )


def test_a_redelivered_try_stays_in_the_budget() -> None:
    run = Run(workflow({"a": step()}), recovery={})
    run.go()
    run.fail("a")
    run.now += timedelta(seconds=20)
    assert run.lose_worker() == ["step_redelivered a x2"]
    assert run.state.steps["a"].deadline_at == run.now + timedelta(seconds=10)


def test_all_recoveries_of_an_execution_share_the_total_budget() -> None:
    steps = {name: step(after) for name, after in (("a", "b"), ("b", "c"), ("c", None))}
    config = {"total_budget_ms": 5_000, "max_recovery_time_ms": 4_000}
    run = Run(workflow(steps), recovery=config)
    run.go()
    budgets = []
    for name in ("a", "b", "c"):
        run.fail(name)
        found = [e.data for e in run.events if isinstance(e.data, ev.RecoveryStarted)]
        budgets.append(found[-1].budget_ms)
        if run.state.terminal:
            break
        run.now += timedelta(seconds=3 if name == "a" else 1.9999)
        run.succeed(name)
    assert budgets == [4_000, 2_000, 0]
    assert run.state.status == "FAILED"
    assert "recovery_exhausted" in run.events[-2].data.TOPIC


def test_a_wait_step_that_is_cut_by_its_recovery_fails() -> None:
    run = Run(
        workflow({"w": wait(None, 5_000, timeout_seconds=1, recovery_config={})}), recovery={}
    )
    run.go()
    given(run).when(lambda r: r.pass_time(1)).then(
        "step_failed w step_timeout",
        "recovery_started w",
        "retry_scheduled w 0ms",
        "step_started w #2",
    )


# --- jitter ---


def test_jitter_spreads_waits_and_is_the_same_at_every_look() -> None:
    def waits(*, jitter: bool) -> list[int]:
        config = {"base_retry_delay_ms": 1_000, "jitter": jitter, "retry_attempts": 4}
        run = Run(workflow({"a": step()}), recovery=config)
        run.go()
        while not run.state.terminal:
            run.fail("a")
            if run.state.steps["a"].state == RETRYING:
                run.pass_to_due()
        return [e.data.delay_ms for e in run.events if isinstance(e.data, ev.RetryScheduled)]

    plain, spread = waits(jitter=False), waits(jitter=True)
    assert plain == [0, 1_000, 2_000, 4_000]
    assert spread == waits(jitter=True)
    assert spread != plain
    assert all(full / 2 <= cut <= full for cut, full in zip(spread, plain, strict=True))


# --- classes ---


@pytest.mark.parametrize(
    ("stated", "message", "status", "wanted"),
    [
        ("unknown", "Insufficient FUNDS, timeout", None, "permanent"),
        ("unknown", "Jupiter Timeout", None, "transient"),
        ("unknown", "blockhash not found", None, "transient"),
        ("unknown", "insufficient liquidity", None, "unknown"),
        ("transient", "permission denied", None, "transient"),
        ("permanent", "timeout", None, "permanent"),
        ("unknown", "no", 503, "transient"),
        ("unknown", "no", 429, "transient"),
        ("unknown", "no", 404, "permanent"),
        ("unknown", "rate limit", 404, "transient"),
        ("unknown", "no", 200, "unknown"),
    ],
)
def test_the_class_of_an_error(stated: str, message: str, status: int | None, wanted: str) -> None:
    assert classify(stated, message, status, DEFAULT_LISTS) == wanted


def test_the_lists_are_data() -> None:
    lists = ErrorLists(permanent=("teapot",), transient=())
    assert classify("unknown", "I am a TEAPOT", None, lists) == "permanent"
    assert classify("unknown", "timeout", None, lists) == "unknown"


@pytest.mark.parametrize(
    ("fields", "failure", "wanted"),
    [
        ({}, Failure("x", "unknown", ""), True),
        ({}, Failure("x", "permanent", ""), False),
        ({}, Failure("x", "transient", "", retryable=False), False),
        ({"on_errors": ("Slow",)}, Failure("x", "transient", "too slow"), True),
        ({"on_errors": ("slow",)}, Failure("x", "transient", "down"), False),
        ({"on_errors": ("step_timeout",)}, Failure("step_timeout", "timeout", ""), True),
        ({"on_status_codes": (404,)}, Failure("x", "permanent", "", status=404), True),
        ({"on_status_codes": (404,)}, Failure("x", "transient", "", status=503), False),
    ],
)
def test_what_is_tried_again(fields: dict[str, Any], failure: Failure, wanted: bool) -> None:
    assert may_retry(policy(**fields), failure) is wanted


def test_an_http_status_is_read_from_the_output_or_the_text() -> None:
    for fields in ({"output": {"status": 404}}, {"message": "HTTP 404: not there"}):
        run = Run(workflow({"a": step(retry_strategy={"retry_on_status_codes": [404]})}))
        run.go()
        assert "retry_scheduled a 1000ms" in run.fail("a", "unknown", **fields)


# --- order ---


def test_stages_are_tried_in_their_order() -> None:
    stages = [
        {"kind": "alternative", "id": "one", "do": {"action": "call_api"}},
        {"kind": "retry", "attempts": 1, "base_delay_ms": 0},
        {"kind": "alternative", "id": "two", "input": [{"path": "n", "set": {"deep": [1]}}]},
        {"kind": "ask"},
    ]
    run = Run(workflow({"a": step(recovery=stages, config={"n": 1})}))
    run.go()
    run.fail("a")
    given(run).when(lambda r: r.fail("a~alt.one", "permanent")).then(
        "step_failed a~alt.one boom", "retry_scheduled a 0ms", "step_started a #2"
    )
    given(run).when(lambda r: r.fail("a")).then(
        "step_failed a boom", "alternative_selected a two", "step_started a~alt.two #1"
    )
    assert run.state.steps["a~alt.two"].input == {"n": {"deep": [1]}}
    given(run).when(lambda r: r.fail("a~alt.two")).then(
        "step_failed a~alt.two boom", "question_asked a"
    )


def test_the_steps_alternatives_come_before_the_definitions() -> None:
    raw = workflow(
        {"a": step(alternatives=[{"id": "own", "do": {"action": "call_api"}}])},
        alternatives=[
            {"id": "not-this", "when": {"code": "other"}, "do": {"action": "call_api"}},
            {"id": "named", "when": {"class": "transient"}, "do": {"action": "call_api"}},
            {"id": "never", "do": {"action": "call_api"}},
        ],
    )
    run = Run(raw)
    run.go()
    assert "alternative_selected a own" in run.fail("a")
    assert "alternative_selected a named" in run.fail("a~alt.own")
    assert run.fail("a~alt.named")[1:] == [
        "recovery_exhausted a nothing_left",
        "failed critical_step",
    ]


def test_a_step_may_name_a_rule_whatever_the_error_says() -> None:
    rule = {"id": "plan-b", "when": {"code": "other"}, "do": {"action": "call_api"}}
    declared = step(recovery_strategy={"AlternativeFlow": {"flow_id": "plan-b"}})
    run = Run(workflow({"a": declared}, alternatives=[rule]))
    run.go()
    assert "alternative_selected a plan-b" in run.fail("a")


def test_an_alternative_whose_input_does_not_fit_fails_and_the_next_one_comes() -> None:
    declared = step(
        config={"n": "text"},
        alternatives=[
            {"id": "half", "input": [{"path": "n", "multiply": 0.5}]},
            {"id": "other", "do": {"action": "call_api"}},
        ],
    )
    run = Run(workflow({"a": declared}))
    run.go()
    assert run.fail("a")[2:] == [
        "alternative_selected a half",
        "step_started a~alt.half #1",
        "step_failed a~alt.half bad_step_input",
        "alternative_selected a other",
        "step_started a~alt.other #1",
    ]


def test_a_cancel_takes_the_alternative_and_its_step() -> None:
    run = Run(workflow({"a": step(alternatives=[{"id": "b", "do": {"action": "call_api"}}])}))
    run.go()
    run.fail("a")
    assert run.state.steps["a"].state == "RECOVERING.rerouted"
    run.cancel()
    assert run.statuses() == {"a": "CANCELLED", "a~alt.b": "CANCELLED"}
    run.retry()
    assert run.statuses() == {}


@pytest.mark.parametrize(
    ("given_input", "path", "factor", "wanted"),
    [
        ({"n": 10}, "n", 0.5, {"n": 5}),
        ({"n": 5}, "n", 0.5, {"n": 2.5}),
        ({"n": 5.0, "m": 1}, "n", 2, {"n": 10.0, "m": 1}),
        ({"body": {"lines": [{"n": 4}]}}, "body.lines.0.n", 0.25, {"body": {"lines": [{"n": 1}]}}),
    ],
)
def test_changes_of_the_input(given_input: Any, path: str, factor: float, wanted: Any) -> None:
    before = repr(given_input)
    assert changed_input(given_input, (InputChange(path, factor, None),)) == wanted
    assert repr(given_input) == before


@pytest.mark.parametrize(
    ("given_input", "path"),
    [
        ({"n": "x"}, "n"),
        ({"n": True}, "n"),
        ({}, "n"),
        ({"n": []}, "n.0"),
        ({"n": 2**53}, "n"),
        (1, "n"),
    ],
)
def test_a_change_that_does_not_fit_says_where(given_input: Any, path: str) -> None:
    with pytest.raises(ValueError, match="n"):
        changed_input(given_input, (InputChange(path, 10, None),))


def test_a_rule_that_is_the_failed_step_again_is_used_once() -> None:
    again = {"id": "again", "do": {"action": "set_variables"}}
    run = Run(workflow({"a": step()}, alternatives=[again]))
    run.go()
    assert run.state.steps["a"].action == "set_variables"
    run.fail("a", "permanent")
    assert run.fail("a~alt.again", "permanent")[-1] == "failed critical_step"
    assert run.state.status == "FAILED"


def test_a_rule_that_nobody_knows_is_passed_over() -> None:
    run = Run(workflow({"a": step(recovery=[{"kind": "alternative", "rule": "nowhere"}])}))
    run.go()
    assert run.fail("a")[-1] == "failed critical_step"
