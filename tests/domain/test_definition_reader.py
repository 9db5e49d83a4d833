"""From what is sent to the normalised form: defaults, spellings, W's list, and what is refused."""

from typing import Any

import pytest

from domain.definition import ActionStep, ConditionalStep, HumanTaskStep, WaitStep
from domain.recovery_stages import RetryPolicy
from domain.references import compile_template
from domain.validation import validate
from tests.builders import Actions, branch, compiled, linear, normalised, step, task, wait, workflow

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


def steps_of(raw: Any) -> Any:
    return normalised(raw)["steps"]


def with_step(**fields: Any) -> dict[str, Any]:
    return workflow({"a": step(**fields)})


# --- the normal form ---


def test_all_defaults_are_written_out() -> None:
    form = normalised({"name": "w", "start_step": "a", "steps": {"a": {"action": "call_api"}}})
    assert form == {
        "name": "w",
        "description": None,
        "start_step": "a",
        "steps": {
            "a": {
                "id": "a",
                "type": "action",
                "name": "a",
                "description": None,
                "next_step": None,
                "critical": True,
                "recovery": [],
                "recovery_config": None,
                "compensate_with": None,
                "timeout_seconds": 300,
                "conditions": [],
                "action": "call_api",
                "config": {},
                "input_mapping": {},
                "idempotency": "attempt",
            }
        },
        "alternatives": [],
        "timeout_seconds": None,
        "input_schema": None,
        "output": None,
    }


FORMS: list[Any] = [
    linear(3),
    workflow(
        {
            "a": step("w", on_error="retry", retry={"attempts": 5}, conditions=["true"]),
            "w": wait("c", "${workflow.input.ms}"),
            "c": branch("${a.output.ok}", "t", "e", "h", timeout_seconds=5, name="Choose"),
            "t": step(critical=False, idempotency="try"),
            "e": step(input_mapping={"x": "${a.output}"}),
            "h": task(None, critical=False),
        },
        timeout_seconds=60,
        output={"x": "${a.output}"},
        input_schema={"type": "object"},
        description="all of it",
    ),
    {
        "name": "w",
        "actions": [
            {"type": "wait", "config": {"durationMs": 5}},
            {"type": "condition", "config": {"field": "step.0.waited", "operator": "exists"}},
            {"type": "call_api", "timeout": 1500, "onError": "retry", "conditions": ["true"]},
            {"type": "create_task", "config": {"title": "t"}, "onError": "continue"},
        ],
    },
]


@pytest.mark.parametrize("raw", FORMS)
def test_normalising_twice_changes_nothing(raw: Any) -> None:
    once = normalised(raw)
    assert normalised(once) == once


@pytest.mark.parametrize(
    ("fields", "critical", "recovery"),
    [
        ({}, True, []),
        ({"on_error": "stop"}, True, []),
        ({"on_error": "continue"}, False, []),
        ({"on_error": "retry"}, True, [RETRY]),
        ({"retry": {}}, True, [RETRY]),
        ({"retry": {"attempts": 0}, "critical": False}, False, [RETRY | {"attempts": 0}]),
        ({"on_error": "retry", "retry": {"multiplier": 3}}, True, [RETRY | {"multiplier": 3.0}]),
        ({"recovery": [{"kind": "retry", "attempts": 7}]}, True, [RETRY | {"attempts": 7}]),
        ({"recovery": []}, True, []),
    ],
)
def test_the_ways_to_say_what_failure_means(
    fields: dict[str, Any], critical: bool, recovery: list[Any]
) -> None:
    form = steps_of(with_step(**fields))["a"]
    assert (form["critical"], form["recovery"]) == (critical, recovery)


def test_spellings_of_a_conditional_are_one() -> None:
    told = {"type": "conditional", "condition": "true", "then_step": "t", "else_step": "e"}
    full = {
        "type": "conditional",
        "condition": {"expression": "true"},
        "if_true_step": "t",
        "if_false_step": "e",
    }
    forms = [steps_of(workflow({"c": c, "t": step(), "e": step()})) for c in (told, full)]
    assert forms[0] == forms[1]


@pytest.mark.parametrize(
    "spelled",
    [
        {"action": "wait", "config": {"durationMs": 5}},
        {"action": "delay", "config": {"duration_ms": 5}},
        {"action": "wait", "duration_ms": 5},
        {"action": "wait", "config": {}, "input_mapping": {"durationMs": 5}},
        {"type": "wait", "duration_ms": 5},
    ],
)
def test_spellings_of_a_wait_are_one(spelled: dict[str, Any]) -> None:
    assert steps_of(workflow({"w": spelled})) == steps_of(workflow({"w": wait(None, 5)}))


