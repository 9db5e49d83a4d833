"""Conditions: the one grammar for every `if`, evaluated with types and without surprises.

- Unresolved references are null. Null equals null only, is in no order and contains nothing.
- `==` of different types is false; 1 and 1.0 are equal; true is no number.
- `< > <= >=` compare two numbers or two texts. Anything else is an error.
- `a contains b`: the list a has the element b, the text a has the text b in it, the object a has a
  member named b. `b in a` is the same. With other types it is an error.
- Alone, or under `and`, `or`, `not`: false, null, 0, "", [] and {} are false, the rest is true.
- An error makes the whole condition false, and is said so; errors name types, never data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from domain.condition_parser import (
    Comparison,
    Constant,
    Elements,
    Junction,
    Node,
    Not,
    Operator,
    Presence,
    Test,
    parse,
    parse_operand,
)
from domain.condition_words import BadCondition
from domain.json_paths import QueryWork
from domain.json_values import Json, canonical_bytes
from domain.references import (
    MISSING,
    BadReferences,
    Reference,
    Scope,
    Template,
    UnresolvedReference,
    compile_template,
)

__all__ = [
    "OPERATORS",
    "BadCondition",
    "Condition",
    "Evaluation",
    "operator_condition",
    "parse_condition",
]

WORK_MAX: Final = 200_000
"""Elements that one evaluation compares one by one."""

_NAMED: Final[dict[str, Operator]] = {
    "equals": "==",
    "not_equals": "!=",
    "greater_than": ">",
    "gt": ">",
    "less_than": "<",
    "lt": "<",
    "gte": ">=",
    "lte": "<=",
    "contains": "contains",
    "not_contains": "not contains",
    "in": "in",
    "not_in": "not in",
}
_TESTS: Final[dict[str, Test]] = {
    "exists": "exists",
    "not_exists": "not_exists",
    "is_empty": "is_empty",
    "is_not_empty": "is_not_empty",
}
OPERATORS: Final = (*_NAMED, *_TESTS)
"""The named operators that `operator_condition` knows."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The verdict of one evaluation.

    `error` says why the condition could not be evaluated (`value` is then false), else None.
    `actual` is what stood on the left: of the comparison or test that the whole condition is, or
    the value of a condition that is one reference; else null.
    """

    value: bool
    error: str | None
    actual: Json


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition; `references` are those in it, in order."""

    text: str
    references: tuple[Reference, ...]
    tree: Node

    def evaluate(self, scope: Scope) -> Evaluation:
        """Evaluate; never raises."""
        run = _Evaluator(scope)
        actual: Json = None
        try:
            subject = _subject(self.tree)
            actual = None if subject is None else run.value(subject)
            return Evaluation(bool(run.value(self.tree)), None, actual)
        except _Mistake as mistake:
            return Evaluation(False, str(mistake), actual)


def parse_condition(text: str, action_ids: Sequence[str] = ()) -> Condition:
    """Parse a condition text; `action_ids[N]` is the step that `step.N` means.

    Raises `BadCondition` with the position and what was expected there.
    """
    parsed = parse(text, action_ids)
    return Condition(text, parsed.references, parsed.tree)


def operator_condition(
    field: str, operator: str, value: Json, action_ids: Sequence[str] = ()
) -> Condition:
    """W's form: a reference, the name of an operator and a value (unused by `exists` and such).

    The value may hold references. Raises `BadCondition`; unknown operators are told the known ones.
    """
    subject = parse_operand(field, 0, action_ids)
    if operator in _TESTS:
        return Condition(f"{field} {operator}", (subject,), Presence(_TESTS[operator], subject))
    if operator not in _NAMED:
        known = ", ".join(OPERATORS)
        raise BadCondition(0, f"unknown operator {operator[:40]!a}; known are {known}")
    try:
        template = compile_template(value)
    except BadReferences as error:
        raise BadCondition(0, f"value: {error}") from None
    inside = tuple(reference for _, reference in template.references)
    if any(reference.root == "secret" for reference in inside):
        raise BadCondition(0, "a condition cannot look at a secret")
    if operator in ("in", "not_in") and not inside and not isinstance(value, list | str | dict):
        raise BadCondition(0, f"the operator {operator} needs a list as its value")
    tree = Comparison(subject, ((_NAMED[operator], template),))
    shown = canonical_bytes(value)[:200].decode("utf-8", "ignore")
    return Condition(f"{field} {operator} {shown}", (subject, *inside), tree)


