"""A lane.

Projections that stand at the same position of the log and move on together, in one transaction a
batch.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from infrastructure.event_store.codec import Codec
from infrastructure.projections.batches import Batches, Events, Rows
from infrastructure.projections.checkpoints import move
from infrastructure.projections.folding import Projection
from infrastructure.projections.log_reading import NO_LIMIT
from infrastructure.projections.sessions import ProjectionStore, Session

EVENTS_PER_BATCH_MAX: Final = 1_000
BATCHES_AT_ONCE: Final = 8
"""Before the runner looks at its other lanes, and tells how far it is."""


class Lane:
    """Reads on from its position, folds, writes rows and checkpoints.

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
        self.limit = limit
        self._store = store
        self._batches = Batches(store, codec, self.projections, position)

    @property
    def position(self) -> int:
        """All of the log up to here is in the tables."""
        return self._batches.position

    @property
    def reached_at(self) -> datetime | None:
        """The time of the event at `position`, once one was taken."""
        return self._batches.reached_at

    @property
    def last_read(self) -> Events:
        """The batch that was read last, or that could not be written."""
        return self._batches.last_read

    def advance(self, upto: int = NO_LIMIT) -> int:
        """Take what comes next in (position, upto], batch after batch while they are full; how many
        events that were.

        Raises StoreUnavailable, UnknownOutcome, CheckpointMoved, or whatever an event did to a
        fold.
        """
        taken = self._batches.take(self._storing, self.limit, upto, batches_max=BATCHES_AT_ONCE)
        if not taken and self.position < upto != NO_LIMIT:
            self._store.write(self._storing((), upto))
            self._batches.position = upto
        return taken

    def _storing(self, rows: Rows, position: int) -> Callable[[Session], None]:
        before = self.position

        def work(session: Session) -> None:
            # First, as a rebuild takes its checkpoint before it changes the tables' places.
            move(session, self.projections, before, position)
            for table, prepared in rows:
                session.upsert(table, prepared)

        return work
