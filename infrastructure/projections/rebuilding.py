"""Fills a projection's table anew beside the live one and puts it in its place, while a server may
be running.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from application.ports import StoreUnavailable, UnknownOutcome
from infrastructure.event_store.codec import Codec
from infrastructure.projections.batches import Batches, Rows
from infrastructure.projections.checkpoints import Checkpoint, create_missing, read_checkpoint
from infrastructure.projections.folding import Projection
from infrastructure.projections.log_reading import LogReading
from infrastructure.projections.sessions import ProjectionStore, Session
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
        self._limit = EVENTS_PER_BATCH[store.dialect]
        self._batches = Batches(store, self._codec, (projection,), 0)

    def run(self, report: Report = lambda position, head: None) -> int:
        """Rebuild, switch, and return the position the new table stands at.

        A paused projection runs again afterwards. Raises RebuildTakenOver, StoreUnavailable, or
        what an event did to the fold; then the live table and its checkpoint are as they were.
        """
        self._store.restructure(self._begin)
        try:
            position = self._fill(report)
        except Exception:
            self._give_up()
            raise
        report(position, position)
        return position

    def _fill(self, report: Report) -> int:
        self._catch_up(report)
        if self._store.dialect == "postgresql":
            self._store.restructure(self._finish_indexes)
            self._catch_up(report)
        return self._store.restructure(self._switch)

    def _give_up(self) -> None:
        """Nobody goes on with it, so it must not be shown as running."""

        def work(session: Session) -> None:
            self._owned(session)
            session.execute(f"DROP TABLE {self._projection.table.stored}{REBUILT}")
            self._set_progress(session, None)

        # Another one has begun, or the next one clears up once the store is back: either way what
        # ended this one is what the caller must hear.
        with suppress(RebuildTakenOver, StoreUnavailable, UnknownOutcome):
            self._store.restructure(work)

    def _catch_up(self, report: Report) -> None:
        """To the present end of the log."""

        def told() -> None:
            with self._store.reading() as session:
                report(self._batches.position, LogReading(session, self._codec).head())

        self._batches.take(self._storing, self._limit, on_stored=told)

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

    def _storing(self, rows: Rows, position: int) -> Callable[[Session], None]:
        def work(session: Session) -> None:
            self._owned(session)
            self._write(session, rows)
            self._set_progress(session, position)

        return work

    def _write(self, session: Session, rows: Rows) -> None:
        for table, prepared in rows:
            session.upsert(table, prepared, REBUILT)

    def _switch(self, session: Session) -> int:
        """With the live runner held at its checkpoint: take the last events, then change places.
        The position of the new table.
        """
        checkpoint = self._owned(session)
        table = self._projection.table
        log = LogReading(session, self._codec)
        head = log.head()
        position = self._batches.position
        while events := log.after(position, self._limit, head):
            self._write(session, self._batches.fold(events))
            position = events[-1].position
        _change_places(session, table)
        session.execute(
            "UPDATE projection_checkpoints SET position = ?, state = 'running', generation = ?,"
            " rebuild_position = NULL WHERE name = ? AND version = ?",
            (position, checkpoint.generation + 1, table.name, table.version),
        )
        session.execute(
            "DELETE FROM projection_failures WHERE name = ? AND version = ?",
            (table.name, table.version),
        )
        return position

    def _owned(self, session: Session, *, lock: bool = True) -> Checkpoint:
        checkpoint = read_checkpoint(session, self._projection, lock=lock)
        if checkpoint.rebuild_position != self._batches.position:
            raise RebuildTakenOver(
                f"another rebuild of {self._projection.table.name} has begun; wait for its end"
            )
        return checkpoint

    def _set_progress(self, session: Session, position: int | None) -> None:
        table = self._projection.table
        session.execute(
            "UPDATE projection_checkpoints SET rebuild_position = ? WHERE name = ? AND version = ?",
            (position, table.name, table.version),
        )


def _change_places(session: Session, table: ProjectedTable) -> None:
    """The rebuilt table gets the live name."""
    if session.dialect == "postgresql":
        # The view comes before the table, as for readers. LOCK TABLE would lock all below the view
        # as well, and with it what other views share.
        session.execute(table.view_statement("postgresql", replace=True))
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
