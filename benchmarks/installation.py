"""Programs of one installation on a database, for benchmarks of several processes."""

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import sqlalchemy as sa

from infrastructure.addresses import administration_engine
from tests.e2e.programs import COMMAND, ROOT, Server, program

END_SECONDS_MAX: Final = 600.0
POLL_SECONDS: Final = 0.01


class Installation:
    """Starts `flowledger` programs on the database at `url`; they end with `resources`."""

    def __init__(self, resources: ExitStack, url: str, folder: Path) -> None:
        self._resources = resources
        self._url = url
        self._folder = folder

    def start(self, kind: str, *options: str, **settings: str) -> Server:
        """`flowledger KIND`, ready; `settings` by their names in lower case."""
        folder = self._folder / uuid4().hex
        folder.mkdir()
        given = {f"FLOWLEDGER_{name.upper()}": value for name, value in settings.items()}
        given |= {"FLOWLEDGER_LOG_LEVEL": "warning", "FLOWLEDGER_OUTBOUND_ALLOW": "127.0.0.1"}
        given["PYTHONPATH"] = str(ROOT)  # this tree, wherever the command was installed from
        command = [str(COMMAND), kind, "--database", self._url, *options]
        return self._resources.enter_context(program(command, cwd=folder, more=given))


def until_ended(url: str, since: datetime, executions: int) -> float:
    """Seconds until nothing is queued any more. Raises unless all are completed."""
    until = time.monotonic() + END_SECONDS_MAX
    with administration_engine(url).connect() as connection:
        asked = connection.execution_options(isolation_level="AUTOCOMMIT")
        while asked.execute(sa.text("SELECT 1 FROM work_queue LIMIT 1")).fetchone():
            if time.monotonic() > until:
                raise RuntimeError("the executions did not end")
            time.sleep(POLL_SECONDS)
        ended = datetime.now(UTC)
        completed = asked.execute(
            sa.text("SELECT count(*) FROM ledger_events WHERE topic LIKE 'execution.completed.%'")
        ).scalar_one()
    if completed != executions:
        raise RuntimeError(f"not all executions were completed: {completed} of {executions}")
    return (ended - since).total_seconds()
