"""Every refusal of the product.

One root, a stable code each, facts as attributes, a message that names the next step.
"""

from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

from domain.definition_reader import Mistake


class FlowledgerError(Exception):
    """Root of all refusals. `code` is stable; interfaces map it to a status."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(FlowledgerError):
    """No such workflow, version, execution, agent or task."""

    code: ClassVar[str] = "not_found"


class QuestionNotFound(NotFound):
    """The execution never asked such a question."""


class VersionNotFound(NotFound):
    """The workflow has no version of this `number`."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class MomentNotFound(NotFound):
    """The execution did not exist yet at the time that was asked for."""


class ExecutionNotFound(NotFound):
    """No such execution; `reference` is the text that a caller named it by."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"There is no execution {reference[:200]!r}.")


class StateConflict(FlowledgerError):
    """The verb is illegal in the present state."""

    code: ClassVar[str] = "illegal_transition"

    def __init__(
        self, message: str, *, current_status: str, allowed_actions: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.current_status = current_status
        self.allowed_actions = tuple(allowed_actions)


class StepNotFound(NotFound):
    """`path` names no step of the definition."""


class StepNotReached(FlowledgerError):
    """`field` of the request names a step that this execution never reached."""

    code: ClassVar[str] = "step_not_reached"

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class TooManySignals(FlowledgerError):
    """The execution keeps as many signals as it may that no step has taken."""

    code: ClassVar[str] = "too_many_signals"


class LeaseLost(FlowledgerError):
    """The task of an agent is in the hands of another worker, or of none."""

    code: ClassVar[str] = "lease_lost"


class TaskEnded(FlowledgerError):
    """Nobody waits for the task of an agent any more."""

    code: ClassVar[str] = "task_ended"


class WorkflowInactive(FlowledgerError):
    """The workflow takes no new executions."""

    code: ClassVar[str] = "workflow_inactive"


class AgentExists(FlowledgerError):
    """Another agent has this name."""

    code: ClassVar[str] = "agent_exists"


class NoEncryptionKey(FlowledgerError):
    """A credential came, and this server has no key to seal it with."""

    code: ClassVar[str] = "no_encryption_key"


class ConcurrentUpdate(FlowledgerError):
    """Other writers came first in every round of tries."""

    code: ClassVar[str] = "concurrent_update"


class PreconditionFailed(FlowledgerError):
    """`If-Match` names another version than the present one."""

    code: ClassVar[str] = "precondition_failed"

    def __init__(self, message: str, *, version: int) -> None:
        super().__init__(message)
        self.version = version


class KeyReused(FlowledgerError):
    """The Idempotency-Key came before with another request."""

    code: ClassVar[str] = "idempotency_key_reused"


class Invalid(FlowledgerError):
    """Something in the request is malformed; `mistakes` says what and where."""

    code: ClassVar[str] = "invalid_request"

    def __init__(self, message: str, mistakes: Sequence[Mistake] = ()) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes)


class InvalidDefinition(Invalid):
    """A definition has mistakes."""

    code: ClassVar[str] = "invalid_definition"


class InvalidInput(Invalid):
    """The input does not fit the definition's input_schema."""

    code: ClassVar[str] = "invalid_input"


class LogDamaged(FlowledgerError):
    """An event is missing in the log, or there twice; nothing is answered from what is left."""

    code: ClassVar[str] = "log_damaged"

    def __init__(self, kind: str, stream: UUID, *, after: int, found: int) -> None:
        super().__init__(
            f"The log of {kind} {stream} is damaged: version {found} follows version {after}."
            " Compare the log with a backup; `flowledger projections verify` names what is damaged."
        )
        self.stream = stream
        self.after = after
        self.found = found


class NotReady(FlowledgerError):
    """The store is busy or away; try again after `retry_after_seconds`."""

    code: ClassVar[str] = "not_ready"

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ProjectionBehind(NotReady):
    """The tables have not reached `min_position` in time."""

    code: ClassVar[str] = "projection_behind"
