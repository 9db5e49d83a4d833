"""The work of a validate step, through the registry and at registration."""

from typing import Any

import pytest

from application.steps import Failed, Succeeded
from domain.validation import validate
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.effects.validation import Validate
from infrastructure.input_schema import JsonSchemas
from tests.infrastructure.effects.local_servers import step_context

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"total": {"type": "number", "minimum": 1}}}


def registry() -> ActionRegistry:
    return ActionRegistry([Validate(JsonSchemas())], Secrets({}))


async def outcome(data: Any, **fields: Any) -> Any:
    config = {"data": data, "validation_schema": SCHEMA, "validation_mode": "strict", **fields}
    return await registry().perform("validate", config, step_context())


async def test_data_that_fits_is_valid() -> None:
    assert await outcome({"total": 2}) == Succeeded({"valid": True, "errors": []})


async def test_strict_fails_and_lists_every_error() -> None:
    judged = [
        {"assertion": {"expression": "1 > 2"}, "holds": False, "error": None},
        {"assertion": {"field": "a", "operator": "gt", "value": 3}, "holds": True, "error": None},
    ]
    failed = await outcome({"total": 0}, assertions=judged)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.error_class, failed.retryable) == (
        "validation_failed",
        "permanent",
        False,
    )
    assert isinstance(failed.output, dict)
    assert [(each["kind"], each["pointer"]) for each in failed.output["errors"]] == [  # type: ignore[call-overload, index, union-attr]  # objects in lists
        ("schema", "/total"),
        ("assertion", "/assertions/0"),
    ]
    assert "1 > 2" in str(failed.output)


async def test_warn_only_tells() -> None:
    warned = await outcome("text", validation_mode="warn")
    assert isinstance(warned, Succeeded)
    assert isinstance(warned.output, dict)
    assert warned.output["valid"] is False


async def test_assertions_alone_need_no_schema() -> None:
    assert (await outcome(None, validation_schema=None)) == Succeeded({"valid": True, "errors": []})


@pytest.mark.parametrize(
    "where", ["https://example.org/s.json", "file:///etc/passwd", "other.json"]
)
def test_remote_references_are_refused_at_registration(where: str) -> None:
    step = {"type": "validate", "data_source": 1, "validation_schema": {"$ref": where}}
    raw: Any = {"name": "w", "start_step": "v", "steps": {"v": step}}
    mistakes = validate(raw, registry(), JsonSchemas().problem).mistakes
    assert [(each.pointer, each.code) for each in mistakes] == [
        ("/steps/v/validation_schema", "bad_schema")
    ]


def test_it_is_a_kind_of_step_and_no_action() -> None:
    raw: Any = {"name": "w", "start_step": "v", "steps": {"v": {"action": "validate"}}}
    (mistake,) = validate(raw, registry()).mistakes
    assert (mistake.code, "type" in mistake.message) == ("unknown_action", True)
