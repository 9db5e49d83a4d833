"""W's form of a definition: a list of actions."""

from typing import Any

import pytest

from domain.validation import validate
from tests.builders import Actions, normalised

RETRY = {
    "kind": "retry",
    "attempts": 3,
    "base_delay_ms": 1_000,
    "multiplier": 2.0,
    "max_delay_ms": 10_000,
    "first_retry_at_once": False,
    "strategy": "exponential",
    "jitter": False,
    "retry_on_errors": [],
    "retry_on_status_codes": [],
}


def mistakes(raw: Any) -> dict[str, str]:
    """Code by pointer."""
    return {mistake.pointer: mistake.code for mistake in validate(raw, Actions()).mistakes}


def test_a_list_of_actions_is_a_chain() -> None:
    actions = [
        {"type": "call_api", "config": {"url": "u"}, "timeout": 1_500, "onError": "continue"},
        {"id": "mine", "type": "send_notification", "onError": "retry"},
        {"type": "wait", "config": {"durationMs": 10}, "conditions": ["step.0.ok == true"]},
        {"type": "create_task", "config": {"title": "t"}},
    ]
    form = normalised({"name": "w", "actions": actions})
    steps: Any = form["steps"]
    assert form["start_step"] == "action-0"
    assert [each["next_step"] for each in steps.values()] == ["mine", "action-2", "action-3", None]
    assert [each["timeout_seconds"] for each in steps.values()] == [1.5, 30.0, None, None]
    assert [each["critical"] for each in steps.values()] == [False, True, True, True]
    assert steps["mine"]["recovery"] == [RETRY]
    assert steps["action-2"]["duration_ms"] == 10
    assert steps["action-2"]["conditions"] == [{"expression": "step.0.ok == true"}]


def test_mistakes_in_a_list_point_into_the_list() -> None:
    actions: list[Any] = [
        {"type": "nothing", "onError": "never", "timeout": 0, "extra": 1},
        {"type": "wait", "config": {"durationMs": -1, "other": 1}},
        {"type": "condition", "config": {"field": "step.9.x", "operator": "gt", "value": 1}},
        {"type": "condition", "config": {"field": "trigger.x", "operator": "near"}},
        {"type": "call_api", "config": {"bad": 1, "token": "abc"}, "conditions": ["1 +"]},
        {"id": "a b", "type": "call_api"},
        {"id": "a b", "type": "call_api"},
        {"id": 7, "type": "call_api"},
        "no action",
    ]
    assert mistakes({"name": "w", "actions": actions}) == {
        "/actions/0/type": "unknown_action",
        "/actions/0/onError": "bad_value",
        "/actions/0/timeout": "out_of_range",
        "/actions/0/extra": "unknown_field",
        "/actions/1/config/durationMs": "out_of_range",
        "/actions/1/config/other": "unknown_field",
        "/actions/2/config/field": "bad_condition",
        "/actions/3/config/operator": "bad_condition",
        "/actions/4/config/bad": "bad_value",
        "/actions/4/config/token": "literal_credential",
        "/actions/4/conditions/0": "bad_condition",
        "/actions/5/id": "bad_identifier",
        "/actions/6/id": "duplicate_id",
        "/actions/7/id": "bad_identifier",
        "/actions/8": "not_an_object",
    }


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        ([], "missing_steps"),
        ({}, "missing_steps"),
        ([{"type": "call_api"}] * 1_001, "too_many_steps"),
    ],
)
def test_a_list_holds_1_to_1000_actions(actions: Any, code: str) -> None:
    assert mistakes({"name": "w", "actions": actions})["/actions"] == code
