"""The validator takes any JSON: it never raises, points into what was sent, and is consistent."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.definition import compile_definition
from domain.json_values import Json, pointer_join
from domain.validation import validate
from tests.builders import Actions
from tests.properties.random_definitions import definitions
from tests.strategies import storable_json

FIELDS = st.sampled_from(
    [
        *("id", "type", "action", "config", "input_mapping", "next_step", "critical", "on_error"),
        *("retry", "recovery", "conditions", "condition", "if_true_step", "then_step", "name"),
        *("timeout_seconds", "duration_ms", "idempotency", "output", "input_schema", "actions"),
        *("start_step", "steps", "loop_config", "x-own", "atomic_mode", "durationMs", "timeout"),
    ]
)
hostile_scalars: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, 0, -1, 2**53, 10**400, 1e308, float("nan"), float("inf"), "", "${", "{{"),
        *("${m0.output}", "$.m0.output_data[", "${secret.A}", "m0", "\x00", "\ud800", "a/b~c"),
        *("wait", "condition", "create_task", "loop", "retry", "continue", "step.0.x", "1 +"),
    ]
)
hostile_json: st.SearchStrategy[Any] = st.recursive(
    hostile_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(FIELDS, inner, max_size=4)
    ),
    max_leaves=8,
)
action_lists = st.fixed_dictionaries(
    {"name": st.just("w"), "actions": st.lists(hostile_json, max_size=4) | hostile_json}
)


@st.composite
def mutated(draw: Any) -> Any:
    """A good definition with some parts replaced or added."""
    raw = copy.deepcopy(draw(definitions()))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = raw
        while True:
            inner = [value for value in place.values() if isinstance(value, dict) and value]
            if not inner or draw(st.booleans()):
                break
            place = draw(st.sampled_from(inner))
        field = draw(st.sampled_from(sorted(place)) | FIELDS)
        place[field] = draw(hostile_json)
    return raw


def resolves(raw: Any, parts: list[str]) -> bool:
    for part in parts:
        if isinstance(raw, list):
            if not part.isdecimal() or int(part) >= len(raw):
                return False
            raw = raw[int(part)]
        elif isinstance(raw, dict):
            named = {pointer_join("", key)[1:]: value for key, value in raw.items()}
            if part not in named:
                return False
            raw = named[part]
        else:
            return False
    return True


def check(raw: Any) -> None:
    verdict = validate(raw, Actions())
    for mistake in (*verdict.mistakes, *verdict.warnings):
        assert mistake.code.isidentifier()
        assert mistake.message
        if mistake.pointer:
            assert mistake.pointer.startswith("/")
            # What is missing has no place of its own: a member, or the object around it.
            parts = mistake.pointer.split("/")[1:]
            assert resolves(raw, parts[:-2]), mistake
    if not verdict.mistakes:
        again = validate(verdict.normalised, Actions())
        assert again.mistakes == ()
        assert again.normalised == verdict.normalised
        assert verdict.normalised is not None
        compile_definition(verdict.normalised)


@given(storable_json | hostile_json)
def test_any_json_is_judged(raw: Json) -> None:
    check(raw)


@given(action_lists)
def test_any_list_of_actions_is_judged(raw: Any) -> None:
    check(raw)


@given(mutated())
def test_a_definition_with_hostile_parts_is_judged(raw: Any) -> None:
    check(raw)


@given(definitions(steps_max=8))
def test_a_good_definition_has_no_mistakes(raw: Any) -> None:
    assert validate(raw, Actions()).mistakes == ()
    check(raw)
