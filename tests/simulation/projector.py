"""The real folds and projections behind a simulated database: rows and checkpoint in one
transaction, and crashes before, in and after it.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct, structs

from application.ports import StoreUnavailable
from domain.events import Recorded
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.projections.folding import States
from infrastructure.projections.tables import ProjectedTable
from tests.simulation.line import Life, Line, Weather
from tests.simulation.store import SimulatedStore

PAUSE_SECONDS: Final = 0.4
BATCH_MAX: Final = 40
Key = tuple[object, ...]
Written = Sequence[tuple[ProjectedTable, Key, Struct]]


class ProjectedTables:
    """Rows by table and key, and how far they are. `checkpoint_first` is a bug: the checkpoint is
    stored before its rows, in a transaction of its own.
    """

    def __init__(self, *, checkpoint_first: bool = False) -> None:
        self.rows: dict[str, dict[Key, Struct]] = {each.table.name: {} for each in PROJECTIONS}
        self.checkpoint = 0
        self.checkpoint_first = checkpoint_first

    def begin(self, written: Written, position: int) -> Iterator[None]:
        """A transaction in two halves, between which its process may be lost."""
        if self.checkpoint_first:
            self.checkpoint = position
        yield
        for table, key, row in written:
            self._upsert(table, key, row)
        self.checkpoint = position

    def _upsert(self, table: ProjectedTable, key: Key, row: Struct) -> None:
        stored = self.rows[table.name]
        before = stored.get(key)
        if before is not None and table.summed:
            sums = {name: getattr(before, name) + getattr(row, name) for name in table.summed}
            row = structs.replace(row, **sums)
        stored[key] = row

    def exported(self) -> dict[str, list[bytes]]:
        """Every row as bytes, in order."""
        return {
            table: sorted(msgspec.json.encode(row) for row in rows.values())
            for table, rows in self.rows.items()
        }


class Projector:
    """Keeps the tables up with the log until it crashes; the next one goes on from the tables."""

    def __init__(
        self,
        tables: ProjectedTables,
        store: SimulatedStore,
        line: Line,
        life: Life,
        weather: Weather,
    ) -> None:
        self._tables = tables
        self._store = store
        self._line = line
        self._life = life
        self._weather = weather
        self._position = tables.checkpoint
        self._states = States(self._history, filling=PROJECTIONS, kept_max=2)

    async def run(self) -> None:
        """For ever, or until it crashes."""
        while not self._life.dead:
            await asyncio.sleep(PAUSE_SECONDS)
            await self._life.reached()
            try:
                await self._advance()
            except StoreUnavailable:
                self._states.forget()
                self._position = self._tables.checkpoint

    async def _advance(self) -> None:
        limit = self._weather.chance.randint(1, BATCH_MAX)
        position = self._position
        events = await self._line.call(lambda: self._store.read_all(position, limit))
        if not events:
            return
        written = rows_of(self._states, events)
        await self._line.call(lambda: self._write(written, events[-1].position))
        self._position = events[-1].position

    def _write(self, written: Written, position: int) -> None:
        if self._crashes("before its transaction") or self._tables.checkpoint != self._position:
            return
        transaction = self._tables.begin(written, position)
        next(transaction)
        if self._crashes("in its transaction"):
            return
        next(transaction, None)
        self._crashes("after its transaction")

    def _crashes(self, where: str) -> bool:
        if self._weather.strikes(f"projector lost {where}", 0.03):
            self._life.die()
        return self._life.dead

    def _history(self, streams: Sequence[UUID]) -> Iterable[Recorded]:
        return history_of(self._store, streams, self._position)


def history_of(store: SimulatedStore, streams: Sequence[UUID], upto: int) -> Iterator[Recorded]:
    """The events of some streams up to a position."""
    for stream in streams:
        for recorded in store.streams[stream]:
            if recorded.position <= upto:
                yield recorded


def rows_of(states: States, events: Sequence[Recorded]) -> Written:
    """The rows of all projections for a batch."""
    batch = states.apply(events)
    found: list[tuple[ProjectedTable, Key, Struct]] = []
    for projection in PROJECTIONS:
        table = projection.table
        for row in projection.rows(batch):
            key: tuple[Any, ...] = tuple(getattr(row, name) for name in table.key)
            found.append((table, key, row))
    return found


def rebuilt(store: SimulatedStore) -> ProjectedTables:
    """The tables from the first event on, in one batch."""
    tables = ProjectedTables()
    states = States(lambda streams: history_of(store, streams, 0), filling=PROJECTIONS)
    if store.log:
        for _ in tables.begin(rows_of(states, store.log), store.head()):
            continue
    return tables
