"""A loop runs its body for each item; an iteration that completed leaves its output only."""

from collections.abc import Collection
from typing import Any

import pytest
from msgspec import structs

from domain.definition import step_id_of
from domain.execution import fold
from domain.planner import plan, running_actions
from tests.builders import Run, branch, loop, parallel, step, wait, workflow
from tests.specs import given

RETRY = {"attempts": 1, "base_delay_ms": 100}


def each(items: Any = None, following: bool = True, **fields: Any) -> Run:
    """each item: p -> end."""
    steps = {
        "each": loop("${workflow.input.items}", ["p"], "end" if following else None, **fields),
        "p": step(config={"x": "${loop.item}"}),
    }
    if following:
        steps["end"] = step(config={"got": "${each.output}"})
    return Run(workflow(steps), {"items": ["a", "b", "c"] if items is None else items})


def output_of(run: Run, path: str = "each") -> Any:
    return run.state.steps[path].output


def test_items_run_one_after_the_other() -> None:
    run = each()
    given(run).when(Run.go).then(
        "started", "step_started each #1", "iteration_started each[0]", "step_started each[0]/p #1"
    )
    given(run).when(lambda r: r.succeed("each[0]/p", 1)).then(
        "step_completed each[0]/p",
        "iteration_finished each[0] COMPLETED",
        "iteration_started each[1]",
        "step_started each[1]/p #1",
    )
    run.succeed("each[1]/p", 2)
    given(run).when(lambda r: r.succeed("each[2]/p", 3)).then(
        "step_completed each[2]/p",
        "iteration_finished each[2] COMPLETED",
        "joined each",
        "step_completed each",
        "step_started end #1",
    )
    assert run.state.steps["end"].input == {"got": {"iterations": [1, 2, 3], "total_count": 3}}


def test_an_iteration_that_completed_leaves_its_output_only() -> None:
    run = each()
    run.go()
    run.succeed("each[0]/p", "kept")
    assert set(run.state.steps) == {"each", "each[1]/p"}
    assert run.state.output_bytes == len('"kept"')


def test_loop_references() -> None:
    fields = ("item", "index", "total", "is_first", "is_last")
    steps = {
        "each": loop([{"n": 5}, {"n": 6}], ["p"]),
        "p": step(config={name: f"${{loop.{name}}}" for name in fields}, name="x"),
    }
    run = Run(workflow(steps))
    run.go()
    assert run.state.steps["each[0]/p"].input == {
        "item": {"n": 5},
        "index": 0,
        "total": 2,
        "is_first": True,
        "is_last": False,
    }
    run.succeed("each[0]/p")
    given_to_last: Any = run.state.steps["each[1]/p"].input
    assert (given_to_last["is_first"], given_to_last["is_last"]) == (False, True)


def test_the_steps_of_a_body_see_those_before_them_in_their_own_iteration() -> None:
    steps = {
        "first": step("each"),
        "each": loop([1, 2], ["p", "q", "r"]),
        "p": step(),
        "q": step(config={"p": "${p.output.v}", "first": "${first.output}"}),
        "r": step(conditions=["${q.output.go} == true"]),
    }
    run = Run(workflow(steps))
    run.go()
    run.succeed("first", "f")
    run.succeed("each[0]/p", {"v": 10})
    assert run.state.steps["each[0]/q"].input == {"p": 10, "first": "f"}
    told = run.succeed("each[0]/q", {"go": False})
    assert "step_skipped each[0]/r condition" in told
    run.succeed("each[1]/p", {"v": 20})
    assert run.state.steps["each[1]/q"].input == {"p": 20, "first": "f"}
    run.succeed("each[1]/q", {"go": True})
    run.succeed("each[1]/r", "last")
    # as on the main line, the output is that of the last step which completed
    assert run.state.output == {"iterations": [{"go": False}, "last"], "total_count": 2}


def test_so_many_iterations_run_at_a_time() -> None:
    run = each(list(range(5)), execution_mode="parallel", max_parallelism=2)
    run.go()
    assert running_actions(run.definition, run.state) == ["each[0]/p", "each[1]/p"]
    run.succeed("each[1]/p", 1)
    assert running_actions(run.definition, run.state) == ["each[0]/p", "each[2]/p"]
    for index in (2, 3, 4, 0):
        run.succeed(f"each[{index}]/p", index)
    assert output_of(run)["iterations"] == [0, 1, 2, 3, 4]


