"""A lane.

Projections that stand at the same position of the log and move on together, in one transaction a
batch.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.projections.checkpoints import move
from infrastructure.projections.folding import Projection, States, Undecodable
from infrastructure.projections.log_reading import NO_LIMIT, LogReading
from infrastructure.projections.sessions import Prepared, ProjectionStore, Session
from infrastructure.projections.tables import ProjectedTable

EVENTS_PER_BATCH_MAX: Final = 1_000
BATCHES_AT_ONCE: Final = 8
"""Before the runner looks at its other lanes, and tells how far it is."""


class _Sent(NamedTuple):
    """A batch whose rows are on their way; `wait` returns once they are stored."""

    events: Sequence[Recorded | Undecodable]
    wait: Callable[[], None]


class Lane:
    """Reads on from its position, folds, writes rows and checkpoints.

    While it is behind, the next batch is read and folded beside the write of the one before.
    `limit` is the size of the next batch. After an exception from `advance` nothing of the batch in
    `last_read` is written, and the lane stands before it.
    """

    def __init__(
        self,
        store: ProjectionStore,
        codec: Codec,
        projections: Sequence[Projection],
        position: int,
        limit: int = EVENTS_PER_BATCH_MAX,
    ) -> None:
        self.projections = tuple(projections)
        self.position = position
        self.limit = limit
        self.last_read: Sequence[Recorded | Undecodable] = ()
        self.reached_at: datetime | None = None
        self._store = store
        self._codec = codec
        self._folded = position
        self._sent: _Sent | None = None
        self._states = States(self._history, filling=self.projections)

    def advance(self, upto: int = NO_LIMIT) -> int:
        """Take what comes next in (position, upto], batch after batch while they are full; how many
        events that were.

        Raises StoreUnavailable, UnknownOutcome, CheckpointMoved, or whatever an event did to a
        fold.
        """
        self._folded = self.position
        try:
            taken = self._take_some(upto)
        except BaseException:
            self._states.forget()
            raise
        if not taken and self.position < upto != NO_LIMIT:
            self._store.write(self._write((), upto))
            self.position = upto
        return taken

    def _take_some(self, upto: int) -> int:
        taken = 0
        try:
            for _ in range(BATCHES_AT_ONCE):
                with self._store.reading() as session:
                    log = LogReading(session, self._codec)
                    events = log.after(self._folded, self.limit, upto)
                self.last_read = events
                if not events:
                    break
                written = self._fold(events)
                self._settle()
                work = self._write(written, events[-1].position)
                taken += len(events)
                if len(events) < self.limit:  # nothing to do beside it
                    self._sent = _Sent(events, partial(self._store.write, work))
                    break
                self._sent = _Sent(events, self._store.write_soon(work))
        finally:
            self._settle()
        return taken

    def _fold(
        self, events: Sequence[Recorded | Undecodable]
    ) -> Sequence[tuple[ProjectedTable, Prepared]]:
        batch = self._states.apply(events)
        self._folded = events[-1].position
        return [
            (each.table, self._store.prepare(each.table, each.rows(batch)))
            for each in self.projections
        ]

    def _write(
        self, written: Sequence[tuple[ProjectedTable, Prepared]], position: int
    ) -> Callable[[Session], None]:
        before = self.position

        def work(session: Session) -> None:
            for table, rows in written:
                session.upsert(table, rows)
            move(session, self.projections, before, position)

        return work

    def _settle(self) -> None:
        """Wait for what is on its way."""
        sent, self._sent = self._sent, None
        if sent is None:
            return
        try:
            sent.wait()
        except BaseException:
            self.last_read = sent.events
            raise
        last = sent.events[-1]
        self.position = last.position
        if isinstance(last, Recorded):
            self.reached_at = last.event.meta.at

    def _history(self, streams: Sequence[UUID]) -> Iterator[Recorded]:
        with self._store.reading() as session:
            yield from LogReading(session, self._codec).histories(streams, self._folded)
