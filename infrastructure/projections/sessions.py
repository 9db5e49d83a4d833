"""What projections need of a database, the same on both back ends.

Statements, transactions, snapshots, one leader.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa
from msgspec import Struct

from infrastructure.projections.tables import Dialect, ProjectedTable

T = TypeVar("T")
Prepared = Sequence[Any]
"""Rows in the form of the back end's driver, empty for none; made by `ProjectionStore.prepare`."""


class Standing(NamedTuple):
    """`outranked` while a process is there for nothing else, which this one is not; `led` while any
    process leads.
    """

    outranked: bool
    led: bool


class Session(Protocol):
    """A connection in the hands of one thread. Statements mark parameters with `?`."""

    @property
    def dialect(self) -> Dialect:
        """The back end."""

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""

    def upsert(self, table: ProjectedTable, prepared: Prepared, suffix: str = "") -> None:
        """Write whole rows over those with the same key.

        An error may come as late as the commit.
        """


class ProjectionStore(Protocol):
    """Connections for one runner, rebuild or verification.

    Every call may raise StoreUnavailable.
    """

    @property
    def dialect(self) -> Dialect:
        """The back end."""

    def prepare(self, table: ProjectedTable, rows: Sequence[Struct]) -> Prepared:
        """Encode rows, which takes longer than to hand them over: outside the transaction."""

    def reading(self) -> AbstractContextManager[Session]:
        """Reads outside a transaction, each of which sees what is committed then."""

    def write(self, work: Callable[[Session], T]) -> T:
        """Run `work`, which changes rows only, in one transaction."""

    def write_soon(self, work: Callable[[Session], T]) -> Callable[[], T]:
        """Begin `write`, and go on: reads, and no other writes, may be made meanwhile. The result
        waits for its end and raises what it raises; it is to be called before anything else is
        written, and before `close`.
        """

    def restructure(self, work: Callable[[Session], T]) -> T:
        """Run `work`, which may also make and drop tables, in one transaction."""

    def snapshot(self) -> AbstractContextManager[Session]:
        """Reads which all see the database at one moment."""

    def lead(self) -> bool:
        """Be the one runner of the cluster, now and until the connection is lost.

        False while another is.
        """

    def standing(self) -> Standing:
        """What a process has to know before it leads, or goes on leading."""

    def led(self, connection: sa.Connection) -> bool:
        """Whether any process leads; from any thread."""

    def close(self) -> None:
        """Close the connections, which ends the lead."""
