"""What people see of parallels, loops and forks: diagrams, the summary, steps, explanations."""

from typing import Any

import pytest

from application.diagram import graph_json, graph_of
from application.diagram_dot import dot_of
from application.diagram_graph import Graph, Node
from application.diagram_mermaid import mermaid_of
from application.explain import explain
from application.step_history import step_history
from application.views import step_view, summarise
from domain.execution import ExecutionState
from tests.builders import START, Run, branch, fork, loop, parallel, step, workflow


def flow(items: Any = None) -> Run:
    """first -> fan(a, c(x | y)) -> each item: p, q -> split(l: r | m: s) -> end."""
    steps = {
        "first": step("fan"),
        "fan": parallel(["a", "c"], "each"),
        "a": step(),
        "c": branch("true", "x", "y"),
        "x": step(),
        "y": step(),
        "each": loop(
            "${workflow.input.items}",
            ["p", "q"],
            "split",
            execution_mode="parallel",
            max_parallelism=2,
            errors="continue",
        ),
        "p": step(),
        "q": step(),
        "split": fork({"left": ["r"], "right": ["s"]}, "end", "any"),
        "r": step(),
        "s": step(),
        "end": step(),
    }
    run = Run(workflow(steps), {"items": ["u", "v", "w"] if items is None else items})
    run.go()
    return run


def in_the_loop() -> Run:
    run = flow()
    for path in ("first", "fan/a", "fan/c/x", "each[0]/p", "each[0]/q", "each[1]/p"):
        run.succeed(path, {"ok": True})
    return run


def in_the_fork() -> Run:
    run = in_the_loop()
    run.fail("each[1]/q", "permanent")
    run.succeed("each[2]/p")
    run.succeed("each[2]/q")
    return run


def finished() -> Run:
    run = in_the_fork()
    run.succeed("split/left/r")
    run.succeed("end")
    return run


def failed_in_a_branch() -> Run:
    run = in_the_fork()
    run.fail("split/left/r", "permanent")
    run.fail("split/right/s", "permanent")
    return run


def cancelled() -> Run:
    run = in_the_loop()
    run.cancel("enough")
    return run


RUNS = [flow, in_the_loop, in_the_fork, finished, failed_in_a_branch, cancelled]


def node(graph: Graph, name: str) -> Node:
    return next(each for each in graph.nodes if each.name == name)


def edges(graph: Graph) -> set[tuple[str, str, str, str]]:
    names = {each.id: each.name if each.kind != "end" else each.id for each in graph.nodes}
    return {(names[e.source], names[e.target], e.label, e.travel) for e in graph.edges}


def drawn(run: Run) -> Graph:
    return graph_of(run.definition, run.state)


def test_the_flow_of_a_definition() -> None:
    graph = graph_of(flow().definition)
    assert edges(graph) == {
        (source, target, label, "plain")
        for source, target, label in (
            ("start", "first", ""),
            ("first", "fan", ""),
            ("fan", "a", ""),
            ("fan", "c", ""),
            ("a", "each", ""),
            ("c", "x", "then"),
            ("c", "y", "else"),
            ("x", "each", ""),
            ("y", "each", ""),
            ("each", "p", "each item"),
            ("p", "q", ""),
            ("q", "each", "next item"),
            ("each", "split", "done"),
            ("split", "r", "left"),
            ("split", "s", "right"),
            ("r", "end", ""),
            ("s", "end", ""),
            ("end", "end", ""),
        )
    }
    paths = {each.name: each.path for each in graph.nodes}
    assert (paths["x"], paths["q"], paths["s"]) == ("fan/c/x", "each[]/q", "split/right/s")


def test_a_loop_says_how_far_it_is_and_its_body_shows_what_runs() -> None:
    graph = drawn(in_the_loop())
    assert (node(graph, "each").lanes, node(graph, "each").current) == ("1 of 3 done", False)
    assert (node(graph, "p").status, node(graph, "p").current) == ("RUNNING", True)
    assert (node(graph, "q").status, node(graph, "q").current) == ("RUNNING", True)
    assert node(graph, "r").status == "PENDING"
    assert ("fan", "a", "", "taken") in edges(graph)
    assert ("c", "y", "else", "skipped") in edges(graph)
    assert ("each", "split", "done", "pending") in edges(graph)


def test_a_body_whose_iterations_ended_in_different_ways_says_no_more_than_that() -> None:
    graph = drawn(finished())
    assert node(graph, "each").lanes == "2 of 3 done, 1 failed"
    assert {node(graph, name).status for name in ("p", "q")} == {"ENDED"}
    assert "set_variables · ended with its iterations" in mermaid_of(graph)
    assert ("each", "p", "each item", "taken") in edges(graph)
    assert ("p", "q", "", "plain") in edges(graph)
    assert ("each", "split", "done", "taken") in edges(graph)


def test_a_body_is_done_where_nothing_failed_in_it_and_nothing_could_be_left_out() -> None:
    steps = {
        "each": loop([1, 2], ["both", "maybe"]),
        "both": parallel(["a", "b"]),
        "a": step(),
        "b": step(),
        "maybe": branch("${loop.is_first}", "x", None),
        "x": step(),
    }
    run = Run(workflow(steps))
    run.go()
    for path in ("each[0]/both/a", "each[0]/both/b", "each[0]/maybe/x", "each[1]/both/a"):
        run.succeed(path)
    assert node(drawn(run), "b").iteration == "each[1]"
    assert node(drawn(run), "x").status == "ENDED"
    run.succeed("each[1]/both/b")
    graph = drawn(run)
    assert run.state.status == "COMPLETED"
    assert {node(graph, name).status for name in ("both", "a", "b")} == {"COMPLETED"}
    assert node(graph, "x").status == "ENDED"


