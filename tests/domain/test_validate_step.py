"""A validate step: its assertions are judged when it begins, its schema is the worker's work."""

from typing import Any

import pytest

from domain.json_values import Json
from domain.planner import running_actions
from domain.validation import validate
from tests.builders import Actions, Run, loop, step, workflow

SCHEMA = {"type": "object", "required": ["total"]}


def checking(**fields: Any) -> dict[str, Any]:
    given = {"data_source": "${workflow.input.order}", "validation_schema": SCHEMA, **fields}
    return {"type": "validate", **given}


def test_the_worker_gets_the_data_the_schema_and_what_the_assertions_came_to() -> None:
    assertions = ["${workflow.input.order.total} > 10", {"expression": "'x' > 1"}]
    run = Run(workflow({"v": checking(assertions=assertions)}), {"order": {"total": 5}})
    run.go()
    assert running_actions(run.definition, run.state) == ["v"]
    assert run.state.steps["v"].action == "validate"
    given: Any = run.state.steps["v"].input
    assert given["data"] == {"total": 5}
    assert given["validation_schema"] == SCHEMA
    assert given["validation_mode"] == "strict"
    first, second = given["assertions"]
    assert (first["holds"], first["error"]) == (False, None)
    assert (second["holds"], "cannot compare" in second["error"]) == (False, True)


def test_a_schema_is_never_taken_for_a_template() -> None:
    schema = {"pattern": "^${", "properties": {"$.a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {}}}
    run = Run(workflow({"v": checking(validation_schema=schema)}), {"order": 1})
    run.go()
    given: Any = run.state.steps["v"].input
    assert given["validation_schema"] == schema


def test_it_sees_the_iteration_around_it() -> None:
    steps = {
        "each": loop([{"n": 1}, {"n": 2}], ["v"]),
        "v": checking(data_source="${loop.item}", assertions=["${loop.item.n} > 1"]),
    }
    run = Run(workflow(steps))
    run.go()
    run.succeed("each[0]/v", {"valid": False})
    given: Any = run.state.steps["each[1]/v"].input
    assert (given["data"], given["assertions"][0]["holds"]) == ({"n": 2}, True)


def test_data_that_is_not_there_fails_the_step() -> None:
    run = Run(workflow({"v": checking()}))
    assert run.go()[-2:] == ["step_failed v bad_step_input", "failed critical_step"]


@pytest.mark.parametrize(
    ("step_fields", "place", "code"),
    [
        ({"validation_schema": None}, "validation_schema", "missing_field"),
        ({"validation_schema": "text"}, "validation_schema", "bad_value"),
        ({"assertions": "${a}"}, "assertions", "bad_value"),
        ({"assertions": ["1 +"]}, "assertions/0", "bad_condition"),
        ({"assertions": ["${later.output} == 1"]}, "assertions/0", "bad_reference"),
        ({"validation_mode": "loose"}, "validation_mode", "bad_value"),
        ({"data_source": "${later.output}"}, "data_source", "bad_reference"),
        ({"config": {}}, "config", "unknown_field"),
    ],
)
def test_mistakes_are_found_at_registration(
    step_fields: dict[str, Any], place: str, code: str
) -> None:
    raw: Json = workflow({"v": checking(next_step="later", **step_fields), "later": step()})
    found = [(each.pointer, each.code) for each in validate(raw, Actions()).mistakes]
    assert found == [(f"/steps/v/{place}", code)]


def test_a_schema_is_checked_at_registration() -> None:
    raw: Json = workflow({"v": checking()})
    verdict = validate(raw, Actions(), lambda schema: "no good")
    assert [(each.pointer, each.code) for each in verdict.mistakes] == [
        ("/steps/v/validation_schema", "bad_schema")
    ]
