"""References: every form, typed values, all mistakes at once, and data never names a secret."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.json_paths import ManyValues, QueryWork, TooMuchWork, compile_json_path
from domain.json_values import PAYLOAD_BYTES_MAX, Json
from domain.references import (
    MISSING,
    BadReference,
    BadReferences,
    Missing,
    Reference,
    UnresolvedReference,
    compile_template,
    literal_text,
    parse_bare_reference,
    parse_reference,
)
from tests.strategies import storable_json


@dataclass
class Known:
    """A scope made of plain values."""

    workflow_input: Json = None
    outputs: Mapping[str, Json] = field(default_factory=dict)
    iteration: Mapping[str, Json] | None = None
    simulates: bool = False

    def output(self, step_id: str) -> Json | Missing:
        return self.outputs.get(step_id, MISSING)

    def loop(self) -> Mapping[str, Json] | None:
        return self.iteration


ITEMS: Json = [{"name": "a", "n": 1}, {"name": "b", "n": 2}]
SCOPE = Known(
    workflow_input={"a": {"b": [10, {"c": "deep"}]}, "0": "zero", "text": "hi", "none": None},
    outputs={
        "fetch": {"items": ITEMS, "status": 200, "odd name": 1, "ü": 2},
        "step-1": "one",
        "v1.2": {"output": 3},
        "empty": None,
    },
    iteration={"item": {"id": 7}, "index": 0, "total": 2, "is_first": True, "is_last": False},
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${workflow.input}", SCOPE.workflow_input),
        ("${workflow.input.a.b[1].c}", "deep"),
        ("${workflow.input.a.b.1.c}", "deep"),
        ("${workflow.input.a.b[-1].c}", "deep"),
        ("${ workflow.input.text }", "hi"),
        ("${workflow.input.0}", "zero"),
        ("${workflow.input['a']['b'][0]}", 10),
        ('${workflow.input["a"].b[0]}', 10),
        ("${workflow.input.none}", None),
        ("${fetch.output}", SCOPE.outputs["fetch"]),
        ("${fetch.output.items[0].n}", 1),
        ("${fetch.output['odd name']}", 1),
        ("${fetch.output.ü}", 2),
        ("${step-1.output}", "one"),
        ("${v1.2.output.output}", 3),
        ("${empty.output}", None),
        ("${loop.item.id}", 7),
        ("${loop.index}", 0),
        ("${loop.total}", 2),
        ("${loop.is_first}", True),
        ("${loop.is_last}", False),
        ("$.workflow_input", SCOPE.workflow_input),
        ("$.workflow_input.a.b[1].c", "deep"),
        ("$['workflow_input']['a'].b[0]", 10),
        ("$.fetch.output_data", SCOPE.outputs["fetch"]),
        ("$.fetch.output_data.items[1].name", "b"),
        ("$.step-1.output_data", "one"),
        ("$['step-1'].output_data", "one"),
        ('$["fetch"]["output_data"].status', 200),
        ("$.fetch.output_data.items[*].n", [1, 2]),
        ("$.fetch.output_data..n", [1, 2]),
        ("$.fetch.output_data.items[?@.n > 1].name", ["b"]),
        ("$.fetch.output_data.items[?@.n > 9]", []),
        ("$.fetch.output_data.items[0:1].n", [1]),
        ("{{trigger.text}}", "hi"),
        ("{{ trigger.a.b[0] }}", 10),
        ("{{trigger}}", SCOPE.workflow_input),
        ("${secret.API_KEY}", "${secret.API_KEY}"),
        ("${ secret.API_KEY }", "${secret.API_KEY}"),
        ("hi ${workflow.input.text}!", "hi hi!"),
        ("${workflow.input.text}${workflow.input.text}", "hihi"),
        ("n=${fetch.output.status} {{trigger.text}}", "n=200 hi"),
        ("${loop.is_first} ${empty.output} ${workflow.input.a.b}", 'true null [10,{"c":"deep"}]'),
        ("Bearer ${secret.T}", "Bearer ${secret.T}"),
        ("${workflow.input.text} ${ secret.T }", "hi ${secret.T}"),
        ("$${workflow.input.text}", "${workflow.input.text}"),
        ("$${${workflow.input.text}}", "${hi}"),
        ("{{{{x}} {{trigger.text}}", "{{x}} hi"),
        ("$$.workflow_input.a", "$.workflow_input.a"),
        ("$$['a']", "$['a']"),
        ("$$.50", "$$.50"),
        ("$.50", "$.50"),
        ("$", "$"),
        ("costs $5 {x} }} $x", "costs $5 {x} }} $x"),
        ("", ""),
    ],
)
def test_a_reference_takes_its_value(text: str, value: Json) -> None:
    resolved = compile_template(text).resolve(SCOPE)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "${}",
        "${x}",
        "${fetch}",
        "${fetch.outputs}",
        "${fetch.output.}",
        "${fetch.output..a}",
        "${fetch.output.a b}",
        "${fetch.output[x]}",
        "${fetch.output[*]}",
        "${fetch.output[99999999999]}",
        "${workflow.inputs.a}",
        "${workflow_input.a}",
        "${loop.last}",
        "${secret.}",
        "${secret.A b}",
        "${secret.A[0]}",
        "${secret}",
        "${trigger.a}",
        "${workflow.input.${workflow.input.a}}",
        "${workflow.input.a",
        "text ${fetch.output",
        "${'",
        "{{7*7}}",
        "{{trigger.a",
        "{{trigger.__class__()}}",
        "{{config.items}}",
        "{{ }}",
        "{{}}",
        "{{{trigger.a}}}",
        "$.fetch.output",
        "$.fetch",
        "$.workflow_input.",
        "$['fetch']",
        "$.fetch.output_data[?@.a =~ /(a+)+$/]",
        "$.fetch.output_data[?match(@.a, '(a+)+$')]",
        "$.fetch.output_data[?search(@.a, 'x')]",
        "$.fetch.output_data..*..*",
        "$.fetch.output_data[?@..a]",
        "$.fetch.output_data[?$.a]",
        "$.fetch.output_data[?" + "(" * 100 + "@.a" + ")" * 100 + "]",
        "$.fetch.output_data" + ".a" * 500,
        "$[*]",
        "$${secret.A}",
        "$${ secret.A}",
        "${workflow.input." + "a" * 2_000 + "}",
        "${fetch.output" + "[" * 900 + "}",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(BadReferences) as caught:
        compile_template(text)
    ((pointer, message),) = caught.value.mistakes
    assert pointer == ""
    assert 0 < len(message) < 2_000


def test_the_message_names_the_accepted_forms() -> None:
    with pytest.raises(BadReference, match=r"accepted forms are \$\{workflow\.input\.a\}"):
        parse_reference("${nonsense}")


def test_all_mistakes_are_reported_with_their_pointers() -> None:
    value: Json = {"a": ["${x}", {"b/c": "{{y}}"}], "${k}": 1, "fine": "${f.output}"}
    with pytest.raises(BadReferences) as caught:
        compile_template(value)
    assert [pointer for pointer, _ in caught.value.mistakes] == ["/a/0", "/a/1/b~1c", "/${k}"]


def test_mistakes_are_bounded() -> None:
    with pytest.raises(BadReferences) as caught:
        compile_template(["${x}"] * 1_000)
    assert len(caught.value.mistakes) == 100


def test_a_value_nested_too_deep_is_a_mistake() -> None:
    value: Json = "${f.output}"
    for _ in range(100):
        value = [value]
    with pytest.raises(BadReferences, match="nested deeper"):
        compile_template(value)


def test_the_references_of_a_value_are_listed_with_their_places() -> None:
    template = compile_template(
        {"url": "${a.output.url}?k=${secret.K}", "body": [1, "$.b.output_data", "{{trigger.x}}"]}
    )
    assert [(where, r.root, r.step_id, r.name, r.path) for where, r in template.references] == [
        ("/url", "step", "a", None, ("url",)),
        ("/url", "secret", None, "K", ()),
        ("/body/1", "step", "b", None, ()),
        ("/body/2", "input", None, None, ("x",)),
    ]


def test_a_value_without_references_is_the_same_object() -> None:
    value: Json = {"a": [1, {"b": "text $5"}], "c": None}
    assert compile_template(value).resolve(SCOPE) is value


def test_a_resolved_value_leaves_the_template_and_the_scope_as_they_were() -> None:
    value: Json = {"keep": [1], "a": "${fetch.output.items}", "b": {"c": "${workflow.input.text}"}}
    template = compile_template(value)
    resolved = template.resolve(SCOPE)
    assert resolved == {"keep": [1], "a": ITEMS, "b": {"c": "hi"}}
    assert isinstance(resolved, dict)
    assert list(resolved) == ["keep", "a", "b"]
    assert template.resolve(Known({"text": 1}, {"fetch": {"items": 2}})) == {
        "keep": [1],
        "a": 2,
        "b": {"c": 1},
    }


def test_escapes_hold_in_names_too() -> None:
    assert compile_template({"$${a}": 1, "b": "$${x}"}).resolve(SCOPE) == {"${a}": 1, "b": "${x}"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${nowhere.output}", "the step 'nowhere' has no output"),
        ("${nowhere.output.a}", "the step 'nowhere' has no output"),
        ("${fetch.output.nothing}", "there is no value at this path"),
        ("${fetch.output.items[2]}", "there is no value at this path"),
        ("${fetch.output.items[-3]}", "there is no value at this path"),
        ("${fetch.output.items.name}", "there is no value at this path"),
        ("${fetch.output.status.x}", "there is no value at this path"),
        ("${fetch.output[0]}", "there is no value at this path"),
        ("${step-1.output[0]}", "there is no value at this path"),
        ("$.fetch.output_data.nothing.x", "there is no value at this path"),
        ("at ${workflow.input.x}", "there is no value at this path"),
        ("{{trigger.x}}", "there is no value at this path"),
    ],
)
def test_a_missing_value_is_an_error_that_says_what_is_missing(text: str, why: str) -> None:
    with pytest.raises(UnresolvedReference) as caught:
        compile_template({"a": text}).resolve(SCOPE)
    assert caught.value.why == why
    assert caught.value.text in text


def test_a_loop_reference_outside_of_a_loop_has_no_value() -> None:
    with pytest.raises(UnresolvedReference, match="outside of a loop"):
        compile_template("${loop.item.id}").resolve(Known())


@pytest.mark.parametrize(
    ("template", "first", "second"),
    [
        ("${secret.OWN} ${workflow.input.a}", "${secret.DB}", ""),
        ("${workflow.input.a} ${secret.OWN}", ["${secret.DB}"], ""),
        ("${secret.OWN} ${workflow.input.a}", "${ secret.DB}", ""),
        ("${secret.OWN} ${workflow.input.a}${workflow.input.b}", "${sec", "ret.DB}"),
        ("${secret.OWN} $${${workflow.input.a}", "secret.DB}", ""),
        ("${secret.OWN} $${sec${workflow.input.a}", "ret.DB}", ""),
        ("$${secre${workflow.input.a} ${secret.OWN}", "t.DB}", ""),
    ],
)
def test_data_beside_a_secret_cannot_name_another(template: str, first: Json, second: str) -> None:
    scope = Known({"a": first, "b": second})
    with pytest.raises(UnresolvedReference, match="only a definition may"):
        compile_template(template).resolve(scope)


def test_data_that_looks_like_a_secret_stays_data() -> None:
    template = compile_template({"a": "${workflow.input}", "b": "<{{trigger}}>"})
    assert template.resolve(Known("${secret.DB}")) == {"a": "${secret.DB}", "b": "<${secret.DB}>"}
    assert {reference.root for _, reference in template.references} == {"input"}


def test_referenced_data_is_bounded_together() -> None:
    scope = Known({"big": "x" * 1_000, "list": ["y" * 996]})
    fits = PAYLOAD_BYTES_MAX // 1_000
    for reference in ("${workflow.input.big}", "${workflow.input.list}"):
        assert compile_template([reference] * fits).resolve(scope)
        templates: list[Json] = [[reference] * (fits + 1), reference * (fits + 1)]
        for template in templates:
            with pytest.raises(UnresolvedReference, match="together have more than 262144 bytes"):
                compile_template(template).resolve(scope)


def test_the_queries_of_one_value_share_one_budget() -> None:
    small = Known([{"a": 1}, {"b": 3}])
    large = Known([{"a": 1}] * 10_000)
    template = compile_template("$.workflow_input[?@.a == 1 || @.b == 2].a")
    assert template.resolve(small) == [1]
    assert template.resolve(large) == [1] * 10_000
    with pytest.raises(UnresolvedReference, match="looks at more than 100000 items"):
        compile_template(["$.workflow_input[?@.a == 1 || @.b == 2].a"] * 10).resolve(large)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("$..a", [[1]] * 110_000),
        ("$..*", [0] * 200_000),
        ("$[?@.a == 1]", [0] * 60_000),
        ("$..['a','b','c','d','e','f','g','h','i','j']", [[]] * 20_000),
        ("$" + "[0,0]" * 40 + "[1]", json.loads("[" * 60 + "]" * 60)),
        ("$" + "[0,0]" * 10 + "..x", json.loads("[" * 10 + "[" + "0," * 9_999 + "0]" + "]" * 10)),
        ("$[*]" + "[*]" * 3, [[[[0] * 20] * 20] * 20] * 20),
    ],
)
def test_a_costly_query_ends(path: str, document: Json) -> None:
    compiled = compile_json_path(path)
    assert isinstance(compiled, ManyValues)
    with pytest.raises(TooMuchWork):
        compiled.find(document, QueryWork())


@pytest.mark.parametrize(
    ("text", "path", "step_id"),
    [
        ("trigger", (), None),
        ("trigger.value", ("value",), None),
        ("trigger.a[0]['b c']", ("a", 0, "b c"), None),
        ("step.0.x", ("x",), "first"),
        ("step.1.items.0", ("items", "0"), "second"),
        ("step.1", (), "second"),
    ],
)
def test_bare_references_of_action_lists(
    text: str, path: tuple[str | int, ...], step_id: str | None
) -> None:
    root = "input" if step_id is None else "step"
    expected = Reference(text, root, step_id=step_id, path=path)  # type: ignore[arg-type]  # the root of each row
    assert parse_bare_reference(text, ["first", "second"]) == expected


@pytest.mark.parametrize(
    "text",
    ["step.2.x", "step.x", "step", "value", "", "triggered.x", "trigger.", "step.-1.x", "a b"],
)
def test_bad_bare_references(text: str) -> None:
    with pytest.raises(BadReference):
        parse_bare_reference(text, ["first", "second"])


def test_literal_text_undoes_escapes_only() -> None:
    assert literal_text("a $${b} {{{{") == "a ${b} {{"
    with pytest.raises(BadReference, match="cannot stand here"):
        literal_text("a ${b.output}")


@given(storable_json)
def test_data_goes_through_a_reference_unchanged(value: Json) -> None:
    template = compile_template({"whole": "${a.output}", "text": "<${a.output}>"})
    resolved = template.resolve(Known(outputs={"a": value}))
    assert isinstance(resolved, dict)
    assert resolved["whole"] is value
    if isinstance(value, str):
        assert resolved["text"] == f"<{value}>"


_SIGNS = st.sampled_from(
    [
        *"${}[].'\"*?@()x0- ",
        "${",
        "{{",
        "}}",
        "trigger",
        ".output",
        "secret.",
        "$.workflow_input",
        "..",
        "$$",
    ]
)


@given(st.one_of(st.lists(_SIGNS, max_size=25).map("".join), st.text(max_size=30)))
def test_any_text_is_a_template_or_a_bad_reference(text: str) -> None:
    try:
        template = compile_template([text, {text: 1}])
    except BadReferences:
        return
    try:
        template.resolve(SCOPE)
    except UnresolvedReference:
        return
