"""I9 and I23, of the rows of tries: they are what the log says, and none is left open.

`tests/invariants.py` runs them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from application.step_history import step_history
from domain.events import Event
from domain.execution import ExecutionState, fold
from domain.lifecycle import CANCELLED, FAILED, PENDING, RETRYING, STEP_ENDED, status_of
from tests.recovery_invariants import Finding

Row = Mapping[str, object]


def left_open(events: Sequence[Event]) -> Iterator[Finding]:
    """I23: only the newest try of a step is under way, and none is once its execution has ended."""
    state = fold(events)
    assert state is not None
    rows = [{name: getattr(view, name) for name in _KEYS} for view in step_history(events)]
    for what in _open_of(rows, ended=state.terminal):
        yield "I23", events[-1], what


def rows_of_tries(
    states: Mapping[str, ExecutionState], rows: Iterable[Row]
) -> Iterator[tuple[str, str, str]]:
    """I9, I23: the table shows what became of each step, and leaves no try open."""
    by_run: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_run[str(row["run_id"])].append(row)
    for run_id, state in states.items():
        for what in _differences(state, by_run[run_id]):
            yield "I9", run_id, what
        for what in _open_of(by_run[run_id], ended=state.terminal):
            yield "I23", run_id, what


_KEYS = ("path", "attempt", "try_no", "status")


def _differences(state: ExecutionState, rows: Iterable[Row]) -> Iterator[str]:
    shown = {(row["path"], row["attempt"], row["try_no"]): row["status"] for row in rows}
    for path, step in state.steps.items():
        if step.state in (RETRYING, PENDING):
            continue  # the table shows the coming try
        status = shown.get((path, step.attempt, step.try_no))
        if step.state in (CANCELLED, FAILED):  # maybe as the coming try, which then has a row
            status = shown.get((path, step.attempt, step.try_no + 1), status)
        if status != status_of(step.state):
            yield f"{path} is {status!r}, the log says {status_of(step.state)}"


def _open_of(rows: Iterable[Row], *, ended: bool) -> Iterator[str]:
    newest: dict[object, tuple[int, int]] = {}
    tries = [(row["path"], (_number(row, "attempt"), _number(row, "try_no"))) for row in rows]
    for path, place in tries:
        newest[path] = max(place, newest.get(path, place))
    for (path, place), row in zip(tries, rows, strict=True):
        if row["status"] not in STEP_ENDED and (ended or place != newest[path]):
            yield f"{path} is {row['status']} in attempt and try {place}"


def _number(row: Row, name: str) -> int:
    return int(str(row[name]))
