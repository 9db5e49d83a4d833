"""What is written of recovery, and what is refused."""

from typing import Any

import pytest

from domain.json_values import JsonObject
from domain.recovery_config import read_recovery_config
from tests.builders import Run, mistakes_of, normalised, step, task, wait, workflow


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"ask": True}, ["ask"]),
        ({"enable_user_fulfillment": True}, ["ask"]),
        ({"on_error": "retry", "ask": {"on_timeout": "abort"}}, ["retry", "ask"]),
        ({"recovery_strategy": {"UserFulfillment": {"questions": ["Really?"]}}}, ["ask"]),
        ({"recovery_strategy": {"AlternativeFlow": {"flow_id": "x"}}}, ["alternative"]),
        ({"recovery_strategy": {"Retry": {"attempts": 2}}}, []),
        ({"retry_strategy": {"type": "linear_backoff"}}, ["retry"]),
        (
            {"on_error": "continue", "alternatives": [{"id": "x", "do": {"action": "call_api"}}]},
            ["alternative"],
        ),
    ],
)
def test_the_ways_to_write_recovery(fields: JsonObject, kinds: list[str]) -> None:
    form = normalised(workflow({"a": step(**fields)}))
    steps: Any = form["steps"]
    assert [stage["kind"] for stage in steps["a"]["recovery"]] == kinds
    assert normalised(form) == form


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"recovery": [], "ask": True}, "/recovery", "contradiction"),
        ({"recovery": [{"kind": "ask"}] * 2}, "/recovery/1", "contradiction"),
        ({"recovery": [{"kind": "other"}]}, "/recovery/0", "bad_value"),
        ({"retry": {}, "retry_strategy": {}}, "/retry_strategy", "contradiction"),
        (
            {"ask": {}, "enable_user_fulfillment": False},
            "/enable_user_fulfillment",
            "contradiction",
        ),
        ({"ask": {"on_timeout": "explode"}}, "/ask/on_timeout", "bad_value"),
        ({"ask": {"answer_timeout_ms": 0}}, "/ask/answer_timeout_ms", "out_of_range"),
        ({"ask": 3}, "/ask", "bad_value"),
        ({"alternatives": {}}, "/alternatives", "bad_value"),
        (
            {"alternatives": [{"id": "a b", "do": {"action": "call_api"}}]},
            "/alternatives/0/id",
            "bad_identifier",
        ),
        ({"alternatives": [{"id": "x"}]}, "/alternatives/0", "cycle"),
        (
            {"alternatives": [{"id": "x", "do": {"action": "set_variables"}}]},
            "/alternatives/0/do",
            "cycle",
        ),
        (
            {
                "alternatives": [
                    {"id": "x", "do": {"agent": "y:z"}, "input": [{"path": "n", "set": 1}]}
                ]
            },
            "/alternatives/0/do/agent",
            "bad_identifier",
        ),
        (
            {"alternatives": [{"id": "x", "do": {"action": "nothing"}}]},
            "/alternatives/0/do/action",
            "unknown_action",
        ),
        (
            {"alternatives": [{"id": "x", "do": {"action": "call_api"}}] * 2},
            "/alternatives/1",
            "duplicate_id",
        ),
        (
            {"alternatives": [{"id": "x", "input": [{"path": "n"}]}]},
            "/alternatives/0/input/0",
            "bad_value",
        ),
        (
            {"alternatives": [{"id": "x", "input": [{"path": "n", "multiply": -1}]}]},
            "/alternatives/0/input/0/multiply",
            "out_of_range",
        ),
        (
            {"alternatives": [{"id": "x", "input": [{"path": "n", "multiply": 1e300}]}]},
            "/alternatives/0/input/0/multiply",
            "out_of_range",
        ),
        (
            {"alternatives": [{"id": "x", "input": [{"path": "", "set": 1}]}]},
            "/alternatives/0/input/0/path",
            "bad_value",
        ),
        (
            {"alternatives": [{"id": "x", "input": [{"path": "n", "set": "${a.output}"}]}]},
            "/alternatives/0/input/0/set",
            "bad_reference",
        ),
        (
            {"recovery_config": {"max_recovery_time_ms": -1}},
            "/recovery_config/max_recovery_time_ms",
            "out_of_range",
        ),
        (
            {"recovery_config": {"total_budget_ms": 1}},
            "/recovery_config/total_budget_ms",
            "unknown_field",
        ),
        ({"recovery_config": 1}, "/recovery_config", "not_an_object"),
        (
            {"recovery_strategy": {"Retry": {"attempts": 1}}, "retry": {}},
            "/recovery_strategy",
            "contradiction",
        ),
        ({"recovery_strategy": {"Other": {}}}, "/recovery_strategy", "bad_value"),
        (
            {"recovery_strategy": {"AlternativeFlow": {"flow_id": "a"}}},
            "/recovery_strategy/AlternativeFlow/flow_id",
            "cycle",
        ),
        ({"retry_strategy": {"type": "random"}}, "/retry_strategy/type", "bad_value"),
        (
            {"retry_strategy": {"retry_on_status_codes": [99]}},
            "/retry_strategy/retry_on_status_codes/0",
            "out_of_range",
        ),
        ({"retry": {"attempts": -1}}, "/retry/attempts", "out_of_range"),
        ({"retry": {"attempts": 10**9}}, "/retry/attempts", "out_of_range"),
        ({"retry": {"base_delay_ms": 10**15}}, "/retry/base_delay_ms", "out_of_range"),
        ({"retry": {"multiplier": 1e308}}, "/retry/multiplier", "out_of_range"),
        ({"ask": {"answer_timeout_ms": 10**15}}, "/ask/answer_timeout_ms", "out_of_range"),
        (
            {"recovery_config": {"max_recovery_time_ms": 10**15}},
            "/recovery_config/max_recovery_time_ms",
            "out_of_range",
        ),
        (
            {"recovery_config": {"base_retry_delay_ms": 5_000, "max_retry_delay_ms": 10}},
            "/recovery_config/base_retry_delay_ms",
            "contradiction",
        ),
        ({"on_error": "stop", "retry": {"attempts": 2}}, "/retry", "contradiction"),
        ({"on_error": "continue", "critical": True}, "/critical", "contradiction"),
    ],
)
def test_recovery_that_is_refused(fields: JsonObject, pointer: str, code: str) -> None:
    assert mistakes_of(workflow({"a": step(**fields)}))[f"/steps/a{pointer}"] == code


