"""The log on its way into tables, batch after batch: the next one is read and folded beside the
write of the one before.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.projections.folding import Projection, States, Undecodable
from infrastructure.projections.log_reading import NO_LIMIT, LogReading
from infrastructure.projections.sessions import Prepared, ProjectionStore, Session
from infrastructure.projections.tables import ProjectedTable

Events = Sequence[Recorded | Undecodable]
Rows = Sequence[tuple[ProjectedTable, Prepared]]
"""What a batch writes into each table."""

Storing = Callable[[Rows, int], Callable[[Session], object]]
"""Makes of the rows of a batch, and the position of its last event, the work of its transaction."""


class _Sent(NamedTuple):
    """A batch whose rows are on their way; `wait` returns once they are stored."""

    events: Events
    wait: Callable[[], object]


class Batches:
    """What stands at one position of the log. `position` is that up to which all is stored,
    `reached_at` the time of the event there; `last_read` is the batch that was read last, or that
    could not be stored.
    """

    def __init__(
        self,
        store: ProjectionStore,
        codec: Codec,
        projections: Sequence[Projection],
        position: int,
    ) -> None:
        self.position = position
        self.reached_at: datetime | None = None
        self.last_read: Events = ()
        self._store = store
        self._codec = codec
        self._projections = tuple(projections)
        self._folded = position
        self._sent: _Sent | None = None
        self._states = States(self._history, filling=self._projections)

    def take(
        self,
        storing: Storing,
        limit: int,
        upto: int = NO_LIMIT,
        *,
        batches_max: int | None = None,
        on_stored: Callable[[], None] = lambda: None,
    ) -> int:
        """Take what comes next in (position, upto] while batches are full; how many events that
        were. `on_stored` is called when `position` has moved.

        Raises StoreUnavailable, UnknownOutcome, whatever an event did to a fold, or what the work
        of a batch raised; then nothing of the batch in `last_read` is stored.
        """
        self._folded = self.position
        taken = batches = 0
        try:
            while batches != batches_max:
                with self._store.reading() as session:
                    log = LogReading(session, self._codec)
                    self.last_read = events = log.after(self._folded, limit, upto)
                if not events:
                    break
                rows = self.fold(events)
                self._settle(on_stored)
                work = storing(rows, self._folded)
                taken, batches = taken + len(events), batches + 1
                if len(events) < limit:  # nothing to do beside it
                    self._sent = _Sent(events, partial(self._store.write, work))
                    break
                self._sent = _Sent(events, self._store.write_soon(work))
        except BaseException:
            self._states.forget()
            raise
        finally:
            self._settle(on_stored)
        return taken

    def fold(self, events: Events) -> Rows:
        """The rows of the next events, which follow those that were folded before."""
        batch = self._states.apply(events)
        self._folded = events[-1].position
        return [
            (each.table, self._store.prepare(each.table, each.rows(batch)))
            for each in self._projections
        ]

    def _settle(self, on_stored: Callable[[], None]) -> None:
        """Wait for what is on its way."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        try:
            sent.wait()
        except BaseException:
            self._states.forget()
            self.last_read = sent.events
            raise
        last = sent.events[-1]
        self.position = last.position
        if isinstance(last, Recorded):
            self.reached_at = last.event.meta.at
        on_stored()

    def _history(self, streams: Sequence[UUID]) -> Iterator[Recorded]:
        with self._store.reading() as session:
            yield from LogReading(session, self._codec).histories(streams, self._folded)
