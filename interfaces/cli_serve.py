"""The command `serve`: one process with the REST interface, the worker and the projections."""

import ipaddress
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from interfaces.cli_engine import read_settings
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_logs import set_up_logs
from interfaces.cli_options import AsJson, Database
from interfaces.cli_output import write_line

if TYPE_CHECKING:
    from interfaces.bootstrap import Settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port [8000]; 0 takes a free one.")
    ] = None,
    database: Database = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Listen beyond this machine without authentication.")
    ] = False,
    worker_slots: Annotated[
        int | None, typer.Option(min=0, help="Executions at a time [100]; 0 only answers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the REST interface and run executions.

    Prints one line with the address on stdout when ready. SIGTERM or Ctrl-C lets running steps end
    (30 s at most); a second one stops at once. An empty database is migrated first.
    """
    settings = read_settings(
        database, host=host, port=port, no_auth=no_auth or None, worker_slots=worker_slots
    )
    _refuse_open_door(settings)
    # Nothing is ever imported from the folder that the server happens to be started in.
    sys.path[:] = [folder for folder in sys.path if folder]
    set_up_logs(settings.log_level, settings.log_format)
    from interfaces.server import serve_until_stopped

    serve_until_stopped(settings, lambda address: write_line(_ready(address, as_json=as_json)))


def _ready(address: str, *, as_json: bool) -> str:
    if as_json:
        return f'{{"address": "{address}", "docs": "{address}/docs"}}'
    return f"Flowledger is ready at {address} (docs: /docs)"


def _refuse_open_door(settings: "Settings") -> None:
    if settings.no_auth or _is_loopback(settings.host):
        return
    raise CommandFailed(
        ExitCode.INVALID,
        f"Refusing to listen on {settings.host}: whoever reaches it could run workflows, because "
        "there is no authentication yet.",
        "Listen on 127.0.0.1 behind a proxy that authenticates, or say --no-auth "
        "(FLOWLEDGER_NO_AUTH=true) where the network itself is trusted.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