def test_an_empty_collection_completes() -> None:
    run = each([])
    given(run).when(Run.go).then(
        "started",
        "step_started each #1",
        "joined each",
        "step_completed each",
        "step_started end #1",
    )
    assert output_of(run) == {"iterations": [], "total_count": 0}


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("text", "resolved to text"),
        ({"a": 1}, "resolved to a JSON object"),
        (5, "resolved to a number"),
        (True, "resolved to a boolean"),
        (None, "resolved to null"),
    ],
)
def test_a_collection_that_is_no_list_fails_the_step(items: Any, words: str) -> None:
    run = Run(run_definition(), {"items": items})
    assert run.go()[-2:] == ["step_failed each bad_step_input", "failed critical_step"]
    assert run.state.error is not None
    assert words in run.state.error.message


def run_definition(**fields: Any) -> Any:
    return workflow({"each": loop("${workflow.input.items}", ["p"], **fields), "p": step()})


def test_a_collection_may_have_ten_thousand_items_and_not_one_more() -> None:
    assert Run(run_definition(), {"items": [0] * 10_000}).go()[-1] == "step_started each[0]/p #1"
    too_many = Run(run_definition(), {"items": [0] * 10_001})
    assert too_many.go()[-1] == "failed critical_step"
    assert too_many.state.error is not None
    assert "10001 items; a loop takes at most 10000" in too_many.state.error.message
    first = Run(run_definition(max_iterations=10_000), {"items": [0] * 10_001})
    assert first.go()[-1] == "step_started each[0]/p #1"


def test_only_the_first_iterations() -> None:
    run = each(["a", "b", "c"], following=False, max_iterations=2)
    run.go()
    run.succeed("each[0]/p", 1)
    assert run.succeed("each[1]/p", 2)[-1] == "completed"
    assert run.state.output == {"iterations": [1, 2], "total_count": 2}


# --- failures ---


def test_stop_begins_no_further_iteration_and_waits_for_those_that_run() -> None:
    run = each(list(range(4)), execution_mode="parallel", max_parallelism=2, errors="stop")
    run.go()
    assert run.fail("each[0]/p") == [
        "step_failed each[0]/p boom",
        "iteration_finished each[0] FAILED",
    ]
    given(run).when(lambda r: r.succeed("each[1]/p", 1)).then(
        "step_completed each[1]/p",
        "iteration_finished each[1] COMPLETED",
        "joined each",
        "step_failed each iterations_failed",
        "failed critical_step",
    )
    assert run.state.error is not None
    assert run.state.error.message == "1 of 4 iterations failed: 0 (boom): it broke."


def test_continue_completes_with_holes() -> None:
    run = each(errors="continue", following=False)
    run.go()
    run.succeed("each[0]/p", 1)
    run.fail("each[1]/p", "permanent")
    assert run.succeed("each[2]/p", 3)[-1] == "completed partial"
    assert run.state.output == {
        "iterations": [1, None, 3],
        "total_count": 3,
        "failed_count": 1,
        "errors": [
            {
                "index": 1,
                "code": "boom",
                "error_class": "permanent",
                "message": "it broke",
                "path": "each[1]/p",
            }
        ],
    }
    assert set(run.state.steps) == {"each"}


def test_collect_runs_all_and_then_fails() -> None:
    run = each(errors="collect")
    run.go()
    run.fail("each[0]/p")
    run.succeed("each[1]/p", 2)
    assert run.fail("each[2]/p")[-3:] == [
        "joined each",
        "step_failed each iterations_failed",
        "failed critical_step",
    ]
    output = output_of(run)
    assert output["iterations"] == [None, 2, None]
    assert [error["index"] for error in output["errors"]] == [0, 2]


def test_a_step_that_may_fail_does_not_end_its_iteration() -> None:
    steps = {"each": loop([1], ["p", "q"]), "p": step(critical=False), "q": step()}
    run = Run(workflow(steps))
    run.go()
    assert run.fail("each[0]/p")[-1] == "step_started each[0]/q #1"
    assert run.succeed("each[0]/q", "q")[-1] == "completed partial"


def test_a_new_try_of_the_loop_runs_what_is_not_finished() -> None:
    run = each(errors="collect", retry=RETRY)
    run.go()
    run.succeed("each[0]/p", 1)
    run.fail("each[1]/p")
    assert run.succeed("each[2]/p", 3)[-1] == "retry_scheduled each 100ms"
    given(run).when(Run.pass_to_due).then(
        "step_started each #2", "iteration_started each[1]", "step_started each[1]/p #2"
    )
    assert run.succeed("each[1]/p", 2)[-1] == "step_started end #1"
    assert output_of(run) == {"iterations": [1, 2, 3], "total_count": 3}


