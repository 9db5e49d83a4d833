"""Runs what the pages show: shell walks against a real server, queries against real databases."""

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from application.callers import Caller
from application.requests import ExecuteOptions
from domain.json_values import JsonObject
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from tests.e2e.programs import COMMAND, environment, serving
from tests.e2e.samples import walk, write_files

ADDRESS = "http://127.0.0.1:8000"
_SHELL = "set -euo pipefail\n"
_SECONDS_MAX = 60


def walk_through(
    page: str,
    folder: Path,
    more: Mapping[str, str] | None = None,
    others: Mapping[str, str] | None = None,
) -> str:
    """Run a page's commands in order beside a server on flowledger.db; what they said.

    `others`: where the programs really are whose addresses the page shows.
    """
    write_files(page, folder)
    with serving(cwd=folder, more=more) as server:
        script = walk(page)
        for shown, address in {ADDRESS: server.address, **(others or {})}.items():
            script = script.replace(shown, address)
        settings = environment({"PATH": f"{COMMAND.parent}:{environment()['PATH']}"})
        done = subprocess.run(
            ["bash", "-c", _SHELL + script],
            cwd=folder,
            env=settings,
            capture_output=True,
            text=True,
            timeout=_SECONDS_MAX,
            check=False,
        )
    assert done.returncode == 0, f"{page}\n{done.stdout}{done.stderr}"
    return done.stdout


async def run_executions(database_url: str) -> None:
    """Fill a database: an execution that works, one that fails at its second try, one cancelled,
    one that people do everything to.
    """
    services = await open_services(Settings(database_url=database_url))
    try:
        caller = Caller(actor="alice")
        for definition in (_WORKING, _FAILING, _WAITING):
            await services.workflows.publish(caller, definition)
        options = ExecuteOptions(labels={"team": "billing"})
        for name in ("working", "failing"):
            answer = await services.requests.execute(caller, name, options)
            ended = await services.history.wait_ended("default", answer.view.id, 30)
            assert ended.status in ("COMPLETED", "FAILED"), ended
        waiting = await services.requests.execute(caller, "waiting", options)
        cancelled = await services.control.cancel(caller, waiting.view.id, "enough")
        assert await services.reads.wait_for(cancelled.view.position, 30)
        last = await _helped(services, caller)
        assert await services.reads.wait_for(last, 30)
    finally:
        await services.close()


async def _helped(services: Services, caller: Caller) -> int:
    """Each thing that people can do to an execution, done to one; the position of the last."""
    await services.workflows.publish(caller, _HELPED)
    control = services.control
    started = await services.requests.execute(caller, "helped", ExecuteOptions())
    one = started.view.id
    task_id = await _waits_for(services, one, "human_task")
    await control.pause(caller, one, reason="not today")
    await control.resume(caller, one, "today")
    await control.signal(caller, one, "paid", {"sum": 17})
    await control.complete_human_task(caller, task_id, {"approved": True})
    await _waits_for(services, one, "question")
    await control.answer(caller, one, None, "retry", "it may work")
    await services.history.wait_ended("default", one, 30)
    forked = await services.requests.fork(caller, one, "call", None, "again, with care")
    other = forked.view.id
    await _waits_for(services, other, "question")
    await control.settle_step(caller, other, "call", "complete", "called by phone", {})
    await services.history.wait_ended("default", other, 30)
    await control.retry(caller, one, None, reason="or not")
    await _waits_for(services, one, "question")
    cancelled = await control.cancel(caller, one, "enough")
    return cancelled.view.position


async def _waits_for(services: Services, execution_id: str, kind: str) -> str:
    """Until it waits for such a thing; which one that is."""
    async with asyncio.timeout(30):
        while True:
            view = await services.history.view("default", execution_id)
            for wait in view.waiting_on:
                if wait.kind == kind:
                    return str(wait.detail)
            await asyncio.sleep(0.02)


_HELPED: Final[JsonObject] = {
    "name": "helped",
    "start_step": "approve",
    "steps": {
        "approve": {
            "action": "create_task",
            "config": {"title": "Approve", "wait": True},
            "next_step": "call",
        },
        "call": {
            "action": "call_api",
            "config": {"url": "https://name.invalid/"},
            "recovery": [{"kind": "ask"}],
        },
    },
}
_WORKING: Final[JsonObject] = {
    "name": "working",
    "start_step": "set",
    "steps": {"set": {"action": "set_variables", "config": {"variables": {"a": 1}}}},
}
_FAILING: Final[JsonObject] = {
    "name": "failing",
    "start_step": "call",
    "steps": {
        "call": {
            "action": "call_api",
            "config": {"url": "https://name.invalid/"},
            "retry": {"attempts": 1, "base_delay_ms": 1},
        }
    },
}
_WAITING: Final[JsonObject] = {
    "name": "waiting",
    "start_step": "pause",
    "steps": {"pause": {"type": "wait", "duration_ms": 3_600_000}},
}
