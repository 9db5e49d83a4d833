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


class ErrorInfo(Struct, frozen=True):
    """What went wrong.

    Stable code, class (permanent, transient, timeout, unknown), text, path of the step ("" for
    none).
    """

    code: str
    error_class: str
    message: str
    path: str


class StepState(Struct, frozen=True):
    """One step of the present attempt.

    `state` is a leaf of the step machine, `attempt` the one it ran in; `size` the output's bytes,
    `epoch` that of the lease under which the try was handed over again (0: it never was).
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
    persistent map by path.
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