def test_an_explicit_retry_never_runs_a_finished_iteration_or_step_again() -> None:
    steps = {
        "each": loop("${workflow.input.items}", ["p", "q"], errors="collect"),
        "p": step(),
        "q": step(config={"p": "${p.output}"}),
    }
    run = Run(workflow(steps), {"items": [1, 2, 3]})
    run.go()
    for index in range(3):
        run.succeed(f"each[{index}]/p", f"p{index}")
        (run.fail if index == 1 else run.succeed)(f"each[{index}]/q")
    assert run.state.status == "FAILED"
    run.retry()
    given(run).when(Run.go).then(
        "started", "step_started each #1", "iteration_started each[1]", "step_started each[1]/q #1"
    )
    assert run.state.steps["each[1]/q"].input == {"p": "p1"}
    assert run.succeed("each[1]/q", "q1")[-1] == "completed"
    assert set(run.state.steps) == {"each"}
    assert run.state.output_bytes == sum(each.size for each in run.state.steps.values())


def test_a_retry_after_a_cancel_goes_on_where_it_was() -> None:
    run = each()
    run.go()
    run.succeed("each[0]/p", 1)
    run.cancel()
    assert not run.state.lanes
    run.retry()
    assert run.go()[-2:] == ["iteration_started each[1]", "step_started each[1]/p #1"]
    run.succeed("each[1]/p", 2)
    run.succeed("each[2]/p", 3)
    assert output_of(run)["iterations"] == [1, 2, 3]


def test_a_retry_from_before_the_loop_runs_all_of_it_again() -> None:
    run = each()
    run.go()
    run.succeed("each[0]/p", 1)
    run.cancel()
    run.retry("p")
    assert run.go()[-2:] == ["iteration_started each[0]", "step_started each[0]/p #1"]
    assert set(run.state.steps) == {"each", "each[0]/p"}


def test_finished_work_belongs_to_the_items_of_the_first_run() -> None:
    """The step before it may fail, runs again in the retry, and then gives another list."""
    steps = {
        "list": step("each", critical=False),
        "each": loop("${list.output}", ["p"]),
        "p": step(config={"x": "${loop.item}"}),
    }
    run = Run(workflow(steps))
    run.go()
    run.settle(run.outcome("list", output=["a", "b"], error_class="permanent", code="half"))
    run.succeed("each[0]/p", 1)
    run.fail("each[1]/p")
    run.retry()
    run.go()
    run.succeed("list", ["z"])
    assert run.state.steps["each[1]/p"].input == {"x": "b"}


def revised(**steps: Any) -> Run:
    """An attempt that failed in `each`, and a retry in which list says `stay` and not `go`."""
    held = {"list": step(next(iter(steps)), critical=False), **steps, "end": step()}
    run = Run(workflow({**held, "p": step(), "q": step()}))
    run.go()
    run.settle(run.outcome("list", output="go", error_class="permanent", code="half"))
    for _ in range(3):
        run.succeed(running_actions(run.definition, run.state)[0], "x" * 100)
    run.fail(running_actions(run.definition, run.state)[0])
    run.retry()
    run.go()
    run.succeed("list", "stay")
    return run


def test_a_loop_that_a_retry_skips_leaves_nothing() -> None:
    gate = "${list.output} == 'go'"
    run = revised(each=loop([1, 2], ["p", "q"], "end", conditions=[gate]))
    assert run.statuses() == {"list": "COMPLETED", "each": "SKIPPED", "end": "RUNNING"}
    assert run.state.output_bytes == len('"stay"')


def test_a_loop_in_a_branch_that_a_retry_does_not_take_leaves_nothing() -> None:
    gate = "${list.output} == 'go'"
    run = revised(c=branch(gate, "each", None, "end"), each=loop([1, 2], ["p", "q"]))
    assert run.statuses()["c/each"] == "SKIPPED"
    assert set(run.state.steps) == {"list", "c", "c/each", "end"}
    assert run.state.output_bytes == sum(each.size for each in run.state.steps.values())


# --- nesting ---


def nested() -> Run:
    steps = {
        "rows": loop("${workflow.input.rows}", ["cells", "sum"]),
        "cells": loop("${loop.item}", ["p"], execution_mode="parallel", max_parallelism=2),
        "p": step(config={"cell": "${loop.item}", "at": "${loop.index}"}),
        "sum": step(config={"cells": "${cells.output.iterations}", "row": "${loop.index}"}),
    }
    return Run(workflow(steps), {"rows": [[1, 2], [3]]})


def test_a_loop_inside_a_loop_sees_its_own_item_first() -> None:
    run = nested()
    run.go()
    assert run.state.steps["rows[0]/cells[1]/p"].input == {"cell": 2, "at": 1}
    run.succeed("rows[0]/cells[1]/p", "b")
    run.succeed("rows[0]/cells[0]/p", "a")
    assert run.state.steps["rows[0]/sum"].input == {"cells": ["a", "b"], "row": 0}
    run.succeed("rows[0]/sum", "ab")
    assert set(run.state.steps) == {"rows", "rows[1]/cells", "rows[1]/cells[0]/p"}
    run.succeed("rows[1]/cells[0]/p", "c")
    run.succeed("rows[1]/sum", "c")
    assert run.state.output == {"iterations": ["ab", "c"], "total_count": 2}


