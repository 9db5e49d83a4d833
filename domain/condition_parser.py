"""The grammar of conditions: text to a tree, within fixed budgets and without `eval`.

    or         = and ("or" and)*
    and        = not ("and" not)*
    not        = "not" not | comparison
    comparison = operand (operator operand)*        a < b < c means a < b and b < c
    operator   = == != > < >= <= in "not in" contains "not contains"
    operand    = number | 'text' | "text" | true | false | null | True | False | None
               | "[" (operand ("," operand)*)? "]" | "(" or ")" | reference

References are those of `domain/references.py`, the bare `trigger.a` and `step.N.a` too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from domain.condition_words import BadCondition, Token, read_words
from domain.json_values import INTEGER_MAX, Json
from domain.references import (
    BadReference,
    Reference,
    Template,
    literal_text,
    parse_bare_reference,
    parse_reference,
)

CHARACTERS_MAX: Final = 4_096
NODES_MAX: Final = 200
DEPTH_MAX: Final = 32

Operator = Literal["==", "!=", ">", "<", ">=", "<=", "in", "not in", "contains", "not contains"]
Test = Literal["exists", "not_exists", "is_empty", "is_not_empty"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: Json


@dataclass(frozen=True, slots=True)
class Elements:
    """A list of operands."""

    elements: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when the operand is false, null, 0 or empty."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Junction:
    """`and` or `or` of two or more operands, looked at from left to right."""

    kind: Literal["and", "or"]
    operands: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One or more comparisons in a chain, all of which must hold."""

    first: "Node"
    rest: tuple[tuple[Operator, "Node"], ...]


@dataclass(frozen=True, slots=True)
class Presence:
    """A named test of one operand."""

    test: Test
    operand: "Node"


Node: TypeAlias = (
    Constant | Elements | Not | Junction | Comparison | Presence | Reference | Template
)


class Parsed(NamedTuple):
    """A tree and the references in it, in order."""

    tree: Node
    references: tuple[Reference, ...]


def parse(text: str, action_ids: Sequence[str] = ()) -> Parsed:
    """Parse a condition; `action_ids[N]` is the step that `step.N` means. Raises `BadCondition`."""
    if len(text) > CHARACTERS_MAX:
        raise BadCondition(CHARACTERS_MAX, f"a condition has at most {CHARACTERS_MAX} characters")
    parser = _Parser(read_words(text), len(text), action_ids)
    tree = parser.disjunction()
    parser.finish()
    return Parsed(tree, tuple(parser.references))


def parse_operand(text: str, position: int, action_ids: Sequence[str] = ()) -> Reference:
    """Parse one reference in any form that conditions accept; raises `BadCondition`."""
    try:
        if text.startswith(("$", "{{")):
            reference = parse_reference(text)
        else:
            reference = parse_bare_reference(text, action_ids)
    except BadReference as error:
        raise BadCondition(position, error.message) from None
    if reference.root == "secret":
        raise BadCondition(position, "a condition cannot look at a secret")
    return reference


# --- the tree ---

_LITERALS: Final[dict[str, Json]] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}
_OPERATORS: Final = {operator: operator for operator in get_args(Operator)}
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\", "/": "/"}


class _Parser:
    def __init__(self, tokens: list[Token], end: int, action_ids: Sequence[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.nodes = 0
        self.depth = 0
        self.action_ids = action_ids
        self.references: list[Reference] = []

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def finish(self) -> None:
        if self.token.kind != "end":
            raise self.unexpected("and, or, a comparison or the end")

    def take(self, text: str) -> bool:
        if self.token.kind in ("word", "sign") and self.token.text == text:
            self.at += 1
            return True
        return False

    def disjunction(self) -> Node:
        operands = [self.conjunction()]
        while self.take("or"):
            operands.append(self.conjunction())
        return operands[0] if len(operands) == 1 else Junction("or", tuple(operands))

    def conjunction(self) -> Node:
        operands = [self.negation()]
        while self.take("and"):
            operands.append(self.negation())
        return operands[0] if len(operands) == 1 else Junction("and", tuple(operands))

    def negation(self) -> Node:
        if not self.take("not"):
            return self.comparison()
        self.descend()
        operand = self.negation()
        self.depth -= 1
        return Not(operand)

    def comparison(self) -> Node:
        first = self.operand()
        rest: list[tuple[Operator, Node]] = []
        while (operator := self.operator()) is not None:
            rest.append((operator, self.operand()))
        return Comparison(first, tuple(rest)) if rest else first

    def operator(self) -> Operator | None:
        text = self.token.text if self.token.kind in ("word", "sign") else ""
        if text == "not":
            text = f"not {self.tokens[self.at + 1].text}"
        operator: Operator | None = _OPERATORS.get(text)
        if operator is not None:
            self.at += 2 if text.startswith("not ") else 1
        return operator

    def operand(self) -> Node:
        self.count()
        token = self.token
        self.at += 1
        match token.kind:
            case "number":
                return Constant(_number(token))
            case "text":
                return Constant(_text(token))
            case "reference":
                reference = parse_operand(token.text, token.position, self.action_ids)
                self.references.append(reference)
                return reference
            case "word" if token.text in _LITERALS:
                return Constant(_LITERALS[token.text])
            case "sign" if token.text == "(":
                return self.group()
            case "sign" if token.text == "[":
                return self.elements()
        self.at -= 1
        raise self.unexpected("a value")

    def group(self) -> Node:
        self.descend()
        inside = self.disjunction()
        if not self.take(")"):
            raise self.unexpected(")")
        self.depth -= 1
        return inside

    def elements(self) -> Node:
        self.descend()
        elements: list[Node] = []
        while not self.take("]"):
            if elements and not self.take(","):
                raise self.unexpected(", or ]")
            elements.append(self.operand())
        self.depth -= 1
        return Elements(tuple(elements))

    def descend(self) -> None:
        self.count()
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise BadCondition(self.token.position, f"a condition nests at most {DEPTH_MAX} levels")

    def count(self) -> None:
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise BadCondition(self.token.position, f"a condition has at most {NODES_MAX} parts")

    def unexpected(self, wanted: str) -> BadCondition:
        token = self.token
        found = "the end" if token.kind == "end" else ascii(token.text[:40])
        hint = ""
        if token.kind == "word" and token.text not in _OPERATORS:
            hint = "; put a string in quotes, and write ${step.output.a} for a value"
        return BadCondition(token.position, f"expected {wanted}, found {found}{hint}")


def _number(token: Token) -> int | float:
    digits = token.text
    if re.fullmatch(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", digits) is None:
        raise BadCondition(token.position, f"{digits[:40]!a} is not a number")
    if re.fullmatch(r"-?[0-9]+", digits):
        if len(digits) > 20 or abs(int(digits)) > INTEGER_MAX:
            raise BadCondition(token.position, "an integer is at most 2^53; use a string instead")
        return int(digits)
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise BadCondition(token.position, f"{digits[:40]!a} is too large for a number")
    return number


def _text(token: Token) -> str:
    def character(escape: re.Match[str]) -> str:
        if escape[1] not in _ESCAPES:
            place = token.position + 1 + escape.start()
            raise BadCondition(
                place, f"unknown escape {escape[0]!a}; known are \\n \\r \\t \\' \\\" \\\\"
            )
        return _ESCAPES[escape[1]]

    text = re.sub(r"\\(.)", character, token.text[1:-1], flags=re.DOTALL)
    try:
        return literal_text(text)
    except BadReference as error:
        raise BadCondition(
            token.position, f"{error.message}; a reference in a condition stands without quotes"
        ) from None