def test_a_wait_is_a_second_unless_told_otherwise() -> None:
    assert steps_of(workflow({"w": {"type": "wait"}}))["w"]["duration_ms"] == 1_000


def test_fields_of_older_clients_and_own_ones_pass() -> None:
    raw = with_step(metadata={"x": 1}, **{"x-position": [1, 2]})
    assert mistakes({**raw, "workflow_id": "wf-w-1", "version": "1", "x-owner": "ann"}) == {}


# --- what is refused, and where ---


@pytest.mark.parametrize("raw", [None, 1, "text", [], True])
def test_a_definition_is_an_object(raw: Any) -> None:
    assert mistakes(raw) == {"": "not_an_object"}


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"name": None}, "/name", "bad_identifier"),
        ({"name": "a b"}, "/name", "bad_identifier"),
        ({"name": "ü"}, "/name", "bad_identifier"),
        ({"name": "x" * 129}, "/name", "bad_identifier"),
        ({"name": "a\n"}, "/name", "bad_identifier"),
        ({"name": "wf-orders-3"}, "/name", "reserved_name"),
        ({"name": "019c0000-0000-7000-8000-000000000001"}, "/name", "reserved_name"),
        ({"name": "validate"}, "/name", "reserved_name"),
        ({"name": ".."}, "/name", "reserved_name"),
        ({"description": 1}, "/description", "bad_value"),
        ({"description": "x" * 4_097}, "/description", "bad_value"),
        ({"start_step": None}, "/start_step", "missing_start"),
        ({"start_step": 5}, "/start_step", "missing_start"),
        ({"start_step": "nowhere"}, "/start_step", "missing_start"),
        ({"steps": None}, "/steps", "missing_steps"),
        ({"steps": {}}, "/steps", "missing_steps"),
        ({"steps": []}, "/steps", "missing_steps"),
        ({"actions": []}, "/actions", "contradiction"),
        ({"timeout_seconds": 0}, "/timeout_seconds", "out_of_range"),
        ({"timeout_seconds": True}, "/timeout_seconds", "out_of_range"),
        ({"timeout_seconds": 31_536_001}, "/timeout_seconds", "out_of_range"),
        ({"input_schema": 3}, "/input_schema", "bad_value"),
        ({"atomic_mode": "strict"}, "/atomic_mode", "not_available_yet"),
        ({"recovery": {}}, "/recovery", "not_available_yet"),
        ({"alternatives": {}}, "/alternatives", "bad_value"),
        ({"on_complete": {}}, "/on_complete", "not_available_yet"),
        ({"stepz": {}}, "/stepz", "unknown_field"),
        ({"a/b~c": {}}, "/a~1b~0c", "unknown_field"),
    ],
)
def test_mistakes_of_the_definition(change: dict[str, Any], pointer: str, code: str) -> None:
    assert mistakes({**linear(1), **change})[pointer] == code


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"id": "b"}, "/id", "id_mismatch"),
        ({"name": 1}, "/name", "bad_value"),
        ({"next_step": 1}, "/next_step", "bad_value"),
        ({"next_step": ""}, "/next_step", "bad_value"),
        ({"timeout_seconds": -1}, "/timeout_seconds", "out_of_range"),
        ({"critical": "yes"}, "/critical", "bad_value"),
        ({"on_error": "explode"}, "/on_error", "bad_value"),
        ({"on_error": []}, "/on_error", "bad_value"),
        ({"on_error": "continue", "critical": True}, "/critical", "contradiction"),
        ({"on_error": "stop", "critical": False}, "/critical", "contradiction"),
        ({"on_error": "stop", "retry": {}}, "/retry", "contradiction"),
        ({"on_error": "stop", "recovery": []}, "/recovery", "contradiction"),
        ({"recovery": {}}, "/recovery", "bad_value"),
        ({"recovery": [{"kind": "alternative"}]}, "/recovery/0/id", "bad_identifier"),
        ({"recovery": [{"kind": "retry"}] * 2}, "/recovery/1", "contradiction"),
        ({"retry": 3}, "/retry", "bad_value"),
        ({"retry": {"attempts": 101}}, "/retry/attempts", "out_of_range"),
        ({"retry": {"attempts": 1.5}}, "/retry/attempts", "bad_value"),
        ({"retry": {"attempts": True}}, "/retry/attempts", "bad_value"),
        ({"retry": {"multiplier": 0.5}}, "/retry/multiplier", "out_of_range"),
        ({"retry": {"base_delay_ms": -1}}, "/retry/base_delay_ms", "out_of_range"),
        ({"retry": {"max_delay_ms": None}}, "/retry/max_delay_ms", "bad_value"),
        ({"retry": {"jitter": 1}}, "/retry/jitter", "bad_value"),
        ({"conditions": {}}, "/conditions", "bad_value"),
        ({"conditions": ["true"] * 101}, "/conditions", "bad_value"),
        ({"conditions": [1]}, "/conditions/0", "bad_condition"),
        ({"conditions": ["1 +"]}, "/conditions/0", "bad_condition"),
        ({"conditions": [{"expression": "1 +"}]}, "/conditions/0/expression", "bad_condition"),
        ({"conditions": [{"field": "trigger.x"}]}, "/conditions/0", "bad_condition"),
        ({"conditions": [{"expression": "true", "value": 1}]}, "/conditions/0", "bad_condition"),
        ({"conditions": [{"expression": "true", "not": 1}]}, "/conditions/0/not", "unknown_field"),
        (
            {"conditions": [{"field": "trigger.x", "operator": "near", "value": 1}]},
            "/conditions/0/operator",
            "bad_condition",
        ),
        ({"action": ""}, "/action", "unknown_action"),
        ({"action": 5}, "/action", "unknown_action"),
        ({"action": "explode"}, "/action", "unknown_action"),
        ({"config": []}, "/config", "bad_value"),
        ({"input_mapping": 1}, "/input_mapping", "bad_value"),
        ({"config": {"bad": 1}}, "/config/bad", "bad_value"),
        ({"input_mapping": {"bad": 1}}, "/input_mapping/bad", "bad_value"),
        ({"idempotency": "never"}, "/idempotency", "bad_value"),
        ({"duration_ms": 5}, "/duration_ms", "unknown_field"),
        ({"type": "teleport"}, "/type", "unknown_type"),
        ({"type": None}, "/type", "unknown_type"),
        ({"action": "wait", "config": 5}, "/config", "bad_value"),
        ({"action": "wait", "config": {"ms": 5}}, "/config/ms", "unknown_field"),
        (
            {"action": "wait", "duration_ms": 1, "config": {"durationMs": 2}},
            "/config",
            "contradiction",
        ),
        (
            {"action": "wait", "config": {"durationMs": 1, "duration_ms": 2}},
            "/config",
            "contradiction",
        ),
        ({"action": "condition"}, "/config", "bad_condition"),
        (
            {"action": "condition", "config": {"expression": "1 +"}},
            "/config/expression",
            "bad_condition",
        ),
        ({"type": "wait", "action": "wait"}, "/action", "unknown_field"),
        ({"type": "wait", "duration_ms": -1}, "/duration_ms", "out_of_range"),
        ({"type": "wait", "duration_ms": 31_536_000_001}, "/duration_ms", "out_of_range"),
        ({"type": "wait", "duration_ms": None}, "/duration_ms", "out_of_range"),
        ({"type": "conditional"}, "/condition", "bad_condition"),
        (
            {"type": "conditional", "condition": "true", "then_step": "x", "if_true_step": "x"},
            "/then_step",
            "contradiction",
        ),
        ({"type": "conditional", "condition": "true", "then_step": 4}, "/then_step", "bad_value"),
        ({"action": "create_task", "config": {}}, "/config/title", "missing_field"),
        ({"action": "create_task", "config": {"title": 5}}, "/config/title", "missing_field"),
        (
            {"action": "create_task", "config": {"title": "t", "priority": "NOW"}},
            "/config/priority",
            "bad_value",
        ),
        (
            {"action": "create_task", "config": {"title": "t", "wait": 1}},
            "/config/wait",
            "bad_value",
        ),
        ({"action": "create_task", "config": {"title": "t", "x": 1}}, "/config/x", "unknown_field"),
    ],
)
def test_mistakes_of_a_step(fields: dict[str, Any], pointer: str, code: str) -> None:
    raw: Any = {"name": "w", "start_step": "a", "steps": {"a": {"action": "call_api"} | fields}}
    if "type" in fields and fields["type"] in ("wait", "conditional") and "action" not in fields:
        del raw["steps"]["a"]["action"]
    found = [(mistake.pointer, mistake.code) for mistake in validate(raw, Actions()).mistakes]
    assert (f"/steps/a{pointer}", code) in found


