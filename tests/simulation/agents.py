"""Agents: they ask for tasks or hear of them, work, and send back what they came to.

They are outside of all processes. What they are told is kept, and what no process may tell them is
a complaint.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from application.agent_results import TaskAnswer
from application.callers import Caller
from application.ports import Overloaded, StoreUnavailable
from application.steps import ErrorClass
from domain.dispatching import awaits_result, dispatched_at
from domain.errors import (
    ConcurrentUpdate,
    FlowledgerError,
    LeaseLost,
    NotReady,
    TaskEnded,
)
from domain.execution import fold
from domain.json_values import JsonObject
from tests.simulation.effects import Deeds
from tests.simulation.line import Weather
from tests.simulation.process import Process
from tests.simulation.store import SimulatedStore
from tests.simulation.task_leases import TaskLeases
from tests.simulation.themes import Theme

PATIENCE_SECONDS: Final = 1.5
ASKED_TIMES_MAX: Final = 6
AGAIN_SECONDS: Final = 0.2
TASK_SECONDS: Final = 0.8
TASK_LEASE_SECONDS: Final = 2.5
LONG_SECONDS: Final = 2 * TASK_LEASE_SECONDS
PULLED: Final = "far"
TOLD: Final = "away"
CALLED: Final = "near"
_FAILURES: Final[tuple[tuple[ErrorClass, bool], ...]] = (
    ("transient", True),
    ("transient", True),
    ("permanent", False),
    ("timeout", True),
    ("unknown", True),
)
Call = Callable[[Process], Awaitable[Any]]
"""A request to any process. Any: each has its own answer."""
Told = Any
"""What a process answered: the refusal, None when nothing was heard."""


class Outside(Protocol):
    """What agents see of the simulation."""

    store: SimulatedStore
    weather: Weather
    deeds: Deeds
    leases: TaskLeases
    theme: Theme

    def process(self) -> Process | None:
        """Any process that runs, or None."""


class TaskOf(NamedTuple):
    """A task as its agent knows it; `epoch` 0 where there is no lease."""

    run_id: str
    task_id: str
    correlation_id: str
    epoch: int = 0

    @property
    def execution_id(self) -> UUID:
        """Of the execution that it belongs to."""
        return UUID(self.run_id.removeprefix("run-"))


@dataclass(slots=True)
class Result:
    """What an agent came to, however often it sends it. `error_class` "" is a success.

    `fair` once it was sent by who had the task then, under its own names; `told` is what was
    answered to those who were fair.
    """

    number: int
    task: TaskOf
    error_class: str
    retryable: bool
    fair: bool = False
    told: frozenset[bool] = frozenset()
    """Whether it was accepted."""

    @property
    def output(self) -> JsonObject:
        """By which it is known again in the log."""
        return {"answer": self.number, "ok": not self.error_class}

    def heard(self, answer: TaskAnswer) -> None:
        """A process answered."""
        self.told |= {answer.accepted}


class Agents:
    """All agents; `results` by number, `complaints` with where and what."""

    def __init__(self, world: Outside, chance: Random) -> None:
        self.results: list[Result] = []
        self.complaints: list[tuple[str, str]] = []
        self.world = world
        self.chance = chance
        self._names = 0

    async def register(self) -> None:
        """The agents that definitions name."""
        for name, transport in ((PULLED, "pull"), (TOLD, "kafka"), (CALLED, "http")):
            await self._register(name, transport)

    async def _register(self, name: str, transport: str) -> None:
        described: JsonObject = {
            "name": name,
            "transport": transport,
            "url": "https://agents.example/near",
            "retry_config": {
                "max_retries": self.chance.randrange(3),
                "initial_delay_ms": 300,
                "max_delay_ms": 1_000,
            },
            "recovery": self._recovery(name),
        }
        caller = self._caller(f"register {name}")
        await self._until_told(lambda process: process.agents.register(caller, described))

    def _recovery(self, name: str) -> JsonObject:
        choice = self.chance.choice(("RETRY", "FALLBACK", "FAIL"))
        other = PULLED if name == TOLD else TOLD
        if choice != "FALLBACK":
            return {"on_failure": choice}
        return {"on_failure": choice, "fallback_agent": other}

    async def change(self) -> None:
        """Somebody changes how work gets to an agent."""
        name = self.chance.choice((PULLED, TOLD, CALLED))
        transport = self.chance.choice(("pull", "kafka", "http"))
        caller = self._caller(f"change {name}")
        self.world.weather.faults["transport changed"] += 1
        await self._until_told(
            lambda process: process.agents.change(caller, name, {"transport": transport})
        )

    def _caller(self, route: str) -> Caller:
        self._names += 1
        key = f"a{self._names}"
        return Caller(actor="operator", route=route, idempotency_key=key, fingerprint=key)

    async def _until_told(self, call: Call) -> None:
        for _ in range(ASKED_TIMES_MAX):
            if await self.ask(call) is not None:
                return

    # --- what agents do alike ---

    def result(self, task: TaskOf) -> Result:
        """What an agent comes to."""
        error_class, retryable = "", True
        if self.chance.random() < (0.35 if self.world.weather.stormy else 0.1):
            error_class, retryable = self.chance.choice(_FAILURES)
        result = Result(len(self.results), task, error_class, retryable)
        self.results.append(result)
        return result

    async def ask(self, call: Call, patience: float = PATIENCE_SECONDS) -> Told:
        """Ask a process something; requests and answers get lost."""
        weather = self.world.weather
        process = self.world.process()
        if process is None or weather.strikes("request of an agent lost", 0.02):
            await asyncio.sleep(AGAIN_SECONDS)
            return None
        task = asyncio.get_running_loop().create_task(_answer(call(process)))
        await asyncio.wait([task], timeout=patience)
        if not task.done():
            if self.chance.random() < 0.5:
                task.cancel()
            return None
        told = task.result()
        return None if weather.strikes("answer to an agent lost", 0.04) else told

    def awaited(self, task: TaskOf) -> bool:
        """Whether the log says that its result is waited for."""
        state = fold(each.event for each in self.world.store.streams[task.execution_id])
        path = None if state is None else dispatched_at(state, task.correlation_id)
        return state is not None and path is not None and awaits_result(state, path)

    def complain(self, task: TaskOf, what: str) -> None:
        """Something was told that must not be."""
        self.complaints.append((f"{task.execution_id} {task.task_id}", what))


async def _answer(call: Awaitable[Any]) -> Told:
    try:
        return await call
    except (NotReady, ConcurrentUpdate, StoreUnavailable, Overloaded):
        return None
    except FlowledgerError as error:
        return error


def unjust(told: FlowledgerError, *, newest: bool, awaited: bool) -> bool:
    """Whether a process may not refuse so, to one who named the task rightly.

    `newest`: nobody has had a lease since, and it is not settled; `awaited`: there is no result.
    """
    if isinstance(told, LeaseLost):
        return newest
    return awaited or not isinstance(told, TaskEnded)
