"""The commands that run until they are stopped: `serve` does everything in one process; `api`,
`worker`, `projector`, `consumer` and `bridge` each do a part, beside others on one PostgreSQL
database.
"""

import ipaddress
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interfaces.cli_engine import read_settings
from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_logs import set_up_logs
from interfaces.cli_options import AsJson, Database
from interfaces.cli_output import write_line

if TYPE_CHECKING:
    from interfaces.bootstrap import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port [8000]; 0 takes a free one.")
]
NoAuth = Annotated[
    bool, typer.Option("--no-auth", help="Listen beyond this machine without authentication.")
]
HealthPort = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Port for /livez, /readyz and /metrics [none]; 0 takes a free one."
    ),
]
Lease = Annotated[
    float | None,
    typer.Option(help="Seconds after which others take over from a silent worker [15]."),
]
Heartbeat = Annotated[
    float | None, typer.Option(help="Seconds between two renewals of leases [a third of a lease].")
]
Fence = Annotated[
    float | None,
    typer.Option(help="Seconds without a renewal that stop a worker [two thirds of a lease]."),
]
Drain = Annotated[
    float | None,
    typer.Option(help="Seconds in which requests are still taken after SIGTERM [0.5]."),
]
Grace = Annotated[
    float | None, typer.Option(help="Seconds that running steps have after SIGTERM [20].")
]


def serve(
    host: Host = None,
    port: Port = None,
    database: Database = None,
    no_auth: NoAuth = False,
    worker_slots: Annotated[
        int | None, typer.Option(min=0, help="Executions at a time [100]; 0 only answers.")
    ] = None,
    lease_seconds: Lease = None,
    heartbeat_seconds: Heartbeat = None,
    fence_seconds: Fence = None,
    drain_seconds: Drain = None,
    grace_seconds: Grace = None,
    as_json: AsJson = False,
) -> None:
    """Serve the REST interface, run executions and fill the tables, all in one process.

    Prints one line with the address on stdout when ready. SIGTERM or Ctrl-C lets running steps end
    (30 s at most); a second one stops at once. An empty database is migrated first.
    """
    settings = _settings(
        database,
        host=host,
        port=port,
        no_auth=no_auth or None,
        worker_slots=worker_slots,
        lease_seconds=lease_seconds,
        heartbeat_seconds=heartbeat_seconds,
        fence_seconds=fence_seconds,
        drain_seconds=drain_seconds,
        grace_seconds=grace_seconds,
    )
    _refuse_open_door(settings)
    from interfaces.bootstrap import open_services
    from interfaces.server import serve_until_stopped

    serve_until_stopped(
        settings, open_services, lambda address: _announce_api(address, as_json=as_json)
    )


def api(
    host: Host = None,
    port: Port = None,
    database: Database = None,
    no_auth: NoAuth = False,
    drain_seconds: Drain = None,
    as_json: AsJson = False,
) -> None:
    """Serve the REST interface only; workers and a projector run beside it, on PostgreSQL.

    Start as many as needed. Otherwise as `serve`.
    """
    settings = _settings(
        database, host=host, port=port, no_auth=no_auth or None, drain_seconds=drain_seconds
    )
    _refuse_open_door(settings)
    from interfaces.bootstrap import open_api
    from interfaces.server import serve_until_stopped

    serve_until_stopped(settings, open_api, lambda address: _announce_api(address, as_json=as_json))


def worker(
    database: Database = None,
    worker_slots: Annotated[
        int | None, typer.Option(min=1, help="Executions at a time [100].")
    ] = None,
    lease_seconds: Lease = None,
    heartbeat_seconds: Heartbeat = None,
    fence_seconds: Fence = None,
    grace_seconds: Grace = None,
    host: Host = None,
    health_port: HealthPort = None,
    no_auth: NoAuth = False,
    as_json: AsJson = False,
) -> None:
    """Run executions only, beside others on one PostgreSQL database.

    Start as many as needed. Prints one line when ready. SIGTERM or Ctrl-C lets running steps end
    and hands the rest to others (30 s at most); a second one stops at once.
    """
    settings = _settings(
        database,
        worker_slots=worker_slots,
        lease_seconds=lease_seconds,
        heartbeat_seconds=heartbeat_seconds,
        fence_seconds=fence_seconds,
        grace_seconds=grace_seconds,
        host=host,
        health_port=health_port,
        no_auth=no_auth or None,
    )
    if not settings.worker_slots:
        raise CommandFailed(ExitCode.INVALID, "A worker needs slots: --worker-slots.")
    from interfaces.bootstrap import open_worker

    _work(settings, open_worker, "worker", as_json=as_json)


