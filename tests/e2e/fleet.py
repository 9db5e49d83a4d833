"""Several processes of one installation on one PostgreSQL database, as real programs."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.e2e.programs import COMMAND, Server, program

API = "/api/v1"
PATIENCE_LOOKS = 3_000
"""How often is looked for what must come; only a failing test looks so often."""
ACTIONS = '''
import asyncio
import os
from pathlib import Path

async def stay_once(config, context):
    """Says who has it; the first delivery never ends by itself."""
    folder = Path(config["folder"])
    (folder / f"delivery-{context.delivery}").write_text(str(os.getpid()))
    if context.delivery == 1:
        await asyncio.Event().wait()
    return {"by": os.getpid(), "epoch": context.epoch}

async def until_told(config, context):
    """Says that it began, and ends when a file is there."""
    folder = Path(config["folder"])
    (folder / f"began-{context.execution_id}").touch()
    while not (folder / "go").exists():
        await asyncio.sleep(0.02)
    return {"by": os.getpid()}
'''


class Fleet:
    """Starts processes on one database; all end with the block that opened it."""

    def __init__(self, stack: ExitStack, database: str, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self._stack = stack
        self._started = 0

    def start(self, kind: str, *options: str) -> Server:
        """A process of that kind; returns once it is ready."""
        self._started += 1
        cwd = self.folder / f"{kind}-{self._started}"
        cwd.mkdir()
        command = [str(COMMAND), kind, "--database", self.database, *options]
        actions = {"FLOWLEDGER_ACTIONS": str(self.folder / "own_actions.py")}
        return self._stack.enter_context(program(command, cwd=cwd, more=actions))

    def api(self, *options: str) -> Server:
        """An API process on a free port."""
        return self.start("api", "--port", "0", *options)

    def worker(self, *options: str) -> Server:
        """A worker that tells its health, with leases short enough to wait for one to lapse."""
        leases = ("--lease-seconds", "1.5", "--health-port", "0")
        return self.start("worker", *leases, *options)

    def projector(self) -> Server:
        """A projector that tells its health."""
        return self.start("projector", "--health-port", "0")


@contextmanager
def fleet(database: str, folder: Path) -> Iterator[Fleet]:
    """Processes on `database` with the actions above, until the block ends."""
    (folder / "own_actions.py").write_text(ACTIONS)
    with ExitStack() as stack:
        yield Fleet(stack, database, folder)


def one_step(action: str, folder: Path) -> dict[str, Any]:
    """A definition of one step with an own action."""
    step = {"action": action, "config": {"folder": str(folder)}}
    return {"name": action, "start_step": "only", "steps": {"only": step}}


def execute(
    api: Server, definition: dict[str, Any], *, wait: int | None = None, key: str | None = None
) -> httpx2.Response:
    """Run a definition that comes along."""
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    if key is not None:
        headers["Idempotency-Key"] = key
    return httpx2.post(
        f"{api.address}{API}/executions",
        json={"definition": definition},
        headers=headers,
        timeout=60,
    )


def get(server: Server, path: str, *, wait: int | None = None) -> httpx2.Response:
    """Ask for something; with `wait`, once the execution there has ended."""
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    return httpx2.get(f"{server.address}{path}", headers=headers, timeout=60)


def lines_of(text: str) -> list[Any]:
    """The objects of an NDJSON text."""
    return [json.loads(line) for line in text.splitlines()]


def ask_until(server: Server, path: str, status: int) -> httpx2.Response:
    """Ask until it answers with this status; meanwhile it is 200 or 503."""
    with httpx2.Client(base_url=server.address, timeout=60) as client:
        for _ in range(PATIENCE_LOOKS):
            answer = client.get(path)
            if answer.status_code == status:
                return answer
            assert answer.status_code in (200, 503), answer.text
    raise AssertionError(f"{path} never answered {status}")


def until_it_exists(path: Path, api: Server) -> None:
    """Look until a file is there; each look waits for an answer of the server."""
    with httpx2.Client(base_url=api.address, timeout=60) as client:
        for _ in range(PATIENCE_LOOKS):
            if path.exists():
                return
            client.get("/readyz")
    raise AssertionError(f"{path} did not come")
