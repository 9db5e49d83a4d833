"""What an execution is at one moment: frozen values, folded from events."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from immutables import Map
from msgspec import Struct

from domain.json_values import Json, JsonObject
from domain.lifecycle import TERMINAL, status_of
from domain.recovery_config import RecoveryConfig

START: Final = ""
"""Marker among the live paths: the walk stands before the first step."""
FAN_OUT_NAMES: Final = frozenset({"parallel", "loop", "fork_join"})
"""What the steps are called that run several others; no action has these names."""


class ErrorInfo(Struct, frozen=True):
    """What went wrong.

    Stable code, class (permanent, transient, timeout, unknown), text, path of the step ("" for
    none). `retryable` False is an action's own word that the same call fails again.
    """

    code: str
    error_class: str
    message: str
    path: str
    retryable: bool = True


class Episode(Struct, frozen=True):
    """One recovery of one step, from its failure to its verdict.

    `budget_ms` bounds it, less the time that a person was waited for, or that a pause kept the next
    try from beginning: `paused` so far, and since `paused_at`. `retries` counts those of its own,
    `dispatches` every try of whatever kind; `alternatives` are the ids that were used, `asked` says
    that a person was; `strategy` chose what runs now.
    """

    started_at: datetime
    budget_ms: int | None
    paused: timedelta = timedelta()
    paused_at: datetime | None = None
    retries: int = 0
    dispatches: int = 0
    alternatives: tuple[str, ...] = ()
    asked: bool = False
    strategy: str = ""

    def used(self, now: datetime) -> timedelta:
        """How long it has taken, without the time for which its clock stood still."""
        until = now if self.paused_at is None else self.paused_at
        return max(until - self.started_at - self.paused, timedelta())

    def left(self, now: datetime) -> timedelta | None:
        """What is left of the budget, maybe less than nothing; None without a budget."""
        if self.budget_ms is None:
            return None
        return timedelta(milliseconds=self.budget_ms) - self.used(now)


class Lane(Struct, frozen=True):
    """An open iteration or branch.

    `paths` are the steps of an iteration that have a state, which leaves with it.
    """

    deadline_at: datetime | None = None
    paths: tuple[str, ...] = ()


class LaneEnd(Struct, frozen=True):
    """How an iteration or branch ended: COMPLETED, FAILED or CANCELLED.

    `flawed` says that a step in it failed.
    """

    state: str
    output: Json = None
    error: ErrorInfo | None = None
    flawed: bool = False


class Fan(Struct, frozen=True):
    """How far a loop or fork_join is.

    `begun` is the number of the first iteration that may not have begun; `open, done, failed` count
    lanes, `flawed` those of the ended ones in which a step failed. `ends` holds the ended lanes by
    name until the composite has completed, `left` the paths of steps in iterations that began and
    did not complete.
    """

    begun: int = 0
    open: int = 0
    done: int = 0
    failed: int = 0
    flawed: int = 0
    ends: Map[str, LaneEnd] = Map()
    left: Map[str, tuple[str, ...]] = Map()


class Dispatched(Struct, frozen=True):
    """Where a try went that is done elsewhere; its result names `correlation_id`.

    `ended_at` is when it had its result, or its time was over (`timed_out`), and stays whatever
    becomes of the step then; None while it has not, and when something else ended the try.
    """

    task_id: str
    correlation_id: str
    agent: str
    transport: str
    since: datetime
    ended_at: datetime | None = None
    timed_out: bool = False


class StepState(Struct, frozen=True):
    """One step of the present attempt.

    `state` is a leaf of the step machine, `attempt` the one it ran in; `size` the bytes of the
    output (for a loop: of all that its iterations left), `epoch` that of the lease under which the
    try was handed over again (0: it never was). `joined` says that the output was put together from
    what is inside. `recovery` is set while its failure is being dealt with; `via` is the
    alternative that did its work, or does it now.
    """

    state: str
    attempt: int
    try_no: int
    delivery: int
    action: str
    after: str
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    deadline_at: datetime | None
    input: Json
    output: Json
    error: ErrorInfo | None
    why: str | None = None
    branch: str | None = None
    child: str | None = None
    actual: Json = None
    task_id: str | None = None
    progress: Json = None
    size: int = 0
    epoch: int = 0
    fan: Fan | None = None
    joined: bool = False
    recovery: Episode | None = None
    question_id: str | None = None
    via: str | None = None
    recovered: bool = False
    compensate_with: str | None = None
    child_id: UUID | None = None
    """The execution that a sub_workflow step runs."""
    dispatched: Dispatched | None = None
    """Set while, and after, somebody outside of the engine has the try."""

    @property
    def is_around(self) -> bool:
        """Whether it has begun and only waits for the steps inside it."""
        return self.branch is not None or self.action in FAN_OUT_NAMES


class HumanTask(Struct, frozen=True):
    """A task given to a person. `status` is TODO or DONE."""

    id: str
    path: str
    attempt: int
    status: str
    priority: str
    wait: bool
    title: str
    description: str | None
    assigned_to: str | None
    created_at: datetime
    completed_at: datetime | None
    completed_by: str | None
    result: Json


class Question(Struct, frozen=True):
    """A question to a person about a failed step. `kind` None: it has no answer (yet)."""

    id: str
    path: str
    attempt: int
    texts: tuple[str, ...]
    options: tuple[str, ...]
    asked_at: datetime
    due_at: datetime
    on_timeout: str
    kind: str | None = None
    alternative: str | None = None
    read_as: str | None = None
    answer: str | None = None
    answered_at: datetime | None = None
    answered_by: str | None = None


class Origin(Struct, frozen=True):
    """The execution that another one was forked from: as it was at `version`, at `from_step`."""

    execution_id: UUID
    version: int
    from_step: str


class Pause(Struct, frozen=True):
    """Since when, by whom and why an execution is paused; at `due_at` it fails (None: never)."""

    since: datetime
    by: str
    reason: str | None
    due_at: datetime | None


class Parent(Struct, frozen=True):
    """Whose child an execution is: the try of a step of another one.

    `depth` counts the executions above; with `wait` the parent waits for its end.
    """

    execution_id: UUID
    path: str
    attempt: int
    try_no: int
    depth: int
    wait: bool


class Child(Struct, frozen=True):
    """An execution that a sub_workflow step runs, as it was pinned, until this one is done with it.

    That is when its end is known here, also where nobody waits for it any more.
    """

    id: UUID
    path: str
    attempt: int
    try_no: int
    workflow_id: str
    workflow_name: str
    workflow_version: int
    definition_id: UUID
    sha256: str
    steps_total: int
    wait: bool


class Signal(Struct, frozen=True):
    """A signal that no step has taken yet."""

    number: int
    name: str
    payload: Json
    received_at: datetime


class Command(Struct, frozen=True):
    """A client's command that came with an Idempotency-Key.

    `version` is the last one it produced.
    """

    id: str
    fingerprint: str
    version: int


class ExecutionState(Struct, frozen=True):
    """Everything the events of one execution say.

    `state` is a leaf of the execution machine. `live` holds the paths the planner must look at:
    running or recovering steps, and ended ones whose successor has not begun. `steps` is a
    persistent map by path, `lanes` one of the open iterations and branches. `steps_done`,
    `steps_failed` and `steps_skipped` count steps outside of loops.
    """

    id: UUID
    workspace_id: str
    workflow_id: str
    workflow_name: str
    workflow_version: int
    definition_id: UUID
    sha256: str
    definition: JsonObject | None
    input: JsonObject
    atomic_mode: str
    priority: int
    labels: dict[str, str]
    simulate: bool
    triggered_by: str
    created_at: datetime
    steps_total: int
    start_at: datetime | None
    version: int
    updated_at: datetime
    state: str
    attempt: int
    commands: tuple[Command, ...]
    steps: Map[str, StepState] = Map()
    live: frozenset[str] = frozenset()
    lanes: Map[str, Lane] = Map()
    tasks: Map[str, HumanTask] = Map()
    steps_done: int = 0
    steps_failed: int = 0
    steps_skipped: int = 0
    output_bytes: int = 0
    started_at: datetime | None = None
    deadline_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    cancelled_by: str | None = None
    cancel_reason: str | None = None
    output: Json = None
    partial: bool = False
    error: ErrorInfo | None = None
    recovery: RecoveryConfig | None = None
    questions: Map[str, Question] = Map()
    steps_recovered: int = 0
    recovery_spent_ms: int = 0
    to_undo: tuple[str, ...] = ()
    """Finished steps that a step undoes when the execution is aborted, in order of completion."""
    parent: Parent | None = None
    children: Map[UUID, Child] = Map()
    """Those it is not done with, also such as nobody waits for any more."""
    signals: tuple[Signal, ...] = ()
    """In order of arrival."""
    signals_received: int = 0
    abort_reason: str | None = None
    """Why it is being undone: the reason of the failure it will end with, or `cancelled`."""
    pause: Pause | None = None
    forked_from: Origin | None = None
    dispatch_problem: str | None = None
    """Why the request to start it could not be sent, until it has started."""

    @property
    def status(self) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED or CANCELLED."""
        return status_of(self.state)

    @property
    def terminal(self) -> bool:
        """Whether only an explicit retry can change it."""
        return self.state in TERMINAL

    @property
    def compensations_due(self) -> bool:
        """Guard of the lifecycle: whether finished steps have to be undone first (strict mode)."""
        return bool(self.to_undo)

    @property
    def has_begun(self) -> bool:
        """Guard of the lifecycle: whether the present attempt was started."""
        return self.started_at is not None

    def waits_for_answer(self, question: Question) -> bool:
        """Whether the question is open: its step still waits for the answer."""
        step = self.steps.get(question.path)
        return step is not None and step.question_id == question.id and not self.terminal
