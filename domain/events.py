"""What can happen to an execution, a workflow or an agent.

Frozen payloads, each with the topic under which it is stored for ever.

A payload lists its public fields first and its private ones last; `PRIVATE` names the latter. The
codec stores them apart (`data` and `private`), so that what may be personal or secret can be erased
without touching the rest. A released payload never changes: a new field has a default, anything
else is a new topic with an upcast.
"""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from domain.child_events import (
    CHILD_PAYLOADS,
    ChildEnded,
    ChildStarted,
    SignalConsumed,
    SignalReceived,
)
from domain.composite_events import (
    BranchFinished,
    BranchStarted,
    BranchTaken,
    IterationFinished,
    IterationStarted,
    Joined,
)
from domain.control_events import ForkedFrom, Paused, Resumed, StepKept, StepSettled
from domain.dispatch_events import DISPATCH_PAYLOADS, DispatchFailed, TaskDispatched
from domain.event_envelope import Event, Meta, Payload, Recorded
from domain.json_values import Json, JsonObject
from domain.recovery_events import (
    AlternativeSelected,
    CompensationFinished,
    CompensationStarted,
    QuestionAnswered,
    QuestionAsked,
    RecoveryExhausted,
    RecoveryStarted,
    RecoverySucceeded,
    RetryScheduled,
)
from domain.registry_events import AGENT_PAYLOADS, AgentChanged, AgentDeleted, AgentRegistered

__all__ = [
    "AGENT_PAYLOADS",
    "EXECUTION_PAYLOADS",
    "PAYLOADS",
    "WORKFLOW_PAYLOADS",
    "AgentChanged",
    "AgentDeleted",
    "AgentRegistered",
    "AlternativeSelected",
    "BranchFinished",
    "BranchStarted",
    "BranchTaken",
    "CancelRequested",
    "Cancelled",
    "ChildEnded",
    "ChildStarted",
    "CompensationFinished",
    "CompensationStarted",
    "Completed",
    "DispatchFailed",
    "Event",
    "Failed",
    "ForkedFrom",
    "HumanTaskCompleted",
    "HumanTaskCreated",
    "IterationFinished",
    "IterationStarted",
    "Joined",
    "LateResultIgnored",
    "Meta",
    "Paused",
    "Payload",
    "QuestionAnswered",
    "QuestionAsked",
    "Recorded",
    "RecoveryExhausted",
    "RecoveryStarted",
    "RecoverySucceeded",
    "Requested",
    "Resumed",
    "Retried",
    "RetryScheduled",
    "SignalConsumed",
    "SignalReceived",
    "Started",
    "StepCompleted",
    "StepFailed",
    "StepKept",
    "StepProgressed",
    "StepRedelivered",
    "StepSettled",
    "StepSkipped",
    "StepStarted",
    "TaskDispatched",
    "WorkflowActivated",
    "WorkflowDeactivated",
    "WorkflowPublished",
    "WorkflowRetired",
]


# -------------------------------------------------------------------------------------- execution


class Requested(Payload, frozen=True):
    """The execution exists, PENDING.

    `definition` is set for an inline definition only (normalised form).
    """

    TOPIC: ClassVar[str] = "execution.requested.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("input",)
    workflow_id: str
    workflow_name: str
    workflow_version: int
    definition_id: UUID
    sha256: str
    steps_total: int
    atomic_mode: str
    priority: int
    labels: dict[str, str]
    start_at: datetime | None
    simulate: bool
    definition: JsonObject | None
    input: JsonObject
    recovery: JsonObject | None = None
    """RecoveryConfig, complete; None when neither the request nor the server has one."""
    parent: JsonObject | None = None
    """`execution_id, path, attempt, try_no, depth, wait`: whose sub_workflow step this runs for."""
    starts_by: str = "queue"
    """`kafka`: whoever receives its request from there starts it; else the next worker."""


class Started(Payload, frozen=True):
    """An attempt began.

    `deadline_at` is the end of the definition's `timeout_seconds`, counted from here.
    """

    TOPIC: ClassVar[str] = "execution.started.v1"
    attempt: int
    deadline_at: datetime | None


class StepStarted(Payload, frozen=True):
    """A try of a step is about to begin; durable before its effect does.

    `after` is the path whose end led here ("" for the start); `due_at` is when a wait ends;
    `deadline_at` is when the try times out.
    """

    TOPIC: ClassVar[str] = "execution.step_started.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("input",)
    path: str
    attempt: int
    try_no: int
    action: str
    after: str
    due_at: datetime | None
    deadline_at: datetime | None
    input: Json
    compensate_with: str | None = None
    """The step that undoes this one, in strict mode."""


class StepRedelivered(Payload, frozen=True):
    """A try whose worker was lost is handed to another; `delivery` counts from 1."""

    TOPIC: ClassVar[str] = "execution.step_redelivered.v1"
    path: str
    attempt: int
    try_no: int
    delivery: int
    epoch: int
    deadline_at: datetime | None


class StepProgressed(Payload, frozen=True):
    """A running handler reported how far it is."""

    TOPIC: ClassVar[str] = "execution.step_progressed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("progress",)
    path: str
    attempt: int
    try_no: int
    progress: Json


class StepCompleted(Payload, frozen=True):
    """The one recorded outcome of a try that worked.

    `size` is the output's JSON in bytes; 0 for a composite, whose parts are counted already.
    """

    TOPIC: ClassVar[str] = "execution.step_completed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("output",)
    path: str
    attempt: int
    try_no: int
    epoch: int
    size: int
    output: Json


