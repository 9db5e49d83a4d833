"""The recovery walk-through, to the millisecond: re-tries, an alternative, a question, answers."""

from datetime import timedelta
from typing import Any

import pytest

from domain import events as ev
from domain.errors import Invalid, NotFound, StateConflict
from domain.recovery_config import RecoveryConfig
from domain.recovery_rules import RecoveryRules
from domain.recovery_stages import Alternative, InputChange
from tests.builders import EXECUTION_ID, START, Run, step, workflow
from tests.specs import given

EXCHANGES = RecoveryRules(
    alternatives=(
        Alternative(
            "raydium_swap_alternative",
            "raydium_swap_tool",
            error_contains=("jupiter error", "jupiter timeout", "slippage too high"),
        ),
        Alternative(
            "reduced_amount_alternative",
            None,
            (InputChange("amount", 0.5, None),),
            error_contains=("insufficient liquidity", "slippage exceeded", "too large"),
        ),
        Alternative(
            "network_recovery_alternative",
            "network_tool",
            error_contains=("network error", "connection refused", "timeout", "rate limit"),
        ),
    )
)
TIMEOUT = "jupiter timeout"


def swap(mode: str = "strict", *, critical: bool = True, **recovery: Any) -> Run:
    """One step `swap_1` with three re-tries, begun; a person may be asked."""
    declared = step(
        "then",
        config={"amount": 10},
        critical=critical,
        recovery_strategy={"Retry": {"attempts": 3}},
    )
    run = Run(
        workflow({"swap_1": declared, "then": step()}),
        mode=mode,
        recovery={"enable_user_fulfillment": True, **recovery},
        rules=EXCHANGES,
    )
    run.go()
    return run


def fail_after(run: Run, seconds: float, message: str = TIMEOUT, path: str = "swap_1") -> list[str]:
    """The service says no after a while; the action has no word of its own about the class."""
    run.now += timedelta(seconds=seconds)
    return run.fail(path, "unknown", message=message)


def asked(mode: str = "strict", *, critical: bool = True) -> Run:
    """All re-tries and the alternative have failed, 20 seconds after the first failure."""
    run = swap(mode, critical=critical)
    fail_after(run, 0)
    fail_after(run, 2)
    run.pass_time(1)
    fail_after(run, 3)
    run.pass_time(2)
    fail_after(run, 4)
    fail_after(run, 8, "raydium says no", "swap_1~alt.raydium_swap_alternative")
    return run


def deadline(run: Run, path: str = "swap_1") -> float:
    """Seconds from now until the try at `path` times out."""
    at = run.state.steps[path].deadline_at
    assert at is not None
    return (at - run.now).total_seconds()


def last(run: Run, kind: type[ev.Payload]) -> Any:
    return next(event.data for event in reversed(run.events) if type(event.data) is kind)


