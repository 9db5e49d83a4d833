"""The description of the interface (OpenAPI 3.1), made from the routes."""

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from domain.events import PAYLOADS
from interfaces.http.body import JSON_TYPE, YAML_TYPES, DefinitionRoute
from interfaces.http.problems import Problem

DESCRIPTION: Final = """
Run workflows and read their ledger.

* **Commands** answer `202` (`200` when it is done) with the whole execution, its `ETag` and its
  `position`. Send an `Idempotency-Key` with every POST and repeat it freely.
* **Reading one** execution is always current. `If-None-Match` answers `304`; `Prefer: wait=N` waits
  up to 30 s for its end, or with `If-None-Match` for its next change. How often to poll is in
  `Retry-After`; the event stream is better.
* **Lists** come from tables that follow within moments; `min_position` waits for your own write.
* **Problems** are `application/problem+json` (RFC 9457). `errors` points at each mistake; `code`
  is stable and explained at `/problems/{code}`.
* **Bodies** are JSON in UTF-8, definitions also YAML (`application/yaml`): at most 1 MB, 64 levels,
  10,000 members; no repeated members, no NaN. Unknown members and unknown query parameters are
  refused.

Topics of events, which stay for ever:
"""
_YAML: Final = (
    f"`{JSON_TYPE}`, or YAML as `{YAML_TYPES[0]}` (older names: "
    + ", ".join(f"`{each}`" for each in YAML_TYPES[1:])
    + ")."
)
_REF: Final = "#/components/schemas/{model}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once per app."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=version("flowledger"),
            openapi_version="3.1.0",
            description=DESCRIPTION + _topics(),
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            routes=app.routes,
        )
        _describe_yaml(app, document)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(by_alias=True, ref_template=_REF)
        schemas |= problem.pop("$defs", {}) | {"Problem": problem}
        app.openapi_schema = document
    return app.openapi_schema


def _describe_yaml(app: FastAPI, document: dict[str, Any]) -> None:
    """What takes a definition takes it in YAML too."""
    for route in app.routes:
        if not isinstance(route, DefinitionRoute) or route.body_field is None:
            continue
        for method in route.methods or ():
            body = document["paths"][route.path_format][method.lower()]["requestBody"]
            body["description"] = _YAML
            body["content"][YAML_TYPES[0]] = {"schema": body["content"][JSON_TYPE]["schema"]}


def _topics() -> str:
    lines = (f"* `{each.TOPIC}`: {(each.__doc__ or '').splitlines()[0]}" for each in PAYLOADS)
    return "\n" + "\n".join(lines) + "\n"
