"""`recovery_metrics`: how often each strategy was used for each class of errors, and what it took.

Sums over `recovery_attempts`, kept so that they cost the same whatever the table holds.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from application.recovery_history import CUT_OFF, FAILED, SUCCEEDED, RecoveryAttempt
from infrastructure.projections.folding import EXECUTIONS, Batch
from infrastructure.projections.tables import ProjectedTable


class RecoveryMetric(Struct, frozen=True, gc=False):
    """The row, one per strategy and class of error.

    A recovery that has ended counts where its last attempt counts: `recoveries` ended here,
    `successes` of them with the step recovered, and `recovery_ms_sum` is what all of them took. The
    95th percentile is not kept: it is exact from `recovery_attempts`.

    What a batch adds; the stored row is the sum.
    """

    workspace_id: str
    strategy: str
    error_class: str
    attempts: int
    successes: int
    failures: int
    cancelled: int
    recoveries: int
    recovery_ms_sum: int
    delay_ms_sum: int
    saved_ms_sum: int


_FIELDS: Final = RecoveryMetric.__struct_fields__
_KEY: Final = _FIELDS[:3]
_AVERAGE: Final = "recovery_ms_sum / CAST(nullif(recoveries, 0) AS double precision)"

TABLE: Final = ProjectedTable(
    name="recovery_metrics",
    version=1,
    row=RecoveryMetric,
    key=_KEY,
    summed=frozenset(_FIELDS[3:]),
    narrow=True,
    public=(*_FIELDS, ("recovery_ms_mean", _AVERAGE, "double precision")),
)


class RecoveryMetrics:
    """The projection: what each attempt counts for after the batch, less what it did before."""

    table = TABLE
    streams = EXECUTIONS
    details = True

    def rows(self, batch: Batch) -> list[RecoveryMetric]:
        """See Projection."""
        sums: dict[tuple[str, str, str], list[int]] = {}
        for change in batch.executions:
            for before, after, _ in change.recoveries.values():
                key = (change.after.workspace_id, after.strategy, after.error_class)
                figures = sums.setdefault(key, [0] * len(_FIELDS[3:]))
                earlier = [0] * len(figures) if before is None else list(_figures(before))
                for place, figure in enumerate(_figures(after)):
                    figures[place] += figure - earlier[place]
        return [RecoveryMetric(*key, *figures) for key, figures in sums.items()]


def _figures(attempt: RecoveryAttempt) -> Iterator[int]:
    """What an attempt counts for, in the order of the summed columns."""
    yield 1
    yield from (int(attempt.outcome == each) for each in (SUCCEEDED, FAILED, CUT_OFF))
    yield int(attempt.recovery_ms is not None)
    yield attempt.recovery_ms or 0
    yield attempt.delay_ms
    yield attempt.saved_ms or 0
