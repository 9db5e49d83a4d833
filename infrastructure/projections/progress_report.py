"""How far the projections are, for operators: checkpoints against the head of the log."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from application.reads import ProjectionView
from infrastructure.projections.catalogue import PROJECTIONS


def lowest_position(connection: sa.Connection) -> int:
    """All projections of this release hold the events up to here; 0 when one has not begun."""
    found = _checkpoints(connection)
    return min(
        found[key].position if (key := (each.table.name, each.table.version)) in found else 0
        for each in PROJECTIONS
    )


def projection_views(
    connection: sa.Connection, now: datetime, *, led: bool
) -> Sequence[ProjectionView]:
    """Every projection of this release; `led` says whether a process runs them."""
    # Before the head: a position can then not lie behind the head it is compared with.
    found = _checkpoints(connection)
    postgresql = connection.dialect.name == "postgresql"
    column = "notification_id" if postgresql else "rowid"
    head = int(
        connection.execute(
            sa.text(f"SELECT coalesce(max({column}), 0) FROM ledger_events")  # noqa: S608 - constant
        ).scalar_one()
    )
    return [_view(connection, column, each.table, found, head, now, led) for each in PROJECTIONS]


def _view(
    connection: sa.Connection,
    column: str,
    table: Any,
    found: dict[tuple[str, int], sa.Row[Any]],
    head: int,
    now: datetime,
    led: bool,
) -> ProjectionView:
    checkpoint = found.get((table.name, table.version))
    position = 0 if checkpoint is None else int(checkpoint.position)
    waiting, oldest = _behind(connection, column, position, head)
    return ProjectionView(
        name=table.name,
        version=table.version,
        state=_state(checkpoint, led=led),
        position=position,
        head=max(head, position),
        lag_events=waiting,
        lag_seconds=0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()),
        last_error=None if checkpoint is None else checkpoint.cause,
        failed_position=None if checkpoint is None else checkpoint.failed_position,
    )


def _state(checkpoint: sa.Row[Any] | None, *, led: bool) -> str:
    if checkpoint is not None and checkpoint.rebuild_position is not None:
        return "rebuilding"
    if checkpoint is not None and checkpoint.state == "paused":
        return "paused"
    return "running" if led else "stopped"


def _behind(
    connection: sa.Connection, column: str, position: int, head: int
) -> tuple[int, datetime | None]:
    """How many events wait, and when the first of them was recorded."""
    if position >= head:
        return 0, None
    count = connection.execute(
        sa.text(f"SELECT count(*) FROM ledger_events WHERE {column} > :position"),  # noqa: S608 - constant
        {"position": position},
    ).scalar_one()
    state = connection.execute(
        sa.text(
            f"SELECT state FROM ledger_events WHERE {column} > :position ORDER BY {column} LIMIT 1"  # noqa: S608 - constant
        ),
        {"position": position},
    ).scalar()
    if state is None:
        return int(count), None
    at = datetime.fromisoformat(msgspec.json.decode(bytes(state))["meta"]["at"])
    return int(count), at.astimezone(UTC)


def _checkpoints(connection: sa.Connection) -> dict[tuple[str, int], sa.Row[Any]]:
    rows = connection.execute(
        sa.text(
            "SELECT c.name, c.version, c.position, c.state, c.rebuild_position,"
            " f.cause, f.position AS failed_position FROM projection_checkpoints c"
            " LEFT JOIN projection_failures f ON f.name = c.name AND f.version = c.version"
        )
    )
    return {(row.name, row.version): row for row in rows}
