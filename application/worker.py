"""The engine of one process: claims what is due, keeps its leases, and gives them back at the end.

What happens to a claimed execution is in `application/driver.py`. A wait occupies nothing here: an
execution without running effects is handed back with its next due time. The worker awaits only its
ports, so the same code runs on a virtual clock.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any, Final
from uuid import UUID

from application.children import Children
from application.driver import BACK_OFF_SECONDS, Driver, WorkerFigures
from application.ledger import Entry, Ledger
from application.ports import ChangeFeed, Claim, Clock, Report, StoreUnavailable, WorkQueue
from application.requests import InputSchemas
from application.run import Run
from application.steps import Actions
from application.workflows import Workflows
from domain.draft import Draft
from domain.errors import NotReady
from domain.execution import ExecutionState
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules

POLL_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.05
DUES_MAX: Final = 10_000
"""Due times kept in memory; beyond that the queue is asked."""
CLAIM_AHEAD: Final = 1.5
"""Claims reach this far beyond the free slots, so that no slot waits for the next claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """`slots` executions run at a time; leases as the queue has them: renewed every
    `renew_seconds`, given up without an answer after `fence_seconds`.
    """

    slots: int = 100
    renew_seconds: float = 5.0
    fence_seconds: float = 10.0
    grace_seconds: float = 20.0