def test_the_walk_through() -> None:
    run = swap()
    given(run).when(lambda r: fail_after(r, 5)).then(
        "step_failed swap_1 boom",
        "recovery_started swap_1",
        "retry_scheduled swap_1 0ms",
        "step_started swap_1 #2",
    )
    begun = last(run, ev.RecoveryStarted)
    assert (begun.budget_ms, begun.error_class) == (30_000, "transient")
    assert begun.strategies == ("retry", "alternative_flow", "user_fulfillment")
    assert deadline(run) == 30
    given(run).when(lambda r: fail_after(r, 2)).then(
        "step_failed swap_1 boom", "retry_scheduled swap_1 1000ms"
    )
    given(run).when(lambda r: r.pass_time(1)).then("step_started swap_1 #3")
    assert deadline(run) == 27
    given(run).when(lambda r: fail_after(r, 3)).then(
        "step_failed swap_1 boom", "retry_scheduled swap_1 2000ms"
    )
    given(run).when(lambda r: r.pass_time(2)).then("step_started swap_1 #4")
    other = "swap_1~alt.raydium_swap_alternative"
    given(run).when(lambda r: fail_after(r, 4)).then(
        "step_failed swap_1 boom",
        "alternative_selected swap_1 raydium_swap_alternative",
        f"step_started {other} #1",
    )
    assert (run.now - START).total_seconds() == 5 + 12
    assert deadline(run, other) == 18
    assert run.state.steps[other].action == "raydium_swap_tool"
    assert run.state.steps[other].input == {"amount": 10}
    given(run).when(lambda r: fail_after(r, 8, "no", other)).then(
        f"step_failed {other} boom", "question_asked swap_1"
    )
    assert run.state.steps["swap_1"].state == "RECOVERING.awaiting_answer"
    given(run).when(lambda r: r.pass_time(3_600)).then_nothing()
    given(run).when(lambda r: r.answer("retry")).then(
        "question_answered swap_1 retry exact", "retry_scheduled swap_1 0ms"
    )
    given(run).when(Run.go).then("step_started swap_1 #5")
    assert deadline(run) == 10
    run.now += timedelta(seconds=4)
    given(run).when(lambda r: r.succeed("swap_1", "done")).then(
        "step_completed swap_1",
        "recovery_succeeded swap_1 user_fulfillment",
        "step_started then #1",
    )
    ended = last(run, ev.RecoverySucceeded)
    assert (ended.attempts, ended.recovery_ms) == (5, 24_000)
    assert (run.state.steps_recovered, run.state.steps_failed) == (1, 0)


def test_a_step_that_recovers_by_retry_counts_its_attempts_and_time() -> None:
    run = swap()
    fail_after(run, 0)
    fail_after(run, 0)
    run.pass_time(1)
    fail_after(run, 0)
    run.pass_time(2)
    assert "recovery_succeeded swap_1 retry" in run.succeed("swap_1")
    ended = last(run, ev.RecoverySucceeded)
    assert (ended.attempts, ended.recovery_ms) == (3, 3_000)


def test_a_swap_is_asked_about_in_five_questions() -> None:
    (question,) = asked().state.questions.values()
    assert question.id == f"q-{EXECUTION_ID.hex}-1"
    assert question.texts == (
        "Retry step 'swap_1'? It failed: jupiter timeout",
        "Use another exchange?",
        "Use a smaller amount?",
        "Skip step 'swap_1' and go on?",
        "Abort the execution?",
    )
    assert question.options[:3] == ("retry", "skip", "abort")
    assert "alternative:reduced_amount_alternative" in question.options


def test_a_permanent_error_is_not_tried_again_but_asked_about() -> None:
    run = swap()
    given(run).when(lambda r: fail_after(r, 0, "insufficient funds for fee")).then(
        "step_failed swap_1 boom", "recovery_started swap_1", "question_asked swap_1"
    )
    assert last(run, ev.StepFailed).error_class == "permanent"


def test_an_error_on_no_list_is_tried_again_and_then_the_amount_is_halved() -> None:
    run = swap(base_retry_delay_ms=0)
    for _ in range(3):
        fail_after(run, 0, "insufficient liquidity")
    assert fail_after(run, 0, "insufficient liquidity")[1:] == [
        "alternative_selected swap_1 reduced_amount_alternative",
        "step_started swap_1~alt.reduced_amount_alternative #1",
    ]
    other = run.state.steps["swap_1~alt.reduced_amount_alternative"]
    assert (other.action, other.input) == ("set_variables", {"amount": 5})


def test_an_alternative_completes_the_step_with_its_output() -> None:
    run = swap(base_retry_delay_ms=0)
    for _ in range(4):
        fail_after(run, 0, "slippage too high")
    other = "swap_1~alt.raydium_swap_alternative"
    given(run).when(lambda r: r.succeed(other, {"got": 3})).then(
        f"step_completed {other}",
        "recovery_succeeded swap_1 alternative_flow",
        "step_started then #1",
    )
    done = run.state.steps["swap_1"]
    assert (done.state, done.output, done.error) == ("COMPLETED", {"got": 3}, None)
    assert (run.state.steps_done, run.state.output_bytes) == (1, len('{"got":3}'))


