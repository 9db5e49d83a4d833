"""Recomputes projections from the log and compares them with their tables, row by row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from application.ports import StoreUnavailable
from domain.errors import LogDamaged
from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.projections.checkpoints import read_checkpoint
from infrastructure.projections.folding import (
    Batch,
    Projection,
    States,
    Undecodable,
)
from infrastructure.projections.log_reading import NO_LIMIT, LogReading
from infrastructure.projections.sessions import ProjectionStore, Session

EVENTS_PER_PAGE: Final = 2_000
_FIRST_STREAM: Final = UUID(int=0)

Key = tuple[Any, ...]
Row = tuple[Any, ...]
Report = Callable[[int, int], None]
"""Called with how many events were read, of how many."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a table is not what the log says.

    `column` is None when the whole row is missing (`found` None) or should not be there (`expected`
    None).
    """

    table: str
    key: str
    column: str | None
    expected: object
    found: object

    def __str__(self) -> str:
        place = f"{self.table} ({self.key})"
        if self.column is None:
            return (
                f"{place}: the row {'is missing' if self.found is None else 'should not be there'}"
            )
        return f"{place}.{self.column}: expected {self.expected!r}, found {self.found!r}"


@dataclass(frozen=True, slots=True)
class Damage:
    """An event of the log that cannot be read, or that does not go on from the one before it."""

    stream: UUID
    version: int
    position: int
    topic: str
    cause: str

    def __str__(self) -> str:
        kind = self.topic.partition(".")[0]
        return (
            f"{kind} {self.stream}, version {self.version} ({self.topic} at position"
            f" {self.position}): {self.cause}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was compared.

    `rows` of the table as of `position`, behind which the log has `lag_events` more. `difference`
    None says that they are equal, but for what comes of the streams in `damages`: they were left
    out, and a table of sums over them was not compared at all (`compared` False).
    """

    name: str
    version: int
    position: int
    lag_events: int
    rows: int
    difference: Difference | None
    damages: Sequence[Damage] = ()
    compared: bool = True


@dataclass(slots=True)
class _Comparison:
    """One projection under comparison.

    `expected` holds the rows of the stream that is being read.
    """

    projection: Projection
    expected: dict[Key, Row] = field(default_factory=dict)
    compared_upto: str = ""
    rows: int = 0
    difference: Difference | None = None
    damages: list[Damage] = field(default_factory=list)

    @property
    def possible(self) -> bool:
        """Sums say nothing once a stream is left out of them."""
        return self.projection.table.stream is not None or not self.damages

    def leave_out(self, damage: Damage) -> None:
        """Expect nothing of a stream that cannot be folded."""
        table = self.projection.table
        if not damage.topic.startswith(self.projection.streams):
            return
        self.damages.append(damage)
        if table.stream is not None:
            place, left = table.key.index(table.stream), _stored_stream(table.stream, damage.stream)
            self.expected = {key: row for key, row in self.expected.items() if key[place] != left}


def verify(
    store: ProjectionStore,
    projections: Sequence[Projection],
    report: Report = lambda done, total: None,
    codec: Codec | None = None,
) -> list[Verdict]:
    """Compare each table with the fold of the log up to its checkpoint, in one snapshot.

    A server may be running. Memory is bounded by the largest stream and, for sums, by the number of
    workflows.
    """
    codec = codec or Codec()
    with store.snapshot() as session:
        standing = [(read_checkpoint(session, each).position, each) for each in projections]
        standing.sort(key=lambda entry: entry[0])
        verdicts = []
        log = LogReading(session, codec)
        events = log.count(NO_LIMIT)
        for position, group in groupby(standing, key=lambda entry: entry[0]):
            comparisons = [_Comparison(each) for _, each in group]
            waiting = events - log.count(position)
            _compare(session, log, comparisons, position, report)
            verdicts += [_verdict(each, position, waiting) for each in comparisons]
    order = [each.table.name for each in projections]
    return sorted(verdicts, key=lambda verdict: order.index(verdict.name))


def _verdict(comparison: _Comparison, position: int, waiting: int) -> Verdict:
    table = comparison.projection.table
    return Verdict(
        table.name,
        table.version,
        position,
        waiting,
        comparison.rows,
        comparison.difference,
        comparison.damages,
        comparison.possible,
    )


def _compare(
    session: Session,
    log: LogReading,
    comparisons: Sequence[_Comparison],
    position: int,
    report: Report,
) -> None:
    folding = _Folding(log, [each.projection for each in comparisons], position)
    done, total = 0, log.count(position)
    report(done, total)
    for page in _pages(log, position):
        for result in folding.results(page):
            for comparison in comparisons:
                if isinstance(result, Damage):
                    comparison.leave_out(result)
                else:
                    _expect(comparison, result)
        for comparison in comparisons:
            _compare_until(session, comparison, _stream_of(page[-1]))
        done += len(page)
        report(done, total)
    for comparison in comparisons:
        _compare_rest(session, comparison)


