"""The work of a `validate` step: data against a JSON Schema, with what its assertions came to.

The planner hands over `{data, validation_schema, assertions, validation_mode}` with the assertions
judged already. Nothing is read but that: remote references are refused.
"""

from collections.abc import Iterator

from application.steps import StepContext, StepFailure
from domain.json_values import Json, JsonObject
from domain.mistakes import Mistake
from infrastructure.input_schema import JsonSchemas

_MISTAKES_MAX = 100


class Validate:
    """Output: `{valid, errors: [{kind, pointer, message}]}`; in strict mode an error fails it."""

    name = "validate"
    touches_outside = False

    def __init__(self, schemas: JsonSchemas) -> None:
        self._schemas = schemas

    def check(self, config: JsonObject, pointer: str) -> Iterator[Mistake]:
        """It is a kind of step, not an action that a definition names."""
        message = 'Write a step of type "validate" instead of an action.'
        yield Mistake(pointer, "unknown_action", message)

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        errors = [*self._by_schema(config), *_assertions(config)][:_MISTAKES_MAX]
        output: JsonObject = {"valid": not errors, "errors": list(errors)}
        if errors and config.get("validation_mode") != "warn":
            first = errors[0]
            raise StepFailure(
                "validation_failed",
                f"the data has {len(errors)} fault{'s'[: len(errors) - 1]}; the first: "
                f"{first['pointer'] or 'the whole'}: {first['message']}",
                error_class="permanent",
                output=output,
            )
        return output

    def _by_schema(self, config: JsonObject) -> Iterator[JsonObject]:
        schema = config.get("validation_schema")
        if schema is None:
            return
        for mistake in self._schemas.mistakes(schema, config.get("data"), root=""):
            yield {"kind": "schema", "pointer": mistake.pointer, "message": mistake.message}


def _assertions(config: JsonObject) -> Iterator[JsonObject]:
    judged = config.get("assertions")
    for index, each in enumerate(judged if isinstance(judged, list) else []):
        if isinstance(each, dict) and each.get("holds") is not True:
            message = f"the assertion does not hold: {_words(each.get('assertion'))}"
            if each.get("error"):
                message = f"{message} ({each['error']})"
            yield {"kind": "assertion", "pointer": f"/assertions/{index}", "message": message}


def _words(source: Json) -> str:
    if not isinstance(source, dict):
        return str(source)
    if "expression" in source:
        return str(source["expression"])
    return f"{source.get('field')} {source.get('operator')} {source.get('value')}"
