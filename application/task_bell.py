"""Wakes those who ask for tasks of agents as soon as there may be one for them.

The tables follow the log a little later than the change feed tells of it: they are told to hurry
while somebody waits, and a look that finds nothing is repeated, at ever longer pauses. However many
wait, one look serves all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from application.ports import ChangeFeed, Clock, Overloaded, StoreUnavailable

FIRST_LOOK_SECONDS: Final = 0.02
LAST_LOOK_SECONDS: Final = 1.0

Offered = Callable[[str, Collection[str], int], Awaitable[Mapping[str, int]]]
"""(workspace, agents, at most) -> how many tasks of each agent may be taken."""


class _Waiter:
    __slots__ = ("agents", "future", "workspace_id")

    def __init__(self, workspace_id: str, agents: Collection[str]) -> None:
        self.workspace_id = workspace_id
        self.agents = agents
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def wake(self, *, found: bool) -> None:
        if not self.future.done():
            self.future.set_result(found)


class TaskBell:
    """Who waits for tasks of which agents; the longest waiting are woken first."""

    def __init__(
        self, offered: Offered, feed: ChangeFeed, clock: Clock, hurry: Callable[[], None]
    ) -> None:
        self._offered = offered
        self._hurry = hurry
        self._clock = clock
        self._waiting: list[_Waiter] = []
        self._looking: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        self._changed = False
        self._closed = False
        self._unsubscribe = feed.subscribe(self._hear)

    @property
    def closed(self) -> bool:
        """Whether nobody is woken any more."""
        return self._closed

    def close(self) -> None:
        """Wake everybody: nothing comes any more."""
        self._closed = True
        self._unsubscribe()
        for waiter in self._waiting:
            waiter.wake(found=False)
        self._look_now.set()

    async def wait(self, workspace_id: str, agents: Collection[str], until: datetime) -> bool:
        """Whether there is something to take for one of `agents`; False once it is `until`."""
        if self._closed:
            return False
        waiter = _Waiter(workspace_id, agents)
        self._waiting.append(waiter)
        self._changed = True  # what came since the caller's own look is found at once
        self._look_now.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again_and_again())
        over = self._clock.call_at(until, lambda: waiter.wake(found=False))
        try:
            return await waiter.future
        finally:
            over()
            with suppress(ValueError):
                self._waiting.remove(waiter)

    def _hear(self, stream_id: UUID, version: int) -> None:
        del stream_id, version
        if self._waiting:
            self._changed = True
            self._look_now.set()

    async def _look_again_and_again(self) -> None:
        pause = FIRST_LOOK_SECONDS
        try:
            while self._waiting:
                if await self._heard(pause):
                    self._hurry()
                    await self._clock.sleep(FIRST_LOOK_SECONDS)
                    pause = FIRST_LOOK_SECONDS
                else:
                    pause = min(2 * pause, LAST_LOOK_SECONDS)
                try:
                    await self._ring()
                except (StoreUnavailable, Overloaded):
                    pause = LAST_LOOK_SECONDS
        finally:
            self._looking = None

    async def _heard(self, seconds: float) -> bool:
        """Whether something changed before `seconds` have passed."""
        wake = self._clock.call_at(
            self._clock.now() + timedelta(seconds=seconds), self._look_now.set
        )
        try:
            await self._look_now.wait()
        finally:
            wake()
        self._look_now.clear()
        changed, self._changed = self._changed, False
        return changed

    async def _ring(self) -> None:
        for workspace_id in {each.workspace_id for each in self._waiting}:
            asking = [each for each in self._waiting if each.workspace_id == workspace_id]
            agents = {name for each in asking for name in each.agents}
            left = dict(await self._offered(workspace_id, agents, len(asking)))
            for waiter in asking:
                name = next((each for each in waiter.agents if left.get(each, 0) > 0), None)
                if name is not None:
                    left[name] -= 1
                    waiter.wake(found=True)
                    with suppress(ValueError):
                        self._waiting.remove(waiter)
