"""Conditions: L's expressions, W's operators, types, nulls, errors that are said, and budgets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.conditions import (
    OPERATORS,
    BadCondition,
    Condition,
    Evaluation,
    operator_condition,
    parse_condition,
)
from domain.json_values import Json
from domain.references import MISSING, Missing
from tests.strategies import storable_json, storable_text


@dataclass
class Known:
    """A scope made of plain values."""

    workflow_input: Json = None
    outputs: Mapping[str, Json] = field(default_factory=dict)
    simulates: bool = False

    def output(self, step_id: str) -> Json | Missing:
        return self.outputs.get(step_id, MISSING)

    def loop(self) -> Mapping[str, Json] | None:
        return None


SCOPE = Known(
    workflow_input={"limit": 10, "tags": ["a", "b"], "value": "ok", "on": True, "nothing": None},
    outputs={
        "step-1": {"score": 0.8, "items": [{"price": 5}, {"price": 7}], "name": "order 12"},
        "fetch": {"status": 200, "body": {"kind": "x"}, "empty": [], "ok": True, "zero": 0},
    },
)
ACTIONS = ("step-1", "fetch")


def evaluate(text: str) -> Evaluation:
    return parse_condition(text, ACTIONS).evaluate(SCOPE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # L's own set: comparisons, and/or, `in` on text and list, indices, the workflow input
        ("${step-1.output.score} > 0.5", True),
        ("${step-1.output.score} >= 0.8", True),
        ("${step-1.output.score} < 0.8", False),
        ("${step-1.output.score} <= 0.8", True),
        ("${step-1.output.score} == 0.8", True),
        ("${step-1.output.score} != 0.8", False),
        ("${step-1.output.score} > 0.5 and ${workflow.input.limit} == 10", True),
        ("${step-1.output.score} > 0.9 or ${workflow.input.limit} == 10", True),
        ("'order' in ${step-1.output.name}", True),
        ("'a' in ${workflow.input.tags}", True),
        ("${step-1.output.items[0].price} == 5", True),
        ("${step-1.output.items[1].price} > ${step-1.output.items[0].price}", True),
        ("${workflow.input.value} == 'ok'", True),
        # and what it did not do
        ("${fetch.output.status} == 200", True),
        ("${workflow.input.tags} contains 'a'", True),
        ("${workflow.input.tags} not contains 'c'", True),
        ("'c' not in ${workflow.input.tags}", True),
        ("'c'not in ${workflow.input.tags}", True),
        ("${fetch.output.body} contains 'kind'", True),
        ("'x' in ${fetch.output.body}", False),
        ("${workflow.input.value} in ['ok', \"fine\"]", True),
        ("${workflow.input.limit} in [1, ${fetch.output.status}, 10.0]", True),
        ("1 in []", False),
        # every form of reference
        ("$.workflow_input.limit == 10", True),
        ("$.fetch.output_data.status==200", True),
        ("$.step-1.output_data.items[0].price<6", True),
        ("$['step-1'].output_data.items[?@.price > 5] == [${step-1.output.items[1]}]", True),
        ("$.step-1.output_data..price contains 7", True),
        ("{{trigger.value}} == 'ok'", True),
        ("trigger.value == 'ok'", True),
        ("trigger.tags[0] == 'a'", True),
        ("trigger.tags.1 == 'b'", True),
        ("step.0.score > 0.5", True),
        ("step.1.status == 200", True),
        ("(trigger.value=='ok')", True),
        # nulls
        ("${nowhere.output.x} == null", True),
        ("${fetch.output.x.y} == None", True),
        ("${workflow.input.nothing} == null", True),
        ("${nowhere.output.x} == 0", False),
        ("${nowhere.output.x} != 0", True),
        ("${nowhere.output.x}", False),
        ("not ${nowhere.output.x}", True),
        ("${nowhere.output.x} contains 'a'", False),
        ("${nowhere.output.x} not contains 'a'", True),
        ("'a' in ${nowhere.output.x}", False),
        ("'a' not in ${nowhere.output.x}", True),
        ("null in [null]", True),
        # types
        ("1 == 1.0", True),
        ("1 == true", False),
        ("0 == False", False),
        ("true in [1]", False),
        ("[1, [0]] == [true, [0]]", False),
        ("[0] in [[false], [0]]", True),
        ("'1' == 1", False),
        ("[] == []", True),
        ("-1.5e1 < -1", True),
        ("'a' < 'b'", True),
        ("'ü' == \"ü\"", True),
        ("True == true and None == null and False == false", True),
        # truth, order of evaluation, chains
        ("${fetch.output.ok}", True),
        ("${fetch.output.zero}", False),
        ("${fetch.output.empty}", False),
        ("'x'", True),
        ("not not 1", True),
        ("true or false and false", True),
        ("(true or false) and false", False),
        ("not false and false", False),
        ("not 1 == 2", True),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        ("(1 == 1) == true", True),
        # texts
        (r"'it\'s' == " + '"it' + "'" + 's"', True),
        (r"'a\\b\n' contains '\n'", True),
        ("'$${x}' == '$${x}'", True),
        ("'and' == 'and'", True),
        ("'a'=='a'and'b'!='a'", True),
        ("\n 1 == \t1 ", True),
    ],
)
def test_a_condition_holds_or_not(text: str, value: bool) -> None:
    evaluation = evaluate(text)
    assert evaluation.error is None
    assert evaluation.value is value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 < 'a'", "< cannot compare a number with a text"),
        ("${nowhere.output.x} > 1", "> cannot compare null with a number"),
        ("true >= 0", ">= cannot compare a boolean with a number"),
        ("[1] < [2]", "< cannot compare a list with a list"),
        ("${fetch.output.body} <= 1", "<= cannot compare an object with a number"),
        ("'a' contains ${workflow.input.tags}", "contains: a text cannot contain a list"),
        ("'abc' contains 1", "contains: a text cannot contain a number"),
        ("1 in 'abc'", "in: a text cannot contain a number"),
        ("1 not in 5", "not in: a number cannot contain a number"),
        ("not (1 < 'a')", "< cannot compare a number with a text"),
        ("true and 1 < 'a'", "< cannot compare a number with a text"),
    ],
)
def test_an_error_is_false_and_said(text: str, error: str) -> None:
    evaluation = evaluate(text)
    assert evaluation.value is False
    assert evaluation.error == error


def test_what_is_decided_is_not_evaluated() -> None:
    assert evaluate("true or 1 < 'a'") == Evaluation(True, None, None)
    assert evaluate("false and 1 < 'a'") == Evaluation(False, None, None)
    assert evaluate("2 < 1 < 'a'").error is None


@pytest.mark.parametrize(
    ("text", "actual"),
    [
        ("${workflow.input.limit} == 3", 10),
        ("trigger.value", "ok"),
        ("${nowhere.output} == 3", None),
        ("trigger.limit < 'a'", 10),
        ("trigger.limit == 10 and true", None),
        ("not trigger.limit", None),
    ],
)
def test_the_left_side_is_reported(text: str, actual: Json) -> None:
    assert evaluate(text).actual == actual


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("   ", 3),
        ("1 ==", 4),
        ("== 1", 0),
        ("1 = 1", 2),
        ("1 === 1", 4),
        ("1 == 1 &&  2 == 2", 7),
        ("1 || 2", 2),
        ("!true", 0),
        ("1 2", 2),
        ("(1 == 1", 7),
        ("1 == 1)", 6),
        ("[1, 2", 5),
        ("[1 2]", 3),
        ("[,]", 1),
        ("[1,]", 3),
        ("status == 200", 0),
        ("fetch.output.status == 200", 0),
        ("1 == abc", 5),
        ("1 in not 2", 5),
        ("1 not 2", 2),
        ("1 not == 2", 2),
        ("and", 0),
        ("1 and", 5),
        ("AND 1", 0),
        ("'open", 0),
        ('"open', 0),
        (r"'\q'", 1),
        ("01 == 1", 0),
        ("1. == 1", 0),
        ("1.2.3 == 1", 0),
        ("1e400 == 1", 0),
        ("9007199254740993 == 1", 0),
        ("9" * 4_000 + " == 1", 0),
        ("0x10 == 16", 0),
        ("9**9**9", 1),
        ("'a'*10", 3),
        ("1 + 1", 2),
        ("-x", 0),
        ("${x} == 1", 0),
        ("1 == ${fetch.output", 5),
        ("${a.output} == ${secret.KEY}", 15),
        ("{{x}} == 1", 0),
        ("$.fetch.x == 1", 0),
        ("$.fetch.output_data[ == 1", 19),
        ("$ == 1", 0),
        ("trigger. == 1", 7),
        ("step.2.x == 1", 0),
        ("step.x == 1", 0),
        ("triggered == 1", 0),
        ("'${fetch.output.status}' == 200", 0),
        ("'{{trigger.x}}' == 200", 0),
        ("__import__('os')", 0),
        ("().__class__", 2),
        ("len(trigger.x) > 1", 0),
        ("lambda: 1", 6),
        ("1==1and 2==2", 3),
        ("1 if true else 2", 2),
        ("1; 2", 1),
        ("1 # 2", 2),
        ("1 == '\ud800", 5),
        ("1\x00", 1),
        ("(" * 33 + "1" + ")" * 33, 33),
        ("not " * 33 + "1", 132),
        ("[" * 33 + "]" * 33, 33),
        ("1 == 1" + " or 1" * 199, 6 + 5 * 199 - 1),
        (" " * 4_097, 4_096),
    ],
)
def test_what_is_not_in_the_grammar_is_refused_at_its_place(text: str, position: int) -> None:
    with pytest.raises(BadCondition) as caught:
        parse_condition(text, ACTIONS)
    assert caught.value.position == position
    assert 0 < len(caught.value.message) < 1_000
    caught.value.message.encode()


def test_budgets_hold_exactly() -> None:
    assert parse_condition("(" * 32 + "1" + ")" * 32).evaluate(SCOPE).value
    assert parse_condition("not " * 32 + "1").evaluate(SCOPE).value
    assert parse_condition("0" + " or 0" * 198 + " or 1").evaluate(SCOPE).value
    assert parse_condition("1" + " " * 4_095).evaluate(SCOPE).value


def test_work_is_bounded() -> None:
    scope = Known({"list": [1] * 50_000, "same": [1] * 50_000})
    once = "${workflow.input.list} == ${workflow.input.same}"
    assert parse_condition(once).evaluate(scope).value
    often = parse_condition(" and ".join([once] * 50)).evaluate(scope)
    assert often.value is False
    assert often.error is not None
    assert "compares more than" in often.error
    scan = Known({"list": [True] * 500_000})
    assert "compares" in str(parse_condition("1 in ${workflow.input.list}").evaluate(scan).error)
    costly = parse_condition("$.workflow_input..x == []").evaluate(scan)
    assert "looks at more than" in str(costly.error)


def test_the_references_are_listed() -> None:
    condition = parse_condition(
        "${a.output.x} in [trigger.y, $.b.output_data] or step.1.z", ACTIONS
    )
    assert [(r.root, r.step_id, r.path) for r in condition.references] == [
        ("step", "a", ("x",)),
        ("input", None, ("y",)),
        ("step", "b", ()),
        ("step", "fetch", ("z",)),
    ]


@pytest.mark.parametrize(
    ("field_text", "operator", "value", "holds"),
    [
        ("trigger.value", "equals", "ok", True),
        ("trigger.value", "not_equals", "ok", False),
        ("trigger.limit", "greater_than", 9, True),
        ("trigger.limit", "gt", 10, False),
        ("trigger.limit", "gte", 10, True),
        ("trigger.limit", "less_than", 11, True),
        ("trigger.limit", "lt", 10, False),
        ("trigger.limit", "lte", 10, True),
        ("trigger.tags", "contains", "a", True),
        ("trigger.value", "contains", "k", True),
        ("trigger.tags", "not_contains", "a", False),
        ("trigger.nowhere", "not_contains", "a", True),
        ("trigger.value", "in", ["ok", "no"], True),
        ("trigger.value", "in", "tokens: ok", True),
        ("trigger.value", "not_in", ["ok", "no"], False),
        ("trigger.value", "exists", None, True),
        ("trigger.nothing", "exists", None, False),
        ("trigger.nowhere", "exists", "ignored", False),
        ("trigger.nowhere", "not_exists", None, True),
        ("trigger.value", "not_exists", None, False),
        ("step.1.empty", "is_empty", None, True),
        ("step.1.zero", "is_empty", None, False),
        ("trigger.nowhere", "is_empty", None, True),
        ("trigger.tags", "is_not_empty", None, True),
        ("step.1.status", "equals", 200, True),
        ("${fetch.output.body}", "equals", {"kind": "x"}, True),
        ("$.fetch.output_data.status", "equals", 200, True),
        ("{{trigger.limit}}", "equals", 10, True),
        ("trigger.limit", "equals", "${workflow.input.limit}", True),
        ("trigger.limit", "in", ["${workflow.input.limit}"], True),
        ("trigger.nothing", "equals", "${workflow.input.nowhere}", True),
    ],
)
def test_named_operators(
    field_text: str,
    operator: str,
    value: Json,
    holds: bool,
) -> None:
    evaluation = operator_condition(field_text, operator, value, ACTIONS).evaluate(SCOPE)
    assert evaluation.error is None
    assert evaluation.value is holds


def test_a_named_operator_reports_the_actual_value_and_errors() -> None:
    condition = operator_condition("trigger.value", "greater_than", 3)
    assert condition.evaluate(SCOPE) == Evaluation(
        False, "> cannot compare a text with a number", "ok"
    )
    assert condition.text == "trigger.value greater_than 3"
    assert [reference.text for reference in condition.references] == ["trigger.value"]


@pytest.mark.parametrize(
    ("field_text", "operator", "value", "message"),
    [
        ("trigger.x", "matches", ".*", "unknown operator 'matches'; known are equals, not_equals"),
        ("trigger.x", "", 1, "unknown operator ''"),
        ("x", "equals", 1, "'x' is no reference"),
        ("", "exists", None, "'' is no reference"),
        ("step.7.x", "exists", None, "counts actions from 0 and there are 2"),
        ("${secret.A}", "equals", 1, "cannot look at a secret"),
        ("trigger.x", "equals", "${secret.A}", "cannot look at a secret"),
        ("trigger.x", "equals", "${nonsense}", "is not a reference"),
        ("trigger.x", "in", 5, "in needs a list"),
    ],
)
def test_bad_named_conditions(field_text: str, operator: str, value: Json, message: str) -> None:
    with pytest.raises(BadCondition, match=message):
        operator_condition(field_text, operator, value, ACTIONS)


_WORDS = st.sampled_from(
    [
        *(
            "and",
            "or",
            "not",
            "in",
            "contains",
            "true",
            "null",
            "1",
            "-2.5",
            "'a'",
            '"b"',
            "trigger.x",
        ),
        *(
            "==",
            "!=",
            "<",
            ">=",
            "(",
            ")",
            "[",
            "]",
            ",",
            "${a.output.b}",
            "$.a.output_data[*]",
            "$.",
        ),
        *("step.0.x", "{{trigger}}", "${", "{{", "'", "\\", "=", "lambda", "\x00", "\ud800", " "),
    ]
)


@given(
    st.one_of(
        st.lists(_WORDS, max_size=20).map(" ".join),
        st.lists(_WORDS, max_size=20).map("".join),
        st.text(max_size=40),
    ),
    storable_json,
)
def test_any_text_is_a_condition_or_a_bad_one_and_evaluation_never_raises(
    text: str, value: Json
) -> None:
    try:
        condition = parse_condition(text, ACTIONS)
    except BadCondition as error:
        _assert_sendable(error)
        return
    evaluation = condition.evaluate(Known({"x": value}, {"a": {"b": value}, "step-1": value}))
    assert evaluation.error is None or not evaluation.value


def _assert_sendable(error: BadCondition) -> None:
    str(error).encode()
    assert error.position >= 0


@given(st.sampled_from(OPERATORS), storable_json, storable_json)
def test_every_operator_takes_any_values(operator: str, left: Json, right: Json) -> None:
    try:
        condition: Condition = operator_condition("trigger", operator, right)
    except BadCondition:
        return
    evaluation = condition.evaluate(Known(left))
    assert evaluation.error is None or not evaluation.value
    assert evaluation.actual == left


@given(storable_json)
def test_everything_equals_itself_and_is_in_a_list_of_itself(value: Json) -> None:
    scope = Known(value)
    assert parse_condition("trigger == trigger").evaluate(scope).value
    assert parse_condition("trigger in [0, trigger]").evaluate(scope).value
    assert not parse_condition("trigger != trigger").evaluate(scope).value


@given(storable_text)
def test_a_quoted_text_is_that_text(text: str) -> None:
    quoted = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "$${").replace("{{", "{{{{")
    )
    if not quoted.startswith("$"):
        assert parse_condition(f"trigger == '{quoted}'").evaluate(Known(text)).value
