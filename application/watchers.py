"""Who waits for which execution to change, woken by the change feed.

A waiter says what state is enough for it, so that it is woken once and not at each event.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from application.ledger import StateCache
from application.ports import ChangeFeed, Clock
from domain.execution import ExecutionState

Enough = Callable[[ExecutionState], bool]


class _Waiter(NamedTuple):
    future: "asyncio.Future[bool]"
    enough: Enough


class Watchers:
    """Waits for changes; a hint that is lost is made up for by the caller's own time limit."""

    def __init__(self, feed: ChangeFeed, cache: StateCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._waiting: dict[UUID, list[_Waiter]] = {}
        self._end: Callable[[], None] = feed.subscribe(self._changed)

    def close(self) -> None:
        """Stop listening."""
        self._end()

    def expect(self, execution_id: UUID, enough: Enough) -> "asyncio.Future[bool]":
        """A future for `wait`: register before the last look, so that no change falls between."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(execution_id, []).append(_Waiter(future, enough))
        return future

    async def wait(
        self, execution_id: UUID, future: "asyncio.Future[bool]", seconds: float
    ) -> bool:
        """Whether a state that is enough, or an unknown one, came within `seconds`."""

        def give_up() -> None:
            if not future.done():
                future.set_result(False)

        end = self._clock.call_at(self._clock.now() + timedelta(seconds=seconds), give_up)
        try:
            return await future
        finally:
            end()
            self.forget(execution_id, future)

    def forget(self, execution_id: UUID, future: "asyncio.Future[bool]") -> None:
        """Nobody waits on it any more."""
        waiting = self._waiting.get(execution_id)
        if waiting is not None:
            left = [each for each in waiting if each.future is not future]
            if left:
                self._waiting[execution_id] = left
            else:
                del self._waiting[execution_id]

    def _changed(self, execution_id: UUID, version: int) -> None:
        waiting = self._waiting.get(execution_id)
        if not waiting:
            return
        cached = self._cache.get(execution_id)
        known = cached.state if cached is not None and cached.state.version >= version else None
        for future, enough in waiting:
            # Somebody else's change is not in the cache yet: the waiter has to look.
            if not future.done() and (known is None or enough(known)):
                future.set_result(True)