class Worker:
    """Runs executions of one process."""

    def __init__(
        self,
        ledger: Ledger,
        queue: WorkQueue,
        clock: Clock,
        feed: ChangeFeed,
        workflows: Workflows,
        actions: Actions,
        options: WorkerOptions,
        report: Report,
        rules: RecoveryRules = DEFAULT_RULES,
        schemas: InputSchemas | None = None,
    ) -> None:
        """`schemas` None: the input of child executions is not held to their input_schema."""
        self._ledger = ledger
        self._queue = queue
        self._clock = clock
        self._feed = feed
        self._options = options
        self._report = report
        self._runs: dict[UUID, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._claim_now = asyncio.Event()
        self._dues: list[datetime] = []
        self._ahead: deque[Run] = deque()
        """Claimed, with no slot yet."""
        self._stopping = False
        self._renewed_at: datetime | None = None
        self._idle: frozenset[tuple[UUID, int]] = frozenset()
        self._unsubscribe: Callable[[], None] = lambda: None
        children = Children(ledger, workflows, self, schemas)
        self._driver = Driver(
            ledger, queue, clock, workflows, actions, report, self, children, rules
        )

    # --- life of the worker ---

    def start(self) -> None:
        """Begin to claim; call inside the event loop."""
        self._unsubscribe = self._feed.subscribe(self._changed)
        self._renewed_at = self._clock.now()
        for loop in (self._claiming(), self._renewing(), self._ticking()):
            self._loops.append(asyncio.get_running_loop().create_task(loop))

    async def stop(self) -> None:
        """Finish running handlers within the grace time, interrupt the rest, give every lease
        back.
        """
        self._stopping = True
        self._unsubscribe()
        for loop in self._loops[:1]:
            loop.cancel()
        waited = 0.0
        while self._tasks and waited < self._options.grace_seconds:
            await self._clock.sleep(TICK_SECONDS)
            waited += TICK_SECONDS
        for task in [*self._tasks, *self._loops]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._loops, return_exceptions=True)
        try:
            await self._queue.release_all()
        except StoreUnavailable:
            self._report("leases_left_to_expire", {"executions": len(self._runs)})
        self._runs.clear()

    @property
    def stopping(self) -> bool:
        """Whether nothing new may begin."""
        return self._stopping

    @property
    def figures(self) -> WorkerFigures:
        """What it did since the start."""
        return self._driver.figures

    def fresh(self) -> bool:
        """Whether leases were renewed lately (readiness)."""
        limit = timedelta(seconds=self._options.fence_seconds)
        return self._renewed_at is not None and self._clock.now() - self._renewed_at < limit

    def holds(self) -> int:
        """Executions leased by this worker."""
        return len(self._runs)

    # --- executions handed over directly ---

    def reserve(self, execution_id: UUID) -> bool:
        """Keep a slot for an execution that this process is about to append; False when there is
        no room.
        """
        if not self.has_room or execution_id in self._runs:
            return False
        self._runs[execution_id] = Run(execution_id, 0, self._clock.now())
        return True

    def cancel_reservation(self, execution_id: UUID) -> None:
        """The append did not take place."""
        run = self._runs.get(execution_id)
        if run is not None and run.entry is None and run.epoch == 0:
            del self._runs[execution_id]

    async def first_steps(self, state: ExecutionState) -> Draft | None:
        """How an execution that was reserved, and is about to be stored, begins; None when that is
        left to its first look at it, which also meets again what goes wrong here.
        """
        run = self._runs.get(state.id)
        if run is None or run.epoch:
            return None
        try:
            return await self._driver.first_steps(run, state)
        except (NotReady, StoreUnavailable):
            return None
        except Exception as error:  # noqa: BLE001 - nothing is stored yet, and the request is good
            facts = {"execution_id": str(state.id), "error": repr(error), "exception": error}
            self._report("execution_not_begun_with_its_request", facts)
            return None

    def accept(self, entry: Entry, epoch: int) -> None:
        """Run what was reserved; its queue row is leased to this worker with `epoch`.

        Whoever was told of the append late may find the reservation gone: the worker has stopped,
        or has claimed the execution since. It is in the queue then, so nothing is to be done here.
        """
        run = self._runs.get(entry.state.id)
        if run is None or run.epoch:
            return
        run.epoch, run.entry, run.expected = epoch, entry, entry.state.version
        run.since = self._clock.now()
        begins = bool(entry.state.live) and not self._stopping
        self.spawn(run, self._driver.begin(run) if begins else self._driver.drive(run))

    @property
    def has_room(self) -> bool:
        """Whether a slot is free for one more execution."""
        return not self._stopping and bool(self._loops) and len(self._runs) < self._options.slots

    def take(self, claim: Claim, asked_at: datetime) -> None:
        """Run an execution that was claimed by its name; the lease was asked for at `asked_at`."""
        self._begin(claim, asked_at)

    @asynccontextmanager
    async def paused(self, execution_id: UUID) -> AsyncIterator[None]:
        """Nothing is recorded of this execution meanwhile, if it runs here."""
        run = self._runs.get(execution_id)
        if run is None:
            yield
        else:
            async with run.lock:
                yield

    # --- loops ---

    async def _claiming(self) -> None:
        while True:
            self._claim_now.clear()
            full = False
            room = int(self._options.slots * CLAIM_AHEAD) - len(self._runs)
            if room > 0:
                full = await self._claim(room)
            if not full:
                await self._look_ahead()
                await self._wait_for_work()

    async def _look_ahead(self) -> None:
        """When the queue's next row gets ready, unless a nearer time is known already."""
        now = self._clock.now()
        while self._dues and self._dues[0] <= now:
            heappop(self._dues)
        if not self._dues:
            with suppress(StoreUnavailable):
                due = await self._queue.next_due()
                if due is not None and due > now:
                    heappush(self._dues, due)

    async def _claim(self, room: int) -> bool:
        asked_at = self._clock.now()
        try:
            claims = await self._queue.claim(min(room, 200))
        except StoreUnavailable:
            await self._clock.sleep(BACK_OFF_SECONDS)
            return False
        for claim in claims:
            self._begin(claim, asked_at)
        return bool(claims)

    def _begin(self, claim: Claim, asked_at: datetime) -> None:
        """Work under a lease that was asked for at `asked_at`, from which it counts."""
        held = self._runs.get(claim.execution_id)
        if held is not None and held.epoch >= claim.epoch:
            # The answer to this claim was long on its way. The lease was taken up at a renewal
            # meanwhile, or is over: the execution ended, was retried, and is leased anew.
            return
        if held is not None:
            self._driver.drop(held)
        run = Run(claim.execution_id, claim.epoch, asked_at)
        run.since = self._clock.now()
        run.expected = claim.version
        self._runs[claim.execution_id] = run
        self._driver.figures.claimed += 1
        if len(self._runs) - len(self._ahead) > self._options.slots:
            self._ahead.append(run)
        else:
            self.spawn(run, self._driver.load_and_drive(run))

    async def _wait_for_work(self) -> None:
        until = self._clock.now() + timedelta(seconds=POLL_SECONDS)
        wake = self._clock.call_at(min([until, *self._dues[:1]]), self._claim_now.set)
        try:
            await self._claim_now.wait()
        finally:
            wake()

    async def _renewing(self) -> None:
        pause = self._options.renew_seconds
        while True:
            await self._clock.sleep(pause)
            started = self._clock.now()
            try:
                claims = await self._queue.renew()
            except StoreUnavailable:
                # Soon again: two turns that fail would be the end of every lease.
                pause = min(BACK_OFF_SECONDS, self._options.renew_seconds)
                continue
            pause = self._options.renew_seconds
            self._renewed_at = started  # the lease counts from a moment after it
            self._driver.figures.renewals += 1
            self._compare(claims, started)
            self._take_up(claims, started)

    def _compare(self, claims: Sequence[Claim], asked_at: datetime) -> None:
        """Runs whose queue row is gone or has moved on look at the log."""
        mine = {claim.execution_id: claim for claim in claims}
        for run in list(self._runs.values()):
            if not run.epoch or run.since >= asked_at:
                continue
            claim = mine.get(run.execution_id)
            if claim is None or claim.epoch != run.epoch:
                self.spawn(run, self._driver.check_lease(run))
            elif claim.version > run.expected or claim.woken:
                self.spawn(run, self._driver.refresh(run))

    def _take_up(self, claims: Sequence[Claim], asked_at: datetime) -> None:
        """Work under leases of ours that nobody here knows of: the answer to a claim was lost, or
        who asked for the execution left before it could be handed over.

        Taken up when seen twice in a row: one that was seen once may just be on its way.
        """
        idle = {
            (claim.execution_id, claim.epoch): claim
            for claim in claims
            if claim.execution_id not in self._runs
        }
        if not self._stopping:
            for key in idle.keys() & self._idle:
                self._begin(idle[key], asked_at)
        self._idle = frozenset(idle)

    def _fence(self) -> None:
        """No renewal for too long: others may have taken over, so nothing more is done under these
        leases. One that was granted meanwhile is as good as a renewed one.
        """
        if self.fresh():
            return
        oldest = self._clock.now() - timedelta(seconds=self._options.fence_seconds)
        for run in list(self._runs.values()):
            if run.epoch and run.asked_at <= oldest:
                self._driver.lose(run)

    async def _ticking(self) -> None:
        """Time-outs of tries and leases held here; all else that is timed lies in the queue."""
        while True:
            await self._clock.sleep(TICK_SECONDS)
            self._fence()
            now = self._clock.now()
            for run in list(self._runs.values()):
                if run.due is not None and run.due <= now and run.assigned:
                    run.due = None
                    self.spawn(run, self._driver.refresh(run))

    def _changed(self, execution_id: UUID, version: int) -> None:
        parents = self._driver.parents
        if parents and (parent := parents.get(execution_id)) is not None:
            self.spawn(parent, self._driver.child_changed(parent, execution_id))
        run = self._runs.get(execution_id)
        if run is None:
            if not self._known_to_have_ended(execution_id, version):
                self._claim_now.set()
        elif run.entry is not None and version > run.expected:
            run.expected = version
            self.spawn(run, self._driver.refresh(run))

    def _known_to_have_ended(self, execution_id: UUID, version: int) -> bool:
        """Whether that change is an end which this process recorded itself: nothing to claim.

        Asked for each of them, so that a worker with room does not ask the queue after every end.
        """
        entry = self._ledger.cache.get(execution_id)
        if entry is None or entry.state.version < version or not entry.state.terminal:
            return False
        # Its parent may be ready, or children of its own are owed something.
        return entry.state.parent is None and not entry.state.children

    def spawn(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the others; a failure is reported."""
        task = asyncio.get_running_loop().create_task(self._driver.guarded(run, work))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            work.close()  # which a task that was cancelled before it ran never began
            self._ended(task)

        task.add_done_callback(ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report("worker_task_failed", {"error": repr(error), "exception": error})

    def claim_soon(self, due: datetime | None) -> None:
        """There is something to claim: now, or at `due`."""
        if due is None:
            self._claim_now.set()
        elif due - self._clock.now() < timedelta(seconds=POLL_SECONDS):
            self._clock.call_at(due, self._claim_now.set)
        elif len(self._dues) < DUES_MAX:
            heappush(self._dues, due)

    def forget(self, run: Run) -> None:
        """The run is over for this worker; its slot is free, if it had one."""
        run.over = True
        if run.attended:
            self._driver.forget_children(run)
        if self._runs.get(run.execution_id) is run:
            del self._runs[run.execution_id]
            if run in self._ahead:  # it held no slot, so it frees none
                self._ahead.remove(run)
            self._begin_next()
            if len(self._runs) < self._options.slots and len(self._runs) + 1 >= self._options.slots:
                self._claim_now.set()

    def _begin_next(self) -> None:
        """Begin what was claimed ahead while a slot is free."""
        while self._ahead and len(self._runs) - len(self._ahead) < self._options.slots:
            run = self._ahead.popleft()
            if not self._stopping:
                self.spawn(run, self._driver.load_and_drive(run))
