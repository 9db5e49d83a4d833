"""Callers of the use cases in one process, as many as it takes to meet commits at every moment.

What a caller would hear as 503 is asked again with the same key, at once; anything else that is no
answer is a false refusal: these commands never compete with one another.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from application.callers import Answer as Answered
from application.callers import Caller
from application.ports import StoreUnavailable
from application.requests import ExecuteOptions
from domain.errors import FlowledgerError, NotReady
from domain.json_values import JsonObject, sha256_of
from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from tests.invariants import Answer

PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.01
REFUSALS_MAX = 20
ACTIONS = '''
async def noop(config, context):
    """Does nothing, at once."""
    return {"ok": True}
'''
QUICK: JsonObject = {
    "name": "quick",
    "start_step": "a",
    "steps": {"a": {"action": "noop", "next_step": None}},
}
HELD: JsonObject = {
    "name": "held",
    "start_step": "a",
    "steps": {"a": {"type": "wait", "duration_ms": 3_600_000, "next_step": None}},
}


@dataclass(slots=True)
class Stalls:
    """When acknowledgements came; for each blow the longest time without one until the next blow
    (seconds).
    """

    last: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def blow(self) -> None:
        """A fault strikes now."""
        self.seconds.append(0.0)

    def acknowledged(self) -> None:
        """Somebody was answered."""
        before, self.last = self.last, time.monotonic()
        if self.seconds:
            self.seconds[-1] = max(self.seconds[-1], self.last - before)

    def figures(self) -> dict[str, float]:
        """Median and maximum."""
        return {
            "stall_median_seconds": round(statistics.median(self.seconds or [0.0]), 2),
            "stall_max_seconds": round(max(self.seconds, default=0.0), 2),
        }


class InnerCallers:
    """Stories against the services of this process; `history` is what they heard."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.history: list[Answer] = []
        self.stalls = Stalls()
        self.acknowledged = 0
        self.unavailable = 0
        self.slowest_refusal = 0.0
        self.false_refusals: list[str] = []
        self.executions: list[UUID] = []

    async def publish(self, *definitions: JsonObject) -> None:
        """These workflows, or the two of the stories."""
        for definition in definitions or (QUICK, HELD):
            caller = _keyed("publish", str(definition["name"]))
            await self._heard(partial(self.services.workflows.publish, caller, definition))

    async def quick_story(self, number: int) -> None:
        """One execution of one step: one acknowledged command."""
        identifier = await self.execute("quick", number)
        self.executions.append(identifier)

    async def held_story(self, number: int) -> None:
        """Execute, pause, resume, cancel: four commands, one after the other's answer."""
        identifier = await self.execute("held", number)
        for verb in ("pause", "resume", "cancel"):
            await self.command(verb, identifier)

    async def execute(self, workflow: str, number: int) -> UUID:
        """Request execution `number` of a workflow; the same however often it is told."""
        caller = _keyed("execute", f"{workflow}-{number}")
        options = ExecuteOptions(input_data={"n": number})
        answer = await self._heard(
            lambda: self.services.requests.execute(caller, workflow, options)
        )
        identifier = UUID(answer.view.id)
        self._note("execute", str(identifier), identifier, answer)
        return identifier

    async def command(self, verb: str, identifier: UUID) -> None:
        """A command on an execution, with a key of its own."""
        caller = _keyed(f"{verb}:{identifier}", "once")
        control = self.services.control
        done: dict[str, Callable[[], Awaitable[Answered]]] = {
            "pause": lambda: control.pause(caller, str(identifier)),
            "resume": lambda: control.resume(caller, str(identifier)),
            "cancel": lambda: control.cancel(caller, str(identifier), None),
        }
        answer = await self._heard(done[verb])
        self._note(verb, str(caller.identity(uuid4())), identifier, answer)

    async def work(self, stories: Iterable[int], held_share: int) -> None:
        """Tell stories until there are no more; every `held_share`th is a held one.

        Told again, they repeat their requests; the history shows whether the answers are the same.
        """
        for number in stories:
            if number % held_share == 0:
                await self.held_story(number)
            else:
                await self.quick_story(number)

    async def head(self) -> int:
        """The last position of the log, asked for until the store answers."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return await self.services.store.log.head()
                except StoreUnavailable:
                    await asyncio.sleep(PAUSE_SECONDS)

    async def ended(self) -> list[str]:
        """I18: wait for what runs; what does not end."""
        stuck = []
        for identifier in self.executions:
            ended = partial(self.services.history.wait_ended, "default", str(identifier))
            view = await self._heard(partial(ended, PATIENCE_SECONDS))
            if view.completed_at is None:
                stuck.append(f"I18 {identifier}: {view.status} long after the last fault")
        return stuck

    def _note(self, verb: str, command_id: str, identifier: UUID, answer: Answered) -> None:
        self.acknowledged += 1
        self.stalls.acknowledged()
        self.history.append(Answer(command_id, identifier, "done", verb, answer.view.version))

    async def _heard(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                began = time.monotonic()
                try:
                    return await ask()
                except NotReady:
                    self.unavailable += 1
                    self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - began)
                except FlowledgerError as error:
                    self.false_refusals.append(f"{type(error).__name__}: {error}")
                    if len(self.false_refusals) > REFUSALS_MAX:
                        raise
                await asyncio.sleep(PAUSE_SECONDS)


def any_ended(working: Sequence["asyncio.Task[None]"]) -> bool:
    """Whether a caller has given up, or has nothing more to tell."""
    return any(task.done() for task in working)


def _keyed(route: str, key: str) -> Caller:
    return Caller(
        actor="tester", route=route, idempotency_key=key, fingerprint=sha256_of([route, key])
    )


@asynccontextmanager
async def inner_callers(url: str, folder: Path, **settings: Any) -> AsyncIterator[InnerCallers]:
    """The services of a process on an empty database, and callers of them."""
    actions = folder / "inner_actions.py"
    actions.write_text(ACTIONS)
    settings = {"actions": str(actions), **settings}
    services = await open_services(Settings(database_url=url, **settings))
    try:
        yield InnerCallers(services)
    finally:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await services.close()
