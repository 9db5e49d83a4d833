"""What an execution is at one moment: frozen values, folded from events."""

from datetime import datetime
from typing import Final
from uuid import UUID

from immutables import Map
from msgspec import Struct

from domain.json_values import Json, JsonObject
from domain.lifecycle import TERMINAL, status_of

START: Final = ""
"""Marker among the live paths: the walk stands before the first step."""
FAN_OUT_NAMES: Final = frozenset({"parallel", "loop", "fork_join"})
"""What the steps are called that run several others; no action has these names."""


class ErrorInfo(Struct, frozen=True):
    """What went wrong.

    Stable code, class (permanent, transient, timeout, unknown), text, path of the step ("" for
    none).
    """

    code: str
    error_class: str
    message: str
    path: str


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


class StepState(Struct, frozen=True):
    """One step of the present attempt.

    `state` is a leaf of the step machine, `attempt` the one it ran in; `size` the bytes of the
    output (for a loop: of all that its iterations left), `epoch` that of the lease under which the
    try was handed over again (0: it never was). `joined` says that the output was put together from
    what is inside.
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
        """Guard of the lifecycle: compensations are declared by no definition yet."""
        return False