class StepFailed(Payload, frozen=True):
    """The one recorded outcome of a try that did not work.

    `error_class` is permanent, transient, timeout or unknown.
    """

    TOPIC: ClassVar[str] = "execution.step_failed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("message", "output")
    path: str
    attempt: int
    try_no: int
    epoch: int
    error_class: str
    code: str
    retryable: bool
    message: str
    output: Json


class StepSkipped(Payload, frozen=True):
    """The step will not run in this attempt.

    `why` is `condition` or `branch_not_taken`, or `event_timeout`: what it waited for did not come.
    """

    TOPIC: ClassVar[str] = "execution.step_skipped.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("detail",)
    path: str
    attempt: int
    after: str
    why: str
    detail: str | None


class HumanTaskCreated(Payload, frozen=True):
    """A person was asked to do something.

    With `wait` the step goes on when the task is completed.
    """

    TOPIC: ClassVar[str] = "execution.human_task_created.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("title", "description", "assigned_to")
    task_id: str
    path: str
    attempt: int
    priority: str
    wait: bool
    title: str
    description: str | None
    assigned_to: str | None


class HumanTaskCompleted(Payload, frozen=True):
    """A person did it; who is the event's actor."""

    TOPIC: ClassVar[str] = "execution.human_task_completed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("result",)
    task_id: str
    path: str
    attempt: int
    result: Json


class CancelRequested(Payload, frozen=True):
    """Somebody asked to stop; from here on completion is impossible."""

    TOPIC: ClassVar[str] = "execution.cancel_requested.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str | None


class Cancelled(Payload, frozen=True):
    """Terminal. Steps that were live are cancelled with it."""

    TOPIC: ClassVar[str] = "execution.cancelled.v1"
    attempt: int


class Completed(Payload, frozen=True):
    """Terminal. `partial` says that steps that are not critical failed.

    `output_of` is the path of the composite whose output is the execution's; then `output` is null.
    """

    TOPIC: ClassVar[str] = "execution.completed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("output",)
    attempt: int
    partial: bool
    output: Json
    output_of: str | None = None


class Failed(Payload, frozen=True):
    """Terminal until an explicit retry.

    `reason` is critical_step, timeout, pause_timeout, no_success, bad_output, user_abort or
    compensation_failed.
    """

    TOPIC: ClassVar[str] = "execution.failed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("message",)
    attempt: int
    reason: str
    error_class: str
    code: str
    path: str
    message: str


class Retried(Payload, frozen=True):
    """A person reopened a FAILED or CANCELLED execution as `attempt`.

    `reset` names the path of every step that is undone; the walk starts anew and passes over what
    stays finished. `reopened` names the loops and forks that begin anew with what is finished in
    them.
    """

    TOPIC: ClassVar[str] = "execution.retried.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("reason",)
    attempt: int
    reset: tuple[str, ...]
    start_at: datetime | None
    reason: str | None
    reopened: tuple[str, ...] = ()


class LateResultIgnored(Payload, frozen=True):
    """A result arrived that nobody waits for any more.

    The step was cancelled or timed out, or its worker had lost the lease.
    """

    TOPIC: ClassVar[str] = "execution.late_result_ignored.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("detail",)
    path: str
    attempt: int
    try_no: int
    epoch: int
    outcome: str
    detail: str | None


# --------------------------------------------------------------------------------------- workflow


class WorkflowPublished(Payload, frozen=True):
    """A version of a workflow.

    `definition` is the normalised form that executions run; `source` what was sent.
    """

    TOPIC: ClassVar[str] = "workflow.published.v1"
    name: str
    number: int
    sha256: str
    definition: JsonObject
    source: JsonObject


class WorkflowActivated(Payload, frozen=True):
    """The workflow may be executed."""

    TOPIC: ClassVar[str] = "workflow.activated.v1"


class WorkflowDeactivated(Payload, frozen=True):
    """No new execution starts; running ones go on."""

    TOPIC: ClassVar[str] = "workflow.deactivated.v1"


class WorkflowRetired(Payload, frozen=True):
    """Deleted for callers; versions stay readable for the executions that ran them."""

    TOPIC: ClassVar[str] = "workflow.retired.v1"


EXECUTION_PAYLOADS: tuple[type[Payload], ...] = (
    Requested,
    Started,
    StepStarted,
    StepRedelivered,
    StepProgressed,
    StepCompleted,
    StepFailed,
    StepSkipped,
    BranchTaken,
    IterationStarted,
    IterationFinished,
    BranchStarted,
    BranchFinished,
    Joined,
    RecoveryStarted,
    RetryScheduled,
    AlternativeSelected,
    QuestionAsked,
    QuestionAnswered,
    RecoverySucceeded,
    RecoveryExhausted,
    HumanTaskCreated,
    HumanTaskCompleted,
    CancelRequested,
    CompensationStarted,
    CompensationFinished,
    Cancelled,
    Completed,
    Failed,
    Retried,
    LateResultIgnored,
    Paused,
    Resumed,
    StepSettled,
    ForkedFrom,
    StepKept,
    *CHILD_PAYLOADS,
    *DISPATCH_PAYLOADS,
)
WORKFLOW_PAYLOADS: tuple[type[Payload], ...] = (
    WorkflowPublished,
    WorkflowActivated,
    WorkflowDeactivated,
    WorkflowRetired,
)
PAYLOADS = EXECUTION_PAYLOADS + WORKFLOW_PAYLOADS + AGENT_PAYLOADS
