"""What only the whole definition can show: graph, references, credentials, schema."""

from typing import Any

import pytest

from domain.credentials import literal_credentials
from domain.validation import validate
from tests.builders import Actions, branch, loop, step, task, wait, workflow


def mistakes(raw: Any) -> dict[str, str]:
    return {mistake.pointer: mistake.code for mistake in validate(raw, Actions()).mistakes}


# --- the graph ---


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ({"a": step("x")}, {"/steps/a/next_step": "dangling_next"}),
        (
            {"c": branch("true", "x", "y")},
            {"/steps/c/then_step": "dangling_next", "/steps/c/else_step": "dangling_next"},
        ),
        (
            {"c": {"type": "conditional", "condition": "true", "if_true_step": "x"}},
            {"/steps/c/if_true_step": "dangling_next"},
        ),
        ({"a": step("b"), "b": step("a")}, {"/steps/b/next_step": "cycle"}),
        ({"a": step("a")}, {"/steps/a/next_step": "cycle"}),
        ({"a": step(), "b": step()}, {"/steps/b": "unreachable"}),
        (
            {"a": step(), "b": step("c"), "c": step("b")},
            {"/steps/b": "unreachable", "/steps/c": "unreachable"},
        ),
        (
            {"c": branch("true", "x", None), "x": step("y"), "y": step()},
            {"/steps/y": "unreachable"},
        ),
        ({"c": branch("true", None, None)}, {"/steps/c": "missing_branch"}),
        ({"c": branch("true", "x", "x"), "x": step()}, {"/steps/c/else_step": "two_parents"}),
        (
            {"c": branch("true", "x", None, "d"), "d": branch("true", "x", None), "x": step()},
            {"/steps/d/then_step": "two_parents"},
        ),
        ({"c": branch("true", "x", None, "x"), "x": step()}, {"/steps/c/then_step": "two_parents"}),
        ({"c": branch("true", "c", None)}, {"/steps/c/then_step": "two_parents"}),
        (
            {"a": step(), "c": branch("true", "d", None), "d": branch("true", "c", None)},
            {"/steps/c/then_step": "cycle", "/steps/d/then_step": "cycle"},
        ),
    ],
)
def test_mistakes_of_the_graph(steps: dict[str, Any], wanted: dict[str, str]) -> None:
    assert mistakes(workflow(steps)) == wanted


def nested(levels: int) -> dict[str, Any]:
    steps = {f"c{n}": branch("true", f"c{n + 1}", None) for n in range(levels)}
    return workflow(steps | {f"c{levels}": step()})


def test_steps_nest_at_most_8_levels() -> None:
    assert mistakes(nested(8)) == {}
    assert mistakes(nested(9)) == {"/steps/c8/then_step": "too_deep"}


def test_the_next_step_of_a_branch_is_ignored_with_a_warning() -> None:
    verdict = validate(
        workflow({"c": branch("true", "x", None, "y"), "x": step("y"), "y": step()}), Actions()
    )
    assert verdict.mistakes == ()
    assert [(each.pointer, each.code) for each in verdict.warnings] == [
        ("/steps/x/next_step", "ignored_next_step")
    ]


# --- references ---


def chain(**fields: Any) -> dict[str, Any]:
    """a -> c (x | y) -> z, with `fields` on the step x."""
    steps = {
        "a": step("c"),
        "c": branch("true", "x", "y", "z"),
        "x": step(**fields),
        "y": step(),
        "z": step(),
    }
    return workflow(steps)


@pytest.mark.parametrize(
    "reference",
    [
        "${workflow.input.x}",
        "${a.output}",
        "${a.output.x[0]}",
        "$.a.output_data.x",
        "$.workflow_input.x",
        "{{trigger.x}}",
        "${secret.KEY}",
        "text with ${a.output.x} in it",
    ],
)
def test_good_references(reference: str) -> None:
    assert mistakes(chain(config={"v": reference})) == {}


@pytest.mark.parametrize(
    "reference",
    [
        "${nowhere.output}",
        "${z.output}",
        "${x.output}",
        "${c.output}",
        "${y.output}",
        "${loop.item}",
        "${a.outptu}",
        "${a.output",
        "{{other.x}}",
        "$.z.output_data.x",
    ],
)
def test_bad_references(reference: str) -> None:
    """Unknown, later, itself, its own parent, the other branch, outside a loop, no reference."""
    assert mistakes(chain(config={"v": [reference]})) == {"/steps/x/config/v/0": "bad_reference"}


def test_references_are_looked_for_everywhere() -> None:
    own = {"expression": "${c.output}"}
    later = {"field": "step.2.n", "operator": "exists"}
    raw = workflow(
        {
            "w": wait("c", "${z.output}", conditions=["${z.output} > 1"]),
            "c": branch("${z.output.n} == 1", "x", None, "z", conditions=[own]),
            "x": step(input_mapping={"v": "${z.output}"}, conditions=[later]),
            "z": task(None, input_mapping={"description": "${z.output}"}),
        },
        output={"v": ["${x.output}", "${secret.KEY}"]},
    )
    assert mistakes(raw) == {
        "/steps/w/duration_ms": "bad_reference",
        "/steps/w/conditions/0": "bad_reference",
        "/steps/c/condition": "bad_reference",
        "/steps/c/conditions/0/expression": "bad_reference",
        "/steps/x/input_mapping/v": "bad_reference",
        "/steps/x/conditions/0/field": "bad_reference",
        "/steps/z/input_mapping/description": "bad_reference",
        "/output/v/0": "bad_reference",
        "/output/v/1": "bad_reference",
    }