# --- answers ---


@pytest.mark.parametrize(
    ("answer", "critical", "mode", "facts"),
    [
        ("skip", True, "strict", "failed critical_step"),
        ("skip", True, "conditional", "failed critical_step"),
        ("skip", True, "lenient", "step_started then #1"),
        ("skip", False, "strict", "step_started then #1"),
        ("abort", True, "strict", "failed user_abort"),
        ("abort", False, "strict", "failed user_abort"),
        ("abort", True, "lenient", "failed user_abort"),
    ],
)
def test_skip_leaves_it_to_the_mode_and_abort_ends_it_in_every_one(
    answer: str, critical: bool, mode: str, facts: str
) -> None:
    run = asked(mode, critical=critical)
    reason = "skipped" if answer == "skip" else "user_abort"
    given(run).when(lambda r: r.answer(answer)).then(
        f"question_answered swap_1 {answer} exact", f"recovery_exhausted swap_1 {reason}"
    )
    given(run).when(Run.go).then(facts)


@pytest.mark.parametrize(
    ("text", "kind", "read_as"),
    [
        ("retry", "retry", "exact"),
        ("  SKIP ", "skip", "exact"),
        ("abort", "abort", "exact"),
        ("yes, please", "retry", "text"),
        ("do not retry, abort it", "retry", "text"),
        ("just continue", "skip", "text"),
        ("Cancel everything", "abort", "text"),
        ("hm", "retry", "ambiguous"),
        ("", "retry", "ambiguous"),
    ],
)
def test_how_an_answer_is_read(text: str, kind: str, read_as: str) -> None:
    run = asked()
    assert run.answer(text)[0] == f"question_answered swap_1 {kind} {read_as}"


def test_an_alternative_may_be_chosen_whatever_the_error_was() -> None:
    run = asked()
    given(run).when(lambda r: r.answer("alternative:network_recovery_alternative")).then(
        "question_answered swap_1 alternative exact",
        "alternative_selected swap_1 network_recovery_alternative",
    )
    other = "swap_1~alt.network_recovery_alternative"
    given(run).when(Run.go).then(f"step_started {other} #1")
    assert deadline(run, other) == 10
    assert run.succeed(other)[1] == "recovery_succeeded swap_1 user_fulfillment"


def test_an_alternative_may_be_chosen_again() -> None:
    run = asked()
    run.answer("alternative:raydium_swap_alternative")
    given(run).when(Run.go).then("step_started swap_1~alt.raydium_swap_alternative #2")
    assert run.fail("swap_1~alt.raydium_swap_alternative")[1:] == [
        "recovery_exhausted swap_1 nothing_left",
        "failed critical_step",
    ]


def test_nobody_answers_in_time() -> None:
    run = asked()
    (question,) = run.state.questions.values()
    given(run).when(Run.pass_to_due).then(
        "question_answered swap_1 skip timeout",
        "recovery_exhausted swap_1 answer_timeout",
        "failed critical_step",
    )
    assert run.now == question.due_at
    given(run).when_refused(lambda r: r.answer("retry"), StateConflict)


def test_a_question_is_answered_once() -> None:
    run = asked()
    run.answer("retry")
    (question_id,) = run.state.questions
    given(run).when(lambda r: r.answer("retry", question_id)).then_nothing()
    given(run).when(lambda r: r.answer("yes", question_id)).then_nothing()
    given(run).when_refused(lambda r: r.answer("skip", question_id), StateConflict)


def test_answers_that_are_refused() -> None:
    given(asked()).when_refused(lambda r: r.answer("retry", "q-1"), NotFound)
    given(asked()).when_refused(lambda r: r.answer("alternative:none"), Invalid)
    given(swap()).when_refused(lambda r: r.answer("retry"), StateConflict)
    run = asked()
    run.cancel()
    given(run).when_refused(lambda r: r.answer("skip"), StateConflict)
    (question_id,) = run.state.questions
    given(run).when_refused(lambda r: r.answer("skip", question_id), StateConflict)


