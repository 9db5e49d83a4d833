"""Who waits for which execution to change, woken by the change feed.

A waiter says what state is enough for it, so that it is woken once and not at each event.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from application.ledger import StateCache
from application.ports import ChangeFeed, Clock
from domain.execution import ExecutionState

Enough = Callable[[ExecutionState], bool]
TICK_SECONDS: Final = 0.05
"""How exactly a wait ends that nothing woke; one timer serves all of them."""


class Waiter:
    """One who waits; made by `expect`, used up by `wait`."""

    __slots__ = ("enough", "execution_id", "future", "until")

    def __init__(self, execution_id: UUID, enough: Enough) -> None:
        self.execution_id = execution_id
        self.enough = enough
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.until: datetime | None = None


class Watchers:
    """Waits for changes; a hint that is lost is made up for by the caller's own time limit."""

    def __init__(self, feed: ChangeFeed, cache: StateCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._waiting: dict[UUID, list[Waiter]] = {}
        self._ticking = False
        self._end: Callable[[], None] = feed.subscribe(self._changed)

    def close(self) -> None:
        """Stop listening, and wake everybody: nothing is seen any more."""
        self._end()
        for waiting in self._waiting.values():
            for waiter in waiting:
                if not waiter.future.done():
                    waiter.future.set_result(False)

    def expect(self, execution_id: UUID, enough: Enough) -> Waiter:
        """Somebody to wake: register before the last look, so that no change falls between."""
        waiter = Waiter(execution_id, enough)
        self._waiting.setdefault(execution_id, []).append(waiter)
        return waiter

    async def wait(self, waiter: Waiter, seconds: float) -> bool:
        """Whether a state that is enough, or an unknown one, came within `seconds`."""
        waiter.until = self._clock.now() + timedelta(seconds=seconds)
        if not self._ticking:
            self._ticking = True
            self._tick()
        try:
            return await waiter.future
        finally:
            self.forget(waiter)

    def forget(self, waiter: Waiter) -> None:
        """Nobody waits any more."""
        waiting = self._waiting.get(waiter.execution_id)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[waiter.execution_id]

    def _tick(self) -> None:
        now = self._clock.now()
        for waiting in self._waiting.values():
            for waiter in waiting:
                over = waiter.until is not None and waiter.until <= now
                if over and not waiter.future.done():
                    waiter.future.set_result(False)
        self._ticking = bool(self._waiting)
        if self._ticking:
            self._clock.call_at(now + timedelta(seconds=TICK_SECONDS), self._tick)

    def _changed(self, execution_id: UUID, version: int) -> None:
        waiting = self._waiting.get(execution_id)
        if not waiting:
            return
        cached = self._cache.get(execution_id)
        known = cached.state if cached is not None and cached.state.version >= version else None
        for waiter in waiting:
            # Somebody else's change is not in the cache yet: the waiter has to look.
            if not waiter.future.done() and (known is None or waiter.enough(known)):
                waiter.future.set_result(True)
