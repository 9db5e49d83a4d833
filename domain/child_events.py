"""What can happen between an execution and others: children of a sub_workflow, signals."""

from typing import ClassVar
from uuid import UUID

from domain.event_envelope import Payload
from domain.json_values import Json


class ChildStarted(Payload, frozen=True):
    """The try of a sub_workflow step has its execution: `child_id`, of exactly this version.

    Durable before that execution is. Without `wait` the step ends as soon as it exists.
    """

    TOPIC: ClassVar[str] = "execution.child_started.v1"
    path: str
    attempt: int
    try_no: int
    child_id: UUID
    workflow_id: str
    workflow_name: str
    workflow_version: int
    definition_id: UUID
    sha256: str
    steps_total: int
    wait: bool


class ChildEnded(Payload, frozen=True):
    """The execution is done with a child: what came of it follows, or is ignored.

    `state` is COMPLETED, FAILED or CANCELLED, or DETACHED for one that nobody waits for.
    """

    TOPIC: ClassVar[str] = "execution.child_ended.v1"
    path: str
    attempt: int
    try_no: int
    child_id: UUID
    state: str


class SignalReceived(Payload, frozen=True):
    """Somebody (the event's actor) sent a signal; it is kept until a step takes it.

    `number` counts the signals of this execution from 1.
    """

    TOPIC: ClassVar[str] = "execution.signal_received.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("payload",)
    number: int
    name: str
    payload: Json


class SignalConsumed(Payload, frozen=True):
    """A step that waited takes a signal; its end with the payload as output follows."""

    TOPIC: ClassVar[str] = "execution.signal_consumed.v1"
    path: str
    attempt: int
    try_no: int
    number: int


CHILD_PAYLOADS: tuple[type[Payload], ...] = (
    ChildStarted,
    ChildEnded,
    SignalReceived,
    SignalConsumed,
)
