"""The action `set_variables`: values for later steps, as the step's output.

Config: `{variables: {name: value, ...}}`, or `{name, value}` for one. Output: the variables.
"""

from collections.abc import Iterator, Mapping

from application.steps import StepContext
from domain.json_values import Json, JsonObject
from domain.mistakes import Mistake
from infrastructure.effects.config_fields import (
    ANY,
    OBJECT,
    TEXT,
    Field,
    mistakes_as_written,
    require_valid,
)

MANY: Mapping[str, Field] = {"variables": Field(kinds=OBJECT, required=True)}
ONE: Mapping[str, Field] = {
    "name": Field(kinds=TEXT, required=True),
    "value": Field(kinds=ANY),
}


class SetVariables:
    """Gives its configuration on as output; `name` may be W's `set_variable` as well."""

    touches_outside = False

    def __init__(self, name: str = "set_variables") -> None:
        self.name = name

    def check(self, config: JsonObject, pointer: str) -> Iterator[Mistake]:
        return mistakes_as_written(ONE if "name" in config else MANY, config, pointer)

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        if "name" in config:
            require_valid(ONE, config)
            return {str(config["name"]): config.get("value")}
        require_valid(MANY, config)
        return config["variables"]
