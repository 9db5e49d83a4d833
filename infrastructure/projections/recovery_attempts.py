"""`recovery_attempts`: a row per use of a recovery strategy."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from domain.definition import step_id_of
from infrastructure.projections.folding import EXECUTIONS, AttemptChange, Batch, ExecutionChange
from infrastructure.projections.tables import Index, ProjectedTable


class RecoveryAttemptRow(Struct, frozen=True, gc=False):
    """The row.

    `RecoveryAttempt` with the names of its step, workflow and workspace. Durations are
    milliseconds. A recovery is the rows of one `run_id` and `recovery_version`; the one with
    `recovery_ms` ended it.
    """

    run_id: str
    started_version: int
    workflow_name: str
    path: str
    step_id: str
    attempt: int
    recovery_version: int
    number: int
    strategy: str
    alternative: str | None
    question_id: str | None
    error_class: str
    code: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    reason: str | None
    delay_ms: int
    duration_ms: int | None
    recovery_ms: int | None
    worked_ms: int
    saved_ms: int | None
    workspace_id: str
    position: int


_FIELDS: Final = RecoveryAttemptRow.__struct_fields__

TABLE: Final = ProjectedTable(
    name="recovery_attempts",
    version=1,
    row=RecoveryAttemptRow,
    key=("run_id", "started_version"),
    stream="run_id",
    public=(("execution_id", "substr(run_id, 5)"), *_FIELDS),
    indexes=(
        Index(
            "took",
            "workspace_id, strategy, error_class, recovery_ms",
            where="recovery_ms IS NOT NULL",
        ),
    ),
)


class RecoveryAttempts:
    """The projection: the last form of every attempt which the batch touched."""

    table = TABLE
    streams = EXECUTIONS
    details = True

    def rows(self, batch: Batch) -> list[RecoveryAttemptRow]:
        """See Projection."""
        return [
            _row(change, attempt)
            for change in batch.executions
            for attempt in change.recoveries.values()
        ]


def _row(change: ExecutionChange, changed: AttemptChange) -> RecoveryAttemptRow:
    state, made = change.after, changed.after
    return RecoveryAttemptRow(
        run_id=f"run-{state.id}",
        started_version=made.started_version,
        workflow_name=state.workflow_name,
        path=made.path,
        step_id=step_id_of(made.path),
        attempt=made.attempt,
        recovery_version=made.recovery_version,
        number=made.number,
        strategy=made.strategy,
        alternative=made.alternative,
        question_id=made.question_id,
        error_class=made.error_class,
        code=made.code,
        started_at=made.started_at,
        ended_at=made.ended_at,
        outcome=made.outcome,
        reason=made.reason,
        delay_ms=made.delay_ms,
        duration_ms=made.duration_ms,
        recovery_ms=made.recovery_ms,
        worked_ms=made.worked_ms,
        saved_ms=made.saved_ms,
        workspace_id=state.workspace_id,
        position=changed.position,
    )
