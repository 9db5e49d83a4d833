"""The graph: what is drawn, and what the execution's states make of it."""

import pytest
from msgspec import structs

from application.diagram import DiagramTooLarge, graph_json, graph_of
from application.diagram_graph import END, STOP, Edge, Graph, Node
from application.diagram_style import details, duration_text, look_name, printable, title_of
from domain.execution import ExecutionState
from tests.application.diagram_flows import (
    Run,
    action,
    asked,
    branching,
    cancelled,
    completed,
    defined,
    failed,
    linear,
    long_line,
    not_undone,
    rerouted,
    retrying,
    small_order,
    undoable,
    undoing,
    undone,
    waiting_for_person,
)


def node(graph: Graph, name: str) -> Node:
    return next(each for each in graph.nodes if each.name == name)


def edges(graph: Graph) -> set[tuple[str, str, str, str]]:
    names = {each.id: each.name if each.kind != "end" else each.id for each in graph.nodes}
    return {(names[e.source], names[e.target], e.label, e.travel) for e in graph.edges}


def test_a_definition_alone_has_no_states() -> None:
    graph = graph_of(branching())
    assert {each.status for each in graph.nodes} == {""}
    assert edges(graph) == {
        ("start", "read_order", "", "plain"),
        ("read_order", "is_large", "", "plain"),
        ("is_large", "ask_boss", "then", "plain"),
        ("is_large", "is_known", "else", "plain"),
        ("ask_boss", "book", "", "plain"),
        ("is_known", "greet", "then", "plain"),
        ("is_known", "book", "else", "plain"),
        ("greet", "book", "", "plain"),
        ("book", END, "", "plain"),
    }
    assert node(graph, "is_large").condition == "${workflow.input.amount} > 1000"
    assert node(graph, "greet").path == "is_large/is_known/greet"


def test_a_step_that_is_tried_again_says_when_and_after_what() -> None:
    load = node(graph_of(linear(), retrying().state, {"load": 7}), "load")
    assert (load.status, load.sub_status, load.try_no, load.tries) == (
        "RECOVERING",
        "retrying",
        2,
        7,
    )
    assert (load.error_code, load.error_class) == ("http_status", "transient")
    assert load.current
    assert load.due_at is not None


def test_a_failed_execution_ends_at_its_failed_step() -> None:
    graph = graph_of(linear(), failed().state)
    assert ("load", STOP, "failed", "taken") in edges(graph)
    assert ("load", "cool_down", "", "pending") in edges(graph)
    assert node(graph, "cool_down").status == "NOT_REACHED"
    stop = graph.nodes[-1]
    assert (stop.id, stop.status, stop.error_code) == (STOP, "FAILED", "http_client_error")


def test_a_cancelled_execution_ends_at_the_step_that_was_live() -> None:
    assert ("load", STOP, "cancelled", "taken") in edges(graph_of(linear(), cancelled().state))


@pytest.mark.parametrize("begun", [False, True])
def test_an_execution_cancelled_before_its_first_outcome_has_an_end_too(begun: bool) -> None:
    run = Run(linear())
    state = (run.begin() if begun else run).cancel().state
    source = "fetch_orders" if begun else "start"
    assert (source, STOP, "cancelled", "taken") in edges(graph_of(linear(), state))


def test_a_cancelled_child_is_the_end_not_the_conditional_around_it() -> None:
    graph = graph_of(branching(), waiting_for_person().cancel().state)
    ends = {edge for edge in edges(graph) if edge[1] == STOP}
    assert ends == {("ask_boss", STOP, "cancelled", "taken")}


def test_a_branch_not_taken_is_skipped_with_all_it_holds() -> None:
    graph = graph_of(branching(), waiting_for_person().state)
    assert ("is_large", "ask_boss", "then", "taken") in edges(graph)
    assert ("is_large", "is_known", "else", "skipped") in edges(graph)
    assert ("greet", "book", "", "skipped") in edges(graph)
    assert node(graph, "greet").status == "SKIPPED"
    assert node(graph, "ask_boss").sub_status == "waiting_for_person"
    assert [each.name for each in graph.nodes if each.current] == ["ask_boss"]


