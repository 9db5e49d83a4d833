"""Small aggregates in and out of the log: workflows, agents.

Their states are cached, commands are carried out at most once, and conflicts, lost answers and
repeats are settled here. Executions, which are many and long, have `ledger.py`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from application.callers import Caller
from application.ledger import TRIES, not_ready, outcome_unknown
from application.ports import (
    Append,
    Clock,
    EventLog,
    Overloaded,
    StoreUnavailable,
    UnknownOutcome,
    VersionConflict,
)
from domain.errors import ConcurrentUpdate, KeyReused
from domain.events import Event, Meta, Payload, Recorded

TRUSTED: Final = timedelta(milliseconds=200)
"""How long a cached state is used without a look at the log; a change in this process is seen at
once.
"""
_STREAMS_KEPT: Final = 1_000


class Versioned(Protocol):
    """A state that knows its stream and how many events made it."""

    @property
    def id(self) -> UUID:
        """The stream."""

    @property
    def version(self) -> int:
        """Events so far."""

    @property
    def updated_at(self) -> datetime:
        """When the last of them was recorded."""


State = TypeVar("State", bound=Versioned)


class Done(NamedTuple, Generic[State]):
    """`state` as it is now, `then` as the command left it; `replayed` when that was earlier."""

    state: State
    then: State
    replayed: bool


class Streams(Generic[State]):
    """All aggregates of one kind."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        new_id: Callable[[], UUID],
        *,
        kind: str,
        evolve: Callable[[State | None, Event], State],
    ) -> None:
        """`kind` is the first part of their topics."""
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._kind = kind
        self._evolve = evolve
        self._cache: OrderedDict[UUID, tuple[State, datetime]] = OrderedDict()
        self._looks: dict[UUID, asyncio.Task[State | None]] = {}
        """Reads on their way, which all callers that trust a recent state share."""

    async def load(self, stream: UUID, *, trusted: bool = True) -> State | None:
        """A state: the cached one while it is fresh, else with what the log has in addition.

        None for a stream of another kind.
        """
        if not trusted:
            return await self._look(stream)
        cached = self._cache.get(stream)
        if cached is not None and self._clock.now() - cached[1] < TRUSTED:
            return cached[0]
        look = self._looks.get(stream)
        if look is None:
            look = self._looks[stream] = asyncio.get_running_loop().create_task(self._look(stream))
            look.add_done_callback(lambda done: self._looked(stream, done))
        return await asyncio.shield(look)

    def _looked(self, stream: UUID, done: asyncio.Task[State | None]) -> None:
        del self._looks[stream]
        if not done.cancelled():
            done.exception()  # told to whoever waits; nobody may be left who does

    async def _look(self, stream: UUID) -> State | None:
        """What is known of it, with what the log has in addition."""
        cached = self._cache.get(stream)
        now = self._clock.now()
        state = cached[0] if cached else None
        newer = await self._read(stream, after_version=state.version if state else 0)
        if newer and not newer[0].event.data.TOPIC.startswith(f"{self._kind}."):
            return None
        for recorded in newer:
            state = self._evolve(state, recorded.event)
        return None if state is None else self._remember(state, now)

    async def command(
        self,
        caller: Caller,
        stream: UUID,
        decide: Callable[[State | None], Awaitable[Sequence[Payload]]],
    ) -> Done[State]:
        """Carry out a command: at most once, with the same answer to a repeat.

        No facts mean that there is nothing to do to what exists. Raises KeyReused, NotReady,
        ConcurrentUpdate, and what `decide` raises.
        """
        command_id = caller.identity(self._new_id())
        lost = False
        for _ in range(TRIES):
            repeated = await self._repeated(caller, stream, command_id)
            state = await self.load(stream, trusted=False)
            if repeated is not None and state is not None:
                return Done(state, repeated, not lost)
            facts = await decide(state)
            if not facts and state is not None:
                return Done(state, state, False)
            meta = caller.meta(self._time_after(state), command_id)
            events = _events(stream, state, meta, facts)
            try:
                await self._log.append(Append(stream, events))
            except (VersionConflict, UnknownOutcome) as error:
                self._cache.pop(stream, None)
                lost = lost or isinstance(error, UnknownOutcome)
                continue
            except (Overloaded, StoreUnavailable) as error:
                raise not_ready(error) from error
            for event in events:
                state = self._evolve(state, event)
            if state is not None:
                self._remember(state, self._clock.now())
                return Done(state, state, False)
        if lost:
            raise outcome_unknown()
        raise ConcurrentUpdate(
            f"Others changed this {self._kind} three times meanwhile; read it and try again."
        )

    def _time_after(self, state: State | None) -> datetime:
        """Now; never before the last event, also when the clock was set back since."""
        now = self._clock.now()
        return now if state is None else max(now, state.updated_at)

    def _remember(self, state: State, now: datetime) -> State:
        """The newest state known: a command may have moved it on during a look at the log."""
        known = self._cache.get(state.id)
        if known is not None and known[0].version > state.version:
            return known[0]
        self._cache[state.id] = (state, now)
        self._cache.move_to_end(state.id)
        if len(self._cache) > _STREAMS_KEPT:
            self._cache.popitem(last=False)
        return state

    async def _read(self, stream: UUID, after_version: int = 0) -> Sequence[Recorded]:
        try:
            return await self._log.read_stream(stream, after_version=after_version)
        except (Overloaded, StoreUnavailable) as error:
            raise not_ready(error) from error

    async def _repeated(self, caller: Caller, stream: UUID, command_id: UUID) -> State | None:
        """The state that an earlier command with this identity left behind."""
        state = found = None
        for recorded in await self._read(stream):
            event = recorded.event
            state = self._evolve(state, event)
            if event.meta.cmd == str(command_id):
                if (
                    caller.idempotency_key is not None
                    and event.meta.fingerprint != caller.fingerprint
                ):
                    raise KeyReused(
                        "This Idempotency-Key was used before with another request; use a new key."
                    )
                found = state
            elif found is not None:
                break
        return found


def _events(
    stream: UUID, state: Versioned | None, meta: Meta, facts: Sequence[Payload]
) -> list[Event]:
    base = 0 if state is None else state.version
    return [Event(stream, base + index + 1, meta, fact) for index, fact in enumerate(facts)]
