"""Fills a projection's table anew beside the live one and puts it in its place, while a server may
be running.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.projections.checkpoints import Checkpoint, create_missing, read_checkpoint
from infrastructure.projections.folding import Projection, States, Undecodable
from infrastructure.projections.log_reading import LogReading
from infrastructure.projections.sessions import Prepared, ProjectionStore, Session
from infrastructure.projections.tables import REBUILT, Dialect, ProjectedTable

EVENTS_PER_BATCH: Final[Mapping[Dialect, int]] = {"postgresql": 5_000, "sqlite": 1_000}
"""Nobody waits for the rows, so batches are large; but SQLite's one writer must not be kept from
appending by a long one."""

Report = Callable[[int, int], None]
"""Called with the position reached and the head of the log."""


class RebuildTakenOver(Exception):
    """Another rebuild of the same projection has begun; that one goes on, this one has ended."""


class Rebuild:
    """One rebuild of one projection.

    `run` may be interrupted at any time: the live table is untouched until the switch.
    """

    def __init__(
        self, store: ProjectionStore, projection: Projection, codec: Codec | None = None
    ) -> None:
        self._store = store
        self._projection = projection
        self._codec = codec or Codec()
        self._batch = EVENTS_PER_BATCH[store.dialect]
        self._position = self._folded = 0
        self._sent: Callable[[], int] | None = None
        self._states = States(self._history, filling=(projection,))

    def run(self, report: Report = lambda position, head: None) -> int:
        """Rebuild, switch, and return the position the new table stands at.

        A paused projection runs again afterwards. Raises RebuildTakenOver, StoreUnavailable, or
        what an event did to the fold.
        """
        self._store.restructure(self._begin)
        self._catch_up(report)
        if self._store.dialect == "postgresql":
            self._store.restructure(self._finish_indexes)
            self._catch_up(report)
        self._store.restructure(self._switch)
        report(self._position, self._position)
        return self._position

    def _catch_up(self, report: Report) -> None:
        """To the present end of the log; the next batch is read and folded beside the write of the
        one before.
        """
        self._folded = self._position
        try:
            while True:
                with self._store.reading() as session:
                    log = LogReading(session, self._codec)
                    events = log.after(self._folded, self._batch)
                    head = log.head()
                if not events:
                    return
                rows = self._fold(events)
                self._settle()
                self._sent = self._fill(rows, events[-1].position)
                report(self._position, head)
        finally:
            self._settle()

    def _settle(self) -> None:
        """Wait for what is on its way."""
        sent, self._sent = self._sent, None
        if sent is not None:
            self._position = sent()

    def _begin(self, session: Session) -> None:
        table = self._projection.table
        create_missing(session, (self._projection,))
        checkpoint = read_checkpoint(session, self._projection, lock=True)
        session.execute(f"DROP TABLE IF EXISTS {table.stored}{REBUILT}")
        generation = checkpoint.generation + 1
        session.execute(table.create_statement(session.dialect, REBUILT, generation))
        if session.dialect == "sqlite":
            # Its one writer must not be kept from appending by a long statement.
            self._index(session, generation)
        self._set_progress(session, 0)

    def _finish_indexes(self, session: Session) -> None:
        """To index a full table once is cheaper than row by row. The live runner goes on."""
        self._owned(session, lock=False)
        session.execute("SET LOCAL statement_timeout = 0")
        # From here on another rebuild cannot put its own table in the place of this one.
        session.execute(f"LOCK TABLE {self._projection.table.stored}{REBUILT} IN SHARE MODE")
        checkpoint = self._owned(session, lock=False)
        self._index(session, checkpoint.generation + 1)

    def _index(self, session: Session, generation: int) -> None:
        table = self._projection.table
        for statement in table.index_statements(session.dialect, REBUILT, generation):
            session.execute(statement)

    def _fold(self, events: Sequence[Recorded | Undecodable]) -> Prepared:
        rows = self._projection.rows(self._states.apply(events))
        self._folded = events[-1].position
        return self._store.prepare(self._projection.table, rows)

    def _fill(self, rows: Prepared, position: int) -> Callable[[], int]:
        """Begin to write a batch; the result waits for its end and gives the position."""

        def work(session: Session) -> int:
            self._owned(session)
            session.upsert(self._projection.table, rows, REBUILT)
            self._set_progress(session, position)
            return position

        return self._store.write_soon(work)

    def _switch(self, session: Session) -> None:
        """With the live runner held at its checkpoint: take the last events, then change places."""
        checkpoint = self._owned(session)
        table = self._projection.table
        log = LogReading(session, self._codec)
        head = log.head()
        while events := log.after(self._position, self._batch, head):
            session.upsert(table, self._fold(events), REBUILT)
            self._position = events[-1].position
        _change_places(session, table)
        session.execute(
            "UPDATE projection_checkpoints SET position = ?, state = 'running', generation = ?,"
            " rebuild_position = NULL WHERE name = ? AND version = ?",
            (self._position, checkpoint.generation + 1, table.name, table.version),
        )
        session.execute(
            "DELETE FROM projection_failures WHERE name = ? AND version = ?",
            (table.name, table.version),
        )

    def _owned(self, session: Session, *, lock: bool = True) -> Checkpoint:
        checkpoint = read_checkpoint(session, self._projection, lock=lock)
        if checkpoint.rebuild_position != self._position:
            raise RebuildTakenOver(
                f"another rebuild of {self._projection.table.name} has begun; wait for its end"
            )
        return checkpoint

    def _set_progress(self, session: Session, position: int) -> None:
        table = self._projection.table
        session.execute(
            "UPDATE projection_checkpoints SET rebuild_position = ? WHERE name = ? AND version = ?",
            (position, table.name, table.version),
        )

    def _history(self, streams: Sequence[UUID]) -> Iterator[Recorded]:
        with self._store.reading() as session:
            yield from LogReading(session, self._codec).histories(streams, self._folded)


def _change_places(session: Session, table: ProjectedTable) -> None:
    """The rebuilt table gets the live name."""
    with view_following(session, table):
        session.execute(f"ALTER TABLE {table.stored} RENAME TO {table.stored}_old")
        session.execute(f"ALTER TABLE {table.stored}{REBUILT} RENAME TO {table.stored}")
    session.execute(f"DROP TABLE {table.stored}_old")


@contextmanager
def view_following(session: Session, table: ProjectedTable) -> Iterator[None]:
    """Put the view over the table as it is afterwards, with the triggers that the view had.

    PostgreSQL keeps the view, its triggers and grants; SQLite rewrites views when a table below
    them is renamed, so there it is made anew.
    """
    triggers: list[tuple[str, ...]] = []
    if session.dialect == "sqlite":
        triggers = session.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? ORDER BY name",
            (table.name,),
        )
        session.execute(f"DROP VIEW {table.name}")
    yield
    session.execute(table.view_statement(session.dialect, replace=session.dialect == "postgresql"))
    for (statement,) in triggers:
        session.execute(statement)
