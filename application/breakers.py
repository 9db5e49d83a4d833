"""Circuit breakers of agents, shared by all processes: ask before a call, tell after it.

The shared state is one small record per agent, changed by compare-and-swap. A call to an agent that
works costs no access to it: each process looks at the record at most once a second, and adds its
successes to it at most once a second. After a failure it looks before each call until one succeeds.
Failures and changes of state are written at once, and a probe begins only after it was written, so
that all processes together make no more than allowed.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from application.ports import Clock, Overloaded, StoreUnavailable
from domain.breaker import (
    CLOSED,
    DEFAULT_SETTINGS,
    Admitted,
    Breaker,
    BreakerSettings,
    CallResult,
    Refused,
    admit,
    record,
)

FRESH_FOR: Final = timedelta(seconds=1)
"""How old what a process knows may be, and how long it keeps successes to itself."""
SWAPS_MAX: Final = 20
"""Tries to write when other processes write, too."""
TOLD_MAX: Final = 1_000
"""Results kept while they cannot be written; the oldest go first."""
LOST_AFTER: Final = timedelta(seconds=5)
"""How long after its time limit a probe is taken for lost."""


class BreakerKey(NamedTuple):
    """Which agent."""

    workspace_id: str
    agent: str


class Stored(NamedTuple):
    """A breaker as it is shared. `version` is +1 with every change; 0 before the first."""

    breaker: Breaker
    version: int


UNKNOWN: Final = Stored(Breaker(), 0)
"""That of an agent without a record."""


class BreakerStore(Protocol):
    """The shared records, one per agent."""

    async def load(self, key: BreakerKey) -> Stored:
        """The record; `UNKNOWN` when there is none.

        Raises StoreUnavailable, Overloaded.
        """

    async def save(self, key: BreakerKey, breaker: Breaker, version: int) -> bool:
        """Puts `breaker` in the place of the record's `version`; false when it has another one now.

        Raises StoreUnavailable (it may be stored all the same), Overloaded.
        """


class _Told(NamedTuple):
    """Calls that ended alike, not yet written."""

    call: Admitted
    result: CallResult
    calls: int


@dataclass(slots=True)
class _Known:
    """What this process knows of one agent."""

    stored: Stored = UNKNOWN
    settings: BreakerSettings = DEFAULT_SETTINGS
    looked_at: datetime | None = None
    written_at: datetime | None = None
    told: list[_Told] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, told: _Told) -> None:
        """Keep a result until it is written."""
        if self.told and self.told[-1][:2] == told[:2]:
            told = told._replace(calls=told.calls + self.told.pop().calls)
        self.told.append(told)
        del self.told[:-TOLD_MAX]


class Breakers:
    """The breakers of this process. While the store does not answer, what was known last holds."""

    def __init__(self, store: BreakerStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[BreakerKey, _Known] = {}

    async def admit(
        self, key: BreakerKey, settings: BreakerSettings, limit_seconds: float
    ) -> Admitted | Refused:
        """Whether a call that ends within `limit_seconds` may be made now.

        After `Admitted` comes one `record` of it, whatever happens.
        """
        known = self._known.setdefault(key, _Known())
        known.settings = settings
        await self._refresh(key, known)
        limit = timedelta(seconds=limit_seconds) + LOST_AFTER
        decision, after = admit(known.stored.breaker, settings, self._clock.now(), limit)
        if after is known.stored.breaker:
            return decision
        with suppress(StoreUnavailable, Overloaded):
            return await self._admit_probe(key, known, limit)
        return Refused()

    async def record(self, key: BreakerKey, call: Admitted, result: CallResult) -> None:
        """How an admitted call ended."""
        if result == "neither" and not call.probe:
            return
        known = self._known.setdefault(key, _Known())
        known.add(_Told(call, result, 1))
        now = self._clock.now()
        waits = known.written_at is not None and now - known.written_at < FRESH_FOR
        ends_a_row = known.stored.breaker.failures_in_a_row > 0
        if result == "success" and waits and not (call.probe or ends_a_row):
            return
        await self._write(key, known)

    async def look(self, key: BreakerKey) -> Breaker:
        """The breaker as it is shared at this moment. Raises StoreUnavailable, Overloaded."""
        return (await self._store.load(key)).breaker

    def last_seen(self) -> Mapping[BreakerKey, str]:
        """The states of the agents that this process calls, as it saw them last."""
        return {key: known.stored.breaker.state for key, known in self._known.items()}

    async def flush(self) -> None:
        """Write the successes that are still kept back, before the process ends."""
        for key, known in self._known.items():
            await self._write(key, known)

    async def _refresh(self, key: BreakerKey, known: _Known) -> None:
        if self._is_fresh(known):
            return
        async with known.lock:
            if self._is_fresh(known):  # somebody looked while this one waited
                return
            with suppress(StoreUnavailable, Overloaded):
                known.stored = await self._store.load(key)
            known.looked_at = self._clock.now()

    def _is_fresh(self, known: _Known) -> bool:
        breaker = known.stored.breaker
        if breaker.state == CLOSED and breaker.failures_in_a_row:
            return False  # the failures of others may have opened it since
        return known.looked_at is not None and self._clock.now() - known.looked_at < FRESH_FOR

    async def _admit_probe(
        self, key: BreakerKey, known: _Known, limit: timedelta
    ) -> Admitted | Refused:
        async with known.lock:
            for _ in range(SWAPS_MAX):
                before, version = known.stored
                decision, after = admit(before, known.settings, self._clock.now(), limit)
                if after is before:
                    return decision
                if await self._swap(key, known, after, version):
                    return decision
        return Refused()

    async def _write(self, key: BreakerKey, known: _Known) -> None:
        async with known.lock:
            told, known.told = known.told, []
            try:
                for _ in range(SWAPS_MAX):
                    before, version = known.stored
                    after = self._with(before, known.settings, told)
                    if after is before or await self._swap(key, known, after, version):
                        told = []
                        return
            except (StoreUnavailable, Overloaded):
                return
            finally:  # what could not be written goes with the next result
                known.told = [*told, *known.told]

    def _with(self, breaker: Breaker, settings: BreakerSettings, told: list[_Told]) -> Breaker:
        now = self._clock.now()
        for call, result, calls in told:
            breaker = record(breaker, settings, call, result, now, calls=calls)
        return breaker

    async def _swap(self, key: BreakerKey, known: _Known, after: Breaker, version: int) -> bool:
        """Whether it was written; if not, what others wrote is known then."""
        if await self._store.save(key, after, version):
            known.stored = Stored(after, version + 1)
            known.written_at = known.looked_at = self._clock.now()
            return True
        known.stored = await self._store.load(key)
        return False
