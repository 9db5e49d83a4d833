"""A lane.

Projections that stand at the same position of the log and move on together, in one transaction a
batch.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.projections.checkpoints import move
from infrastructure.projections.folding import Projection, States, Undecodable
from infrastructure.projections.log_reading import NO_LIMIT, LogReading
from infrastructure.projections.sessions import Prepared, ProjectionStore, Session
from infrastructure.projections.tables import ProjectedTable

EVENTS_PER_BATCH_MAX: Final = 1_000


class Lane:
    """Reads on from its position, folds, writes rows and checkpoints.

    `limit` is the size of the next batch. After an exception from `advance` nothing is written and
    the lane stands where it stood, with `last_read` telling how many events the failed batch had.
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
        self._states = States(
            self._history, streams=frozenset(each.streams for each in self.projections)
        )

    def advance(self, upto: int = NO_LIMIT) -> int:
        """Take the next batch in (position, upto]; how many events it had.

        Raises StoreUnavailable, UnknownOutcome, CheckpointMoved, or whatever an event did to a
        fold.
        """
        with self._store.reading() as session:
            events = LogReading(session, self._codec).after(self.position, self.limit, upto)
        self.last_read = events
        if events:
            self._take(events)
        elif self.position < upto != NO_LIMIT:
            self._write((), upto)
        return len(events)

    def _take(self, events: Sequence[Recorded | Undecodable]) -> None:
        try:
            batch = self._states.apply(events)
            written = [
                (each.table, self._store.prepare(each.table, each.rows(batch)))
                for each in self.projections
            ]
            self._write(written, events[-1].position)
        except BaseException:
            self._states.forget()
            raise
        last = events[-1]
        if isinstance(last, Recorded):
            self.reached_at = last.event.meta.at

    def _write(self, written: Sequence[tuple[ProjectedTable, Prepared]], position: int) -> None:
        def work(session: Session) -> None:
            for table, rows in written:
                session.upsert(table, rows)
            move(session, self.projections, self.position, position)

        self._store.write(work)
        self.position = position

    def _history(self, streams: Sequence[UUID]) -> Iterator[Recorded]:
        with self._store.reading() as session:
            yield from LogReading(session, self._codec).histories(streams, self.position)
