"""Recovery attempts, from the events: one per use of a strategy, with its times and its outcome."""

from typing import Any

from application.recovery_history import RecoveryAttempt
from domain import events as ev
from domain.recovery_config import DEFAULT_CONFIG
from tests import recoveries
from tests.builders import Run, step, workflow
from tests.recoveries import attempts_of

RETRY, OTHER, ASK = "retry", "alternative_flow", "user_fulfillment"


def told(run: Run) -> list[tuple[Any, ...]]:
    return [(each.number, each.strategy, each.outcome, each.reason) for each in attempts_of(run)]


def times(attempt: RecoveryAttempt) -> tuple[Any, ...]:
    return attempt.delay_ms, attempt.duration_ms, attempt.recovery_ms, attempt.saved_ms


def test_each_retry_is_an_attempt_with_its_wait() -> None:
    run = recoveries.recovered_by_retry()
    first, second = attempts_of(run)
    assert told(run) == [(1, RETRY, "failed", None), (2, RETRY, "succeeded", None)]
    assert times(first) == (1_000, 1_500, None, None)
    # The execution had worked for 3 seconds, and recovered in 4.5.
    assert times(second) == (2_000, 3_000, 4_500, -1_500)
    assert {each.worked_ms for each in (first, second)} == {3_000}
    assert {each.recovery_version for each in (first, second)} == {first.started_version - 1}
    assert run.state.steps_recovered == 1


def test_an_alternative_is_an_attempt_that_names_it() -> None:
    run = recoveries.recovered_by_alternative()
    *retries, other = attempts_of(run)
    assert [each.outcome for each in retries] == ["failed", "failed"]
    assert (other.number, other.strategy, other.alternative) == (3, OTHER, "cheap")
    assert times(other) == (0, 2_000, 5_000, -2_000)


def test_what_an_answer_leads_to_belongs_to_the_question() -> None:
    for answer, path, chosen in (
        ("retry", "swap", None),
        ("alternative:cheap", "swap~alt.cheap", "cheap"),
    ):
        run = recoveries.recovered_by_answer(answer, path)
        *_, question = attempts_of(run)
        assert told(run)[-1] == (4, ASK, "succeeded", None)
        assert question.alternative == chosen
        assert question.question_id in run.state.questions
        # The person was waited for 30 seconds, which the recovery's own time leaves out.
        assert times(question) == (0, 37_000, 10_000, 3_000 - 40_000)


def test_a_failure_that_stands_says_why_in_the_last_attempt() -> None:
    for answer, reason in (("skip", "skipped"), ("abort", "user_abort"), (None, "answer_timeout")):
        run = recoveries.given_up(answer)
        assert told(run)[-1] == (4, ASK, "failed", reason)
        assert attempts_of(run)[-1].recovery_ms == 3_000
        assert attempts_of(run)[-1].saved_ms is None
    failed = recoveries.failed_for_good()
    assert told(failed)[-1] == (3, OTHER, "failed", "nothing_left")
    assert attempts_of(failed)[-1].recovery_ms == 4_000


def test_a_recovery_that_is_not_wanted_any_more_is_cancelled() -> None:
    run = recoveries.cut_off()
    assert told(run)[-1] == (4, ASK, "cancelled", None)
    assert times(attempts_of(run)[-1]) == (0, 5_000, None, None)
    assert [
        (each.path, each.attempt, each.strategy, each.outcome)
        for each in attempts_of(recoveries.not_needed())
    ] == [
        ("split/left/p", 1, ASK, "cancelled"),
        ("both/r", 1, RETRY, "cancelled"),
        ("both/r", 2, RETRY, "succeeded"),
    ]


def test_a_recovery_without_time_has_one_attempt_at_which_nothing_was_tried() -> None:
    run = recoveries.without_time()
    assert told(run) == [
        (1, RETRY, "failed", "budget"),
        (0, "none", "failed", "total_budget"),
    ]
    assert attempts_of(run)[1].path == "b"


def test_an_attempt_answers_the_failure_before_it() -> None:
    run = recoveries.swap()
    run.pass_to_due()
    recoveries.fail(run, 0, error_class="permanent", message="no", code="refused")
    assert [(each.strategy, each.error_class, each.code) for each in attempts_of(run)] == [
        (RETRY, "transient", "boom"),
        (OTHER, "permanent", "refused"),
    ]


def test_an_attempt_under_way_has_no_end() -> None:
    (*_, open_one) = attempts_of(recoveries.asked())
    assert (open_one.outcome, open_one.ended_at, open_one.duration_ms) == (None, None, None)


def test_a_compensation_recovers_too() -> None:
    undo = step(retry={"attempts": 1, "base_delay_ms": 0})
    run = Run(workflow({"a": step("b", compensate_with="free"), "b": step(), "free": undo}))
    run.go()
    run.succeed("a")
    run.fail("b", "permanent", retryable=False)
    run.go()
    recoveries.fail(run, 0, "a~undo")
    run.go()
    run.succeed("a~undo")
    assert [(each.path, each.outcome) for each in attempts_of(run)] == [("a~undo", "succeeded")]
    assert run.state.status == "FAILED"


def test_the_walk_by_settings_alone_counts_as_printed() -> None:
    """Three re-tries, at once and after 1 and 2 seconds: the older system's sum of 3000 ms."""
    run = Run(workflow({"swap_1": step()}), recovery={})
    assert run.state.recovery == DEFAULT_CONFIG
    run.go()
    for _ in range(3):
        recoveries.fail(run, 0, "swap_1")
        if run.state.steps["swap_1"].due_at is not None:
            run.pass_to_due()
    run.succeed("swap_1")
    assert [each.delay_ms for each in attempts_of(run)] == [0, 1_000, 2_000]
    assert attempts_of(run)[-1].recovery_ms == 3_000
    assert any(type(event.data) is ev.RecoverySucceeded for event in run.events)


def test_a_step_that_an_operator_settles_cuts_its_recovery_off() -> None:
    for verb in ("skip", "complete"):
        run = recoveries.settled_by_hand(verb)
        assert told(run)[-1] == (4, ASK, "cancelled", None)
        assert run.state.steps_recovered == 0
        assert all(each.ended_at is not None for each in attempts_of(run))
