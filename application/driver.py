"""One leased execution: plan, record the intent, perform, record the outcome; until it ends or
waits.

An outcome goes into one append with the start of the next step. What a driver writes is fenced by
the epoch of its lease; what others write meanwhile makes it look again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from application.children import Children
from application.ledger import AppendLost, Entry, Ledger
from application.ports import (
    Claim,
    Clock,
    Finish,
    Progress,
    Report,
    StaleLease,
    StoreUnavailable,
    VersionConflict,
    WorkQueue,
)
from application.progress import ProgressNotes
from application.run import (
    Host,
    Run,
    Try,
    Written,
    context_for,
    effects_of,
    is_running,
    outcome_of,
    queue_write,
    simulated,
    unattended,
)
from application.steps import Actions, Failed, StepOutcome
from application.workflows import Workflows
from domain import decisions
from domain.children import ChildEnd, Pinned, pin, settle_child
from domain.decisions import Outcome
from domain.definition import SUB_WORKFLOW
from domain.dispatching import record_dispatches
from domain.draft import Draft
from domain.errors import NotReady
from domain.execution import ExecutionState
from domain.planner import advance, next_due
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules

Result = TypeVar("Result")
BACK_OFF_SECONDS: Final = 0.2
SET_ASIDE_SECONDS: Final = 30.0


@dataclass(slots=True)
class WorkerFigures:
    """Counts since the start, for metrics."""

    claimed: int = 0
    steps: int = 0
    ended: int = 0
    interrupted: int = 0
    renewals: int = 0
    leases_lost: int = 0


class Driver:
    """Moves the executions of a worker forward."""

    def __init__(
        self,
        ledger: Ledger,
        queue: WorkQueue,
        clock: Clock,
        workflows: Workflows,
        actions: Actions,
        report: Report,
        host: Host,
        children: Children,
        rules: RecoveryRules = DEFAULT_RULES,
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._clock = clock
        self._workflows = workflows
        self._actions = actions
        self._report = report
        self._host = host
        self._children = children
        self._rules = rules
        self._progress = ProgressNotes(ledger, clock, host, report, self.refresh)
        self.figures = WorkerFigures()
        self.parents: dict[UUID, Run] = {}
        """By child, the runs here that something else keeps busy while they wait for it."""

    async def guarded(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`. What nobody foresaw (an event of a later release, say) sets this execution
        aside for a while, instead of holding its slot and lease for ever.
        """
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it is told, and harms one execution only
            facts = {"execution_id": str(run.execution_id), "error": repr(error)}
            self._report("execution_set_aside", {**facts, "exception": error})
            await self._set_aside(run)

    async def _set_aside(self, run: Run) -> None:
        version = run.expected if run.entry is None else run.state.version
        self.drop(run)
        due = self._clock.now() + timedelta(seconds=SET_ASIDE_SECONDS)
        with suppress(StoreUnavailable):  # then it is taken up again at a renewal
            await self._queue.hand_back(Claim(run.execution_id, run.epoch, version), due)

    # --- one execution ---

    async def load_and_drive(self, run: Run) -> None:
        entry = await self._retrying(run, lambda: self._ledger.load(run.execution_id))
        if entry is None:
            self._host.forget(run)
            return
        run.entry, run.expected = entry, entry.state.version
        await self.drive(run)

    async def first_steps(self, run: Run, state: ExecutionState) -> Draft | None:
        """The beginning of an execution that is about to be stored as `state`; None when that is
        nothing to perform here. Raises NotReady, NotFound.
        """
        await self._load_definition(run, state)
        draft = run.draft(state, self._clock.now())
        advance(run.definition, draft, draft.meta.at, self._rules)
        record_dispatches(draft, run.definition, run.transports)
        return draft if effects_of(run.definition, draft.state) else None

    async def begin(self, run: Run) -> None:
        """Perform what was begun in the append that stored the execution."""
        effects = effects_of(run.definition, run.state)
        run.assigned.update(effects)
        run.due = next_due(run.state)
        await self._perform_all(run, effects)

    async def drive(self, run: Run) -> None:
        """Plan from the present state, then perform what it asks for."""
        await self._perform_all(run, await self._commit(run, None))

    async def refresh(self, run: Run) -> None:
        """Somebody else wrote, or a time has come: look at the log, interrupt what is not wanted
        any more, go on.
        """
        if run.lost or run.entry is None:
            return
        async with run.lock:
            await self._reload(run)
            if run.over:  # given back meanwhile, so it is to be claimed anew
                self._host.claim_soon(None)
                return
        await self._perform_all(run, await self._commit(run, None))

    async def check_lease(self, run: Run) -> None:
        """The queue has no row of this lease. A cancel takes the row away, and what the handlers
        then return is still to be noted; otherwise somebody took over.
        """
        async with run.lock:
            if run.entry is not None:
                await self._reload(run)
            if not run.over and (run.entry is None or not run.state.terminal):
                self.lose(run)

    async def _reload(self, run: Run) -> bool:
        """Look at the log; whether it has something new."""
        entry = await self._retrying(run, lambda: self._ledger.load(run.execution_id))
        if entry is None or entry.state.version <= run.state.version:
            return False
        self._adopt(run, entry)
        return True

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
            self._host.spawn(run, self._chain(run, other))
        if begun:
            await self._chain(run, begun[0])

    async def _chain(self, run: Run, what: Try) -> None:
        """Perform a try, record its outcome with the start of the next, and go on with that."""
        following: Sequence[Try] = (what,)
        while following:
            outcome = await self._perform(run, following[0])
            following = await self._commit(run, outcome)
            for other in following[1:]:
                self._host.spawn(run, self._chain(run, other))

    async def _perform(self, run: Run, what: Try) -> Outcome | Pinned:
        state = run.state
        self.figures.steps += 1
        # Since the append that began it the lease may have gone, or it has ended, maybe with all of
        # its loop.
        if run.lost or not is_running(state, what):
            return outcome_of(what, run.epoch, Failed("interrupted", "Over before it began."))
        step = state.steps[what.path]
        if state.simulate and self._actions.touches_outside(step.action):
            return outcome_of(what, run.epoch, simulated(step))
        task = asyncio.current_task()
        if task is not None:
            run.performing[what] = task
        try:
            done = await self._work(run, what, step.action)
        except asyncio.CancelledError:
            if what not in run.interrupted:
                raise
            done = Failed(
                "interrupted", "The handler was interrupted; nobody waits for its result."
            )
        finally:
            run.performing.pop(what, None)
            if what in run.interrupted:  # also when the handler took no notice of it
                run.interrupted.discard(what)
                if task is not None:
                    task.uncancel()
        return done if isinstance(done, Pinned) else outcome_of(what, run.epoch, done)

    async def _work(self, run: Run, what: Try, action: str) -> StepOutcome | Pinned:
        if action == SUB_WORKFLOW:
            state = run.state
            pinned = await self._retrying(run, lambda: self._children.pin(state, what.path))
            return pinned or Failed("interrupted", "The worker lost its lease.")
        context, config = context_for(
            run.state,
            run.definition,
            what.path,
            run.epoch,
            lambda value: self._progress.note(run, what, value),
        )
        return await self._actions.perform(action, config, context)

    # --- appends ---

    async def _commit(self, run: Run, outcome: Outcome | Pinned | None) -> Sequence[Try]:
        """Record an outcome (or only what is due) and what follows; returns the tries whose
        effects begin now.
        """
        async with run.lock:
            if run.entry is not None and run.definition_or_none is None:
                await self._retrying(run, lambda: self._load_definition(run, run.state))
            begun: list[Try] = []
            lost: list[Written] = []
            every = outcome is None
            while not run.lost:
                came = await self._came_late(run, lost) if lost else None
                if came is None:
                    ends = await self._look_at_children(run, every) if run.state.children else ()
                    draft = self._decide(run, outcome, ends)
                    if not draft.events:
                        if await self._hand_back(run):
                            return begun
                        continue
                    came = await self._store(run, draft, outcome, lost)
                    if came is None:
                        continue
                begun += self._recorded(run, came, outcome)
                if run.over or not unattended(run, came.draft.state):
                    return begun
                lost.clear()
                outcome, every = None, False  # it is recorded; now for the children that came of it
            return begun

    async def _load_definition(self, run: Run, state: ExecutionState) -> None:
        """With the ways to its agents: a try that goes out is recorded with its start."""
        definition = await self._workflows.definition(state)
        run.transports = await self._workflows.transports(state, definition, self._rules)
        run.definition_or_none = definition

    async def _store(
        self, run: Run, draft: Draft, outcome: Outcome | Pinned | None, lost: list[Written]
    ) -> Written | None:
        """Append a draft. None when it is not stored: decide anew. One that got no answer may still
        come, so it is added to `lost`.
        """
        owes = bool(run.state.children)
        late = outcome is not None and run.state.terminal and not owes
        effects = effects_of(run.definition, draft.state)
        stopping_at = self._clock.now() if self._host.stopping else None
        queue = None if late else queue_write(run, draft.state, effects, outcome, stopping_at)
        written = Written(draft, effects, queue)
        run.foresee(draft)
        try:
            done = await self._ledger.append(draft, queue)
        except VersionConflict as error:
            if isinstance(error, AppendLost):
                lost.append(written)
            run.wrote_nothing()
            await self._reload(run)
        except StaleLease:
            self.lose(run)
        except NotReady:
            run.wrote_nothing()
            await self._clock.sleep(BACK_OFF_SECONDS)
        else:
            return written._replace(position=done.position)
        return None

    async def _came_late(self, run: Run, lost: Sequence[Written]) -> Written | None:
        """The one of the appends without an answer that the log has by now.

        Taken for another's, its tries would be handed over again, and its result ignored.
        """
        for each in lost:
            stored = await self._retrying(run, partial(self._ledger.stored, each.draft))
            if stored is None:
                continue
            begins = each.effects
            if run.state.version > each.draft.state.version:  # others have written since
                live = effects_of(run.definition, run.state)
                begins = [what for what in begins if what in live]
                self._host.spawn(run, self.refresh(run))
            return each._replace(effects=begins, position=stored.position)
        return None

    def _decide(
        self, run: Run, outcome: Outcome | Pinned | None, ends: Sequence[ChildEnd]
    ) -> Draft:
        draft = run.draft(run.state, self._clock.now())
        now, go_on = draft.meta.at, not self._host.stopping
        for end in ends:
            settle_child(draft, run.definition, end, now, self._rules)
        if isinstance(outcome, Outcome):
            decisions.settle(draft, run.definition, outcome, now, go_on=go_on, rules=self._rules)
        elif isinstance(outcome, Pinned):
            pin(draft, run.definition, outcome, run.epoch, now, go_on=go_on, rules=self._rules)
        elif go_on:
            decisions.resume(draft, run.definition, run.held(), run.epoch, now, self._rules)
        if ends and go_on:
            advance(run.definition, draft, now, self._rules)
        record_dispatches(draft, run.definition, run.transports)
        return draft

    async def _look_at_children(self, run: Run, every: bool) -> Sequence[ChildEnd]:
        attended, epoch = run.attended, run.epoch

        async def look() -> Sequence[ChildEnd]:
            return await self._children.look(run.state, epoch, attended, every=every)

        ends = await self._retrying(run, look) or ()
        self.parents.update((child_id, run) for child_id, _ in attended)
        return ends

    async def child_changed(self, run: Run, child_id: UUID) -> None:
        """A child went on while the lease of its parent is here: look whether it has ended."""
        child = await self._retrying(run, lambda: self._ledger.load(child_id))
        if child is not None and child.state.terminal:
            await self.refresh(run)

    def forget_children(self, run: Run) -> None:
        """The run is over: the queue tells who claims it next that a child has ended."""
        for child_id, _ in run.attended:
            self.parents.pop(child_id, None)

    def _recorded(
        self, run: Run, written: Written, outcome: Outcome | Pinned | None
    ) -> Sequence[Try]:
        draft, effects, queue, position = written
        entry = Entry(draft.state, position)
        run.assigned = run.others(outcome)
        if run.state.version < draft.state.version:
            self._adopt(run, entry)
        if not isinstance(queue, Progress):
            self.figures.ended += isinstance(queue, Finish)
            if entry.state.parent is not None:
                self._host.claim_soon(None)  # its parent is ready
            self._host.forget(run)
            return ()
        if queue.release:
            self._host.forget(run)
            if queue.ready_at is not None:
                self._host.claim_soon(queue.ready_at)
            return ()
        run.due = queue.ready_at
        begun = [each for each in effects if each not in run.assigned]
        run.assigned.update(begun)
        return begun

    async def _hand_back(self, run: Run) -> bool:
        """Nothing to record: give the lease up unless tries run here. False when somebody wrote
        meanwhile: plan again.
        """
        if run.assigned or run.lost:
            run.due = next_due(run.state)
            return True
        due = None if run.state.terminal else next_due(run.state)
        if self._host.stopping:
            due = self._clock.now()
        claim = Claim(run.execution_id, run.epoch, run.state.version)
        given = await self._retrying(run, lambda: self._queue.hand_back(claim, due))
        if not given and await self._reload(run):
            return False
        self._host.forget(run)
        if not given or due is not None:
            self._host.claim_soon(due if given else None)
        return True

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

    def lose(self, run: Run) -> None:
        self.figures.leases_lost += 1
        self._report("lease_lost", {"execution_id": str(run.execution_id), "epoch": run.epoch})
        self.drop(run)

    def drop(self, run: Run) -> None:
        """The lease is somebody else's: stop, record nothing."""
        run.lost = True
        for each in list(run.performing):
            self._interrupt(run, each)
        self._host.forget(run)