@pytest.mark.parametrize(
    "text", ["", "5", "$hello", "$${a}", "${workflow.input.a}${workflow.input.b}", "${a.output} "]
)
def test_a_text_is_refused_where_only_one_reference_could_become_the_value(text: str) -> None:
    steps = {"a": step("w"), "w": wait("l", text), "l": loop(text or "$", ["p"]), "p": step()}
    assert mistakes(workflow(steps)) == {
        "/steps/w/duration_ms": "bad_reference",
        "/steps/l/loop_config/collection": "bad_value" if text == "5" else "bad_reference",
    }


def test_the_output_may_use_every_step_of_the_main_line() -> None:
    assert mistakes({**chain(), "output": ["${a.output}", "${c.output.branch_output}"]}) == {}


def test_the_output_cannot_use_a_step_that_undoes_another() -> None:
    """It has not run when there is an output."""
    steps = {"a": step(compensate_with="undo_a"), "undo_a": step()}
    raw = workflow(steps, output={"v": "${undo_a.output}"})
    assert mistakes(raw) == {"/output/v": "bad_reference"}


# --- credentials ---


@pytest.mark.parametrize(
    "config",
    [
        {"headers": {"Authorization": "anything"}},
        {"headers": {"X-Api-Key": "k"}},
        {"password": "hunter2"},
        {"auth": [{"token": "t"}]},
        {"cookie": ["a=b"]},
        {"headers": {"X-Other": "Bearer abcdef123456"}},
        {"x": "basic dXNlcjpwYXNz"},
        {"x": "see AKIAABCDEFGHIJKLMNOP"},
        {"x": "sk-abcdefghijklmnop"},
        {"x": "ghp_" + "a" * 20},
        {"x": "whsec_abcdefgh"},
        {"x": "-----BEGIN RSA PRIVATE KEY-----"},
        {"url": "https://user:pass@example.org/"},
    ],
)
def test_literal_credentials_are_refused(config: dict[str, Any]) -> None:
    found = mistakes(workflow({"a": step(config=config)}))
    assert list(found.values()) == ["literal_credential"]
    assert mistakes(workflow({"a": step(input_mapping=config)})).values()


@pytest.mark.parametrize(
    "config",
    [
        {"headers": {"Authorization": "Bearer ${secret.KEY}"}},
        {"password": ""},
        {"token": 5},
        {"message": "Basic information about your order"},
        {"message": "Basic information"},
        {"message": "Bearer instruments"},
        {"url": "https://example.org:8080/a@b"},
        {"tokens": "plural"},
    ],
)
def test_what_only_resembles_a_credential_passes(config: dict[str, Any]) -> None:
    assert mistakes(workflow({"a": step(config=config)})) == {}


@pytest.mark.parametrize("unit", ["a", "://a", "-----BEGIN ", "bearer ", "sk-", "://a:", "AKIA"])
def test_the_search_for_credentials_costs_one_pass(unit: str) -> None:
    """One megabyte: a search that goes back for each character would outlast the time-out."""
    text = unit * (1_000_000 // len(unit))
    assert len(list(literal_credentials({"a": {"config": {"x": text}}}))) <= 1


# --- schema and storage ---


def test_a_schema_is_checked_by_the_one_who_knows_schemas() -> None:
    raw: Any = {**workflow({"a": step()}), "input_schema": {"type": 7}}
    verdict = validate(raw, Actions(), lambda schema: "type is no type")
    assert [(each.pointer, each.code) for each in verdict.mistakes] == [
        ("/input_schema", "bad_schema")
    ]
    assert validate(raw, Actions()).mistakes == ()


@pytest.mark.parametrize(
    ("value", "code"),
    [(float("nan"), "not_a_number"), (2**60, "integer_too_large"), ("\x00", "nul_character")],
)
def test_what_cannot_be_stored_is_refused(value: Any, code: str) -> None:
    assert mistakes(workflow({"a": step(config={"x": value})}))["/steps/a/config/x"] == code


def test_a_thousand_nested_or_referring_steps_are_judged_quickly() -> None:
    """Bounded work for a hostile body of one megabyte; the suite's own time-out is the judge."""
    assert "too_deep" in mistakes(nested(999)).values()
    steps = {"c0": branch("true", "c1", None)}
    steps |= {f"c{n}": branch("true", f"c{n + 1}", None) for n in range(1, 900)}
    steps["c900"] = step(config={str(n): "${c0.output}" for n in range(5_000)})
    assert "bad_reference" in mistakes(workflow(steps)).values()