class _Mistake(Exception):
    """Why a condition has no value; becomes `Evaluation.error`."""


def _subject(tree: Node) -> Node | None:
    match tree:
        case Comparison(first=first):
            return first
        case Presence(operand=operand):
            return operand
        case Reference():
            return tree
        case _:
            return None


class _Evaluator:
    """One evaluation of one condition."""

    __slots__ = ("query_work", "scope", "work_left")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.work_left = WORK_MAX
        self.query_work = QueryWork()

    def value(self, node: Node) -> Json:
        match node:
            case Reference():
                return self.find(node)
            case Constant(value=value):
                return value
            case Comparison():
                return self.compare(node)
            case Junction(kind="and"):
                return all(bool(self.value(operand)) for operand in node.operands)
            case Junction():
                return any(bool(self.value(operand)) for operand in node.operands)
            case Not():
                return not bool(self.value(node.operand))
            case Presence():
                return self.presence(node)
            case Elements():
                return [self.value(element) for element in node.elements]
            case Template():
                return self.fill(node)

    def find(self, reference: Reference) -> Json:
        try:
            found = reference.find(self.scope, self.query_work)
        except UnresolvedReference as error:
            raise _Mistake(str(error)) from None
        return None if found is MISSING else found

    def fill(self, template: Template) -> Json:
        try:
            return template.resolve(self.scope)
        except UnresolvedReference:
            return None

    def presence(self, node: Presence) -> bool:
        value = self.value(node.operand)
        match node.test:
            case "exists":
                return value is not None
            case "not_exists":
                return value is None
            case "is_empty":
                return _is_empty(value)
            case "is_not_empty":
                return not _is_empty(value)

    def compare(self, node: Comparison) -> bool:
        left = self.value(node.first)
        for operator, operand in node.rest:
            right = self.value(operand)
            if not self.holds(left, operator, right):
                return False
            left = right
        return True

    def holds(self, left: Json, operator: Operator, right: Json) -> bool:
        match operator:
            case "==":
                return self.equal(left, right)
            case "!=":
                return not self.equal(left, right)
            case "contains":
                return self.contains(left, right, operator)
            case "not contains":
                return not self.contains(left, right, operator)
            case "in":
                return self.contains(right, left, operator)
            case "not in":
                return not self.contains(right, left, operator)
            case ">" | "<" | ">=" | "<=":
                return _ordered(left, operator, right)

    def equal(self, left: Json, right: Json) -> bool:
        self.work_left -= 1
        if self.work_left < 0:
            raise _Mistake(f"the condition compares more than {WORK_MAX} values")
        if left != right:  # Python's own comparison is quick and only too generous: 1 == True
            return False
        if isinstance(left, list) and isinstance(right, list):
            return all(map(self.equal, left, right))
        if isinstance(left, dict) and isinstance(right, dict):
            return all(self.equal(value, right[name]) for name, value in left.items())
        return isinstance(left, bool) == isinstance(right, bool)

    def contains(self, whole: Json, part: Json, operator: Operator) -> bool:
        if whole is None:
            return False
        if isinstance(whole, list):
            return part in whole and any(self.equal(element, part) for element in whole)
        if isinstance(whole, str | dict) and isinstance(part, str):
            return part in whole
        raise _Mistake(f"{operator}: {_kind(whole)} cannot contain {_kind(part)}")


def _ordered(left: Json, operator: Operator, right: Json) -> bool:
    if isinstance(left, str) and isinstance(right, str):  # noqa: SIM114 - mypy narrows pairs
        order = (left > right) - (left < right)
    elif _is_number(left) and _is_number(right):
        order = (left > right) - (left < right)
    else:
        raise _Mistake(f"{operator} cannot compare {_kind(left)} with {_kind(right)}")
    if operator == ">":
        return order > 0
    if operator == "<":
        return order < 0
    return order >= 0 if operator == ">=" else order <= 0


def _is_number(value: Json) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_empty(value: Json) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
