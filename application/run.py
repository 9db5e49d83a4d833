"""One leased execution inside a worker, and the translation between its state and what a handler
sees.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from application.children import Attended
from application.ledger import Entry
from application.ports import Finish, Progress, QueueWrite
from application.steps import Failed, SecretUse, StepContext, StepOutcome, Succeeded
from domain.children import Pinned, is_wanted
from domain.decisions import Outcome
from domain.definition import ActionStep, Definition, Step, declared_at
from domain.dispatching import idempotency_key
from domain.draft import Draft
from domain.events import Meta
from domain.execution import ExecutionState, StepState
from domain.json_values import Json, JsonObject
from domain.lifecycle import PAUSED, RUNNING
from domain.planner import next_due, running_actions
from domain.simulation import simulated_output


class Try(NamedTuple):
    """One try of one step."""

    path: str
    attempt: int
    try_no: int


class Written(NamedTuple):
    """An append of a worker: the live tries after it, what it does to the queue, and the position
    of its last event once it is known to be in the log.
    """

    draft: Draft
    effects: Sequence[Try]
    queue: QueueWrite
    position: int = 0


class Run:
    """`assigned` are the tries that this worker owes an outcome; `performing` the tasks inside a
    handler; `expected` is the newest version that this worker wrote or is about to write, so that
    its own changes are no news; `lost` is a lease that belongs to somebody else, `over` a run that
    the worker holds no more. `attended` are the children that were begun or told; `transports` says
    how work reaches the agents that it may need. The lease was granted between `asked_at` and
    `since`.
    """

    __slots__ = (
        "asked_at",
        "assigned",
        "attended",
        "definition_or_none",
        "due",
        "entry",
        "epoch",
        "execution_id",
        "expected",
        "interrupted",
        "lock",
        "lost",
        "over",
        "performing",
        "progress",
        "since",
        "transports",
    )

    def __init__(self, execution_id: UUID, epoch: int, asked_at: datetime) -> None:
        self.execution_id = execution_id
        self.epoch = epoch
        self.asked_at = self.since = asked_at
        self.entry: Entry | None = None
        self.definition_or_none: Definition | None = None
        self.expected = 0
        self.due: datetime | None = None
        self.lost = False
        self.over = False
        self.lock = asyncio.Lock()
        self.assigned: set[Try] = set()
        self.performing: dict[Try, asyncio.Task[object]] = {}
        self.interrupted: set[Try] = set()
        self.progress: dict[Try, Json] = {}
        self.attended: Attended = set()
        self.transports: Mapping[str, str] = {}

    @property
    def state(self) -> ExecutionState:
        """The newest state this worker knows."""
        if self.entry is None:
            raise RuntimeError("a run has a state once it is loaded")
        return self.entry.state

    @property
    def definition(self) -> Definition:
        """What it runs."""
        if self.definition_or_none is None:
            raise RuntimeError("a run has a definition once it is loaded")
        return self.definition_or_none

    def foresee(self, draft: Draft) -> None:
        """It is about to be written: who hears of that need not look at the log."""
        self.expected = max(self.expected, draft.state.version)

    def wrote_nothing(self) -> None:
        """What was foreseen did not come, so that a version as high is news."""
        self.expected = self.state.version

    def draft(self, state: ExecutionState, now: datetime) -> Draft:
        """What this worker decides of `state`. The command id is computed: an append whose answer
        was lost is found again by it.
        """
        command = f"w{self.epoch}:{state.version}"
        return Draft(state, Meta(now, command, "worker", state.workspace_id))

    def unwanted(self, state: ExecutionState) -> list[Try]:
        """Tries whose handlers run although they have ended in `state`."""
        return [each for each in self.performing if not is_running(state, each)]

    def held(self) -> set[str]:
        """Paths whose present try this worker owes an outcome."""
        return {each.path for each in self.assigned if is_running(self.state, each)}

    def others(self, outcome: Outcome | Pinned | None) -> set[Try]:
        """What is assigned but for the try that `outcome` ends."""
        if outcome is None:
            return self.assigned
        return self.assigned - {Try(outcome.path, outcome.attempt, outcome.try_no)}


def is_running(state: ExecutionState, what: Try) -> bool:
    """Whether that very try runs, and has not ended or been followed by another."""
    step = state.steps.get(what.path)
    return (
        step is not None
        and step.state == RUNNING
        and (step.attempt, step.try_no) == (what.attempt, what.try_no)
    )


def effects_of(definition: Definition, state: ExecutionState) -> Sequence[Try]:
    """The live tries that a worker performs; a pause lets none of them begin."""
    if state.terminal or state.state == PAUSED:
        return ()
    return [
        Try(path, (step := state.steps[path]).attempt, step.try_no)
        for path in running_actions(definition, state)
    ]


def unattended(run: Run, state: ExecutionState) -> bool:
    """Whether a child is to be begun, or to be told that nobody waits for it."""
    return any(
        (child.id, is_wanted(state, child)) not in run.attended for child in state.children.values()
    )


def queue_write(
    run: Run,
    state: ExecutionState,
    effects: Sequence[Try],
    outcome: Outcome | Pinned | None,
    stopping_at: datetime | None,
) -> Finish | Progress:
    """What an append that leads to `state`, with the outcome of one of its tries, does to the queue
    row; `effects` are what runs then. A worker that stops, and would only hold the row, lets others
    have it at once.
    """
    if state.terminal and not state.children:
        return Finish(run.epoch)
    busy = bool(effects) or bool(run.others(outcome)) or unattended(run, state)
    if state.terminal:
        return Progress(run.epoch, None, release=not busy)
    due = stopping_at if stopping_at is not None and not busy else next_due(state)
    return Progress(run.epoch, due, release=not busy)


def context_for(
    state: ExecutionState,
    definition: Definition,
    path: str,
    epoch: int,
    progress: Callable[[Json], None],
) -> tuple[StepContext, JsonObject]:
    """What the handler of `path` is called with: its context and its resolved input."""
    step = state.steps[path]
    declared = declared_at(definition, path, step.action)
    uses: tuple[SecretUse, ...] = ()
    if isinstance(declared, ActionStep):
        uses = declared_secrets(declared)
    context = StepContext(
        execution_id=str(state.id),
        workspace_id=state.workspace_id,
        workflow_name=state.workflow_name,
        workflow_version=state.workflow_version,
        attempt=step.attempt,
        path=path,
        step_id=declared.id,
        try_no=step.try_no,
        delivery=step.delivery,
        epoch=epoch,
        idempotency_key=step_key(state, path, declared),
        shared_input=state.input,
        actor=state.triggered_by,
        labels=state.labels,
        timeout_seconds=declared.timeout_seconds or 0.0,
        progress=progress,
        secret_uses=uses,
    )
    return context, step.input if isinstance(step.input, dict) else {}


def step_key(state: ExecutionState, path: str, declared: Step) -> str:
    """What tells a repetition of the work of `path` from new work; see StepContext."""
    step = state.steps[path]
    per_try = isinstance(declared, ActionStep) and declared.key_per_try
    return idempotency_key(state.id, path, step.attempt, step.try_no, per_try=per_try)


def declared_secrets(step: ActionStep) -> tuple[SecretUse, ...]:
    """The places of a step's own settings that name secrets."""
    return tuple(
        SecretUse(pointer, reference.name or "")
        for pointer, reference in step.input.references
        if reference.root == "secret"
    )


def outcome_of(what: Try, epoch: int, done: StepOutcome) -> Outcome:
    """How a try ended, as the domain records it."""
    match done:
        case Succeeded(output):
            return Outcome(*what, epoch, output)
        case Failed():
            return Outcome(
                *what,
                epoch,
                done.output,
                done.error_class,
                done.code,
                done.message,
                done.retryable,
            )


def simulated(step: StepState) -> StepOutcome:
    """W's test mode: what would have been done, with nothing done."""
    return Succeeded(simulated_output(step.action, step.input))


class Host(Protocol):
    """The worker around the executions: it holds them, and knows when to claim and when to stop."""

    @property
    def stopping(self) -> bool:
        """Whether nothing new may begin."""

    def spawn(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the others, guarded."""

    def forget(self, run: Run) -> None:
        """The run is over for this worker."""

    def claim_soon(self, due: datetime | None) -> None:
        """There is something to claim: now, or at `due`."""
