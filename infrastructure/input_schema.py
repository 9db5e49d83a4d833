"""JSON Schema of inputs and of validated data by jsonschema-rs: linear-time patterns, and no look
at the network or at files.
"""

from collections import OrderedDict
from typing import Final, NoReturn

import jsonschema_rs

from domain.json_values import Json, canonical_bytes, pointer_join
from domain.mistakes import Mistake

_KEPT: Final = 500
_MISTAKES_MAX: Final = 100


class JsonSchemas:
    """Compiled schemas by content."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, jsonschema_rs.Draft202012Validator] = OrderedDict()

    def problem(self, schema: Json) -> str | None:
        """What is wrong with a schema, or None."""
        try:
            self._validator(schema)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            return f"This is not a usable JSON Schema: {str(error).splitlines()[0][:500]}"
        return None

    def mistakes(self, schema: Json, value: Json, root: str = "/input_data") -> list[Mistake]:
        """What of `value` does not fit, with pointers under `root`."""
        found: list[Mistake] = []
        for error in self._validator(schema).iter_errors(value):
            where = pointer_join(root, *error.instance_path)
            found.append(Mistake(where, "schema", error.message[:500]))
            if len(found) >= _MISTAKES_MAX:
                break
        return found

    def _validator(self, schema: Json) -> jsonschema_rs.Draft202012Validator:
        key = canonical_bytes(schema)
        known = self._compiled.get(key)
        if known is None:
            if not isinstance(schema, dict | bool):
                raise ValueError("a JSON Schema is an object, true or false")
            known = jsonschema_rs.Draft202012Validator(
                schema, retriever=_refuse, validate_formats=True
            )
            self._compiled[key] = known
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return known


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"remote references are not followed: {uri[:200]}")
