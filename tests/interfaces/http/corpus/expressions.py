"""References and conditions that reach for the interpreter, never end, or mean nothing."""
# ruff: noqa: E501 - an input stays on one line

from typing import Any

from tests.interfaces.http.corpus.case import Case, published

_REFERENCES = (
    "${", "${}", "${ }", "${nobody.output}", "${step.output", "${workflow}", "${workflow.secret}",
    "${workflow.input.}", "${workflow.input..a}", "${a.output}", "${later.output.x}", "${loop.item}",
    "${secret.}", "${secret.a b}", "${env.HOME}", "${__import__('os')}", "${().__class__.__bases__}",
    "${workflow.input.__class__.__init__.__globals__[os]", "${${workflow.input.a}}", "{{7*7}}",
    "{{config.items()}}", "{{''.__class__.__mro__[1].__subclasses__()}}", "{{trigger", "{% import os %}{{trigger.}}",
    "$[?(@.a=~/(a+)+$/)]", "$.workflow_input[", "$.workflow_input[?@.a", "$.nobody.output_data.x",
    "$.workflow_input" + ".a" * 2_000 + "[", "${" * 1_000, "${nobody.output" + ".x" * 500 + "}",
)  # fmt: skip
_CONDITIONS = (
    "", " ", "__import__('os').system('id')", "().__class__", "lambda: 1", "[x for x in (1,)]",
    "1 if 1 else 2", "exec('1')", "open('/etc/passwd')", "a := 1", "1 ==", "== 1", "1 = 1", "1 === 1",
    "1 == 1;", "1 == 1 and", "and", "not", "(1 == 1", "1 == 1)", "'unclosed", '"unclosed', "1 == 1 # x",
    "9**9**9", "'a'*1000000000", "1 << 64", "1 / 0", "~1", "${nobody.output} == 1", "${later.output} == 1",
    "${} == 1", "{{7*7}} == 49", "1 == 1 && 1 == 1", "1 == 1 || 1 == 1", "!1", "1 ; DROP TABLE x",
    "(" * 10_000 + "1" + ")" * 10_000, "not " * 10_000 + "1", "1 == 1" + " and 1 == 1" * 20_000,
    "x" * 100_000,
)  # fmt: skip
_GATES: tuple[Any, ...] = (
    None, 1, [], {"expression": 1}, {"expression": None}, {"expression": "1 == 1", "x": 1},
    {"operator": "explode", "field": "a", "value": 1}, {"field": "a"}, {},
)  # fmt: skip


def _referring(reference: str) -> dict[str, Any]:
    step = {"type": "action", "action": "set_variables"}
    return {
        "name": "evil",
        "start_step": "a",
        "steps": {
            "a": {**step, "config": {"variables": {"x": reference}}, "next_step": "later"},
            "later": {**step, "config": {"variables": {"x": 1}}},
        },
    }


def _conditional(condition: Any) -> dict[str, Any]:
    step = {"type": "action", "action": "set_variables", "config": {"variables": {"x": 1}}}
    return {
        "name": "evil",
        "start_step": "a",
        "steps": {
            "a": {"type": "conditional", "condition": condition, "if_true_step": "b", "next_step": "later"},
            "b": step,
            "later": step,
        },
    }  # fmt: skip


_BROKEN = {
    **{f"reference {text[:50]}": _referring(text) for text in _REFERENCES},
    **{f"condition {text[:50]}": _conditional({"expression": text}) for text in _CONDITIONS},
    **{f"gate {str(gate)[:50]}": _conditional(gate) for gate in _GATES},
}

CASES: tuple[Case, ...] = tuple(
    case for label, definition in _BROKEN.items() for case in published(label, definition)
)