def test_fields_that_come_later_are_refused() -> None:
    assert mistakes(with_step(on_failure={})) == {"/steps/a/on_failure": "not_available_yet"}


@pytest.mark.parametrize("value", [1, "x", None, []])
def test_a_step_is_an_object(value: Any) -> None:
    assert mistakes(workflow({"a": value}))["/steps/a"] == "not_an_object"


@pytest.mark.parametrize(
    ("step_id", "code"),
    [
        ("", "bad_identifier"),
        ("a b", "bad_identifier"),
        ("a/b", "bad_identifier"),
        ("a[0]", "bad_identifier"),
        ("a~b", "bad_identifier"),
        ("x" * 129, "bad_identifier"),
        (".", "reserved_name"),
        ("..", "reserved_name"),
        ("secret", "reserved_name"),
        ("secret.x", "reserved_name"),
        ("undo", "reserved_name"),
        ("undo.input.x", "reserved_name"),
        ("workflow_input", "reserved_name"),
        ("workflow.input", "reserved_name"),
        ("workflow.input.x", "reserved_name"),
        ("loop.item", "reserved_name"),
        ("loop.is_last.x", "reserved_name"),
        ("a.output", "reserved_name"),
        ("a.output_data.b", "reserved_name"),
    ],
)
def test_step_ids(step_id: str, code: str) -> None:
    assert (
        code in mistakes({"name": "w", "start_step": step_id, "steps": {step_id: step()}}).values()
    )


