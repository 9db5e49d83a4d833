"""RFC 9535 queries, bounded: what L's clients write after `$.step.output_data`.

The library's `match` and `search` are taken out (their regular expressions backtrack), and a query
whose work could grow faster than its document is refused. Nothing here can run for long.
"""

from dataclasses import dataclass
from typing import Final

from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathError, JSONPathQuery
from jsonpath_rfc9535.filter_expressions import (
    ComparisonExpression,
    Expression,
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
"""Items of the document times the selectors of the query; about a quarter of a second at most."""

Place = tuple[str | int, ...]


class BadJsonPath(ValueError):
    """Not a query of RFC 9535, or one that could run for long."""


class TooMuchWork(ValueError):
    """This query on this document would look at more than `WORK_MAX` items."""


@dataclass(frozen=True, slots=True)
class ManyValues:
    """A query that yields a list of values, in document order."""

    query: JSONPathQuery
    weight: int

    def find(self, document: Json) -> Json:
        """All values found, [] when there are none; raises `TooMuchWork`."""
        limit = WORK_MAX // self.weight
        if _items(document, limit) > limit:
            raise TooMuchWork(
                f"the query would look at more than {WORK_MAX} items; make it narrower"
            )
        values: list[Json] = [node.value for node in self.query.find(document)]  # type: ignore[misc]  # values of a Json document
        return values


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
    return ManyValues(query, _weight(query))


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


def _weight(query: JSONPathQuery) -> int:
    """How often at most each item of a document is looked at."""
    descents = sum(isinstance(s, JSONPathRecursiveDescentSegment) for s in query.segments)
    if descents > 1:
        raise BadJsonPath("a path descends with `..` at most once")
    weight = 1
    for segment in query.segments:
        weight *= sum(_selector_weight(selector) for selector in segment.selectors)
    if weight > WORK_MAX:
        raise BadJsonPath("the path selects the same items too many times; make it simpler")
    return weight


def _selector_weight(selector: object) -> int:
    if not isinstance(selector, FilterSelector):
        return 1
    return 1 + _filter_weight(selector.expression)


def _filter_weight(expression: Expression) -> int:
    match expression:
        case FilterExpression():
            return _filter_weight(expression.expression)
        case PrefixExpression():
            return _filter_weight(expression.right)
        case LogicalExpression() | ComparisonExpression():
            return _filter_weight(expression.left) + _filter_weight(expression.right)
        case RelativeFilterQuery() if expression.query.singular_query():
            return 1
        case FilterQuery():
            raise BadJsonPath("inside a filter only one place below @ can be named, like @.a.b")
        case FunctionExtension():
            return 1 + sum(_filter_weight(argument) for argument in expression.args)
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


def _items(document: Json, limit: int) -> int:
    """Items of the document, counted until there are more than `limit`."""
    count = 1
    open_containers: list[Json] = [document]
    while open_containers and count <= limit:
        container = open_containers.pop()
        if isinstance(container, dict):
            children = list(container.values())
        elif isinstance(container, list):
            children = container
        else:
            continue
        count += len(children)
        if count <= limit:
            open_containers += children
    return count
