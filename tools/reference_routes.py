"""The page of routes, from the OpenAPI document that the server gives out at /openapi.json."""

import re
from collections.abc import Iterator
from typing import Any, Final

from interfaces.http.app import create_app
from tools.markdown import table

Part = dict[str, Any]  # a part of an OpenAPI document
_METHODS: Final = ("get", "post", "put", "delete")
_INTRODUCTION: Final = """# Routes

The REST interface; `/docs` of a running server has the same with forms to try, `/openapi.json` the
whole description. Bodies and answers are JSON; where a body may be YAML too, the route says so.
Every refusal is `application/problem+json`; [errors](errors.md) lists the codes,
[limits](limits.md) the bounds.

Every command (POST, PUT, DELETE) takes these headers:

| header | meaning |
| --- | --- |
"""
_COMMAND_HEADERS: Final = ("Idempotency-Key", "If-Match", "X-Actor", "X-Correlation-ID")
_CODE: Final = re.compile(r"`([a-z_]+)`:")
_REF: Final = "#/components/schemas/"


def routes_page() -> str:
    """The page."""
    document = openapi()
    sections: dict[str, list[str]] = {}
    headers: dict[str, str] = {}
    for method, path, operation in operations(document):
        for each in operation.get("parameters", ()):
            if each["name"] in _COMMAND_HEADERS:
                headers[each["name"]] = each.get("description", "")
        tag = operation["tags"][0]
        sections.setdefault(tag, []).append(_section(method, path, operation, document))
    listed = "".join(f"| `{name}` | {headers[name]} |\n" for name in _COMMAND_HEADERS)
    return (
        _INTRODUCTION
        + listed
        + "".join(f"\n## {tag.capitalize()}\n" + "".join(parts) for tag, parts in sections.items())
    )


def openapi() -> Part:
    """The document of this build. Routes look at the services only when they are called."""
    document: Part = create_app(None).openapi()  # type: ignore[arg-type]  # no request is made
    return document


def operations(document: Part) -> Iterator[tuple[str, str, Part]]:
    """(METHOD, path, operation) of every route."""
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def _section(method: str, path: str, operation: Part, document: Part) -> str:
    old = " *Older name.*" if operation.get("deprecated") else ""
    said = operation.get("description") or operation.get("summary") or ""
    text = " ".join(said.split())
    parts = [f"\n### {method} {path}\n\n{text}{old}\n\n"]
    parameters = [
        (
            f"`{each['name']}`",
            each["in"],
            _type(each["schema"], document) + _default(each["schema"]),
            each.get("description", ""),
        )
        for each in operation.get("parameters", ())
        if each["name"] not in _COMMAND_HEADERS
    ]
    if parameters:
        parts.append(table(("parameter", "in", "type", "meaning"), parameters) + "\n")
    members = list(_members(operation, document))
    taken = operation.get("requestBody", {}).get("description")
    if taken:
        parts.append(f"Content-Type: {taken}\n\n")
    if members:
        parts.append(table(("body", "type", "meaning"), members) + "\n")
    parts.append(_answers(operation))
    return "".join(parts)


def _members(operation: Part, document: Part) -> Iterator[tuple[str, str, str]]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = _resolved(content.get("application/json", {}).get("schema", {}), document)
    needed = schema.get("required", ())
    for name, member in schema.get("properties", {}).items():
        note = "Needed. " if name in needed else ""
        shown = _type(member, document) + _default(member)
        described = _resolved(member, document).get("description", "")
        yield f"`{name}`", shown, (note + " ".join(described.split())).strip()


def _default(schema: Part) -> str:
    value = schema.get("default")
    return "" if value in (None, {}) else f", default `{str(value).lower()}`"


def _resolved(schema: Part, document: Part) -> Part:
    """The schema that a reference, or the one real choice of an optional member, leads to."""
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            merged = {**_resolved(each, document), **schema}
            merged.pop("anyOf")
            return merged
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Part = document["components"]["schemas"][reference.removeprefix(_REF)]
    return _resolved(found, document)


def _type(schema: Part, document: Part) -> str:
    real = _resolved(schema, document)
    if "enum" in real:
        return ", ".join(f"`{each}`" for each in real["enum"])
    if "const" in real:
        return f"`{real['const']}`"
    kind = real.get("type", "JSON")
    kind = " or ".join(each for each in kind if each != "null") if isinstance(kind, list) else kind
    if kind == "array":
        return f"list of {_type(real['items'], document)}"
    if kind == "string":
        kind = "time" if real.get("format") == "date-time" else "text"
    low = real.get("minimum", real.get("minLength"))
    high = real.get("maximum", real.get("maxLength"))
    if high is not None:
        return f"{kind}, {low or 0:,.0f} to {high:,.0f}" + (" characters" if kind == "text" else "")
    return f"{kind}, at least {low:,.0f}" if low else kind


def _answers(operation: Part) -> str:
    good, refusals = [], []
    for status, answer in sorted(operation["responses"].items()):
        described = " ".join(answer.get("description", "").split())
        codes = _CODE.findall(described) if described.startswith("`") else []
        if codes and int(status) >= 400:
            refusals.append(f"{status} " + " ".join(f"`{code}`" for code in codes))
        else:
            good.append(f"- {status}: {described}\n")
    if refusals:
        good.append(f"- Refusals: {', '.join(refusals)}\n")
    return "".join(good)