def test_a_branch_that_is_not_needed_says_so_and_leads_nowhere() -> None:
    run = finished()
    graph = drawn(run)
    assert (node(graph, "s").status, node(graph, "s").why) == ("CANCELLED", "join_satisfied")
    assert "not needed any more" in mermaid_of(graph)
    assert ("r", "end", "", "taken") in edges(graph)
    assert ("s", "end", "", "skipped") in edges(graph)


def test_a_step_that_no_branch_came_to_is_not_reached_while_the_execution_goes_on() -> None:
    steps = {
        "split": fork({"left": ["r"], "right": ["s", "t"]}, "end", "any"),
        "r": step(),
        "s": step(),
        "t": step(),
        "end": step(),
    }
    run = Run(workflow(steps))
    run.go()
    assert node(drawn(run), "t").status == "PENDING"
    run.succeed("split/left/r")
    assert run.state.status == "RUNNING"
    assert node(drawn(run), "t").status == "NOT_REACHED"
    run.cancel("enough")
    stopped = {source for source, _, label, _ in edges(drawn(run)) if label == "cancelled"}
    assert stopped == {"end"}


def test_a_body_without_items_was_not_reached() -> None:
    run = flow([])
    for path in ("first", "fan/a", "fan/c/x", "split/left/r", "end"):
        run.succeed(path)
    graph = drawn(run)
    assert node(graph, "p").status == "NOT_REACHED"
    assert node(graph, "each").status == "COMPLETED"


def test_it_ends_where_it_failed_or_was_cancelled() -> None:
    assert ("split", "stop", "failed", "taken") in edges(drawn(failed_in_a_branch()))
    stopped = {source for source, _, label, _ in edges(drawn(cancelled())) if label == "cancelled"}
    assert stopped == {"p", "q"}


@pytest.mark.parametrize("make", RUNS)
def test_every_state_can_be_drawn_and_told(make: Any) -> None:
    run: Run = make()
    graph = drawn(run)
    assert graph_json(graph)["nodes"]
    assert "each item" in mermaid_of(graph)
    assert "next item" in dot_of(graph)
    told = explain(run.state, run.definition, None, run.now)
    assert told.summary
    assert all(wait.sentence for wait in told.waiting_on)
    assert all(verb.effect for verb in told.verbs)
    for version in range(1, len(run.events) + 1):
        graph_of(run.definition, run.as_of(version))


def test_what_it_waits_for_is_what_runs_inside() -> None:
    view = summarise(in_the_loop().state, 0)
    assert [(wait.kind, wait.path) for wait in view.waiting_on] == [
        ("action", "each[1]/q"),
        ("action", "each[2]/p"),
    ]
    assert view.progress.running == 3


def test_a_loop_shows_its_progress() -> None:
    each = in_the_loop().state.steps["each"]
    assert step_view("e", "each", each).progress == {
        "done": 1,
        "failed": 0,
        "running": 2,
        "total": 3,
    }


def test_explanations_name_the_iteration() -> None:
    run = in_the_loop()
    told = explain(run.state, run.definition, None, run.now)
    assert "Step 'each[1]/q'" in told.waiting_on[0].sentence
    cancel = next(verb.effect for verb in told.verbs if verb.verb == "cancel")
    assert "Interrupts 'each[2]/p' and 'each[1]/q'" in cancel
    assert "Never runs 'split', 'r', 's' and 'end'" in cancel
    retry = _effect(cancelled().state, cancelled(), "retry")
    assert "'each[2]/p'" in retry
    assert "Keeps the results of" in retry


def lines_of_two() -> Run:
    """A fork of which one branch is enough; both have a second step."""
    steps = {
        "split": fork({"left": ["r", "u"], "right": ["s", "t"]}, "end", "any"),
        **{name: step() for name in ("r", "s", "t", "u", "end")},
    }
    run = Run(workflow(steps))
    run.go()
    return run


def test_steps_of_branches_that_nobody_needs_are_not_said_to_come() -> None:
    run = lines_of_two()
    assert "Never runs 't', 'u' and 'end'." in _effect(run.state, run, "cancel")
    run.succeed("split/left/r")
    run.succeed("split/left/u")
    assert "Never runs" not in _effect(run.state, run, "cancel")
    run.cancel("enough")
    assert "for the first time" not in _effect(run.state, run, "retry")


def test_the_rest_of_a_branch_that_failed_comes_with_a_retry_only() -> None:
    run = lines_of_two()
    run.fail("split/left/r", "permanent")
    assert "Never runs 't' and 'end'." in _effect(run.state, run, "cancel")
    run.fail("split/right/s", "permanent")
    assert run.state.status == "FAILED"
    retry = _effect(run.state, run, "retry")
    assert "Then comes, for the first time, 't', 'u' and 'end'." in retry


def _effect(state: ExecutionState, run: Run, verb: str) -> str:
    told = explain(state, run.definition, None, START)
    return next(each.effect for each in told.verbs if each.verb == verb)


def test_the_steps_of_all_iterations_are_in_the_history() -> None:
    views = {view.path: view for view in step_history(finished().events)}
    assert {view.status for path, view in views.items() if path.endswith("/p")} == {"COMPLETED"}
    assert views["each[1]/q"].status == "FAILED"
    assert views["split/right/s"].status == "CANCELLED"
    output: Any = views["each"].output_data
    assert output["failed_count"] == 1
    assert views["each"].progress == {"done": 2, "failed": 1, "running": 0, "total": 3}
    assert output["iterations"][1] is None
