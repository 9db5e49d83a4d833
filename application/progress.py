"""What handlers say about how far they are: the newest value of each try, at most once a second."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from application.ledger import Entry, Ledger
from application.ports import Clock, Report, StaleLease, VersionConflict
from application.run import Host, Run, Try, effects_of, queue_write
from application.steps import PROGRESS_BYTES_MAX
from domain import decisions
from domain.errors import NotReady
from domain.json_values import Json, NotStorable, check_storable, own_copy

PROGRESS_SECONDS: Final = 1.0


class ProgressNotes:
    """Records the progress of the tries of one worker."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        host: Host,
        report: Report,
        refresh: Callable[[Run], Coroutine[Any, Any, None]],
    ) -> None:
        """`refresh` looks at the log when somebody else wrote."""
        self._ledger = ledger
        self._clock = clock
        self._host = host
        self._report = report
        self._refresh = refresh

    def note(self, run: Run, what: Try, value: Json) -> None:
        """A handler says how far it is; returns at once."""
        try:
            value = own_copy(check_storable(value, bytes_max=PROGRESS_BYTES_MAX))
        except NotStorable as error:
            self._report("progress_not_storable", {"path": what.path, "error": str(error)})
            return
        waiting = what in run.progress
        run.progress[what] = value
        if not waiting:
            self._host.spawn(run, self._record(run, what))

    async def _record(self, run: Run, what: Try) -> None:
        async with run.lock:
            value = run.progress[what]
            if run.lost or what not in run.assigned:
                run.progress.pop(what, None)
                return
            now = self._clock.now()
            draft = run.draft(run.state, now)
            decisions.report_progress(draft, what.path, what.attempt, what.try_no, value)
            if draft.events:
                run.foresee(draft)
                effects = effects_of(run.definition, draft.state)
                stopping_at = now if self._host.stopping else None
                queue = queue_write(run, draft.state, effects, None, stopping_at)
                try:
                    done = await self._ledger.append(draft, queue)
                except (VersionConflict, StaleLease, NotReady) as error:
                    run.progress.pop(what, None)
                    run.wrote_nothing()
                    if not isinstance(error, NotReady):
                        self._host.spawn(run, self._refresh(run))
                    return
                run.entry = Entry(draft.state, done.position)
        await self._clock.sleep(PROGRESS_SECONDS)
        newest = run.progress.pop(what, None)
        if newest is not None and newest != value:
            self.note(run, what, newest)