def test_a_missing_branch_leads_to_the_next_step() -> None:
    graph = graph_of(branching(), small_order().succeed("book").state)
    assert ("is_known", "book", "else", "taken") in edges(graph)
    assert ("is_known", "greet", "then", "skipped") in edges(graph)
    assert ("book", END, "", "taken") in edges(graph)


def test_a_completion_with_failures_is_told_apart() -> None:
    state = completed().state
    graph = graph_of(linear(), state)
    assert graph.status == "COMPLETED"
    assert graph.partial
    assert node(graph, "cool_down").duration_ms == 60_000


def asides(graph: Graph) -> list[tuple[str, str, str, str]]:
    """(box, the box it stands beside, label, travel)."""
    names = {each.id: each.name for each in graph.nodes}
    return [
        (names[each.target], names[each.source], each.label, each.travel)
        for each in graph.edges
        if each.aside
    ]


def test_a_definition_says_what_undoes_a_step_and_what_is_tried_when_it_fails() -> None:
    graph = graph_of(undoable())
    assert asides(graph) == [
        ("cancel_hotel", "book_hotel", "undone by", "plain"),
        ("refund", "pay", "undone by", "plain"),
    ]
    assert node(graph, "refund").path == "pay~undo"
    assert node(graph, "pay").on_failure == ("2 re-tries", "alternative other_bank")
    assert node(graph, "book_flight").on_failure == ("a question",)
    assert [each.id for each in graph.nodes] == ["start", "s1", "s1u", "s2", "s2u", "s3", "end"]


def test_an_alternative_stands_beside_its_step() -> None:
    graph = graph_of(undoable(), rerouted().state)
    pay, other = node(graph, "pay"), node(graph, "other_bank")
    assert (pay.status, pay.sub_status, pay.via) == ("RECOVERING", "rerouted", "other_bank")
    assert (other.id, other.kind, other.action, other.status, other.current) == (
        "s2a1",
        "alternative",
        "send_notification",
        "RUNNING",
        True,
    )
    assert asides(graph) == [("other_bank", "pay", "alternative", "taken")]


def test_a_step_that_a_person_is_asked_about_says_until_when() -> None:
    graph = graph_of(undoable(), asked().state)
    flight = node(graph, "book_flight")
    assert (flight.sub_status, look_name(flight)) == ("awaiting_answer", "waiting")
    assert any("answer until 2026-01-31" in line for line in details(flight))
    assert "by alternative other_bank" in details(node(graph, "pay"))[1]


def test_compensations_are_drawn_once_they_are_due() -> None:
    graph = graph_of(undoable(), undoing().state)
    assert graph.sub_status == "compensating"
    assert title_of(graph) == "book-trip v3 · RUNNING · compensating"
    refund = node(graph, "refund")
    assert (refund.kind, refund.status, refund.try_no) == ("compensation", "COMPLETED", 2)
    assert node(graph, "pay").undone
    assert (node(graph, "cancel_hotel").status, node(graph, "book_hotel").undone) == (
        "RUNNING",
        False,
    )
    first = rerouted().cancel()
    waiting = node(graph_of(undoable(), first.state), "cancel_hotel")
    assert (first.state.state, waiting.status) == ("RUNNING.cancelling", "PENDING")


def test_it_ends_where_it_failed_or_where_undoing_failed() -> None:
    graph = graph_of(undoable(), undone().state)
    assert ("book_flight", STOP, "failed", "taken") in edges(graph)
    assert all(node(graph, name).undone for name in ("book_hotel", "pay"))
    graph = graph_of(undoable(), not_undone().state)
    assert graph.nodes[-1].error_code == "compensation_failed"
    assert ("cancel_hotel", STOP, "failed", "taken") in edges(graph)
    assert not node(graph, "book_hotel").undone


