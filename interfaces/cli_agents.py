"""Commands about agents: agents list, add, show, remove, reseal; make-key."""

import asyncio
from typing import Annotated

import typer

from interfaces.cli_engine import read_settings, start_failures
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_input import read_credential
from interfaces.cli_options import AsJson, Database, with_session
from interfaces.cli_output import short_time, write_error, write_json, write_line, write_table
from interfaces.cli_session import Body, Session, keyed, segment

agents_app = typer.Typer(no_args_is_help=True, help="Register, read and remove agents.")

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="An agent's name or id.")]
_CREDENTIAL = "'${secret.NAME}', @FILE with the credential, or - for stdin."


@agents_app.command("list")
@with_session
async def list_agents(
    session: Session,
    status: Annotated[str | None, typer.Option(help="active, inactive or deleted.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
    page_size: Annotated[int, typer.Option("--limit", min=1, max=200, help="Rows.")] = 20,
) -> None:
    """List the agents by name."""
    query = {"status": status, "page": page, "page_size": page_size}
    found = (await session.get("/agents", query)).body
    if session.as_json:
        write_json(found)
        return
    columns = ("NAME", "STATUS", "TRANSPORT", "URL", "AUTH", "UPDATED")
    names = ("name", "status", "transport", "url", "auth_type")
    rows = [
        [*(each[name] or "-" for name in names), short_time(each["updated_at"])]
        for each in found["items"]
    ]
    write_table(columns, rows)
    write_line(f"{len(rows)} of {found['total']}")


@agents_app.command("add")
@with_session
async def add(
    session: Session,
    name: Annotated[str, typer.Argument(help="A name that no other agent has.")],
    address: Annotated[str | None, typer.Option("--agent-url", help="Where it is called.")] = None,
    description: Annotated[str | None, typer.Option(help="A text for people.")] = None,
    transport: Annotated[str, typer.Option(help="http, pull or kafka.")] = "http",
    protocol: Annotated[str, typer.Option(help="jsonrpc or simple.")] = "jsonrpc",
    timeout_ms: Annotated[int, typer.Option(help="For one call.")] = 30_000,
    bearer: Annotated[str | None, typer.Option(help=f"Bearer token: {_CREDENTIAL}")] = None,
    api_key: Annotated[str | None, typer.Option(help=f"API key: {_CREDENTIAL}")] = None,
    header: Annotated[str | None, typer.Option(help="Header of the API key.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key of this command.")] = None,
) -> None:
    """Register an agent."""
    described = {
        "name": name,
        "url": address,
        "description": description,
        "transport": transport,
        "protocol": protocol,
        "timeout_ms": timeout_ms,
        **_auth(bearer, api_key, header),
    }
    registered = (await session.post("/agents", described, headers=keyed(key))).body
    if session.as_json:
        write_json(registered)
        return
    write_line(f"Registered {registered['name']} ({registered['id']}).")
    if registered["url"]:
        write_error(f"Ask how it is: GET /api/v1/agents/{segment(registered['name'])}/health")


@agents_app.command("show")
@with_session
async def show(session: Session, agent: AgentName) -> None:
    """Show an agent; of its credential a reference or a mask."""
    found = (await session.get(f"/agents/{segment(agent)}")).body
    if session.as_json:
        write_json(found)
        return
    write_line(f"{found['name']}, {found['status']}, version {found['version']}")
    for name in ("id", "url", "description", "transport", "protocol", "auth_type", "timeout_ms"):
        if found[name] is not None:
            write_line(f"{name}: {found[name]}")
    for name in ("auth_config", "retry_config", "circuit_breaker_config", "recovery"):
        if found[name]:
            write_line(f"{name}: " + ", ".join(f"{k} {v}" for k, v in found[name].items()))
    write_line(f"updated {short_time(found['updated_at'])} by {found['updated_by']}")


@agents_app.command("remove")
@with_session
async def remove(session: Session, agent: AgentName) -> None:
    """Take an agent out of use and destroy its credential."""
    gone = (await session.delete(f"/agents/{segment(agent)}")).body
    if session.as_json:
        write_json(gone)
        return
    write_line(gone["message"])


@agents_app.command("reseal")
def reseal(database: Database = None, as_json: AsJson = False) -> None:
    """Seal all credentials with the first key of FLOWLEDGER_ENCRYPTION_KEY.

    Afterwards the other keys may go. Works on the database itself, with or without a server.
    """
    from domain.errors import NoEncryptionKey
    from interfaces.bootstrap import reseal_credentials

    settings = read_settings(database)
    with start_failures(settings):
        try:
            total, changed = asyncio.run(reseal_credentials(settings))
        except NoEncryptionKey as error:
            raise CommandFailed(ExitCode.INVALID, error.message) from error
    if as_json:
        write_json({"credentials": total, "resealed": changed})
        return
    write_line(f"{changed} of {total} credentials were sealed anew; all have the first key now.")


def make_key() -> None:
    """Print a new key for FLOWLEDGER_ENCRYPTION_KEY."""
    from interfaces.bootstrap import make_key as made

    write_line(made())


def _auth(bearer: str | None, api_key: str | None, header: str | None) -> Body:
    if bearer is not None and api_key is not None:
        message = "--bearer and --api-key exclude each other."
        raise CommandFailed(ExitCode.INVALID, message, "Give the one that the agent asks for.")
    if bearer is not None:
        return {"auth_type": "bearer", "auth_config": {"token": read_credential(bearer)}}
    if api_key is None:
        return {}
    config = {"key": read_credential(api_key)} | ({"header_name": header} if header else {})
    return {"auth_type": "apikey", "auth_config": config}
