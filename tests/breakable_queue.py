"""The work queue behind a bad line, for tests of the engine."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

from application.ports import Claim, QueueRow, QueueStatistics, StoreUnavailable, WorkQueue


class BreakableQueue:
    """The real queue behind a bad line.

    `cut`: nothing arrives, callers hear that the store does not answer. `stale`: claims and
    renewals do not arrive, but the worker believes they do. `unrenewed`: the same of renewals,
    until something is claimed. `answers_lost`: so many claims are made whose answer is lost.
    `renewals_lost`: so many renewals do not arrive. `claims` counts the tries to claim.
    `before_hand_back` runs before the next hand-back arrives.
    """

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._renewed: Sequence[Claim] = ()
        self.cut = False
        self.stale = False
        self.unrenewed = False
        self.answers_lost = 0
        self.renewals_lost = 0
        self.claims = 0
        self.before_hand_back: Callable[[], Awaitable[object]] | None = None

    def _check(self) -> None:
        if self.cut:
            raise StoreUnavailable("the line is cut")

    async def claim(self, limit: int) -> Sequence[Claim]:
        self.claims += 1
        self._check()
        claims = [] if self.stale else await self._queue.claim(limit)
        self.unrenewed = self.unrenewed and not claims
        if claims and self.answers_lost:
            self.answers_lost -= 1
            raise StoreUnavailable("the answer was lost")
        return claims

    async def renew(self) -> Sequence[Claim]:
        self._check()
        if self.renewals_lost:
            self.renewals_lost -= 1
            raise StoreUnavailable("the renewal was lost")
        if not self.stale and not self.unrenewed:
            self._renewed = await self._queue.renew()
        return self._renewed

    async def hand_back(self, claim: Claim, ready_at: datetime | None) -> bool:
        self._check()
        before, self.before_hand_back = self.before_hand_back, None
        if before is not None:
            await before()
        return await self._queue.hand_back(claim, ready_at)

    async def release_all(self) -> None:
        self._check()
        await self._queue.release_all()

    async def next_due(self) -> datetime | None:
        self._check()
        return await self._queue.next_due()

    async def row(self, execution_id: UUID) -> QueueRow | None:
        self._check()
        return await self._queue.row(execution_id)

    async def statistics(self) -> QueueStatistics:
        self._check()
        return await self._queue.statistics()
