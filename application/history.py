"""Questions about one execution, answered by folding its events: now, at any past version or time,
step by step, as a stream.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from application.ledger import Entry, Ledger, execution_uuid, not_ready
from application.ports import ChangeFeed, Overloaded, StoreUnavailable
from application.question_views import QuestionView, question_views
from application.step_history import step_history
from application.views import ExecutionView, StepView, summarise
from application.watchers import Enough, Watchers
from application.workflows import Workflows
from domain.definition import Definition
from domain.definition_reader import Mistake
from domain.errors import Invalid, MomentNotFound, NotReady
from domain.events import Recorded
from domain.execution import ExecutionState, fold
from domain.log_order import check_follows

POLL_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 15.0
"""How soon a follower looks again whom no hint woke: the feed itself looks every second."""
FIRST_LOOK_SECONDS: Final = 0.05
"""A cached state may lag behind other processes, so the first look at the log comes this soon."""
PAGE: Final = 500
ANCESTORS_MAX: Final = 100
FOLLOWERS_READING_MAX: Final = 50
"""Followers take turns to look at the log. Thousands may come at once: those who wait for their
turn neither keep commands waiting nor take the room that the store has for reads.
"""

ReadPage = Callable[[UUID, int, int], Awaitable[Sequence[Recorded]]]
"""Of an execution, after a version, so many events at most."""


class History:
    """Reads of one execution; current in every process."""

    def __init__(self, ledger: Ledger, workflows: Workflows, feed: ChangeFeed) -> None:
        self._ledger = ledger
        self._workflows = workflows
        self._watchers = Watchers(feed, ledger.cache, ledger.clock)
        self._turns = asyncio.Semaphore(FOLLOWERS_READING_MAX)
        self._closed = False

    def close(self) -> None:
        """Stop listening to changes; who waits gets what there is now."""
        self._closed = True
        self._watchers.close()

    async def state(self, workspace_id: str, execution_ref: str) -> tuple[ExecutionState, int]:
        """The present state and the position of its last event."""
        entry = await self._ledger.find(workspace_id, execution_ref)
        return entry.state, entry.position

    async def view(
        self, workspace_id: str, execution_ref: str, as_of: int | datetime | None = None
    ) -> ExecutionView:
        """The execution as it is, or as it was at a version or at a time."""
        entry = await self._ledger.find(workspace_id, execution_ref)
        if as_of is not None:
            entry = await self._as_of(entry, as_of)
        return summarise(entry.state, entry.position)

    async def ancestors(self, workspace_id: str, execution_ref: str) -> Sequence[ExecutionView]:
        """Those it was forked from, the first one first, at most 100; itself comes last."""
        entry: Entry | None = await self._ledger.find(workspace_id, execution_ref)
        found: list[ExecutionView] = []
        while entry is not None and len(found) <= ANCESTORS_MAX:
            found.append(summarise(entry.state, entry.position))
            lineage = entry.state.forked_from
            entry = None if lineage is None else await self._ledger.load(lineage.execution_id)
        return found[::-1]

    async def definition(self, state: ExecutionState) -> Definition:
        """What the execution runs."""
        return await self._workflows.definition(state)

    async def steps(self, workspace_id: str, execution_ref: str) -> Sequence[StepView]:
        """Every try of every step in every attempt, in order of start."""
        entry = await self._ledger.find(workspace_id, execution_ref)
        return step_history([each.event async for each in self._all(entry.state.id, 0)])

    async def questions(self, workspace_id: str, execution_ref: str) -> Sequence[QuestionView]:
        """Every question that was asked about its failed steps, in order."""
        entry = await self._ledger.find(workspace_id, execution_ref)
        return question_views(entry.state)

    async def events(
        self, workspace_id: str, execution_ref: str, *, after_version: int = 0, limit: int = 100
    ) -> Sequence[Recorded]:
        """A page of its events. Raises LogDamaged: the state may be remembered from before."""
        entry = await self._ledger.find(workspace_id, execution_ref)
        page = await self._ledger.read(entry.state.id, after_version, limit)
        for version, recorded in enumerate(page, after_version):
            check_follows(version, recorded.event)
        return page

    async def all_events(
        self, workspace_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[Recorded]:
        """A page of the global log, this workspace's part of it."""
        try:
            page = await self._ledger.log.read_all(after=after, limit=limit)
        except (Overloaded, StoreUnavailable) as error:
            raise not_ready(error) from error
        return [each for each in page if each.event.meta.ws == workspace_id]

    async def wait_ended(
        self, workspace_id: str, execution_ref: str, seconds: float
    ) -> ExecutionView:
        """The execution once it has ended, or as it is after `seconds`."""
        return await self._wait(workspace_id, execution_ref, seconds, lambda state: state.terminal)

    async def wait_changed(
        self, workspace_id: str, execution_ref: str, version: int, seconds: float
    ) -> ExecutionView:
        """The execution once it is past `version`, or as it is after `seconds`."""
        return await self._wait(
            workspace_id, execution_ref, seconds, lambda state: state.version > version
        )

    async def to_follow(self, workspace_id: str, execution_ref: str) -> ExecutionView:
        """The execution as it is, for one who is about to follow it."""
        async with self._turns:
            return await self.view(workspace_id, execution_ref)

    async def follow(self, execution_id: UUID, after_version: int) -> AsyncIterator[Recorded]:
        """Its events from `after_version` on as they come; ends after a terminal event that
        nothing follows.

        Holds no connection while it waits, and goes on after an outage of the store. A retry that
        reopens the execution later is another stream.
        """
        state, seen = None, 0
        while True:
            waiter = self._watchers.expect(execution_id, _any_change)
            pause = IDLE_SECONDS
            try:
                try:
                    async for recorded in self._all(execution_id, seen, self._read_in_turn):
                        seen = recorded.event.version
                        state = fold((recorded.event,), state)
                        if seen > after_version:
                            yield recorded
                except NotReady:  # what woke it is still to be seen
                    pause = POLL_SECONDS
                if state is not None and state.terminal:
                    return
                await self._watchers.wait(waiter, pause)
            finally:
                self._watchers.forget(waiter)

    # --- inside ---

    async def _wait(
        self, workspace_id: str, execution_ref: str, seconds: float, enough: Enough
    ) -> ExecutionView:
        clock, cache = self._ledger.clock, self._ledger.cache
        execution_id = execution_uuid(workspace_id, execution_ref)
        deadline = clock.now() + timedelta(seconds=seconds)
        pause = FIRST_LOOK_SECONDS
        waiter = self._watchers.expect(execution_id, enough)
        try:
            entry = cache.get(execution_id)
            # What is remembered may be old: another process may have opened an ended one again.
            if entry is None or entry.state.workspace_id != workspace_id or enough(entry.state):
                entry = await self._ledger.find(workspace_id, execution_ref)
            while not enough(entry.state):
                left = (deadline - clock.now()).total_seconds()
                if left <= 0 or self._closed:
                    break
                await self._watchers.wait(waiter, min(left, pause))
                known = cache.get(execution_id)
                moved = known is not None and known.state.version > entry.state.version
                if known is not None and moved:
                    entry = known  # it moves in this process: no need to look at the log
                    if enough(entry.state):
                        break
                waiter = self._watchers.expect(execution_id, enough)  # before a look at the log
                if not moved:
                    entry = await self._ledger.find(workspace_id, execution_ref)
                    pause = POLL_SECONDS
        finally:
            self._watchers.forget(waiter)
        return summarise(entry.state, entry.position)

    async def _read_in_turn(self, execution_id: UUID, after: int, limit: int) -> Sequence[Recorded]:
        async with self._turns:
            return await self._ledger.read(execution_id, after, limit)

    async def _all(
        self, execution_id: UUID, after: int, read: ReadPage | None = None
    ) -> AsyncIterator[Recorded]:
        read = read or self._ledger.read
        while True:
            page = await read(execution_id, after, PAGE)
            for recorded in page:
                yield recorded
            if len(page) < PAGE:
                return
            after = page[-1].event.version

    async def _as_of(self, entry: Entry, as_of: int | datetime) -> Entry:
        state = entry.state
        if isinstance(as_of, int):
            found = await self._ledger.as_of_version(state.id, as_of) if as_of > 0 else None
            if found is None or as_of > state.version:
                raise Invalid(
                    f"as_of is a version from 1 to {state.version}, or a time.",
                    [Mistake("/query/as_of", "out_of_range", f"versions are 1 to {state.version}")],
                )
            return found
        past: ExecutionState | None = None
        position = 0
        async for recorded in self._all(state.id, 0):
            if recorded.event.meta.at > as_of:
                break
            past, position = fold((recorded.event,), past), recorded.position
        if past is None:
            raise MomentNotFound(
                f"The execution did not exist at {as_of.isoformat()}; it was requested later."
            )
        return Entry(past, position)


def _any_change(state: ExecutionState) -> bool:
    return True
