"""`workflow_statistics`.

How many executions of each workflow are in each status, and how long the completed ones took.
"""

from typing import Final

from msgspec import Struct

from application.views import milliseconds_between
from domain.execution import ExecutionState
from domain.lifecycle import COMPLETED, STATUSES
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import ProjectedTable


class WorkflowStatistic(Struct, frozen=True, gc=False):
    """The row, one per status.

    Only COMPLETED has durations: `duration_ms_sum` over `durations` executions.

    What a batch adds; the stored row is the sum. The 95th percentile is exact, read from
    `workflow_runs` by its index.
    """

    workspace_id: str
    workflow_name: str
    status: str
    executions: int
    durations: int
    duration_ms_sum: int


TABLE: Final = ProjectedTable(
    name="workflow_statistics",
    version=1,
    row=WorkflowStatistic,
    key=("workspace_id", "workflow_name", "status"),
    summed=frozenset({"executions", "durations", "duration_ms_sum"}),
    narrow=True,
    public=WorkflowStatistic.__struct_fields__,
)

_Workflow = tuple[str, str]
_Figures = dict[str, list[int]]


class WorkflowStatistics:
    """The projection: +1 for the status an execution has after the batch, -1 for the one before.

    Every workflow has a row for every status, so that the rows do not depend on where batches end.
    """

    table = TABLE
    streams = EXECUTIONS
    details = False

    def rows(self, batch: Batch) -> list[WorkflowStatistic]:
        """See Projection."""
        sums: dict[_Workflow, _Figures] = {}
        for change in batch.executions:
            before, after = change.before, change.after
            if before is not None and before.state == after.state:
                continue
            figures = sums.setdefault((after.workspace_id, after.workflow_name), _zeros())
            if before is not None:
                _add(figures, before, -1)
            _add(figures, after, 1)
        return [
            WorkflowStatistic(*workflow, status, *figures[status])
            for workflow, figures in sums.items()
            for status in STATUSES
        ]


def _zeros() -> _Figures:
    return {status: [0, 0, 0] for status in STATUSES}


def _add(figures: _Figures, state: ExecutionState, sign: int) -> None:
    counts = figures[state.status]
    counts[0] += sign
    duration = milliseconds_between(state.started_at, state.completed_at)
    if state.status == COMPLETED and duration is not None:
        counts[1] += sign
        counts[2] += sign * duration
