"""From what an agent's record says about failure to the recovery of the steps that name it."""

from datetime import timedelta
from typing import Any

import pytest

from domain.agent_policy import FALLBACK_ID, AgentPolicy, with_policies
from domain.agent_reader import Described, read_agent
from domain.agent_uses import AgentUse
from domain.agents import AgentRecovery, AgentSettings, RetryConfig
from domain.json_values import JsonObject
from domain.mistakes import Mistake
from domain.validation import Verdict, validate
from tests.builders import START, Actions, Run, agent, normalised, step, workflow

SWIFT = RetryConfig(max_retries=2, initial_delay_ms=500, max_delay_ms=2_000, backoff_multiplier=3.0)
NO_RETRY = RetryConfig(max_retries=0)
TO_SPARE = AgentRecovery(on_failure="FALLBACK", fallback_agent="spare")


def retry(attempts: int, base: int = 1_000, longest: int = 30_000, factor: float = 2.0) -> Any:
    """A stage with every member of its normal form."""
    return {
        "kind": "retry",
        "attempts": attempts,
        "base_delay_ms": base,
        "multiplier": factor,
        "max_delay_ms": longest,
        "first_retry_at_once": False,
        "strategy": "exponential",
        "jitter": False,
        "retry_on_errors": [],
        "retry_on_status_codes": [],
    }


FALLBACK: Any = {
    "kind": "alternative",
    "id": FALLBACK_ID,
    "when": {"error_contains": [], "class": None, "code": None},
    "do": {"action": None, "agent": "spare"},
    "input": [],
}


def filled(raw: Any, **policies: AgentPolicy) -> Verdict:
    return with_policies(validate(raw, Actions()), policies)


def stages(verdict: Verdict, step_id: str = "a") -> Any:
    assert verdict.mistakes == ()
    form: Any = verdict.normalised
    return form["steps"][step_id]["recovery"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (AgentPolicy(RetryConfig()), [retry(3)]),
        (AgentPolicy(SWIFT), [retry(2, 500, 2_000, 3.0)]),
        (AgentPolicy(NO_RETRY), [retry(0)]),
        (AgentPolicy(SWIFT, AgentRecovery()), [retry(2, 500, 2_000, 3.0)]),
        (AgentPolicy(SWIFT, AgentRecovery(max_retries=9)), [retry(2, 500, 2_000, 3.0)]),
        (AgentPolicy(RetryConfig(), AgentRecovery(on_failure="FAIL")), [retry(0)]),
        (
            AgentPolicy(RetryConfig(), AgentRecovery(on_failure="FAIL", fallback_agent="spare")),
            [retry(0)],
        ),
        (AgentPolicy(RetryConfig(), TO_SPARE), [retry(3), FALLBACK]),
        (AgentPolicy(NO_RETRY, TO_SPARE), [retry(0), FALLBACK]),
        (
            AgentPolicy(RetryConfig(), AgentRecovery(on_failure="RETRY", fallback_agent="spare")),
            [retry(3)],
        ),
    ],
)
def test_a_record_becomes_stages(policy: AgentPolicy, expected: Any) -> None:
    verdict = filled(workflow({"a": agent()}), far=policy)
    assert stages(verdict) == expected
    form: Any = verdict.normalised
    assert form["steps"]["a"]["critical"] is True
    assert normalised(form) == form


@pytest.mark.parametrize(
    "own",
    [
        {"critical": True},
        {"critical": False},
        {"on_error": "stop"},
        {"on_error": "continue"},
        {"on_error": "retry"},
        {"recovery": []},
        {"recovery": [{"kind": "ask"}]},
        {"recovery_config": {"max_recovery_time_ms": 5_000}},
        {"retry": {"attempts": 1}},
        {"retry_strategy": {"max_retries": 1}},
        {"recovery_strategy": {"Retry": {"attempts": 1}}},
        {"alternatives": [{"id": "x", "do": {"agent": "other"}}]},
        {"ask": True},
        {"enable_user_fulfillment": False},
    ],
)
def test_a_steps_own_policy_wins_entirely(own: Any) -> None:
    raw = workflow({"a": agent(**own)})
    assert filled(raw, far=AgentPolicy(RetryConfig(), TO_SPARE)).normalised == normalised(raw)


def test_members_that_say_nothing_of_failure_leave_it_to_the_agent() -> None:
    silent = {"on_error": None, "retry": None, "critical": None, "compensate_with": "back"}
    raw = workflow({"a": agent(timeout_seconds=5, **silent), "back": step()})
    verdict = filled(raw, far=AgentPolicy(NO_RETRY))
    assert stages(verdict) == [retry(0)]
    assert stages(verdict, "back") == []


def test_steps_of_other_kinds_and_of_unknown_agents_stay_as_they_are() -> None:
    other = step(alternatives=[{"id": "x", "do": {"agent": "far"}}])
    raw = workflow({"a": agent("b", "stranger"), "b": other})
    assert filled(raw, far=AgentPolicy(SWIFT)).normalised == normalised(raw)


