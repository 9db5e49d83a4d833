"""Callers who request executions, cancel, retry, answer, and ask again when they hear nothing."""

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import Literal, Protocol
from uuid import UUID

from application.callers import Answer as Reply
from application.callers import Caller
from application.requests import ExecuteOptions
from domain.errors import ConcurrentUpdate, FlowledgerError, NotReady
from domain.events import Requested
from domain.execution import ExecutionState, fold
from domain.workflow import NAMESPACE
from tests.invariants import Answer
from tests.properties.random_definitions import INPUTS, seeded_definition
from tests.simulation.process import Process
from tests.simulation.store import SimulatedStore
from tests.simulation.themes import INMOST, INNER, Theme, with_agents
from tests.simulation.verbs import VERBS, Ask, Verb

PATIENCE_SECONDS = 1.5
ASKED_TIMES_MAX = 6
AT_ONCE_SECONDS = 0.02
Told = Literal["done", "nothing", "refused", "unknown"]


class World(Protocol):
    """What callers see of the simulation."""

    store: SimulatedStore

    def process(self) -> Process | None:
        """Any process that runs, or None."""

    def wake(self, execution_id: UUID) -> None:
        """Somebody may look at it without a reason."""


class Callers:
    """All callers; `history` is what they were told."""

    def __init__(self, world: World, theme: Theme, chance: Random) -> None:
        self.history: list[Answer] = []
        self._world = world
        self._theme = theme
        self._chance = chance
        self._numbers = 0

    async def publish(self) -> None:
        """The workflows that others run. Nobody is told: they are there, or a call fails."""
        chance = self._chance
        for name, steps, taste in (("inmost", (1, 2), INMOST), ("inner", (1, 3), INNER)):
            tasted = with_agents(taste) if self._theme.agents else taste
            definition = seeded_definition(chance, steps, tasted, name)
            caller = self._caller("publish")
            for _ in range(ASKED_TIMES_MAX):
                process = self._world.process()
                if process is None:
                    continue
                work = process.workflows.publish(caller, definition)
                try:  # a process that is lost never answers
                    await asyncio.wait_for(work, PATIENCE_SECONDS)
                except (FlowledgerError, TimeoutError):
                    continue
                break

    async def execute(self) -> None:
        """Request an execution of a random definition."""
        chance, theme = self._chance, self._theme
        definition = seeded_definition(chance, theme.steps, theme.taste)
        options = ExecuteOptions(
            input_data=INPUTS.made(chance) | ({"missing": 7} if chance.random() < 0.8 else {}),
            atomic_mode=theme.modes.made(chance),
            recovery=theme.recoveries.made(chance),
            priority=chance.randrange(3),
            delay_seconds=chance.random() * 3 if chance.random() < 0.2 else None,
        )
        caller = self._caller("execute")
        execution_id = caller.identity(NAMESPACE)
        await self._ask(
            "execute",
            execution_id,
            caller,
            lambda process, each: process.requests.execute_inline(each, definition, options),
        )

    async def meddle(self) -> None:
        """Ask something of some execution; sometimes several do so at once."""
        state = self._some_state()
        if state is not None:
            weights = [self._theme.verbs.get(each.name, each.weight) for each in VERBS]
            verb = self._chance.choices(VERBS, weights)[0]
            several = self._chance.choice((1, 1, 2, 3))
            await asyncio.gather(*(self._do(verb, state) for _ in range(several)))

    async def _do(self, verb: Verb, state: ExecutionState) -> None:
        await asyncio.sleep(self._chance.random() * AT_ONCE_SECONDS)
        ask = verb.make(self._chance, state)
        if ask is not None:
            self._world.wake(state.id)
            await self._ask(verb.name, state.id, self._caller(f"{verb.name}:{state.id}"), ask)

    def _caller(self, route: str) -> Caller:
        self._numbers += 1
        key = f"k{self._numbers}"
        return Caller(actor=f"caller-{key}", route=route, idempotency_key=key, fingerprint=key)

    def _some_state(self) -> ExecutionState | None:
        streams = self._world.store.streams
        known = [
            each for each, stream in streams.items() if isinstance(stream[0].event.data, Requested)
        ]
        if not known:
            return None
        chosen = known[self._chance.randrange(len(known))]
        return fold(each.event for each in streams[chosen])

    async def _ask(self, verb: str, execution_id: UUID, caller: Caller, ask: Ask) -> None:
        """Until there is an answer or patience is over; sometimes once more, to be sure."""
        command_id = str(caller.identity(NAMESPACE))
        for _ in range(ASKED_TIMES_MAX):
            told, version = await self._once(ask, caller)
            if told == "done" and not self._is_of(command_id, execution_id, version):
                told = "nothing"
            self.history.append(Answer(command_id, execution_id, told, verb, version))
            if told != "unknown" and self._chance.random() < 0.9:
                return

    async def _once(self, ask: Ask, caller: Caller) -> tuple[Told, int | None]:
        process = self._world.process()
        if process is None:
            await asyncio.sleep(0.2)
            return "unknown", None
        loop = asyncio.get_running_loop()
        task = loop.create_task(_reply(ask(process, caller)))
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        if not task.done():
            if self._chance.random() < 0.5:
                task.cancel()
            return "unknown", None
        return task.result()

    def _is_of(self, command_id: str, execution_id: UUID, version: int | None) -> bool:
        """Whether the answer is about an event of this command; also when that one is missing."""
        stream = self._world.store.streams.get(execution_id, [])
        if version is None or version > len(stream):
            return True
        return stream[version - 1].event.meta.cmd == command_id


async def _reply(call: Awaitable[Reply]) -> tuple[Told, int | None]:
    try:
        reply = await call
    except (NotReady, ConcurrentUpdate):
        return "unknown", None
    except FlowledgerError:
        return "refused", None
    return "done", reply.view.version