@pytest.mark.parametrize("step_id", ["secrets", "workflow.inputs", "loop", "loop.items", "undo.x"])
def test_an_id_is_what_a_reference_to_it_means(step_id: str) -> None:
    config = {"v": f"${{{step_id}.output.x}}"}
    assert mistakes(workflow({step_id: step("b"), "b": step(config=config)})) == {}
    [(_, reference)] = compile_template({**config}).references
    assert (reference.root, reference.step_id, reference.path) == ("step", step_id, ("x",))


def test_all_mistakes_are_found_at_once() -> None:
    raw: Any = {
        "name": "no good",
        "start_step": "a",
        "steps": {
            "a": {"type": "magic", "next_step": "b"},
            "b": step("c", on_error="explode", config={"password": "hunter2"}),
            "c": step("nowhere", conditions=["1 +"], action="explode"),
        },
        "output": "${z.output}",
        "more": 1,
    }
    assert mistakes(raw) == {
        "/name": "bad_identifier",
        "/steps/a/type": "unknown_type",
        "/steps/b/on_error": "bad_value",
        "/steps/b/config/password": "literal_credential",
        "/steps/c/next_step": "dangling_next",
        "/steps/c/conditions/0": "bad_condition",
        "/steps/c/action": "unknown_action",
        "/output": "bad_reference",
        "/more": "unknown_field",
    }


# --- limits: at the limit and one more ---


def test_a_definition_has_at_most_1000_steps() -> None:
    assert mistakes(linear(1_000)) == {}
    assert mistakes(linear(1_001)) == {"/steps": "too_many_steps"}


def test_identifiers_have_at_most_128_characters() -> None:
    for length, wanted in ((128, set()), (129, {"bad_identifier"})):
        name = "x" * length
        raw = {"name": name, "start_step": name, "steps": {name: step()}}
        assert set(mistakes(raw).values()) == wanted


def test_a_step_is_retried_at_most_100_times() -> None:
    assert mistakes(with_step(retry={"attempts": 100})) == {}
    assert mistakes(with_step(retry={"attempts": 101})) == {
        "/steps/a/retry/attempts": "out_of_range"
    }


def test_times_are_at_most_a_year() -> None:
    assert mistakes(with_step(timeout_seconds=31_536_000)) == {}
    assert mistakes(workflow({"w": wait(None, 31_536_000_000)})) == {}


def test_a_definition_has_at_most_10000_members_and_64_levels() -> None:
    assert set(mistakes(with_step(config={str(n): 1 for n in range(10_000)})).values()) == {
        "too_many_keys"
    }
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    assert "too_deep" in mistakes(with_step(config={"x": deep})).values()


# --- compiled ---


def test_compiled_steps_are_what_was_asked_for() -> None:
    definition = compiled(FORMS[1])
    kinds = {step_id: type(each) for step_id, each in definition.steps.items()}
    assert kinds == {
        "a": ActionStep,
        "w": WaitStep,
        "c": ConditionalStep,
        "t": ActionStep,
        "e": ActionStep,
        "h": HumanTaskStep,
    }
    assert definition.steps["t"].parent == "c"
    assert definition.steps["c"].timeout_seconds == 5.0
    assert tuple(definition.main_line()) == ("a", "w", "c", "h")
    first, branch_step = definition.steps["a"], definition.steps["t"]
    (retry,) = first.recovery
    assert isinstance(retry, RetryPolicy)
    assert retry.attempts == 5
    assert isinstance(branch_step, ActionStep)
    assert branch_step.key_per_try
