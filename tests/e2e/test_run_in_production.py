"""The page on production: its walk is run, and its container files name what there is."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import typer
import yaml

from interfaces.cli import app
from tests.e2e.programs import COMMAND, ROOT, SECONDS_MAX, environment
from tests.e2e.samples import walk, write_files

PAGE = "docs/how-to/run-in-production.md"
DATABASE = "postgresql://flowledger@/flowledger?host=/run/postgresql"
PORTS = (8000, 8101, 8102, 8201)
SHELL = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def test_the_walk_over_several_processes(tmp_path: Path, postgres_dsn: str) -> None:
    write_files(PAGE, tmp_path)
    script = walk(PAGE).replace(DATABASE, postgres_dsn)
    for shown, port in zip(PORTS, free_ports(len(PORTS)), strict=True):
        script = script.replace(str(shown), str(port))
    done = subprocess.run(
        ["bash", "-c", SHELL + script],
        cwd=tmp_path,
        env=environment({"PATH": f"{COMMAND.parent}:{environment()['PATH']}"}),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"COMPLETED"' in done.stdout
    assert '"type":"step_redelivered"' in done.stdout


def test_the_container_files_name_what_there_is() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
    ours = [each for each in compose["services"].values() if each.get("image") == "flowledger"]
    kinds = [each["command"][0] for each in ours]
    assert kinds == ["api", "worker", "projector", "consumer", "bridge"]
    for service in ours:
        kind, *options = service["command"]
        known = {name for each in commands[kind].params for name in each.opts}
        assert {each for each in options if each.startswith("--")} <= known
        assert set(service["depends_on"]) <= set(compose["services"])
    docker = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in docker.splitlines() if line.startswith(("ENTRYPOINT", "CMD"))]
    (program,), (verb,) = (json.loads(line.partition(" ")[2]) for line in lines)
    assert (program, verb in commands) == ("flowledger", True)
