"""Starts executions that wait for their request to come back from Kafka.

One that was told of runs in this process, or, while it has no room, wherever there is some. A
request may be lost with the topic it was in, so that every execution that waits for too long is
made ready once a minute.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from application.callers import DEFAULT_WORKSPACE
from application.messages import NOT_NOW
from application.ports import Claim, Clock, NamedStarts, Report
from application.reads import ExecutionQuery, Page
from application.views import ExecutionView
from domain.lifecycle import PENDING

SWEEP_SECONDS: Final = 60.0
WAITING_MAX: Final = timedelta(seconds=30)
"""How long an execution waits for its request before it is looked for."""
PAGE: Final = 100


class Starter(Protocol):
    """This process's worker."""

    @property
    def has_room(self) -> bool:
        """Whether it can run one more execution."""

    def take(self, claim: Claim, asked_at: datetime) -> None:
        """Run what was claimed."""


class PendingRows(Protocol):
    """Executions as the tables have them."""

    async def executions(self, query: ExecutionQuery) -> Page[ExecutionView]:
        """A page of them."""


class PendingStarts:
    """`begin` and `end` the search in the event loop; `start` is for those who were told."""

    def __init__(
        self,
        queue: NamedStarts,
        worker: Starter,
        rows: PendingRows,
        clock: Clock,
        report: Report,
        *,
        workspace_id: str = DEFAULT_WORKSPACE,
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._rows = rows
        self._clock = clock
        self._report = report
        self._workspace = workspace_id
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look for those that wait, now and once a minute."""
        self._task = asyncio.get_running_loop().create_task(self._sweeping())

    async def end(self) -> None:
        """Look no more. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def start(self, execution_id: UUID) -> None:
        """Its request came. Does nothing when somebody has it, or its time has not come.

        Raises StoreUnavailable.
        """
        if not self._worker.has_room:
            await self._queue.make_ready(execution_id)
            return
        asked_at = self._clock.now()
        claim = await self._queue.claim_named(execution_id)
        if claim is not None:
            self._worker.take(claim, asked_at)

    async def sweep(self) -> int:
        """Make ready what waits for too long; how many these were. Raises one of NOT_NOW."""
        before = self._clock.now() - WAITING_MAX
        found, cursor = 0, None
        while True:
            page = await self._rows.executions(
                ExecutionQuery(
                    workspace_id=self._workspace,
                    statuses=(PENDING,),
                    created_before=before,
                    sort="created_at",
                    page_size=PAGE,
                    cursor=cursor,
                )
            )
            for view in page.items:
                found += await self._queue.make_ready(UUID(view.id))
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def _sweeping(self) -> None:
        while True:
            try:
                found = await self.sweep()
            except NOT_NOW as error:
                self._report("pending_executions_not_looked_for", {"cause": str(error)})
            except Exception as error:  # noqa: BLE001 - the next look may work
                self._report("pending_executions_not_looked_for", {"exception": error})
            else:
                if found:
                    self._report("pending_executions_made_ready", {"executions": found})
            await self._clock.sleep(SWEEP_SECONDS)
