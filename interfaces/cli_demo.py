"""The command `demo`: a real workflow on a real data file, from an empty folder to SQL tables.

Three processes, as in life: the shop service of the examples, a server, and this client, which
speaks REST only. All files are under `var/demo/`, made anew each time.
"""

import asyncio
import base64
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interfaces.cli_failures import CommandFailed, ExitCode
from interfaces.cli_input import read_definition
from interfaces.cli_options import AsJson
from interfaces.cli_output import (
    short_duration,
    short_time,
    write_fields,
    write_json,
    write_line,
    write_table,
)
from interfaces.cli_session import Body, Session, Target, open_session
from interfaces.cli_story import sentence
from interfaces.cli_watch import follow, new_events, require_success

_FOLDER: Final = Path("var") / "demo"
_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 30
_COMMAND: Final = "from interfaces.cli import main; main()"
_QUERIES: Final = (
    ("SELECT workflow_name, status, steps_done, steps_total, duration_ms FROM workflow_runs"),
    (
        "SELECT step_id, try_no, status, duration_ms, error_message FROM step_executions "
        "ORDER BY started_at, try_no"
    ),
    (
        "SELECT agent_name, status, COUNT(*) AS count FROM step_executions "
        "GROUP BY agent_name, status ORDER BY agent_name, status"
    ),
)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where the demo runs."""

    examples: Path
    database: Path
    secret: str

    @property
    def url(self) -> str:
        return f"sqlite:///{self.database}"


def demo(as_json: AsJson = False) -> None:
    """Run the example workflow on a fresh file.

    Shows the progress, the history, the diagram and the SQL tables, then how to serve the file.
    """
    stage = _set_up()
    tell = _silent if as_json else write_line
    with ExitStack() as running:
        shop = running.enter_context(_shop(stage))
        tell(f"Shop service   {shop}  (serves examples/orders.csv)")
        server = running.enter_context(_server(stage))
        tell(f"Flowledger     {server}  on {stage.database}")
        view = asyncio.run(_run(server, shop, stage, as_json=as_json))
    if as_json:
        write_json({"execution": view, "database": stage.url, "serve": _serve_again(stage)})
    else:
        _show_tables(stage)
        write_line()
        write_line("Serve this file again:")
        write_line(f"  {_serve_again(stage)}")
        write_line(f"  then open http://127.0.0.1:8000/docs or ask for execution {view['id']}")


def _set_up() -> _Stage:
    here = Path(__file__).resolve().parent
    examples = next(
        (each for each in (here / "examples", here.parent / "examples") if each.is_dir()), None
    )
    if examples is None:
        raise CommandFailed(
            ExitCode.NOT_FOUND, "This installation has no examples.", "Install it anew."
        )
    try:
        shutil.rmtree(_FOLDER, ignore_errors=True)
        _FOLDER.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{_FOLDER} cannot be made here ({Path.cwd()}): {error.strerror}."
        raise CommandFailed(ExitCode.INVALID, message, "Change to a folder of yours.") from None
    key = base64.b64encode(secrets.token_bytes(24)).decode()
    return _Stage(examples, _FOLDER / "flowledger.db", f"whsec_{key}")


@contextmanager
def _shop(stage: _Stage) -> Iterator[str]:
    command = [sys.executable, str(stage.examples / "shop.py"), "--port", "0"]
    with _process(command, {"SHOP_WEBHOOK_SECRET": stage.secret}, "shop") as line:
        yield line.rpartition(" ")[2]


@contextmanager
def _server(stage: _Stage) -> Iterator[str]:
    # -P: nothing is imported from the folder the demo is started in.
    command = [sys.executable, "-P", "-c", _COMMAND, "serve", "--port", "0"]
    environment = {
        "FLOWLEDGER_ACTIONS": str(stage.examples / "order_actions.py"),
        "FLOWLEDGER_OUTBOUND_ALLOW": "127.0.0.1",
        "FLOWLEDGER_SECRET_SHOP_WEBHOOK": stage.secret,
    }
    with _process([*command, "--database", stage.url], environment, "server") as line:
        yield line.partition(" at ")[2].partition(" ")[0]


@contextmanager
def _process(command: Sequence[str], more: Mapping[str, str], name: str) -> Iterator[str]:
    """A program until the block ends; gives the line it prints when it is ready."""
    log = _FOLDER / f"{name}.log"
    # Settings of the caller's own server do not belong to the demo.
    kept = {key: text for key, text in os.environ.items() if not key.startswith("FLOWLEDGER_")}
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
            command,
            env=kept | dict(more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield _first_line(process, name, log)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _first_line(process: "subprocess.Popen[bytes]", name: str, log: Path) -> str:
    if process.stdout is None:
        raise RuntimeError("started with a pipe")
    os.set_blocking(process.stdout.fileno(), False)
    line, until = b"", time.monotonic() + _START_SECONDS
    while not line.endswith(b"\n"):
        line += process.stdout.read() or b""
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text("utf-8", "replace").strip() or "nothing"
            message = f"The {name} of the demo does not start. It said: {said}"
            raise CommandFailed(ExitCode.NOT_READY, message, f"Its log is {log}.")
        time.sleep(0.02)
    return line.decode().strip()


async def _run(server: str, shop: str, stage: _Stage, *, as_json: bool) -> Body:
    target = Target(url=server, database=None, actor="demo", as_json=as_json)
    async with open_session(target) as session:
        definition = read_definition(str(stage.examples / "orders.yaml")).value
        if not isinstance(definition, dict):
            raise CommandFailed(ExitCode.NOT_FOUND, "The example workflow is damaged.")
        workflow = (await session.post("/workflows", definition)).body
        body = {"input_data": {"shop_url": shop}}
        started = (await session.post(f"/workflows/{workflow['name']}/execute", body)).body
        if not as_json:
            write_line(f"Workflow       {workflow['name']} version {workflow['version']}")
            write_line(f"Execution      {started['id']}")
            write_line()
        view = await follow(session, started["id"], _silent if as_json else _tell)
        require_success(view)
        if not as_json:
            await _show(session, view)
        await _tables_caught_up(session, view)
        return view


def _tell(view: Body, events: list[Body]) -> None:
    for event in events:
        write_line(f"  {short_time(event['recorded_at'])[11:]}  {sentence(event)}")


def _silent(*given: object) -> None:
    """For --json."""


async def _show(session: Session, view: Body) -> None:
    took = short_duration(view["duration_ms"])
    write_line()
    write_line(f"{view['status']} in {took}. Output:")
    write_fields([(f"  {name}", value) for name, value in view["output"].items()])
    write_line()
    write_line(f"History (GET /api/v1/executions/{view['id']}/events):")
    events = [event async for event in new_events(session, view["id"], 0)]
    rows = [
        (each["version"], each["position"], each["actor"], each["topic"], each["data"].get("path"))
        for each in events
    ]
    write_table(("VERSION", "POSITION", "BY", "EVENT", "STEP"), rows)
    write_line()
    write_line("Diagram (paste it into any Mermaid viewer):")
    drawn = await session.get(f"/executions/{view['id']}/diagram", {"format": "mermaid"})
    write_line(str(drawn.body).rstrip())


async def _tables_caught_up(session: Session, view: Body) -> None:
    """The tables follow the log within milliseconds; a slow machine may need a second call."""
    for attempts_left in (2, 1, 0):
        try:
            await session.get("/executions", {"min_position": view["position"]})
            return
        except CommandFailed as failed:
            if failed.code is not ExitCode.NOT_READY or not attempts_left:
                raise


def _show_tables(stage: _Stage) -> None:
    """Queries on the file itself, after the server has gone."""
    for query in _QUERIES:
        write_line()
        write_line(f"SQL> {query}")
        rows = subprocess.run(  # noqa: S603 - our own program, no shell
            [sys.executable, str(stage.examples / "sql.py"), str(stage.database), query],
            capture_output=True,
            text=True,
            check=False,
        )
        if rows.returncode:
            raise CommandFailed(ExitCode.UNEXPECTED, f"The query failed: {rows.stderr.strip()}")
        write_line(rows.stdout.rstrip())


def _serve_again(stage: _Stage) -> str:
    program = Path(sys.argv[0])
    command = "flowledger"
    if program.name == "flowledger" and program.is_absolute() is False:
        command = str(program)
    elif program.name == "flowledger" and program.is_relative_to(Path.cwd()):
        command = str(program.relative_to(Path.cwd()))
    return f"{command} serve --database {stage.url}"