def test_a_retry_finds_its_way_to_the_innermost_unfinished_iteration() -> None:
    run = nested()
    run.go()
    run.succeed("rows[0]/cells[1]/p", "b")
    assert run.fail("rows[0]/cells[0]/p")[-1] == "failed critical_step"
    run.retry()
    given(run).when(Run.go).then(
        "started",
        "step_started rows #1",
        "iteration_started rows[0]",
        "step_started rows[0]/cells #1",
        "iteration_started rows[0]/cells[0]",
        "step_started rows[0]/cells[0]/p #1",
    )
    assert run.succeed("rows[0]/cells[0]/p", "a")[-1] == "step_started rows[0]/sum #1"
    assert run.state.steps["rows[0]/sum"].input == {"cells": ["a", "b"], "row": 0}


def test_what_is_inside_an_iteration_leaves_with_it() -> None:
    steps = {
        "each": loop([1], ["fan", "c"]),
        "fan": parallel(["a", "b"]),
        "a": step(),
        "b": wait(None, 10),
        "c": branch("${fan.output.a} == 'a'", "x", "y"),
        "x": step(),
        "y": step(),
    }
    run = Run(workflow(steps))
    run.go()
    run.succeed("each[0]/fan/a", "a")
    run.pass_to_due()
    run.succeed("each[0]/c/x", "xxxx")
    assert set(run.state.steps) == {"each"}
    assert run.state.output_bytes == len('"xxxx"')
    assert isinstance(run.state.output, dict)
    assert run.state.status == "COMPLETED"


def end_all(run: Run, fails: Collection[str]) -> None:
    """Let everything end, the steps with ids in `fails` badly."""
    run.go()
    while running := running_actions(run.definition, run.state):
        if step_id_of(running[0]) in fails:
            run.fail(running[0], "permanent")
        else:
            run.succeed(running[0], "x" * 100)


@pytest.mark.parametrize("critical", [True, False])
def test_what_a_loop_that_failed_kept_leaves_with_the_loops_around_it(critical: bool) -> None:
    steps = {
        "rows": loop([1, 2], ["cells"], errors="continue"),
        "cells": loop([1, 2], ["lines"], errors="collect", critical=critical),
        "lines": loop([1, 2], ["p", "q"], errors="collect"),
        "p": step(),
        "q": step(),
    }
    run = Run(workflow(steps))
    end_all(run, ["q"])
    assert run.state.status == "COMPLETED"
    assert set(run.state.steps) == {"rows"}
    assert run.state.output_bytes == 0


def test_a_retry_may_name_steps_that_have_left() -> None:
    """In logs of earlier releases, which kept the steps of a loop that failed inside another."""
    steps = {
        "rows": loop([1, 2], ["cells", "r"]),
        "cells": loop([1, 2], ["lines"], errors="collect", critical=False),
        "lines": loop([1], ["q"]),
        "q": step(),
        "r": step(conditions=["${loop.is_last}"]),
    }
    run = Run(workflow(steps))
    end_all(run, ["q", "r"])
    assert run.state.status == "FAILED"
    run.retry()
    retried: Any = run.events[-1].data
    as_told = structs.replace(
        retried,
        reset=("rows[0]/cells[0]/lines[0]/q", *retried.reset),
        reopened=("rows[0]/cells[0]/lines", *retried.reopened),
    )
    assert fold([*run.events[:-1], structs.replace(run.events[-1], data=as_told)]) == run.state


def test_a_large_output_of_a_loop_is_not_repeated_around_it() -> None:
    """More than one payload may hold, in a conditional and as the output of the execution."""
    steps = {
        "c": branch("true", "each"),
        "each": loop("${workflow.input.items}", ["p"]),
        "p": step(),
    }
    run = Run(workflow(steps), {"items": [1, 2, 3, 4]})
    run.go()
    for index in range(4):
        told = run.succeed(f"c/each[{index}]/p", "x" * 100_000)
    assert told[-4:] == ["step_completed c/each", "joined c", "step_completed c", "completed"]
    output: Any = run.state.output
    assert len(output["branch_output"]["iterations"]) == 4
    assert run.events[-1].data.output is None  # type: ignore[attr-defined]  # it is Completed


def test_nothing_follows_while_iterations_run() -> None:
    run = each(execution_mode="parallel")
    run.go()
    assert plan(run.definition, run.state, run.now) == ()