@pytest.mark.parametrize(
    ("answered", "told"),
    [("yes, try again", "answer: retry"), ("skip", "answer: skip"), ("abort", "answer: abort")],
)
def test_an_answered_question_leaves_a_trace(answered: str, told: str) -> None:
    assert node(graph_of(undoable(), asked().state), "book_flight").answer is None
    flight = node(graph_of(undoable(), asked().answer(answered).state), "book_flight")
    assert told in details(flight)[-1]
    assert "try again" not in str(details(flight))  # a person's words are not drawn


def test_a_question_that_nobody_answered_in_time_says_so() -> None:
    flight = node(graph_of(undoable(), asked().pass_time(3_600).state), "book_flight")
    assert "(nobody in time)" in details(flight)[-1]


def test_the_answer_stands_at_the_step_that_failed_again_after_it() -> None:
    run = asked().answer("retry").fail("book_flight", kind="permanent")
    flight = node(graph_of(undoable(), run.state), "book_flight")
    assert (flight.status, flight.try_no, flight.answer) == ("FAILED", 2, "retry")


def test_a_person_s_reason_is_not_drawn() -> None:
    run = Run(linear()).begin().skip("fetch_orders", "the customer, Ms Smith, called")
    skipped = node(graph_of(linear(), run.state), "fetch_orders")
    assert (skipped.status, skipped.why) == ("SKIPPED", "operator")
    assert "by hand" in details(skipped)[-1]
    assert "Smith" not in str(graph_json(graph_of(linear(), run.state)))


def test_a_condition_is_drawn_and_the_message_of_one_that_failed_is_not() -> None:
    def why(condition: str) -> str | None:
        flow = defined(
            "gated", [action("a", "b"), action("b", None, conditions=[{"expression": condition}])]
        )
        run = Run(flow, {"amount": 5}).begin().succeed("a")
        return node(graph_of(flow, run.state), "b").why

    assert why("${workflow.input.amount} > 9") == "condition: ${workflow.input.amount} > 9"
    assert why("${workflow.input.amount} > 'x'") == "condition"


def test_what_undoes_a_step_does_not_take_its_box() -> None:
    hotel = node(graph_of(undoable(), undoing().state), "book_hotel")
    assert (hotel.status, hotel.action, hotel.duration_ms) == ("COMPLETED", "call_api", 350)


def test_ids_are_never_taken_from_users() -> None:
    graph = graph_of(defined("flow", [action("end", "stop"), action("stop", None)]))
    assert [each.id for each in graph.nodes] == ["start", "s1", "s2", "end"]
    assert Edge("s1", "s2", "", "plain") in graph.edges


def test_every_version_of_an_execution_can_be_drawn() -> None:
    seen: list[ExecutionState] = [Run(linear()).state, Run(linear()).begin().state]
    seen += [retrying().state, retrying().pass_time(4).state]
    assert [graph_of(linear(), state).status for state in seen] == ["PENDING"] + ["RUNNING"] * 3


def test_the_graph_is_json() -> None:
    graph = graph_json(graph_of(linear(), retrying().state))
    assert graph["status"] == "RUNNING"
    nodes = graph["nodes"]
    assert isinstance(nodes, list)
    assert isinstance(nodes[4], dict)
    assert nodes[4]["due_at"] == "2026-01-31T12:00:09.450000Z"


def test_more_steps_than_the_limit_are_refused() -> None:
    line = long_line(1_000)
    assert len(graph_of(line).nodes) == 1_002
    with pytest.raises(DiagramTooLarge, match="1001 steps"):
        graph_of(structs.replace(line, steps={**line.steps, "more": line.steps["step_01"]}))


def test_durations_are_written_as_people_say_them() -> None:
    texts = {0: "0 ms", 999: "999 ms", 1_200: "1.2 s", 59_990: "1 min", 184_000: "3 min 4 s"}
    texts |= {7_500_000: "2 h 5 min", 3_600_000: "1 h"}
    assert {given: duration_text(given) for given in texts} == texts


def test_texts_are_one_short_visible_line() -> None:
    assert printable("a\nb\t\x00c \u202e d\u2028e\ud800") == "a b c d e"
    assert printable("é" * 60) == "é" * 60
    assert printable("é" * 61) == "é" * 59 + "…"
    assert printable("x" * 10_000_000) == "x" * 59 + "…"
