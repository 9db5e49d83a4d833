"""What can happen between an execution and those who do its work elsewhere."""

from typing import ClassVar

from domain.event_envelope import Payload


class TaskDispatched(Payload, frozen=True):
    """The try is a task of an agent: recorded with the try's start, before anybody hears of it.

    Both ids are computed from execution, path, attempt and try. What comes back names
    `correlation_id`. `transport` is pull or kafka.
    """

    TOPIC: ClassVar[str] = "execution.task_dispatched.v1"
    path: str
    attempt: int
    try_no: int
    task_id: str
    correlation_id: str
    agent: str
    transport: str
    key_per_try: bool = False
    """Each try of the step has an idempotency key of its own."""


class DispatchFailed(Payload, frozen=True):
    """The request to start a PENDING execution could not be sent; it is sent again by itself."""

    TOPIC: ClassVar[str] = "execution.dispatch_failed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("reason",)
    reason: str


DISPATCH_PAYLOADS: tuple[type[Payload], ...] = (TaskDispatched, DispatchFailed)
