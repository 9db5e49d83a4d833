"""Messages to and from other systems, and the ports that carry them.

The facts (`ExecutionRequest` and the others) say what a message means; what it looks like on its
way is the business of the interfaces, which read and write them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from application.ports import Overloaded, StoreUnavailable, UnknownOutcome
from domain.errors import ConcurrentUpdate, NotReady
from domain.json_values import Json, JsonObject

POSITION_HEADER: Final = "flowledger-position"
"""Header of what was sent from the log: the position of the event it tells of, as decimal text."""


class Place(Struct, frozen=True):
    """Where a received message stands in its topic."""

    partition: int
    offset: int


class Message(Struct, frozen=True, kw_only=True):
    """One message as it travels. `place` is None for one that is to be sent.

    Messages of one key keep their order; one without a key may go anywhere.
    """

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    place: Place | None = None

    def header(self, name: str) -> bytes | None:
        """The last header of that name."""
        return next((value for each, value in reversed(self.headers) if each == name), None)


class Topics(Struct, frozen=True, kw_only=True):
    """What the topics are called here."""

    executions: str
    cancellations: str
    tasks: str
    results: str
    monitoring: str


# --- what messages tell ---


class ExecutionRequest(Struct, frozen=True, kw_only=True):
    """Somebody wants a plan to run as `run_id`.

    `plan` None: the workflow that `workflow_id` names, or what a row of that run says. `input`
    None: the message has none.
    """

    run_id: str
    plan: JsonObject | None
    input: JsonObject | None
    at: datetime | None
    workflow_id: str | None = None


class CancellationRequest(Struct, frozen=True, kw_only=True):
    """Somebody wants a run to stop, or made it stop."""

    run_id: str
    cancelled_by: str | None
    reason: str | None
    at: datetime | None


class AgentTask(Struct, frozen=True, kw_only=True):
    """Work for an agent."""

    run_id: str
    task_id: str
    agent_name: str
    input: JsonObject
    correlation_id: str
    at: datetime | None
    idempotency_key: str | None = None
    """The same for all tries of the step, unless it wants one for each; None when nobody told."""
    attempt: int | None = None
    try_no: int | None = None
    """Which run-through and which try, where the sender tells them."""


class AgentResult(Struct, frozen=True, kw_only=True):
    """What came of a task; `error_message` is set when it did not succeed, with what is known of
    the error besides.
    """

    run_id: str
    task_id: str
    succeeded: bool
    output: Json
    correlation_id: str
    error_message: str | None
    at: datetime | None
    error_code: str = "agent_failed"
    error_class: str = "unknown"
    retryable: bool = True


class MonitoringUpdate(Struct, frozen=True, kw_only=True):
    """A step, or the whole run (`step_id` WHOLE_RUN), came to a new status."""

    run_id: str
    step_id: str
    step_name: str
    status: Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
    at: datetime
    step_execution_id: str | None = None
    task_id: str | None = None
    failed_step: str | None = None
    error: str | None = None


WHOLE_RUN: Final = "workflow"
Fact: TypeAlias = (
    ExecutionRequest | CancellationRequest | AgentTask | AgentResult | MonitoringUpdate
)
Spelling: TypeAlias = Callable[[Fact, int | None], Message]
"""How a fact looks on its way; with the position in the log of the event it tells of, if any."""


# --- ports ---


class BrokerAway(Exception):
    """The message broker does not take what was given to it; it is not known what it took."""


class Undeliverable(Exception):
    """The broker answers, and will never take this message."""

    def __init__(self, message: Message, cause: str) -> None:
        super().__init__(cause)
        self.message = message
        self.cause = cause


class Poison(Exception):
    """A received message can never be taken, whoever tries; its text says what is wrong with it."""


NOT_NOW: Final = (NotReady, StoreUnavailable, Overloaded, UnknownOutcome, ConcurrentUpdate)
"""What a handler raises when the same message may be taken a little later."""


class TransportHealth(Struct, frozen=True):
    """Whether the broker answers; if not, why."""

    answers: bool
    detail: str


class MessagePublisher(Protocol):
    """Sends messages."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when the broker has stored all of them, in this order for each key; as long as it
        is away that takes as long.

        Raises Undeliverable, when all others are stored, and BrokerAway when it had to start anew.
        """

    def health(self) -> TransportHealth:
        """As far as is known without asking; answers at once."""

    async def close(self) -> None:
        """Let go of the broker; what it has not taken is dropped."""


MessageHandler: TypeAlias = Callable[[Message], Awaitable[None]]
"""Takes one message. Returns when what it says is stored; raises Poison, or one of NOT_NOW. The
same message may come again."""


class DeadLetters(Protocol):
    """Keeps messages that nobody can take."""

    async def add(self, message: Message, cause: str) -> None:
        """Keep it; one that is kept already stays as it is. Raises one of NOT_NOW."""


class MessageReceiver(Protocol):
    """Hands received messages to a handler and remembers what was handled."""

    def start(self) -> None:
        """Begin, in the event loop."""

    async def stop(self) -> None:
        """Let handlers end what they do, within bounds; the rest comes again at another start."""

    def lag(self) -> Mapping[str, int]:
        """By topic, the messages that are here or were announced, and are not handled."""

    def health(self) -> TransportHealth:
        """As far as is known without asking; answers at once."""
