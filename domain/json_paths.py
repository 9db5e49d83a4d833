"""RFC 9535 queries, bounded: what L's clients write after `$.step.output_data`.

The library's `match` and `search` are taken out (their regular expressions backtrack), inside a
filter only single places are compared, and all work is counted. Nothing here can run for long.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathError, JSONPathNode, JSONPathQuery
from jsonpath_rfc9535.filter_expressions import (
    ComparisonExpression,
    Expression,
    FilterContext,
    FilterExpression,
    FilterExpressionLiteral,
    FilterQuery,
    FunctionExtension,
    LogicalExpression,
    PrefixExpression,
    RelativeFilterQuery,
)
from jsonpath_rfc9535.segments import JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath_rfc9535.selectors import FilterSelector, IndexSelector, NameSelector

from domain.json_values import DEPTH_MAX, Json

PATH_CHARACTERS_MAX: Final = 500
BRACKETS_DEEP_MAX: Final = 8
WORK_MAX: Final = 100_000
"""Items that the queries of one value or condition may look at; at most about 0.2 s."""

Place = tuple[str | int, ...]


class BadJsonPath(ValueError):
    """Not a query of RFC 9535, or one whose work cannot be bounded."""


class TooMuchWork(ValueError):
    """The queries so far looked at more than `WORK_MAX` items."""


class QueryWork:
    """What queries may still look at: one for all references of a value or a condition."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = WORK_MAX

    def spend(self, items: int) -> None:
        self.left -= items
        if self.left < 0:
            raise TooMuchWork(f"its query looks at more than {WORK_MAX} items; make it narrower")


@dataclass(frozen=True, slots=True)
class ManyValues:
    """A query that yields a list of values, in document order.

    `selectors_max` is the largest number of selectors in one pair of brackets.
    """

    query: JSONPathQuery
    selectors_max: int

    def find(self, document: Json, work: QueryWork) -> Json:
        """All values found, [] when there are none; raises `TooMuchWork`."""
        nodes: Iterable[JSONPathNode] = [_Node(document, _Tally(work, self.selectors_max))]
        for segment in self.query.segments:
            nodes = segment.resolve(nodes)
        values: list[Json] = [node.value for node in nodes]  # type: ignore[misc]  # parts of a Json
        return values


class _Tally:
    """Stands where the library keeps the root, which no accepted query reads, and counts."""

    __slots__ = ("per_node", "work")

    def __init__(self, work: QueryWork, per_node: int) -> None:
        self.work = work
        self.per_node = per_node


class _Node(JSONPathNode):
    """A place in the document; making one pays for the selectors that will look at it."""

    __slots__ = ("_tally",)

    def __init__(self, value: object, tally: _Tally) -> None:
        super().__init__(value=value, location=(), parent=None, root=tally)  # type: ignore[arg-type]  # see _Tally
        self._tally = tally

    def new_child(self, value: object, key: int | str, parent: JSONPathNode | None) -> "_Node":
        # A descent passes over all scalars of a container without making nodes of them.
        inside = len(value) // 4 if isinstance(value, list | dict) else 0
        self._tally.work.spend(self._tally.per_node + inside)
        return _Node(value, self._tally)


class _CountedFilter(FilterExpression):
    """A filter that pays for its terms at each candidate."""

    __slots__ = ("terms",)

    def __init__(self, expression: FilterExpression, terms: int) -> None:
        super().__init__(expression.token, expression.expression)
        self.terms = terms

    def evaluate(self, context: FilterContext) -> bool:
        tally = context.root
        if isinstance(tally, _Tally):
            tally.work.spend(self.terms)
        return super().evaluate(context)


def compile_json_path(text: str) -> Place | ManyValues:
    """Compile `$...`: names and indices when it means one place, else a bounded `ManyValues`.

    Raises `BadJsonPath` with a message that says what is not accepted.
    """
    if len(text) > PATH_CHARACTERS_MAX:
        raise BadJsonPath(f"a path has at most {PATH_CHARACTERS_MAX} characters")
    if _brackets_deep(text) > BRACKETS_DEEP_MAX:
        raise BadJsonPath(f"a path nests brackets at most {BRACKETS_DEEP_MAX} deep")
    try:
        query = _ENVIRONMENT.compile(text)
    except JSONPathError as error:
        raise BadJsonPath(f"not a JSONPath of RFC 9535: {error}") from None
    if query.singular_query():
        return tuple(_step(segment) for segment in query.segments)
    return _bounded(query)


class _Environment(JSONPathEnvironment):
    max_recursion_depth = DEPTH_MAX + 1

    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        del self.function_extensions["match"]
        del self.function_extensions["search"]


_ENVIRONMENT: Final = _Environment()


def _step(segment: JSONPathSegment) -> str | int:
    match segment.selectors[0]:
        case NameSelector(name=name):
            return name
        case IndexSelector(index=index):
            return index
        case other:
            raise AssertionError(f"a singular query holds {other}")


def _bounded(query: JSONPathQuery) -> ManyValues:
    descents = sum(isinstance(s, JSONPathRecursiveDescentSegment) for s in query.segments)
    if descents > 1:
        raise BadJsonPath("a path descends with `..` at most once")
    for segment in query.segments:
        for selector in segment.selectors:
            if isinstance(selector, FilterSelector):
                terms = _terms(selector.expression)
                selector.expression = _CountedFilter(selector.expression, terms)
    return ManyValues(query, max(len(segment.selectors) for segment in query.segments))


def _terms(expression: Expression) -> int:
    """Leaves of a filter, each of constant cost; refuses queries that could look at many items."""
    match expression:
        case FilterExpression():
            return _terms(expression.expression)
        case PrefixExpression():
            return _terms(expression.right)
        case LogicalExpression() | ComparisonExpression():
            return _terms(expression.left) + _terms(expression.right)
        case RelativeFilterQuery() if expression.query.singular_query():
            return 1
        case FilterQuery():
            raise BadJsonPath("inside a filter only one place below @ can be named, like @.a.b")
        case FunctionExtension():
            return 1 + sum(_terms(argument) for argument in expression.args)
        case FilterExpressionLiteral():
            return 1
        case _:
            raise AssertionError(f"unknown part of a filter: {type(expression).__name__}")


def _brackets_deep(text: str) -> int:
    deep = deepest = 0
    for character in text:
        if character in "[(":
            deep += 1
            deepest = max(deepest, deep)
        elif character in "])":
            deep -= 1
    return deepest
