"""What happens between a step's failure and its verdict, and before an aborted execution ends."""

from datetime import datetime
from typing import ClassVar

from domain.event_envelope import Payload


class RecoveryStarted(Payload, frozen=True):
    """A failed step is not given up yet.

    `strategies` are those it may use, in order: retry, alternative_flow, user_fulfillment.
    `budget_ms` is what all of that may take, without the time that a person is waited for.
    """

    TOPIC: ClassVar[str] = "execution.recovery_started.v1"
    path: str
    attempt: int
    budget_ms: int | None
    error_class: str
    code: str
    strategies: tuple[str, ...]


class RetryScheduled(Payload, frozen=True):
    """A failed step will be tried again at `due_at`; `try_no` is the number of that coming try."""

    TOPIC: ClassVar[str] = "execution.retry_scheduled.v1"
    path: str
    attempt: int
    try_no: int
    delay_ms: int
    due_at: datetime


class AlternativeSelected(Payload, frozen=True):
    """Other work is done in the place of a failed step, at `{path}~alt.{id}`.

    `action` is what it performs.
    """

    TOPIC: ClassVar[str] = "execution.alternative_selected.v1"
    path: str
    attempt: int
    id: str
    action: str


class QuestionAsked(Payload, frozen=True):
    """A person is asked what to do about a failed step; the clock of its recovery stands still.

    `options` are the exact answers; at `due_at` it is answered with `on_timeout`.
    """

    TOPIC: ClassVar[str] = "execution.question_asked.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("texts",)
    question_id: str
    path: str
    attempt: int
    options: tuple[str, ...]
    due_at: datetime
    on_timeout: str
    texts: tuple[str, ...]


class QuestionAnswered(Payload, frozen=True):
    """What the answer was taken for: `kind` is retry, skip, abort or alternative (`alternative`).

    `read_as` says how it was understood: exact, text, ambiguous (taken for retry), or timeout. Who
    answered is the event's actor; `reason` is theirs.
    """

    TOPIC: ClassVar[str] = "execution.question_answered.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("answer", "reason")
    question_id: str
    path: str
    attempt: int
    kind: str
    alternative: str | None
    read_as: str
    answer: str
    reason: str | None = None


class RecoverySucceeded(Payload, frozen=True):
    """A step that had failed has worked after all.

    By `strategy` (retry, alternative_flow, user_fulfillment), after `attempts` more dispatches and
    `recovery_ms`, without the time a person was waited for. With an alternative the step completes
    here, with the alternative's output.
    """

    TOPIC: ClassVar[str] = "execution.recovery_succeeded.v1"
    path: str
    attempt: int
    strategy: str
    attempts: int
    recovery_ms: int


class RecoveryExhausted(Payload, frozen=True):
    """The failure stands.

    `reason` is nothing_left, budget, total_budget, skipped, answer_timeout or user_abort.
    """

    TOPIC: ClassVar[str] = "execution.recovery_exhausted.v1"
    path: str
    attempt: int
    reason: str
    attempts: int
    recovery_ms: int


class CompensationStarted(Payload, frozen=True):
    """Finished steps are undone, those at `paths` in this order, before the execution ends.

    `reason` is cancelled, or that of the failure it will end with; then `error_class`, `code`,
    `path` and `message` are the failure's.
    """

    TOPIC: ClassVar[str] = "execution.compensation_started.v1"
    PRIVATE: ClassVar[tuple[str, ...]] = ("message",)
    attempt: int
    reason: str
    error_class: str
    code: str
    path: str
    paths: tuple[str, ...]
    message: str


class CompensationFinished(Payload, frozen=True):
    """The step at `path` is undone, by what ran at `{path}~undo`."""

    TOPIC: ClassVar[str] = "execution.compensation_finished.v1"
    path: str
    attempt: int
