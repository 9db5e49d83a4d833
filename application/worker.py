"""The engine: claim what is due, plan, record the intent, perform, record the outcome; until each
execution ends or waits.

Intent comes first: `step_started` is durable before its effect begins, and an outcome goes into
one append with the start of the next step. A wait occupies nothing here: an execution without
running effects is handed back with its next due time. The worker awaits only its ports, so the
same code runs on a virtual clock.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from application.ledger import Entry, Ledger
from application.ports import (
    ChangeFeed,
    Claim,
    Clock,
    Finish,
    Progress,
    QueueWrite,
    StaleLease,
    StoreUnavailable,
    VersionConflict,
    WorkQueue,
)
from application.run import Run, Try, context_for, effects_of, outcome_of, simulated
from application.steps import Actions, Failed
from application.workflows import Workflows
from domain import decisions
from domain.decisions import Outcome
from domain.draft import Draft
from domain.errors import NotReady
from domain.events import Meta
from domain.execution import ExecutionState
from domain.json_values import Json
from domain.planner import next_due

Result = TypeVar("Result")
POLL_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.05
BACK_OFF_SECONDS: Final = 0.2
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


@dataclass(slots=True)
class WorkerFigures:
    """Counts since the start, for metrics."""

    claimed: int = 0
    steps: int = 0
    ended: int = 0
    interrupted: int = 0
    leases_lost: int = 0


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
        report: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._clock = clock
        self._feed = feed
        self._workflows = workflows
        self._actions = actions
        self._options = options
        self._report = report
        self._runs: dict[UUID, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._claim_now = asyncio.Event()
        self._stopping = False
        self._renewed_at: datetime | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self.figures = WorkerFigures()

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
        if self._stopping or not self._loops or len(self._runs) >= self._options.slots:
            return False
        if execution_id in self._runs:
            return False
        self._runs[execution_id] = Run(execution_id, 0, self._clock.now())
        return True

    def cancel_reservation(self, execution_id: UUID) -> None:
        """The append did not take place."""
        run = self._runs.get(execution_id)
        if run is not None and run.entry is None and run.epoch == 0:
            del self._runs[execution_id]

    def accept(self, entry: Entry, epoch: int) -> None:
        """Run what was reserved; its queue row is leased to this worker with `epoch`."""
        run = self._runs[entry.state.id]
        run.epoch, run.entry, run.expected = epoch, entry, entry.state.version
        run.since = self._clock.now()
        self._spawn(self._drive(run))

    # --- loops ---

    async def _claiming(self) -> None:
        while True:
            self._claim_now.clear()
            full = False
            room = int(self._options.slots * CLAIM_AHEAD) - len(self._runs)
            if room > 0:
                full = await self._claim(room)
            if not full:
                await self._wait_for_work()

    async def _claim(self, room: int) -> bool:
        try:
            claims = await self._queue.claim(min(room, 200))
        except StoreUnavailable:
            await self._clock.sleep(BACK_OFF_SECONDS)
            return False
        for claim in claims:
            held = self._runs.get(claim.execution_id)
            if held is not None:
                self._drop(held)
            run = Run(claim.execution_id, claim.epoch, self._clock.now())
            run.expected = claim.version
            self._runs[claim.execution_id] = run
            self.figures.claimed += 1
            self._spawn(self._load_and_drive(run))
        return bool(claims)

    async def _wait_for_work(self) -> None:
        wake = self._clock.call_at(
            self._clock.now() + timedelta(seconds=POLL_SECONDS), self._claim_now.set
        )
        try:
            await self._claim_now.wait()
        finally:
            wake()

    async def _renewing(self) -> None:
        while True:
            await self._clock.sleep(self._options.renew_seconds)
            started = self._clock.now()
            try:
                claims = await self._queue.renew()
            except StoreUnavailable:
                self._fence()
                continue
            self._renewed_at = self._clock.now()
            mine = {claim.execution_id: claim for claim in claims}
            for run in [
                each for each in self._runs.values() if each.epoch and each.since < started
            ]:
                claim = mine.get(run.execution_id)
                if claim is None or claim.epoch != run.epoch:
                    self._lose(run)
                elif claim.version > run.expected:
                    self._spawn(self._refresh(run))

    def _fence(self) -> None:
        """No renewal for too long: others may have taken over, so nothing more is done under these
        leases.
        """
        if not self.fresh():
            for run in list(self._runs.values()):
                if run.epoch:
                    self._lose(run)

    async def _ticking(self) -> None:
        """Time-outs of tries that run here; everything else that is timed lies in the queue."""
        while True:
            await self._clock.sleep(TICK_SECONDS)
            now = self._clock.now()
            for run in list(self._runs.values()):
                if run.due is not None and run.due <= now and run.assigned:
                    run.due = None
                    self._spawn(self._refresh(run))

    def _changed(self, execution_id: UUID, version: int) -> None:
        run = self._runs.get(execution_id)
        if run is None:
            self._claim_now.set()
        elif run.entry is not None and version > run.expected:
            run.expected = version
            self._spawn(self._refresh(run))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report("worker_task_failed", {"error": repr(error), "exception": error})

    # --- one execution ---

    async def _load_and_drive(self, run: Run) -> None:
        entry = await self._retrying(run, lambda: self._ledger.load(run.execution_id))
        if entry is None:
            self._forget(run)
            return
        run.entry, run.expected = entry, entry.state.version
        await self._drive(run)

    async def _drive(self, run: Run) -> None:
        """Plan from the present state, then perform what it asks for."""
        await self._perform_all(run, await self._commit(run, None))

    async def _refresh(self, run: Run) -> None:
        """Somebody else wrote, or a time has come: look at the log, interrupt what is not wanted
        any more, go on.
        """
        if run.lost or run.entry is None:
            return
        async with run.lock:
            entry = await self._retrying(run, lambda: self._ledger.load(run.execution_id))
            if entry is None or run.lost:
                return
            self._adopt(run, entry)
        await self._perform_all(run, await self._commit(run, None))

    def _adopt(self, run: Run, entry: Entry) -> None:
        run.entry = entry
        run.expected = max(run.expected, entry.state.version)
        for each in run.unwanted(entry.state):
            self._interrupt(run, each)

    def _interrupt(self, run: Run, what: Try) -> None:
        task = run.performing.get(what)
        if task is not None and what not in run.interrupted:
            run.interrupted.add(what)
            self.figures.interrupted += 1
            task.cancel()

    async def _perform_all(self, run: Run, begun: Sequence[Try]) -> None:
        for other in begun[1:]:
            self._spawn(self._chain(run, other))
        if begun:
            await self._chain(run, begun[0])

    async def _chain(self, run: Run, what: Try) -> None:
        """Perform a try, record its outcome with the start of the next, and go on with that."""
        following: Sequence[Try] = (what,)
        while following:
            outcome = await self._perform(run, following[0])
            following = await self._commit(run, outcome)
            for other in following[1:]:
                self._spawn(self._chain(run, other))

    async def _perform(self, run: Run, what: Try) -> Outcome:
        state, path = run.state, what.path
        step = state.steps[path]
        self.figures.steps += 1
        if state.simulate:
            return outcome_of(what, run.epoch, simulated(step))
        context, config = context_for(
            state,
            run.definition,
            path,
            run.epoch,
            lambda value: self._on_progress(run, what, value),
        )
        task = asyncio.current_task()
        if task is not None:
            run.performing[what] = task
        try:
            done = await self._actions.perform(step.action, config, context)
        except asyncio.CancelledError:
            if what not in run.interrupted:
                raise
            if task is not None:
                task.uncancel()
            done = Failed(
                "interrupted", "The handler was interrupted; nobody waits for its result."
            )
        finally:
            run.performing.pop(what, None)
            run.interrupted.discard(what)
        return outcome_of(what, run.epoch, done)

    # --- appends ---

    async def _commit(self, run: Run, outcome: Outcome | None) -> Sequence[Try]:
        """Record an outcome (or only what is due) and what follows; returns the tries whose
        effects begin now.
        """
        async with run.lock:
            if run.entry is not None and run.definition_or_none is None:
                run.definition_or_none = await self._retrying(
                    run, lambda: self._workflows.definition(run.state)
                )
            while not run.lost:
                draft = self._decide(run, outcome)
                if not draft.events:
                    return await self._hand_back(run)
                late = outcome is not None and run.state.terminal
                queue = None if late else self._queue_write(run, draft.state, outcome)
                run.expected = max(run.expected, draft.state.version)
                try:
                    done = await self._ledger.append(draft, queue)
                except VersionConflict:
                    entry = await self._retrying(run, lambda: self._ledger.load(run.execution_id))
                    if entry is not None:
                        self._adopt(run, entry)
                    continue
                except StaleLease:
                    self._lose(run)
                    break
                except NotReady:
                    await self._clock.sleep(BACK_OFF_SECONDS)
                    continue
                return self._recorded(run, Entry(draft.state, done.position), outcome, queue)
            return ()

    def _decide(self, run: Run, outcome: Outcome | None) -> Draft:
        draft = self._draft(run)
        now = draft.meta.at
        if outcome is None:
            if not self._stopping:
                decisions.resume(draft, run.definition, run.held(), run.epoch, now)
        else:
            decisions.settle(draft, run.definition, outcome, now, go_on=not self._stopping)
        return draft

    def _draft(self, run: Run) -> Draft:
        """The command id is computed: an append whose answer was lost is found again by it."""
        state = run.state
        command = f"w{run.epoch}:{state.version}"
        return Draft(state, Meta(self._clock.now(), command, "worker", state.workspace_id))

    def _queue_write(self, run: Run, state: ExecutionState, outcome: Outcome | None) -> QueueWrite:
        if state.terminal:
            return Finish(run.epoch)
        busy = bool(effects_of(run.definition, state)) or bool(run.others(outcome))
        due = self._clock.now() if self._stopping and not busy else next_due(state)
        return Progress(run.epoch, due, release=not busy)

    def _recorded(
        self, run: Run, entry: Entry, outcome: Outcome | None, queue: QueueWrite
    ) -> Sequence[Try]:
        run.assigned = run.others(outcome)
        self._adopt(run, entry)
        if not isinstance(queue, Progress):
            self.figures.ended += isinstance(queue, Finish)
            self._forget(run)
            return ()
        if queue.release:
            self._forget(run)
            self._wake_at(queue.ready_at)
            return ()
        run.due = next_due(entry.state)
        begun = [
            each for each in effects_of(run.definition, entry.state) if each not in run.assigned
        ]
        run.assigned.update(begun)
        return begun

    async def _hand_back(self, run: Run) -> Sequence[Try]:
        """Nothing to record: give the lease up unless tries run here."""
        if run.assigned or run.lost:
            run.due = next_due(run.state)
            return ()
        due = None if run.state.terminal else next_due(run.state)
        if self._stopping:
            due = self._clock.now()
        claim = Claim(run.execution_id, run.epoch, run.state.version)
        given = await self._retrying(run, lambda: self._queue.hand_back(claim, due))
        self._forget(run)
        if given:
            self._wake_at(due)
        else:
            self._claim_now.set()
        return ()

    async def _retrying(
        self, run: Run, call: Callable[[], Coroutine[Any, Any, Result]]
    ) -> Result | None:
        """Call until the store answers, as long as the lease is ours."""
        while not run.lost:
            try:
                return await call()
            except (StoreUnavailable, NotReady):
                await self._clock.sleep(BACK_OFF_SECONDS)
        return None

    def _wake_at(self, due: datetime | None) -> None:
        if due is not None and due - self._clock.now() < timedelta(seconds=POLL_SECONDS):
            self._clock.call_at(due, self._claim_now.set)

    def _forget(self, run: Run) -> None:
        if self._runs.get(run.execution_id) is run:
            del self._runs[run.execution_id]
            if len(self._runs) < self._options.slots and len(self._runs) + 1 >= self._options.slots:
                self._claim_now.set()

    def _lose(self, run: Run) -> None:
        self.figures.leases_lost += 1
        self._report("lease_lost", {"execution_id": str(run.execution_id), "epoch": run.epoch})
        self._drop(run)

    def _drop(self, run: Run) -> None:
        """The lease is somebody else's: stop, record nothing."""
        run.lost = True
        for each in list(run.performing):
            self._interrupt(run, each)
        self._forget(run)

    # --- progress ---

    def _on_progress(self, run: Run, what: Try, value: Json) -> None:
        waiting = what in run.progress
        run.progress[what] = value
        if not waiting:
            self._spawn(self._record_progress(run, what))

    async def _record_progress(self, run: Run, what: Try) -> None:
        """The newest value, at most once a second for each try."""
        async with run.lock:
            value = run.progress[what]
            if run.lost or what not in run.assigned:
                run.progress.pop(what, None)
                return
            draft = self._draft(run)
            decisions.report_progress(draft, what.path, what.attempt, what.try_no, value)
            if draft.events:
                run.expected = max(run.expected, draft.state.version)
                try:
                    done = await self._ledger.append(
                        draft, self._queue_write(run, draft.state, None)
                    )
                except (VersionConflict, StaleLease, NotReady):
                    run.progress.pop(what, None)
                    return
                run.entry = Entry(draft.state, done.position)
        await self._clock.sleep(1.0)
        newest = run.progress.pop(what, None)
        if newest is not None and newest != value:
            self._on_progress(run, what, newest)
