"""How far each projection has come, and what stopped it.

Tables `projection_checkpoints` and `projection_failures`.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from infrastructure.projections.folding import Projection
from infrastructure.projections.sessions import Session

RUNNING: Final = "running"
_SELECT: Final = (
    "SELECT name, version, position, state, generation, rebuild_position"
    " FROM projection_checkpoints"
)
_MOVE: Final = (
    "UPDATE projection_checkpoints SET position = ?"
    " WHERE (name, version) IN (VALUES ?keys) AND position = ? AND state = 'running'"
    " RETURNING name"
)


class CheckpointMoved(Exception):
    """Another process wrote this projection meanwhile: what was about to be written is outdated."""


class Checkpoint(NamedTuple):
    """`position` is that of the last event the table holds.

    `rebuild_position` None when no rebuild runs.
    """

    name: str
    version: int
    position: int
    state: str
    generation: int
    rebuild_position: int | None


class Failure(NamedTuple):
    """The event that paused a projection, and why."""

    name: str
    version: int
    position: int
    topic: str
    execution_id: str
    cause: str


def create_missing(session: Session, projections: Iterable[Projection]) -> None:
    """A checkpoint at the beginning of the log for projections that have none."""
    for projection in projections:
        session.execute(
            "INSERT INTO projection_checkpoints (name, version, position, state, generation)"
            " VALUES (?, ?, 0, 'running', 0) ON CONFLICT DO NOTHING",
            _key(projection),
        )


def read_checkpoints(session: Session) -> dict[tuple[str, int], Checkpoint]:
    """All checkpoints, by name and version."""
    rows = session.execute(_SELECT)
    return {(row[0], row[1]): Checkpoint(*row) for row in rows}


def read_checkpoint(session: Session, projection: Projection, *, lock: bool = False) -> Checkpoint:
    """One checkpoint, at the beginning of the log when there is none.

    `lock` keeps everybody else from moving it until the transaction ends.
    """
    locking = " FOR UPDATE" if lock and session.dialect == "postgresql" else ""
    rows = session.execute(f"{_SELECT} WHERE name = ? AND version = ?{locking}", _key(projection))
    if not rows:
        return Checkpoint(*_key(projection), 0, RUNNING, 0, None)
    return Checkpoint(*rows[0])


def move(session: Session, projections: Sequence[Projection], before: int, after: int) -> None:
    """Move from exactly `before` to `after`.

    Raises CheckpointMoved when one stands elsewhere or is paused.
    """
    keys = ", ".join(["(?, ?)"] * len(projections))
    named = [part for projection in projections for part in _key(projection)]
    moved = session.execute(_MOVE.replace("?keys", keys), (after, *named, before))
    if len(moved) != len(projections):
        raise CheckpointMoved(f"a projection does not stand at position {before} any more")


def pause(session: Session, failure: Failure) -> None:
    """Stop a projection at the event it cannot take."""
    session.execute(
        "UPDATE projection_checkpoints SET state = 'paused' WHERE name = ? AND version = ?",
        (failure.name, failure.version),
    )
    session.execute(
        "INSERT INTO projection_failures (name, version, position, topic, execution_id, cause)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name, version) DO UPDATE SET"
        " position = excluded.position, topic = excluded.topic,"
        " execution_id = excluded.execution_id, cause = excluded.cause",
        failure,
    )


def resume(session: Session, projections: Iterable[Projection]) -> None:
    """Let paused projections try again, from the event that stopped them."""
    for projection in projections:
        session.execute(
            "UPDATE projection_checkpoints SET state = 'running' WHERE name = ? AND version = ?",
            _key(projection),
        )
        session.execute(
            "DELETE FROM projection_failures WHERE name = ? AND version = ?", _key(projection)
        )


def read_failures(session: Session) -> dict[tuple[str, int], Failure]:
    """What stopped the projections that are paused, by name and version."""
    rows = session.execute(
        "SELECT name, version, position, topic, execution_id, cause FROM projection_failures"
    )
    return {(row[0], row[1]): Failure(*row) for row in rows}


def _key(projection: Projection) -> tuple[str, int]:
    return projection.table.name, projection.table.version
