"""Commands about definitions: workflow validate, publish, list, show."""

import json
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Annotated, Final

import typer

from domain.json_values import Json
from interfaces.cli_engine import check_definition
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_input import DefinitionFile, read_definition
from interfaces.cli_options import with_session, with_target
from interfaces.cli_output import short_time, write_error, write_json, write_line, write_table
from interfaces.cli_session import Body, Session, Target, keyed, open_session, segment

workflow_app = typer.Typer(no_args_is_help=True, help="Check, publish and read definitions.")

_SAMPLES: Final[Mapping[str, Json]] = {
    "string": "...",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "object": {},
}

DefinitionPath = Annotated[
    str, typer.Argument(metavar="FILE", help="A .yaml, .yml or .json file, or - for stdin.")
]


@workflow_app.command("validate")
@with_target
async def validate(target: Target, file: DefinitionPath) -> None:
    """Check a definition; nothing is stored, and without --url no database is asked or made."""
    definition = read_definition(file)
    if target.url is None:
        verdict = await _validate(None, definition)
    else:
        async with open_session(target) as session:
            verdict = await _validate(session, definition)
    if target.as_json:
        write_json(verdict)
    _write_remarks(definition, verdict.get("warnings") or ())
    if not verdict["valid"]:
        raise _invalid(definition, verdict["errors"])
    if not target.as_json:
        write_line(f"{definition.name} is valid.")


@workflow_app.command("publish")
@with_session
async def publish(
    session: Session,
    file: DefinitionPath,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key of this publication.")] = None,
) -> None:
    """Store a definition as the next version of its name."""
    definition = read_definition(file)
    verdict = await _validate(session, definition)
    _write_remarks(definition, verdict.get("warnings") or ())
    if not verdict["valid"]:
        raise _invalid(definition, verdict["errors"])
    if not isinstance(definition.value, dict):
        raise CommandFailed(ExitCode.INVALID, f"{definition.name} holds no definition.")
    published = (await session.post("/workflows", definition.value, headers=keyed(key))).body
    if session.as_json:
        write_json(published)
        return
    name = published["name"]
    write_line(f"Published {name} version {published['version']} ({published['workflow_id']}).")
    write_error(f"Run it: flowledger execute {name}{_sample_input(definition.value)} --watch")


@workflow_app.command("list")
@with_session
async def list_workflows(
    session: Session,
    status: Annotated[str | None, typer.Option(help="active, inactive or deleted.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
    page_size: Annotated[int, typer.Option("--limit", min=1, max=200, help="Rows.")] = 20,
) -> None:
    """List the workflows with their newest version."""
    query = {"status": status, "page": page, "page_size": page_size}
    found = (await session.get("/workflows", query)).body
    if session.as_json:
        write_json(found)
        return
    rows = [
        (each["name"], each["version"], each["status"], short_time(each["updated_at"]))
        for each in found["items"]
    ]
    write_table(("NAME", "VERSION", "STATUS", "UPDATED"), rows)
    write_line(f"{len(rows)} of {found['total']}")


@workflow_app.command("show")
@with_session
async def show(
    session: Session,
    workflow: Annotated[str, typer.Argument(help="A workflow's name, `wf-<name>-<n>` or id.")],
    version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None,
) -> None:
    """Show a definition as it was published."""
    path = f"/workflows/{segment(workflow)}"
    found = (await session.get(path if version is None else f"{path}/versions/{version}")).body
    if session.as_json:
        write_json(found)
        return
    write_line(f"{found['name']} version {found['version']}, {found['status']}")
    write_line(f"published {short_time(found['created_at'])} by {found['created_by']}")
    write_line(json.dumps(found["workflow_data"], indent=2, ensure_ascii=False))


def _sample_input(definition: Body) -> str:
    """The option that gives every input which the definition requires, with values to replace."""
    schema = definition.get("input_schema")
    required = schema.get("required") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not required:
        return ""
    properties = schema.get("properties") or {}
    sample = {name: _sample_value(properties.get(name)) for name in required}
    return f" --input {quote(json.dumps(sample, ensure_ascii=False))}"


def _sample_value(schema: Json) -> Json:
    """A value that a simple schema accepts."""
    if not isinstance(schema, dict):
        return "..."
    if "const" in schema:
        return schema["const"]
    if "default" in schema:
        return schema["default"]
    for given in (schema.get("examples"), schema.get("enum")):
        if isinstance(given, list) and given:
            return given[0]
    kind = schema.get("type")
    name = kind[0] if isinstance(kind, list) and kind else kind
    return _SAMPLES.get(name) if isinstance(name, str) else "..."


async def _validate(session: Session | None, definition: DefinitionFile) -> Body:
    if not isinstance(definition.value, dict):
        message = "a definition is a mapping with name, start_step and steps"
        errors = [{"pointer": "", "code": "not_an_object", "message": message}]
        return {"valid": False, "errors": errors, "warnings": [], "definition": None}
    if session is None:
        return check_definition(definition.value)
    answer = await session.post("/workflows/validate", definition.value)
    verdict: Body = answer.body
    return verdict


def _write_remarks(definition: DefinitionFile, warnings: Sequence[Body]) -> None:
    for warning in warnings:
        place = definition.place(warning["pointer"])
        write_error(f"Warning: {place}: {warning['message']}")


def _invalid(definition: DefinitionFile, errors: Sequence[Body]) -> CommandFailed:
    count = "1 mistake" if len(errors) == 1 else f"{len(errors)} mistakes"
    lines = [f"{definition.name} has {count}:"]
    lines += [
        f"  {definition.place(error['pointer'])}: {error['message']} [{error['code']}]"
        for error in sorted(errors, key=lambda error: definition.line(error["pointer"]))
    ]
    return CommandFailed(ExitCode.INVALID, "\n".join(lines), "Correct the file, then try again.")