class _Folding:
    """The log by stream and version, page after page. A stream is left out from its first damaged
    event on, so that one says nothing about the others.
    """

    def __init__(self, log: LogReading, projections: Sequence[Projection], position: int) -> None:
        self._log = log
        self._position = position
        self._before = (_FIRST_STREAM, 0)
        self._damaged: UUID | None = None
        self._states = States(self._again, filling=projections, kept_max=2, keep_ended=True)

    def results(self, page: Sequence[Recorded | Undecodable]) -> Iterator[Batch | Damage]:
        """What the page does to the tables, and where it is damaged."""
        sound = [each for each in page if _stream_of(each) != self._damaged]
        try:
            batch = self._states.apply(sound)
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 - folds may fail in any way; which event it is comes next
            self._states.forget()
            yield from self._one_by_one(sound)
        else:
            yield batch
        self._before = _place(page[-1])

    def _one_by_one(self, page: Sequence[Recorded | Undecodable]) -> Iterator[Batch | Damage]:
        for each in page:
            if _stream_of(each) == self._damaged:
                continue
            try:
                batch = self._states.apply([each])
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - folds may fail in any way
                self._states.forget()
                self._damaged = _stream_of(each)
                yield _damage(each, error)
            else:
                yield batch

    def _again(self, streams: Sequence[UUID]) -> Iterator[Recorded]:
        """What earlier pages held of a stream, when its state was forgotten."""
        for recorded in self._log.histories(streams, self._position):
            if _place(recorded) > self._before:
                return
            yield recorded


def _damage(event: Recorded | Undecodable, error: Exception) -> Damage:
    topic = event.topic if isinstance(event, Undecodable) else event.event.data.TOPIC
    cause = str(error) if isinstance(error, LogDamaged) else f"{type(error).__name__}: {error}"
    return Damage(*_place(event), event.position, topic, cause)


def _place(event: Recorded | Undecodable) -> tuple[UUID, int]:
    if isinstance(event, Undecodable):
        return event.stream, event.version
    return event.event.execution_id, event.event.version


def _pages(log: LogReading, position: int) -> Iterator[list[Recorded | Undecodable]]:
    """The log by stream and version.

    Every page ends with an event of the stream that goes on, if one does.
    """
    stream, version = _FIRST_STREAM, 0
    while page := log.by_stream(stream, version, position, EVENTS_PER_PAGE):
        stream, version = _place(page[-1])
        yield page


def _stream_of(event: Recorded | Undecodable) -> UUID:
    return _place(event)[0]


def _expect(comparison: _Comparison, batch: Batch) -> None:
    table = comparison.projection.table
    for row in comparison.projection.rows(batch):
        values = table.comparable(row)
        key = tuple(values[table.names.index(name)] for name in table.key)
        earlier = comparison.expected.get(key)
        if earlier is not None and table.summed:
            values = tuple(
                before + now if name in table.summed else now
                for name, before, now in zip(table.names, earlier, values, strict=True)
            )
        comparison.expected[key] = values


def _compare_until(session: Session, comparison: _Comparison, stream: UUID) -> None:
    """Compare the rows of every stream before `stream`, which may go on in the next page."""
    table = comparison.projection.table
    if table.stream is None or comparison.difference is not None:
        return
    until = _stored_stream(table.stream, stream)
    place = table.key.index(table.stream)
    ready = {key: row for key, row in comparison.expected.items() if key[place] < until}
    found = _rows(
        session,
        comparison,
        f"WHERE {table.stream} >= ? AND {table.stream} < ?",
        (comparison.compared_upto, until),
    )
    _note(comparison, ready, found)
    comparison.compared_upto = until
    for key in ready:
        del comparison.expected[key]


def _compare_rest(session: Session, comparison: _Comparison) -> None:
    """Compare what is left: the last stream, all sums, and rows behind every stream."""
    if comparison.difference is not None or not comparison.possible:
        return
    stream = comparison.projection.table.stream
    where: str = ""
    parameters: tuple[str, ...] = ()
    if stream is not None:
        where, parameters = f"WHERE {stream} >= ?", (comparison.compared_upto,)
    _note(comparison, comparison.expected, _rows(session, comparison, where, parameters))


def _stored_stream(column: str, stream: UUID) -> str:
    return f"run-{stream}" if column == "run_id" else str(stream)


def _rows(
    session: Session, comparison: _Comparison, where: str, parameters: Sequence[str]
) -> dict[Key, Row]:
    table = comparison.projection.table
    places = [table.names.index(name) for name in table.key]
    selected = session.execute(
        f"SELECT {table.comparison_columns(session.dialect)} FROM {table.stored} {where}",  # noqa: S608 - names of the code
        parameters,
    )
    rows = (table.read_comparable(row) for row in selected)
    return {tuple(row[place] for place in places): row for row in rows}


def _note(comparison: _Comparison, expected: dict[Key, Row], found: dict[Key, Row]) -> None:
    table = comparison.projection.table
    if table.stream is not None and comparison.damages:
        place = table.key.index(table.stream)
        left_out = {_stored_stream(table.stream, each.stream) for each in comparison.damages}
        found = {key: row for key, row in found.items() if key[place] not in left_out}
    comparison.rows += len(expected)
    if expected == found:
        return
    for key in sorted(expected.keys() | found.keys()):
        wanted, stored = expected.get(key), found.get(key)
        if wanted == stored:
            continue
        named = ", ".join(f"{name}={value}" for name, value in zip(table.key, key, strict=True))
        if wanted is None or stored is None:
            comparison.difference = Difference(table.name, named, None, wanted, stored)
            return
        for column, one, other in zip(table.names, wanted, stored, strict=True):
            if one != other:
                comparison.difference = Difference(table.name, named, column, one, other)
                return