def test_a_normal_form_keeps_what_was_pinned() -> None:
    pinned = filled(workflow({"a": agent()}), far=AgentPolicy(SWIFT)).normalised
    assert filled(pinned, far=AgentPolicy(RetryConfig(), TO_SPARE)).normalised == pinned
    unfilled = normalised(workflow({"a": agent()}))
    assert filled(unfilled, far=AgentPolicy(SWIFT)).normalised == unfilled


def test_the_fallback_agent_is_named_where_the_step_names_its_agent() -> None:
    policy = AgentPolicy(SWIFT, TO_SPARE)
    verdict = filled(workflow({"a/b": agent()}), far=policy)
    place = "/steps/a~1b/agent_name"
    assert verdict.agents == (AgentUse(place, "far"), AgentUse(place, "spare", "far"))


def test_an_agent_that_falls_back_to_itself_is_a_mistake_of_the_step() -> None:
    circle = AgentPolicy(SWIFT, AgentRecovery(on_failure="FALLBACK", fallback_agent="far"))
    (mistake,) = filled(workflow({"a": agent()}), far=circle).mistakes
    assert (mistake.pointer, mistake.code) == ("/steps/a/agent_name", "cycle")


def test_what_is_no_definition_is_only_told_so() -> None:
    verdict = validate([], Actions())
    assert with_policies(verdict, {"far": AgentPolicy(SWIFT)}) is verdict


class TestRun:
    """Executions of filled definitions, on a clock of their own."""

    def run(self, policy: AgentPolicy, **options: Any) -> Run:
        form = filled(workflow({"a": agent()}), far=policy).normalised
        run = Run(form, **options)
        run.go()
        return run

    def test_re_tries_wait_as_the_record_says(self) -> None:
        run = self.run(AgentPolicy(RetryConfig(max_retries=4, max_delay_ms=3_000)))
        begun = []
        while run.state.status == "RUNNING":
            begun.append((run.now - START) / timedelta(milliseconds=1))
            run.fail("a")
            if run.state.status == "RUNNING":
                run.pass_to_due()
        assert begun == [0, 1_000, 3_000, 6_000, 9_000]
        assert run.state.status == "FAILED"

    def test_a_failure_that_would_come_again_is_not_tried_again(self) -> None:
        run = self.run(AgentPolicy(RetryConfig()))
        run.fail("a", "permanent", retryable=False)
        assert run.state.status == "FAILED"

    def test_it_goes_to_the_fallback_agent_at_once_and_that_is_not_re_tried(self) -> None:
        run = self.run(AgentPolicy(RetryConfig(), TO_SPARE), transports={"spare": "pull"})
        run.fail("a", "permanent", retryable=False)
        run.go()
        assert run.state.steps["a~alt.fallback-agent"].action == "agent:spare"
        run.send_back("a~alt.fallback-agent", output={"by": "spare"})
        assert run.state.status == "COMPLETED"
        assert run.state.steps["a"].output == {"by": "spare"}

    @pytest.mark.parametrize(
        "policy",
        [AgentPolicy(NO_RETRY), AgentPolicy(SWIFT, AgentRecovery(on_failure="FAIL"))],
    )
    def test_settings_of_the_execution_add_no_re_tries_to_none(self, policy: AgentPolicy) -> None:
        run = self.run(policy, recovery={"retry_attempts": 3})
        run.fail("a")
        assert run.state.status == "FAILED"

    def test_a_dispatched_task_that_fails_goes_out_again(self) -> None:
        run = self.run(AgentPolicy(SWIFT), transports={"far": "kafka"})
        tasks = []
        for _ in range(3):
            tasks.append(run.task("a").task_id)
            run.send_back("a", message="busy", code="busy", error_class="transient")
            if run.state.status == "RUNNING":
                run.pass_to_due()
        assert len(set(tasks)) == 3
        assert run.state.status == "FAILED"


class TestNumberOfRetries:
    """The record says it twice, for older tools, and never two things."""

    def read(self, raw: JsonObject, before: AgentSettings | None = None) -> Any:
        known = None if before is None else Described("far", "active", before, None, False)
        mistakes: list[Mistake] = []
        named = raw if known else {"name": "far", "transport": "pull", **raw}
        read = read_agent(named, lambda url: None, mistakes, known)
        if mistakes:
            return {each.pointer: each.code for each in mistakes}
        assert read.settings.recovery is not None
        return read.settings.retry_config.max_retries, read.settings.recovery.max_retries

    def test_they_are_the_same(self) -> None:
        assert self.read({"recovery": {}}) == (3, 3)
        five: JsonObject = {"retry_config": {"max_retries": 5}}
        assert self.read({**five, "recovery": {}}) == (5, 5)
        assert self.read({**five, "recovery": {"max_retries": 5}}) == (5, 5)
        before = AgentSettings(transport="pull", recovery=AgentRecovery())
        assert self.read(five, before) == (5, 5)

    def test_two_numbers_are_a_contradiction(self) -> None:
        wrong = {"/recovery/max_retries": "contradiction"}
        assert self.read({"recovery": {"max_retries": 1}}) == wrong
        assert self.read({"retry_config": {"max_retries": 5}, "recovery": {"max_retries": 3}}) == (
            wrong
        )
        assert self.read({"recovery": {"max_retries": 11}}) == {
            "/recovery/max_retries": "out_of_range"
        }
