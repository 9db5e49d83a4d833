"""Steps that agents do: from what clients send to what is recorded."""

from typing import Any

import pytest

from domain.definition import ActionStep
from domain.events import StepStarted
from domain.validation import validate
from tests.builders import Actions, Run, agent, compiled, mistakes_of, normalised, step, workflow

OLDER_CLIENT: dict[str, Any] = {
    "workflow_id": "wf-research-1",
    "name": "research",
    "version": "1.0.0",
    "start_step": "fetch",
    "steps": {
        "fetch": {
            "id": "fetch",
            "agent_name": "FetchAgent",
            "next_step": "write",
            "input_mapping": {"topic": "$.workflow_input.topic", "text": "${workflow.input.topic}"},
        },
        "write": {
            "id": "write",
            "type": "agent",
            "agent_name": "Writer Agent",
            "next_step": None,
            "input_mapping": {"data": "${fetch.output.data}", "all": "$.fetch.output_data"},
        },
    },
}


def test_what_older_clients_send_runs_as_it_is() -> None:
    run = Run(OLDER_CLIENT, {"topic": "ledgers"})
    run.go()
    assert run.state.steps["fetch"].input == {"topic": "ledgers", "text": "ledgers"}
    run.succeed("fetch", {"data": [1, 2]})
    assert run.state.steps["write"].input == {"data": [1, 2], "all": {"data": [1, 2]}}
    started = [event.data for event in run.events if isinstance(event.data, StepStarted)]
    assert [fact.action for fact in started] == ["agent:FetchAgent", "agent:Writer Agent"]


def test_the_normal_form_has_all_defaults_and_reads_as_itself() -> None:
    form: Any = normalised(workflow({"a": agent(name="x")}))
    kept = {name: form["steps"]["a"][name] for name in ("type", "agent_name", "idempotency")}
    assert kept == {"type": "agent", "agent_name": "x", "idempotency": "attempt"}
    assert form["steps"]["a"]["timeout_seconds"] == 300
    assert normalised(form) == form


def test_every_place_that_names_an_agent_is_told_as_it_was_written() -> None:
    other = [{"id": "one", "do": {"agent": "y"}}]
    rules = [{"id": "two", "do": {"agent": "z"}}]
    raw = workflow({"a": agent("b", "x"), "b": step(alternatives=other)}, alternatives=rules)
    verdict = validate(raw, Actions())
    assert verdict.mistakes == ()
    assert {(use.pointer, use.agent) for use in verdict.agents} == {
        ("/steps/a/agent_name", "x"),
        ("/steps/b/alternatives/0/do/agent", "y"),
        ("/alternatives/0/do/agent", "z"),
    }
    assert compiled(raw).agents == {"x", "y", "z"}
    declared = compiled(raw).steps["a"]
    assert isinstance(declared, ActionStep)
    assert declared.action == "agent:x"


@pytest.mark.parametrize(
    ("fields", "place", "code"),
    [
        ({"agent_name": None}, "/agent_name", "missing_field"),
        ({"agent_name": ""}, "/agent_name", "bad_identifier"),
        ({"agent_name": "a:b"}, "/agent_name", "bad_identifier"),
        ({"agent_name": "a\n"}, "/agent_name", "bad_identifier"),
        ({"agent_name": " a"}, "/agent_name", "bad_identifier"),
        ({"agent_name": "x" * 129}, "/agent_name", "bad_identifier"),
        ({"agent_name": "${workflow.input.x}"}, "/agent_name", "bad_identifier"),
        ({"agent_name": 7}, "/agent_name", "bad_identifier"),
        ({"input_mapping": 7}, "/input_mapping", "bad_value"),
        ({"idempotency": "never"}, "/idempotency", "bad_value"),
        ({"config": {}}, "/config", "unknown_field"),
        ({"input_mapping": {"k": "${secret.KEY}"}}, "/input_mapping/k", "bad_reference"),
        ({"input_mapping": {"password": "hunter2"}}, "/input_mapping/password", None),
        ({"alternatives": [{"id": "x", "do": {"agent": "far"}}]}, "/alternatives/0/do", "cycle"),
        ({"alternatives": [{"id": "x"}]}, "/alternatives/0", "cycle"),
    ],
)
def test_mistakes_have_their_place(fields: dict[str, Any], place: str, code: str | None) -> None:
    found = mistakes_of(workflow({"a": agent(**({"name": "far"})) | fields}))
    assert found == {f"/steps/a{place}": code or "literal_credential"}


def test_a_step_with_neither_type_nor_action_nor_agent_is_told_what_it_lacks() -> None:
    assert mistakes_of(workflow({"a": {}})) == {"/steps/a/agent_name": "missing_field"}


def test_an_action_cannot_be_named_as_an_agent_is() -> None:
    assert mistakes_of(workflow({"a": step(action="agent:x")})) == {
        "/steps/a/action": "unknown_action"
    }
