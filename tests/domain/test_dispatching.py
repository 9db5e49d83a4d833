"""Tasks that go out: recorded with their try, nobody's lease, ended once."""

from typing import Any

import pytest

from application.views import summarise
from domain.dispatching import fail_dispatch, idempotency_key, task_ids
from domain.events import TaskDispatched
from domain.lifecycle import CANCELLED, COMPLETED, FAILED
from domain.planner import running_actions
from domain.recovery_rules import RecoveryRules
from domain.recovery_stages import Alternative
from tests.builders import EXECUTION_ID, Run, agent, loop, parallel, step, workflow

WAYS = {"far": "pull", "away": "kafka", "near": "http"}


def begun(steps: dict[str, Any], **fields: Any) -> Run:
    run = Run(workflow(steps), fields.pop("given", {}), transports=WAYS, **fields)
    run.go()
    return run


@pytest.mark.parametrize(
    ("name", "transport"), [("far", "pull"), ("away", "kafka"), ("near", None), ("new", None)]
)
def test_the_transport_says_whether_a_task_goes_out(name: str, transport: str | None) -> None:
    run = begun({"a": agent(name=name)})
    sent = run.state.steps["a"].dispatched
    assert (None if sent is None else sent.transport) == transport
    assert running_actions(run.definition, run.state) == ([] if transport else ["a"])


def test_ids_are_those_of_the_try() -> None:
    run = begun({"a": agent(retry={"base_delay_ms": 0})})
    first = run.task("a")
    assert first.task_id.startswith("task-a-")
    assert first.correlation_id.startswith(f"corr-run-{EXECUTION_ID}-a-")
    assert (first.task_id, first.correlation_id) == task_ids(EXECUTION_ID, "a", 1, 1)
    run.send_back("a", error_class="transient", code="boom")
    second = run.task("a")
    assert (second.task_id, second.correlation_id) == task_ids(EXECUTION_ID, "a", 1, 2)
    assert first.correlation_id != second.correlation_id


@pytest.mark.parametrize(("wanted", "per_try"), [("attempt", False), ("try", True)])
def test_a_task_says_whether_each_try_has_its_own_key(wanted: str, per_try: bool) -> None:
    run = begun({"a": agent(idempotency=wanted)})
    (sent,) = (event.data for event in run.events if isinstance(event.data, TaskDispatched))
    assert sent.key_per_try is per_try
    keys = {
        idempotency_key(EXECUTION_ID, "a", 1, number, per_try=sent.key_per_try) for number in (1, 2)
    }
    assert len(keys) == (2 if per_try else 1)


def test_a_lost_worker_does_not_deliver_it_again() -> None:
    run = begun({"a": agent()})
    assert run.lose_worker() == []
    run.send_back("a", output=5)
    assert (run.state.state, run.state.output) == (COMPLETED, 5)


def test_a_try_whose_caller_was_lost_goes_out_where_the_agent_has_moved() -> None:
    run = begun({"a": agent(name="near")})
    run.transports = {"near": "pull"}
    assert run.lose_worker() == ["step_redelivered a x2", "task_dispatched a"]
    run.send_back("a", output=5)
    assert run.state.state == COMPLETED


def test_without_an_answer_the_step_times_out() -> None:
    run = begun({"a": agent(timeout_seconds=60)})
    run.pass_to_due()
    assert run.state.state == FAILED
    assert run.state.error is not None
    assert run.state.error.code == "step_timeout"
    assert run.send_back("a", output=1) == ["late_result_ignored a completed"]


def test_a_cancel_comes_before_the_answer() -> None:
    run = begun({"a": agent()})
    run.cancel()
    assert run.send_back("a", output=1) == ["late_result_ignored a completed"]
    assert run.state.state == CANCELLED


def test_an_output_too_large_is_an_explained_failure() -> None:
    run = begun({"a": agent()})
    assert run.send_back("a", output="x" * 300_000)[0] == "step_failed a output_not_storable"


def test_each_iteration_and_branch_has_a_task_of_its_own() -> None:
    run = begun(
        {
            "all": parallel(["each", "b"]),
            "each": loop([1, 2], ["p"], execution_mode="parallel"),
            "p": agent(name="away"),
            "b": agent(),
        }
    )
    paths = ["all/b", "all/each[0]/p", "all/each[1]/p"]
    assert len({run.task(path).correlation_id for path in paths}) == 3
    for path in reversed(paths):
        run.send_back(path, output=1)
    assert run.state.state == COMPLETED


def test_a_servers_rule_may_name_an_agent() -> None:
    rules = RecoveryRules(alternatives=(Alternative("spare", "agent:away"),))
    assert rules.agents == {"away"}
    run = begun({"a": step()}, rules=rules, recovery={"retry_attempts": 0})
    run.fail("a")
    run.go()
    run.send_back("a~alt.spare", output="spared")
    assert (run.state.state, run.state.output) == (COMPLETED, "spared")


def test_a_simulated_execution_sends_nothing() -> None:
    assert begun({"a": agent()}, simulate=True).state.steps["a"].dispatched is None


def test_a_request_that_could_not_be_sent_shows_until_it_starts() -> None:
    run = Run(workflow({"a": agent()}), transports=WAYS)
    for reason, told in (("no broker", ["dispatch_failed"]), ("no broker", [])):
        draft = run.draft()
        fail_dispatch(draft, reason)
        assert run.store(draft) == told
    view = summarise(run.state, 0)
    assert (view.status, view.error_message, view.error) == ("PENDING", "no broker", None)
    run.go()
    assert summarise(run.state, 0).error_message is None
    draft = run.draft()
    fail_dispatch(draft, "no broker")
    assert run.store(draft) == []
