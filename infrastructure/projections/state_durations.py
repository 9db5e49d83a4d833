"""`state_durations`.

A row per stay of an execution or a step in a state, for the analysis of dwell times.
"""

from datetime import datetime
from typing import Final

from msgspec import Struct

from application.views import milliseconds_between
from domain.execution import ExecutionState
from infrastructure.projections.folding import EXECUTIONS, Batch, Stay
from infrastructure.projections.tables import ProjectedTable


class StateDuration(Struct, frozen=True, gc=False):
    """The row.

    `path` is "" for the execution itself; `state` a leaf, as `RUNNING.executing` or
    `RECOVERING.retrying`.

    `entered_version` numbers the event that led into the state. `left_at` and `duration_ms` are
    null while the stay lasts. A step that has ended stays in no state.
    """

    run_id: str
    path: str
    entered_version: int
    state: str
    attempt: int
    entered_at: datetime
    left_at: datetime | None
    duration_ms: int | None
    workflow_name: str
    workspace_id: str
    position: int


TABLE: Final = ProjectedTable(
    name="state_durations",
    version=1,
    row=StateDuration,
    key=("run_id", "path", "entered_version"),
    stream="run_id",
    narrow=True,
    public=(
        ("execution_id", "substr(run_id, 5)"),
        *StateDuration.__struct_fields__,
    ),
)


class StateDurations:
    """The projection."""

    table = TABLE
    streams = EXECUTIONS
    details = True

    def rows(self, batch: Batch) -> list[StateDuration]:
        """See Projection."""
        made: list[StateDuration] = []
        for change in batch.executions:
            run_id = f"run-{change.after.id}"
            made += [_row(run_id, change.after, stay) for stay in change.stays.values()]
        return made


def _row(run_id: str, state: ExecutionState, stay: Stay) -> StateDuration:
    return StateDuration(
        run_id=run_id,
        path=stay.path,
        entered_version=stay.entered_version,
        state=stay.state,
        attempt=stay.attempt,
        entered_at=stay.entered_at,
        left_at=stay.left_at,
        duration_ms=milliseconds_between(stay.entered_at, stay.left_at),
        workflow_name=state.workflow_name,
        workspace_id=state.workspace_id,
        position=stay.position,
    )