def test_a_retry_after_an_answer_is_one_more_try() -> None:
    run = asked()
    run.answer("retry")
    run.go()
    assert fail_after(run, 1)[1:] == [
        "recovery_exhausted swap_1 nothing_left",
        "failed critical_step",
    ]


def test_an_alternative_that_the_server_has_no_more_is_no_answer() -> None:
    run = asked()
    run.rules = RecoveryRules()
    with pytest.raises(Invalid, match="no alternative 'reduced_amount_alternative' any more"):
        run.answer("alternative:reduced_amount_alternative")
    given(run).when(lambda r: r.answer("retry")).then(
        "question_answered swap_1 retry exact", "retry_scheduled swap_1 0ms"
    )


def test_a_new_attempt_asks_anew() -> None:
    run = asked()
    run.answer("skip")
    run.go()
    run.retry()
    given(run).when(Run.go).then("started", "step_started swap_1 #1")
    given(run).when(lambda r: fail_after(r, 0, "invalid signature")).then(
        "step_failed swap_1 boom", "recovery_started swap_1", "question_asked swap_1"
    )
    assert sorted(run.state.questions) == [f"q-{EXECUTION_ID.hex}-{n}" for n in (1, 2)]


# --- who may do what ---


def test_without_settings_a_step_recovers_only_as_it_says() -> None:
    run = Run(workflow({"swap_1": step()}), rules=EXCHANGES)
    run.go()
    assert fail_after(run, 0) == ["step_failed swap_1 boom", "failed critical_step"]


def test_the_servers_settings_are_the_executions_unless_it_has_its_own() -> None:
    rules = RecoveryRules(config=RecoveryConfig(retry_attempts=1, base_retry_delay_ms=50))
    run = Run(workflow({"a": step()}), rules=rules)
    assert run.state.recovery == rules.config
    run = Run(workflow({"a": step()}), rules=rules, recovery={"base_retry_delay_ms": 70})
    assert run.state.recovery == RecoveryConfig(retry_attempts=1, base_retry_delay_ms=70)
    run.go()
    assert run.fail("a")[1:] == [
        "recovery_started a",
        "retry_scheduled a 0ms",
        "step_started a #2",
    ]


def test_a_step_overrides_the_execution() -> None:
    config = {"retry_attempts": 0, "enable_user_fulfillment": True, "max_recovery_time_ms": 700}
    run = Run(workflow({"a": step(recovery_config=config)}), recovery={"retry_attempts": 9})
    run.go()
    given(run).when(lambda r: r.fail("a")).then(
        "step_failed a boom", "recovery_started a", "question_asked a"
    )
    assert last(run, ev.RecoveryStarted).budget_ms == 700


@pytest.mark.parametrize(
    ("recovery", "fields", "facts"),
    [
        ({"enable_alternative_flows": False}, {}, ["failed critical_step"]),
        (
            {"enable_alternative_flows": False},
            {"recovery_config": {"enable_alternative_flows": True}},
            ["alternative_selected a b", "step_started a~alt.b #1"],
        ),
        ({}, {}, ["alternative_selected a b", "step_started a~alt.b #1"]),
        (None, {}, ["alternative_selected a b", "step_started a~alt.b #1"]),
        (
            None,
            {"recovery_config": {"enable_alternative_flows": False, "retry_attempts": 0}},
            ["failed critical_step"],
        ),
    ],
)
def test_alternatives_can_be_switched_off(recovery: Any, fields: Any, facts: list[str]) -> None:
    declared = step(alternatives=[{"id": "b", "do": {"action": "call_api"}}], **fields)
    run = Run(workflow({"a": declared}), recovery=recovery)
    run.go()
    told = run.fail("a", "permanent")
    assert [each for each in told[1:] if not each.startswith("recovery_")] == facts
