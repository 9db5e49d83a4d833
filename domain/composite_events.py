"""What happens around steps: branches taken, iterations and branches begun and ended, joins."""

from datetime import datetime
from typing import ClassVar

from domain.event_envelope import Payload
from domain.json_values import Json, JsonObject


class BranchTaken(Payload, frozen=True):
    """A condition was evaluated.

    `branch` is `then` or `else`; `child` the path that runs, or None when there is none.

    An expression that could not be evaluated counts as false and leaves its reason in `error`.
    """

    TOPIC: ClassVar[str] = "execution.branch_taken.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("error", "actual")
    path: str
    attempt: int
    branch: str
    child: str | None
    error: str | None
    actual: Json


class IterationStarted(Payload, frozen=True):
    """A loop begins with item `index`, counted from 0."""

    TOPIC: ClassVar[str] = "execution.iteration_started.v1"
    path: str
    attempt: int
    index: int


class IterationFinished(Payload, frozen=True):
    """An iteration ended as `state`, COMPLETED or FAILED.

    `last` is the path of the step whose output is the iteration's, or whose failure is; None when
    no step of it ran. `code` and `error_class` are None unless it failed.
    """

    TOPIC: ClassVar[str] = "execution.iteration_finished.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("message",)
    path: str
    attempt: int
    index: int
    state: str
    last: str | None
    error_class: str | None
    code: str | None
    message: str | None


class BranchStarted(Payload, frozen=True):
    """A fork_join begins with a branch; `deadline_at` is when the branch times out."""

    TOPIC: ClassVar[str] = "execution.branch_started.v1"
    path: str
    attempt: int
    branch: str
    deadline_at: datetime | None


class BranchFinished(Payload, frozen=True):
    """A branch ended as `state`, COMPLETED or FAILED; what still ran in it is cancelled.

    The other fields are those of `execution.iteration_finished.v1`.
    """

    TOPIC: ClassVar[str] = "execution.branch_finished.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("message",)
    path: str
    attempt: int
    branch: str
    state: str
    last: str | None
    error_class: str | None
    code: str | None
    message: str | None


class Joined(Payload, frozen=True):
    """All that a composite waits for has ended; its end follows and carries no output of its own.

    Its output is put together here from what is inside. `kind` says how: `parallel` and `fork_join`
    by the names in `parts`, in that order; `loop` by number, with `total` iterations; `conditional`
    is `frame` with the branch's output. `cancelled` names the branches that nobody needs any more.
    """

    TOPIC: ClassVar[str] = "execution.joined.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("frame",)
    path: str
    attempt: int
    kind: str
    total: int
    parts: tuple[str, ...]
    cancelled: tuple[str, ...]
    frame: JsonObject | None
