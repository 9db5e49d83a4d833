"""What people do to an execution: hold it, settle one of its steps, begin another one from it."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from domain.event_envelope import Payload
from domain.json_values import Json


class Paused(Payload, frozen=True):
    """Nothing new begins; what is in flight goes on and is recorded.

    At `due_at` the pause has lasted too long and the execution fails; None is without such an end.
    """

    TOPIC: ClassVar[str] = "execution.paused.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("reason",)
    attempt: int
    due_at: datetime | None
    reason: str | None


class Resumed(Payload, frozen=True):
    """It goes on. The clocks of what the pause kept from running go on too."""

    TOPIC: ClassVar[str] = "execution.resumed.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("reason",)
    attempt: int
    reason: str | None


class StepSettled(Payload, frozen=True):
    """A person ended the present try of a step as `state`, COMPLETED or SKIPPED.

    What goes on inside the step, in its place, or to recover it is over; of one that waited for its
    next try, `try_no` is that one's number. `size` is the output's
    JSON in bytes.
    """

    TOPIC: ClassVar[str] = "execution.step_settled.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("reason", "output")
    path: str
    attempt: int
    try_no: int
    state: str
    size: int
    reason: str
    output: Json


class ForkedFrom(Payload, frozen=True):
    """The execution begins at `from_step` of another one, as that was at `version`.

    What was finished before that step follows as `execution.step_kept.v1`.
    """

    TOPIC: ClassVar[str] = "execution.forked_from.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("reason",)
    execution_id: UUID
    version: int
    attempt: int
    from_step: str
    reason: str | None


class StepKept(Payload, frozen=True):
    """A step that the execution it was forked from has finished; it does not run here.

    `lanes_done`, `lanes_failed` and `lanes_flawed` count the iterations or branches that were done,
    failed, and done with a failure inside; `lanes_done` is None for what has none. `size` is what
    its output counts of the execution's outputs; `code` and `error_class` are None unless it
    failed.
    """

    TOPIC: ClassVar[str] = "execution.step_kept.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("why", "message", "output")
    path: str
    state: str
    action: str
    after: str
    try_no: int
    started_at: datetime | None
    ended_at: datetime | None
    size: int
    branch: str | None
    child: str | None
    lanes_done: int | None
    lanes_failed: int
    lanes_flawed: int
    error_class: str | None
    code: str | None
    why: str | None
    message: str | None
    output: Json
