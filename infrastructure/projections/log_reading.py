"""Reads of the log for projections.

By position for the feed, by stream for histories and verification.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from domain.events import Recorded
from infrastructure.event_store.codec import Codec
from infrastructure.projections.folding import Undecodable
from infrastructure.projections.sessions import Session

STREAMS_PER_QUERY_MAX = 200
NO_LIMIT = 2**62


class LogReading:
    """Decoded reads through a session."""

    def __init__(self, session: Session, codec: Codec) -> None:
        self._session = session
        self._codec = codec
        self._ids: dict[str, UUID] = {}
        postgresql = session.dialect == "postgresql"
        self._position = "notification_id" if postgresql else "rowid"
        self._columns = f"originator_id, originator_version, topic, state, {self._position}"

    def after(
        self, position: int, limit: int, upto: int = NO_LIMIT
    ) -> list[Recorded | Undecodable]:
        """The next events in (position, upto]."""
        rows = self._session.execute(
            f"SELECT {self._columns} FROM ledger_events"  # noqa: S608 - constants
            f" WHERE {self._position} > ? AND {self._position} <= ?"
            f" ORDER BY {self._position} LIMIT ?",
            (position, upto, limit),
        )
        return [self._decoded(row) for row in rows]

    def histories(self, streams: Sequence[UUID], upto: int) -> Iterator[Recorded]:
        """The events of some streams up to a position, stream after stream.

        Raises what the codec raises for an event it cannot read.
        """
        for start in range(0, len(streams), STREAMS_PER_QUERY_MAX):
            part = streams[start : start + STREAMS_PER_QUERY_MAX]
            places = ", ".join("?" * len(part))
            rows = self._session.execute(
                f"SELECT {self._columns} FROM ledger_events"  # noqa: S608 - constants
                f" WHERE originator_id IN ({places}) AND {self._position} <= ?"
                " ORDER BY originator_id, originator_version",
                (*(self._stored_id(stream) for stream in part), upto),
            )
            for row in rows:
                decoded = self._decoded(row)
                if isinstance(decoded, Undecodable):
                    raise decoded.error
                yield decoded

    def by_stream(
        self, stream: UUID, version: int, upto: int, limit: int
    ) -> list[Recorded | Undecodable]:
        """Events up to a position, ordered by stream and version, after the named place."""
        rows = self._session.execute(
            f"SELECT {self._columns} FROM ledger_events"  # noqa: S608 - constants
            f" WHERE (originator_id, originator_version) > (?, ?) AND {self._position} <= ?"
            " ORDER BY originator_id, originator_version LIMIT ?",
            (self._stored_id(stream), version, upto, limit),
        )
        return [self._decoded(row) for row in rows]

    def count(self, upto: int) -> int:
        """How many events there are up to a position."""
        rows = self._session.execute(
            f"SELECT count(*) FROM ledger_events WHERE {self._position} <= ?",  # noqa: S608 - constant
            (upto,),
        )
        return int(rows[0][0])

    def head(self) -> int:
        """The highest position, 0 for an empty log."""
        rows = self._session.execute(
            f"SELECT coalesce(max({self._position}), 0) FROM ledger_events"  # noqa: S608 - constant
        )
        return int(rows[0][0])

    def _stored_id(self, stream: UUID) -> object:
        return stream if self._session.dialect == "postgresql" else stream.hex

    def _decoded(self, row: tuple[Any, ...]) -> Recorded | Undecodable:
        stored, version, topic, state, position = row
        # PostgreSQL's is one already; on SQLite the text of a stream's id is read once.
        stream = stored if isinstance(stored, UUID) else self._ids.get(stored)
        if stream is None:
            stream = self._ids[stored] = UUID(hex=stored)
        try:
            return self._codec.recorded(position, stream, version, topic, state)
        except Exception as error:  # noqa: BLE001 - whoever needs the event raises it again
            return Undecodable(position, topic, stream, version, error)
