"""A message broker and the relay's way to it: the real relay sends, whatever becomes of it, and
what it sends comes to those who listen, at least once and in any order.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from application.messages import (
    AgentTask,
    BrokerAway,
    ExecutionRequest,
    Fact,
    Message,
    TransportHealth,
)
from application.ports import StoreUnavailable
from application.relay import CheckpointMoved
from domain.events import Recorded, StepStarted, WorkflowPublished
from domain.json_values import Json, JsonObject
from tests.simulation.line import Life, Line, Weather
from tests.simulation.store import SimulatedStore

T = TypeVar("T")
AWAY_SECONDS: Final = 3.0


@dataclass(slots=True)
class Broker:
    """`take` and `start` get each task and each request that is stored; `position` is the relay's
    checkpoint in the database, `leader` the session that has the lock on it, `letters` what could
    not be sent. It is away while `outages` go on.
    """

    take: Callable[[AgentTask], None]
    start: Callable[[ExecutionRequest], None]
    outages: int = 0
    position: int = 0
    leader: "RelaySession | None" = None
    letters: list[str] = field(default_factory=list)


def spell(fact: Fact, position: int | None) -> Message:
    """What the facts look like here."""
    return Message(topic=type(fact).__name__, key=None, value=msgspec.json.encode(fact))


class Publisher:
    """The MessagePublisher of one process."""

    def __init__(self, broker: Broker, life: Life, weather: Weather) -> None:
        self._broker = broker
        self._life = life
        self._weather = weather

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            await self._life.reached()
            if self._weather.strikes("broker away", 0.03):
                await self._away()
            if message.topic == AgentTask.__name__:
                await asyncio.sleep(self._weather.travel())
                self._broker.take(msgspec.json.decode(message.value, type=AgentTask))
            elif message.topic == ExecutionRequest.__name__:
                await asyncio.sleep(self._weather.travel())
                self._broker.start(msgspec.json.decode(message.value, type=ExecutionRequest))
        await self._life.reached()

    async def _away(self) -> None:
        """Nobody reaches it; whoever has waited goes on, or has to begin anew."""
        self._broker.outages += 1
        try:
            await asyncio.sleep(self._weather.chance.random() * AWAY_SECONDS)
        finally:
            self._broker.outages -= 1
        await self._life.reached()
        if self._weather.chance.random() < 0.5:
            raise BrokerAway("the broker does not answer")

    def health(self) -> TransportHealth:
        away = self._broker.outages > 0
        return TransportHealth(not away, "the broker does not answer" if away else "it answers")

    async def close(self) -> None:
        return


class Letters:
    """The DeadLetters of all processes."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def add(self, message: Message, cause: str) -> None:
        self._broker.letters.append(cause)


class RelaySession:
    """The RelayLog of one process. Whoever loses the line loses the lead and what he writes."""

    def __init__(self, broker: Broker, store: SimulatedStore, line: Line, life: Life) -> None:
        self.life = life
        self._broker = broker
        self._store = store
        self._line = line

    async def lead(self) -> bool:
        return await self._call(self._take_lead)

    def _take_lead(self) -> bool:
        leader = self._broker.leader
        if leader is None or leader.life.dead:
            self._broker.leader = self
        return self._broker.leader is self

    async def position(self) -> int:
        return await self._led(lambda: self._broker.position)

    async def after(self, position: int, limit: int) -> Sequence[Recorded]:
        return await self._led(lambda: self._store.read_all(position, limit))

    async def move(self, before: int, after: int) -> None:
        await self._led(lambda: self._move(before, after))

    def _move(self, before: int, after: int) -> None:
        if self._broker.position != before:
            raise CheckpointMoved(f"the checkpoint stands at {self._broker.position}")
        self._broker.position = after

    async def outside_names(self, executions: Collection[tuple[str, UUID]]) -> Mapping[UUID, str]:
        return {}

    async def input_of(self, execution_id: UUID, path: str, attempt: int, try_no: int) -> Json:
        for recorded in await self._led(lambda: self._store.streams[execution_id]):
            data = recorded.event.data
            if isinstance(data, StepStarted) and (
                (data.path, data.attempt, data.try_no) == (path, attempt, try_no)
            ):
                return data.input
        raise LookupError(f"{execution_id}: nothing says how {path} began")

    async def published(self, workflow: UUID, number: int) -> JsonObject:
        for recorded in await self._led(lambda: self._store.streams[workflow]):
            data = recorded.event.data
            if isinstance(data, WorkflowPublished) and data.number == number:
                return data.source
        raise LookupError(f"workflow {workflow}: nothing says what its version {number} is")

    async def close(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._broker.leader is self:
            self._broker.leader = None

    async def _led(self, work: Callable[[], T]) -> T:
        def led() -> T:
            if self._broker.leader is not self:
                raise StoreUnavailable("the session is over")
            return work()

        return await self._call(led)

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await self._line.call(work)
        except StoreUnavailable:
            self._end()
            raise
