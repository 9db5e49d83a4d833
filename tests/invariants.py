"""What must hold whatever happened: checks over the log, what clients were told, and the tables.

Numbers are those of docs/explanation/how-it-is-tested.md, "Invariants". Each check yields
violations; `check_all` runs them all. `tests/test_invariants.py` plants a violation of each.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple
from uuid import UUID

from application.views import summarise
from domain import events as ev
from domain.compensation import COMPENSATION_FAILED, UNDOING
from domain.errors import LogDamaged
from domain.events import Event, Recorded
from domain.execution import ExecutionState, evolve
from domain.lifecycle import (
    AWAITING_ANSWER,
    COMPLETED,
    EXECUTING,
    EXECUTION_TABLE,
    FAILED,
    PAUSED,
    PENDING,
    REROUTED,
    RUNNING,
    SKIPPED,
    STEP_TABLE,
    follow,
)
from tests.history_invariants import left_open, rows_of_tries
from tests.join_invariants import joined_too_soon
from tests.properties.finished_work import run_again
from tests.recovery_invariants import against_the_mode, beyond_budgets
from tests.timing_invariants import too_early


class Violation(NamedTuple):
    """A broken invariant: its number, where, and what is wrong there."""

    invariant: str
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client was told about one command.

    `done`: acknowledged, something changed. `nothing`: acknowledged, there was nothing to do.
    `refused`: 4xx. `unknown`: the answer was lost. `version` is that of a `done` answer.
    """

    command_id: str
    execution_id: UUID
    outcome: Literal["done", "nothing", "refused", "unknown"]
    verb: str = ""
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows of `workflow_runs` and `step_executions`, by column."""

    runs: Sequence[Mapping[str, object]] = ()
    steps: Sequence[Mapping[str, object]] = field(default=())


_ENDS = (ev.Cancelled, ev.Completed, ev.Failed)
_RESULTS = (ev.StepCompleted, ev.StepFailed)
_EXECUTION_TRIGGERS: dict[type[ev.Payload], str] = {
    ev.Started: "start",
    ev.Completed: "complete",
    ev.Failed: "fail",
    ev.CancelRequested: "cancel",
    ev.Cancelled: "cancel",
    ev.CompensationStarted: "fail",
    ev.Retried: "retry",
    ev.Paused: "pause",
    ev.Resumed: "resume",
}
_RECOVERIES = (ev.RecoveryStarted, ev.RecoverySucceeded, ev.QuestionAnswered)
_STEP_TRIGGERS: dict[type[ev.Payload], str] = {
    ev.AlternativeSelected: "reroute",
    ev.QuestionAsked: "ask",
    ev.RecoveryExhausted: "exhaust",
    ev.StepStarted: "start",
    ev.StepCompleted: "complete",
    ev.StepFailed: "fail",
    ev.StepSkipped: "skip",
    ev.RetryScheduled: "schedule_retry",
}
_RECOVERY_STATES: dict[type[ev.Payload], tuple[str, ...]] = {
    ev.RecoveryStarted: (FAILED,),
    ev.RecoverySucceeded: (COMPLETED, REROUTED),
    ev.QuestionAnswered: (AWAITING_ANSWER,),
}
_WHILE_RUNNING = (ev.StepRedelivered, ev.StepProgressed, ev.BranchTaken, ev.HumanTaskCreated)
_BY_HAND = {COMPLETED: "complete_by_hand", SKIPPED: "skip_by_hand"}
_WHILE_PAUSED = (
    *_RESULTS,
    *_RECOVERIES,
    ev.AlternativeSelected,
    ev.QuestionAsked,
    ev.RecoveryExhausted,
    ev.RetryScheduled,
    ev.StepProgressed,
    ev.StepSettled,
)
"""What may be recorded of a step while nothing new begins."""
_AFTER_THE_END = (ev.Retried, ev.LateResultIgnored, ev.HumanTaskCompleted, ev.ChildEnded)


def check_all(
    log: Sequence[Recorded],
    history: Sequence[Answer] | None = None,
    tables: Tables | None = None,
) -> list[Violation]:
    """Every violation in a whole log (all streams), in order of invariant."""
    found = list(check_order(log))
    for events in streams_of(log).values():
        found += check_versions(events)
        if type(events[0].data) is not ev.Requested:
            continue
        unreadable = list(check_fold(events))
        if unreadable:
            found += unreadable
            continue
        for check in (
            check_transitions,
            check_terminal,
            check_one_end,
            check_tries,
            check_epochs,
            check_late_results,
            check_recovery,
            check_finished_work,
        ):
            found += check(events)
    if history is not None:
        found += check_answers(log, history)
        found += check_repeats(history)
        found += check_winners(log, history)
    if tables is not None:
        found += check_tables(log, tables)
    return sorted(found)


def streams_of(log: Iterable[Recorded]) -> dict[UUID, list[Event]]:
    """Events by stream, in order of the log."""
    streams: defaultdict[UUID, list[Event]] = defaultdict(list)
    for recorded in log:
        streams[recorded.event.execution_id].append(recorded.event)
    return dict(streams)


# --- clients ---


def check_answers(log: Iterable[Recorded], history: Iterable[Answer]) -> Iterator[Violation]:
    """I1, I2: what was acknowledged is stored once; refused never; unknown at most once."""
    stored: defaultdict[str, list[Event]] = defaultdict(list)
    for recorded in log:
        stored[recorded.event.meta.cmd].append(recorded.event)
    outcomes: defaultdict[str, set[str]] = defaultdict(set)
    for answer in history:
        outcomes[answer.command_id].add(answer.outcome)
    for command_id, told in outcomes.items():
        events = stored.get(command_id, [])
        number = "I2" if told == {"unknown"} else "I1"
        if "done" in told and not events:
            yield Violation("I1", command_id, "was acknowledged and is not in the log")
        if events and not told & {"done", "unknown"}:
            yield Violation("I1", command_id, f"was {min(told)} and is in the log")
        versions = [(event.execution_id, event.version) for event in events]
        if events and versions != [
            (events[0].execution_id, events[0].version + offset) for offset in range(len(events))
        ]:
            yield Violation(number, command_id, "is in the log more than once")


def check_repeats(history: Iterable[Answer]) -> Iterator[Violation]:
    """I2: the repeats of one command get one answer."""
    versions: defaultdict[str, set[int | None]] = defaultdict(set)
    for answer in history:
        if answer.outcome == "done":
            versions[answer.command_id].add(answer.version)
    for command_id, seen in versions.items():
        if len(seen) > 1:
            yield Violation(
                "I2", command_id, f"was answered with versions {sorted(map(str, seen))}"
            )


def check_winners(log: Iterable[Recorded], history: Iterable[Answer]) -> Iterator[Violation]:
    """I6: whoever was told that he cancelled it did, though it may end otherwise (not undone)."""
    asked = {
        recorded.event.meta.cmd
        for recorded in log
        if isinstance(recorded.event.data, (ev.Cancelled, ev.CancelRequested))
    }
    for answer in history:
        if answer.verb == "cancel" and answer.outcome == "done" and answer.command_id not in asked:
            yield Violation("I6", answer.command_id, "was told to have cancelled, and had not")


# --- one stream ---


def check_order(log: Iterable[Recorded]) -> Iterator[Violation]:
    """I11: positions grow."""
    last = 0
    for recorded in log:
        if recorded.position <= last:
            yield Violation("I11", f"position {recorded.position}", f"follows {last}")
        last = recorded.position


def check_versions(events: Sequence[Event]) -> Iterator[Violation]:
    """I3: versions 1..n without a hole; times never go back."""
    for expected, event in enumerate(events, start=1):
        if event.version != expected:
            yield Violation("I3", _where(event), f"version {expected} was expected")
            return
    for before, after in pairwise(events):
        if after.meta.at < before.meta.at:
            yield Violation("I3", _where(after), "was recorded before its predecessor")


def check_fold(events: Iterable[Event]) -> Iterator[Violation]:
    """I4: every fact is about something that exists. I3: none is missing before it."""
    state: ExecutionState | None = None
    for event in events:
        try:
            state = evolve(state, event)
        except LogDamaged as error:
            yield Violation("I3", _where(event), str(error))
            return
        except (LookupError, TypeError) as error:
            yield Violation("I4", _where(event), f"cannot be folded: {error!r}")
            return


def check_transitions(events: Sequence[Event]) -> Iterator[Violation]:
    """I4: only what the two machines allow."""
    state: ExecutionState | None = None
    for event in events:
        before, state = state, evolve(state, event)
        if before is None:
            continue
        kind = type(event.data)
        if (trigger := _execution_trigger(before, event.data)) is not None:
            allowed = follow(EXECUTION_TABLE, before.state, trigger, before)
            if allowed is None or (kind is not ev.CancelRequested and state.state != allowed):
                yield Violation("I4", _where(event), f"{trigger} while {before.state}")
        elif state.state != before.state:
            yield Violation("I4", _where(event), f"moved it from {before.state} to {state.state}")
        yield from _step_transitions(before, event, state)


def _execution_trigger(before: ExecutionState, data: ev.Payload) -> str | None:
    """Undoing comes between the wish and its end, so three facts have two meanings."""
    undoing = before.state in UNDOING
    match data:
        case ev.CompensationStarted(reason="cancelled"):
            return "cancel"
        case ev.Cancelled() if undoing:
            return "compensated"
        case ev.Failed(reason=reason) if undoing and reason != "compensation_failed":
            return "compensated"
    return _EXECUTION_TRIGGERS.get(type(data))


def _step_transitions(
    before: ExecutionState, event: Event, after: ExecutionState
) -> Iterator[Violation]:
    kind, own = type(event.data), str(getattr(event.data, "path", ""))
    trigger = _step_trigger(event.data)
    if trigger or kind in _WHILE_RUNNING or kind in _RECOVERIES:
        if not _may_move(before, own, kind):
            yield Violation("I4", _where(event), f"a step moved while {before.state}")
        earlier = before.steps[own].state if own in before.steps else PENDING
        if kind in _RECOVERIES:
            if earlier not in _RECOVERY_STATES[kind]:
                yield Violation("I4", _where(event), f"{own} is {earlier}")
        elif trigger is None and earlier != RUNNING:
            yield Violation("I4", _where(event), f"{own} is {earlier}")
        elif trigger and follow(STEP_TABLE, earlier, trigger) != after.steps[own].state:
            yield Violation("I4", _where(event), f"{trigger} of {own} while {earlier}")
    for path, step in before.steps.items():
        now = after.steps[path].state if path in after.steps else PENDING
        if path == own or now == step.state:
            continue
        if now not in {follow(STEP_TABLE, step.state, t) for t in ("cancel", "reset")}:
            yield Violation("I4", _where(event), f"{path} went from {step.state} to {now}")


def _step_trigger(data: ev.Payload) -> str | None:
    if isinstance(data, ev.StepSettled):
        return _BY_HAND[data.state]
    return _STEP_TRIGGERS.get(type(data))


def _may_move(before: ExecutionState, path: str, kind: type[ev.Payload]) -> bool:
    if before.state in UNDOING:
        return path.endswith("~undo")
    return before.state == EXECUTING or (before.state == PAUSED and kind in _WHILE_PAUSED)


def check_terminal(events: Sequence[Event]) -> Iterator[Violation]:
    """I5: an end is final but for a retry; what comes late is only noted."""
    ended = False
    for event in events:
        if ended and not isinstance(event.data, _AFTER_THE_END):
            yield Violation("I5", _where(event), "happened after the end")
        if isinstance(event.data, _ENDS):
            ended = True
        elif isinstance(event.data, ev.Retried):
            if not ended:
                yield Violation("I5", _where(event), "retried what had not ended")
            ended = False


def check_one_end(events: Iterable[Event]) -> Iterator[Violation]:
    """I6: cancel, complete and fail have one winner in each attempt; a cancel that has won ends as
    that, unless what was done cannot be undone.
    """
    ends: defaultdict[int, list[Event]] = defaultdict(list)
    cancelled = False
    for event in events:
        data = event.data
        if isinstance(data, ev.CancelRequested | ev.Retried):
            cancelled = isinstance(data, ev.CancelRequested)
        elif isinstance(data, _ENDS):
            ends[data.attempt].append(event)
            stuck = isinstance(data, ev.Failed) and data.reason == COMPENSATION_FAILED
            if cancelled and not stuck and not isinstance(data, ev.Cancelled):
                yield Violation("I6", _where(event), "ends so although it was cancelled")
    for attempt, found in ends.items():
        if len(found) > 1:
            yield Violation("I6", _where(found[1]), f"attempt {attempt} ended {len(found)} times")


def check_tries(events: Iterable[Event]) -> Iterator[Violation]:
    """I7: tries count from 1 in each attempt, and each has one outcome at most."""
    begun: dict[tuple[int, str], int] = {}
    settled: set[tuple[int, str, int]] = set()
    for event in events:
        data = event.data
        if isinstance(data, ev.StepStarted):
            key = (data.attempt, data.path)
            if data.try_no != begun.get(key, 0) + 1:
                yield Violation("I7", _where(event), f"{data.path} begins try {data.try_no} anew")
            begun[key] = data.try_no
        elif isinstance(data, _RESULTS):
            what = (data.attempt, data.path, data.try_no)
            if what in settled:
                yield Violation("I7", _where(event), f"try {what} has a second outcome")
            if begun.get((data.attempt, data.path)) != data.try_no:
                yield Violation("I7", _where(event), f"try {what} is not the one that runs")
            settled.add(what)


def check_epochs(events: Iterable[Event]) -> Iterator[Violation]:
    """I8: no result from a worker whose try was handed to another (0 is the engine itself)."""
    newest: dict[tuple[int, str, int], int] = {}
    for event in events:
        data = event.data
        if isinstance(data, ev.StepRedelivered):
            what = (data.attempt, data.path, data.try_no)
            # The same again where a worker gave up a lease that then was its own still.
            if data.epoch < newest.get(what, 0):
                yield Violation("I8", _where(event), f"epoch {data.epoch} is an old one")
            newest[what] = data.epoch
        elif isinstance(data, _RESULTS) and data.epoch:
            what = (data.attempt, data.path, data.try_no)
            if data.epoch < newest.get(what, 0):
                yield Violation("I8", _where(event), f"result of the old epoch {data.epoch}")


def check_late_results(events: Iterable[Event]) -> Iterator[Violation]:
    """I13: what ended or was cancelled takes no result; what runs has none of its own ignored."""
    running: dict[str, tuple[int, int, int]] = {}
    state: ExecutionState | None = None
    for event in events:
        data = event.data
        if isinstance(data, (*_RESULTS, ev.LateResultIgnored)):
            *present, epoch = running.get(data.path, (0, 0, 0))
            runs = present == [data.attempt, data.try_no]
            if isinstance(data, ev.LateResultIgnored):
                if runs and not 0 < data.epoch < epoch:
                    yield Violation("I13", _where(event), "an awaited result is ignored")
            elif not runs:
                yield Violation("I13", _where(event), "a late result counts")
        state = evolve(state, event)
        running = {
            path: (step.attempt, step.try_no, step.epoch)
            for path in state.live
            if (step := state.steps.get(path)) is not None and step.state == RUNNING
        }


# --- the plan ---


def check_recovery(events: Sequence[Event]) -> Iterator[Violation]:
    """I15: recovery stays in its budgets. I16: the atomic mode is kept. I19: nothing happens before
    its time. I20: a join counts what completed. I23: no try is left open.
    """
    for number, event, what in (
        *beyond_budgets(events),
        *against_the_mode(events),
        *too_early(events),
        *joined_too_soon(events),
        *left_open(events),
    ):
        yield Violation(number, _where(event), what)


def check_finished_work(events: Sequence[Event]) -> Iterator[Violation]:
    """I7: what has completed is not done again, unless somebody asks for that."""
    for path in run_again(events):
        yield Violation("I7", _where(events[-1]), f"{path} had completed and was done again")


# --- tables ---

_COUNTS = ("done", "failed", "skipped")


def check_tables(log: Sequence[Recorded], tables: Tables) -> Iterator[Violation]:
    """I9: rows equal the fold of the events up to their position."""
    streams: defaultdict[str, list[Recorded]] = defaultdict(list)
    for recorded in log:
        streams[f"run-{recorded.event.execution_id}"].append(recorded)
    states: dict[str, ExecutionState] = {}
    for row in tables.runs:
        run_id, position = str(row["run_id"]), int(str(row["position"]))
        state = _fold_to(streams.get(run_id, ()), position)
        if state is None:
            yield Violation("I9", run_id, "is a row without events")
            continue
        states[run_id] = state
        for column, wanted in _row_of(state).items():
            if column in row and row[column] != wanted:
                yield Violation(
                    "I9", run_id, f"{column} is {row[column]!r}, the log says {wanted!r}"
                )
    for run_id, stream in streams.items():
        if run_id not in states and type(stream[0].event.data) is ev.Requested:
            yield Violation("I9", run_id, "has no row")
    if tables.steps:
        for number, run_id, what in rows_of_tries(states, tables.steps):
            yield Violation(number, run_id, what)


def _fold_to(stream: Iterable[Recorded], position: int) -> ExecutionState | None:
    state: ExecutionState | None = None
    for recorded in stream:
        if recorded.position <= position:
            state = evolve(state, recorded.event)
    return state


def _row_of(state: ExecutionState) -> dict[str, object]:
    view = summarise(state, 0)
    return {
        "status": view.status,
        "sub_status": view.sub_status,
        "attempt": view.attempt,
        "version": view.version,
        "partial": view.partial,
        "error_message": view.error_message,
        "progress": view.progress.percentage,
        **{f"steps_{name}": getattr(view.progress, name) for name in _COUNTS},
    }


def _where(event: Event) -> str:
    return f"{event.execution_id} v{event.version} {type(event.data).__name__}"
