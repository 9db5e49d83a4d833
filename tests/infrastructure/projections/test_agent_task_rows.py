"""What becomes of a step after its task has ended changes nothing about the task."""

from domain.events import Recorded
from infrastructure.projections.agent_tasks import AgentTask, AgentTasks
from infrastructure.projections.folding import States
from tests.builders import Run, agent, workflow

WAYS = {"far": "pull"}


def rows_of(run: Run) -> dict[tuple[str, int], AgentTask]:
    """The last form of each row, by path and try, with every event in a batch of its own."""
    recorded = [Recorded(place, event) for place, event in enumerate(run.events, start=1)]
    states = States(lambda _: (), filling=(AgentTasks(),), keep_ended=True)
    found = {}
    for each in recorded:
        for row in AgentTasks().rows(states.apply([each])):
            found[row.path, row.try_no] = row
    return found


def begun(**fields: object) -> Run:
    run = Run(workflow({"a": agent(critical=True, **fields)}), {}, transports=WAYS)
    run.go()
    return run


def test_a_failure_that_a_person_is_asked_about_is_a_result_after_a_cancel_too() -> None:
    run = begun(ask={"answer_timeout_ms": 60_000})
    run.send_back("a", error_class="permanent", code="boom", retryable=False)
    answered_at = run.now
    run.now = answered_at.replace(year=answered_at.year + 1)
    run.cancel()
    row = rows_of(run)["a", 1]
    assert (row.status, row.ended_at) == ("DONE", answered_at)


def test_a_task_whose_time_was_over_stays_so_when_other_work_took_its_place() -> None:
    other = {"id": "other", "do": {"action": "call_api"}}
    run = begun(timeout_seconds=1, alternatives=[other])
    run.pass_time(1)
    timed_out_at = run.now
    run.pass_time(1)
    run.fail("a~alt.other", "permanent", retryable=False)
    row = rows_of(run)["a", 1]
    assert (row.status, row.ended_at) == ("TIMED_OUT", timed_out_at)


def test_a_step_that_is_called_done_by_hand_leaves_no_open_task() -> None:
    run = begun()
    run.settle_by_hand("complete", "a", {"ok": True})
    assert rows_of(run)["a", 1].status != "OPEN"
