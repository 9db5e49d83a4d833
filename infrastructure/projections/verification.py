"""Recomputes projections from the log and compares them with their tables, row by row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final
from uuid import UUID

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
class Verdict:
    """What was compared.

    `rows` of the table as of `position`, behind which the log has `lag_events` more. `difference`
    None says that they are equal.
    """

    name: str
    version: int
    position: int
    lag_events: int
    rows: int
    difference: Difference | None


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
        table.name, table.version, position, waiting, comparison.rows, comparison.difference
    )


def _compare(
    session: Session,
    log: LogReading,
    comparisons: Sequence[_Comparison],
    position: int,
    report: Report,
) -> None:
    projections = [each.projection for each in comparisons]
    states = States(lambda streams: (), filling=projections, kept_max=2, keep_ended=True)
    done, total = 0, log.count(position)
    report(done, total)
    for page in _pages(log, position):
        batch = states.apply(page)
        ended = _stream_of(page[-1])
        for comparison in comparisons:
            _expect(comparison, batch)
            _compare_until(session, comparison, ended)
        done += len(page)
        report(done, total)
    for comparison in comparisons:
        _compare_rest(session, comparison)


def _pages(log: LogReading, position: int) -> Iterator[list[Recorded | Undecodable]]:
    """The log by stream and version.

    Every page ends with an event of the stream that goes on, if one does.
    """
    stream, version = _FIRST_STREAM, 0
    while page := log.by_stream(stream, version, position, EVENTS_PER_PAGE):
        last = page[-1]
        if isinstance(last, Undecodable):
            raise last.error
        stream, version = last.event.execution_id, last.event.version
        yield page


def _stream_of(event: Recorded | Undecodable) -> UUID:
    return event.stream if isinstance(event, Undecodable) else event.event.execution_id


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
    if comparison.difference is not None:
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
    comparison.rows += len(expected)
    if expected == found:
        return
    table = comparison.projection.table
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
