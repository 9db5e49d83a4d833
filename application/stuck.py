"""Finds executions that should move and do not: nobody holds them, and nothing is to come that
would make anybody take them.

Tables may lag behind the log, so what they say is looked up in the log before it is told.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from application.ledger import Ledger, execution_uuid
from application.ports import QueueStatistics
from application.reads import LAPSED, NO_ROW, NOT_TAKEN, NOTHING_DUE, Reads
from application.views import waiting_on
from domain.execution import ExecutionState
from domain.lifecycle import PAUSED

PATIENCE_SECONDS: Final = 5.0
"""Beyond a lease: by then another worker has taken over, if there is one with room."""
CANDIDATES_MAX: Final = 500
SHOWN_MAX: Final = 100
MOVED_BY_WORKERS: Final = frozenset({"start", "timer", "retry", "action", "compensation"})
"""Kinds of waits that end by a worker alone; all others end by somebody else's deed."""
ADVICE: Final = {
    NO_ROW: "It has no row in the work queue, so no worker can find it. Cancel it and retry it: a "
    "retry makes a new row. Please report it.",
    LAPSED: "The worker that had it went silent, and no other took it over. Look whether a worker "
    "runs and has room.",
    NOT_TAKEN: "It is ready, and no worker takes it. Look whether a worker runs and has room "
    "(FLOWLEDGER_WORKER_SLOTS).",
    NOTHING_DUE: "It waits for nothing that anybody could do, and nothing is due. Cancel it and "
    "retry it. Please report it.",
}


class StuckView(Struct, frozen=True):
    """An execution that does not move. `why` is no_queue_row, lease_lapsed, not_taken or
    nothing_due; it has been so since `since`.
    """

    execution_id: str
    workflow_name: str
    status: str
    version: int
    why: str
    since: datetime
    advice: str


class StuckExecutions:
    """Looks for them."""

    def __init__(self, reads: Reads, ledger: Ledger, lease_seconds: float) -> None:
        self._reads = reads
        self._ledger = ledger
        self._lease = timedelta(seconds=lease_seconds)

    async def find(self, workspace_id: str) -> Sequence[StuckView]:
        """The first hundred, longest first. Raises StoreUnavailable, NotReady."""
        patience = timedelta(seconds=PATIENCE_SECONDS)
        candidates = await self._reads.unattended(
            workspace_id, lease=self._lease, patience=patience, limit=CANDIDATES_MAX
        )
        before = self._ledger.clock.now() - self._lease - patience
        stuck: list[StuckView] = []
        for each in candidates:
            if len(stuck) == SHOWN_MAX:
                break
            entry = await self._ledger.load(execution_uuid(workspace_id, each.execution_id))
            if entry is not None and _is_stuck(entry.state, each.why, before):
                stuck.append(_view(entry.state, each.why, each.since))
        return stuck


def why_not_moving(
    queue: QueueStatistics, patience_seconds: float = PATIENCE_SECONDS
) -> str | None:
    """Why ready work waits for longer than `patience_seconds`; None when it does not."""
    if queue.oldest_age_seconds <= patience_seconds:
        return None
    verb = "executions are" if queue.ready != 1 else "execution is"
    ready = f"{queue.ready} {verb} ready, the oldest for {queue.oldest_age_seconds:.0f} s"
    if not queue.workers:
        return f"{ready}, and no worker holds any. Start one: `flowledger worker` or `serve`."
    holding = f"{queue.workers} worker{'s hold' if queue.workers != 1 else ' holds'} {queue.leased}"
    return f"{ready}; {holding}. Start more workers, or give them more slots."


def _is_stuck(state: ExecutionState, why: str, before: datetime) -> bool:
    if state.terminal or state.updated_at > before:
        return False
    if why != NOTHING_DUE:
        return True
    return state.state != PAUSED and all(
        wait.kind in MOVED_BY_WORKERS for wait in waiting_on(state)
    )


def _view(state: ExecutionState, why: str, since: datetime) -> StuckView:
    return StuckView(
        execution_id=str(state.id),
        workflow_name=state.workflow_name,
        status=state.status,
        version=state.version,
        why=why,
        since=since,
        advice=ADVICE[why],
    )