def projector(
    database: Database = None,
    host: Host = None,
    health_port: HealthPort = None,
    no_auth: NoAuth = False,
    as_json: AsJson = False,
) -> None:
    """Fill the SQL tables only, beside others on one PostgreSQL database.

    One of them works; those started beside it stand by and take over when it ends. Beside `serve`
    it takes the tables over, which leaves more of a core to executions.
    """
    settings = _settings(database, host=host, health_port=health_port, no_auth=no_auth or None)
    from interfaces.bootstrap import open_projector

    _work(settings, open_projector, "projector", as_json=as_json)


def consumer(
    database: Database = None,
    worker_slots: Annotated[
        int | None, typer.Option(min=1, help="Executions at a time [100].")
    ] = None,
    lease_seconds: Lease = None,
    heartbeat_seconds: Heartbeat = None,
    fence_seconds: Fence = None,
    grace_seconds: Grace = None,
    host: Host = None,
    health_port: HealthPort = None,
    no_auth: NoAuth = False,
    as_json: AsJson = False,
) -> None:
    """Take requests, cancellations and agents' results from Kafka, and run executions.

    A worker that also receives; start as many as needed, Kafka shares the messages out among them.
    FLOWLEDGER_KAFKA_BROKERS says where Kafka is. Otherwise as `worker`.
    """
    settings = _settings(
        database,
        worker_slots=worker_slots,
        lease_seconds=lease_seconds,
        heartbeat_seconds=heartbeat_seconds,
        fence_seconds=fence_seconds,
        grace_seconds=grace_seconds,
        host=host,
        health_port=health_port,
        no_auth=no_auth or None,
    )
    if not settings.worker_slots:
        raise CommandFailed(ExitCode.INVALID, "A consumer needs slots: --worker-slots.")
    from interfaces.bootstrap import open_consumer

    _work(settings, open_consumer, "consumer", as_json=as_json)


def bridge(
    database: Database = None,
    calls: Annotated[
        int | None, typer.Option(min=1, help="Agents that are called at a time [100].")
    ] = None,
    host: Host = None,
    health_port: HealthPort = None,
    no_auth: NoAuth = False,
    as_json: AsJson = False,
) -> None:
    """Take agents' tasks from Kafka, call the agents over HTTP, send back what came of it.

    Start as many as needed. FLOWLEDGER_KAFKA_BROKERS says where Kafka is; with
    FLOWLEDGER_AGENT_TRANSPORT=kafka the engine leaves all calls of agents to it.
    """
    settings = _settings(
        database, bridge_calls=calls, host=host, health_port=health_port, no_auth=no_auth or None
    )
    from interfaces.bootstrap import open_bridge

    _work(settings, open_bridge, "bridge", as_json=as_json)


def _settings(database: str | None, **given: Any) -> "Settings":  # values of any setting
    settings = read_settings(database, **given)
    # Nothing is ever imported from the folder that the server happens to be started in.
    sys.path[:] = [folder for folder in sys.path if folder]
    set_up_logs(settings.log_level, settings.log_format)
    return settings


def _work(settings: "Settings", open_process: Any, kind: str, *, as_json: bool) -> None:
    """`open_process` is the opener of that kind."""
    if settings.health_port is not None:
        _refuse_open_door(settings)
    from interfaces.server import work_until_stopped

    def announce(address: str | None) -> None:
        if as_json:
            write_line(json.dumps({"process": kind, "address": address}))
        else:
            told = f"; health and figures at {address}" if address else ""
            write_line(f"Flowledger {kind} is ready{told}")

    work_until_stopped(settings, open_process, announce)


def _announce_api(address: str, *, as_json: bool) -> None:
    write_line(
        f'{{"address": "{address}", "docs": "{address}/docs"}}'
        if as_json
        else f"Flowledger is ready at {address} (docs: /docs)"
    )


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