def test_the_alternative_of_a_person_is_an_action() -> None:
    half: JsonObject = {"id": "x", "input": [{"path": "title", "set": "Please"}]}
    raw = workflow({"t": task(alternatives=[half])})
    assert mistakes_of(raw) == {"/steps/t/alternatives/0": "contradiction"}
    call: JsonObject = {"id": "y", "do": {"action": "call_api"}}
    run = Run(workflow({"t": task(timeout_seconds=5)}, alternatives=[half, call]))
    run.go()
    assert run.pass_time(5)[2:] == ["alternative_selected t y", "step_started t~alt.y #1"]


def test_only_actions_have_alternatives() -> None:
    other = [{"id": "x", "do": {"action": "call_api"}}]
    raw = workflow({"w": wait(None, 5, alternatives=other)})
    assert mistakes_of(raw) == {"/steps/w/alternatives/0": "contradiction"}


@pytest.mark.parametrize(
    ("raw", "mistakes"),
    [
        ({}, {}),
        ({"total_budget_ms": 5, "jitter": True, "backoff_multiplier": 1}, {}),
        ([], {"/recovery": "not_an_object"}),
        ({"retry_attempts": 101}, {"/recovery/retry_attempts": "out_of_range"}),
        ({"retry_attempts": 1.5}, {"/recovery/retry_attempts": "bad_value"}),
        ({"backoff_multiplier": 0.5}, {"/recovery/backoff_multiplier": "out_of_range"}),
        ({"enable_alternative_flows": "yes"}, {"/recovery/enable_alternative_flows": "bad_value"}),
        ({"answer_timeout_ms": 0}, {"/recovery/answer_timeout_ms": "out_of_range"}),
        ({"attempts": 1}, {"/recovery/attempts": "unknown_field"}),
        (
            {"base_retry_delay_ms": 9, "max_retry_delay_ms": 8},
            {"/recovery/base_retry_delay_ms": "contradiction"},
        ),
    ],
)
def test_settings_are_read_strictly(raw: Any, mistakes: dict[str, str]) -> None:
    found: list[Any] = []
    read_recovery_config(raw, "/recovery", found)
    assert {each.pointer: each.code for each in found} == mistakes
