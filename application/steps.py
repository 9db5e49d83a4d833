"""What the engine and the work of a step say to each other: context in, outcome out.

The worker hands a configuration (references resolved, secrets not) and a `StepContext` to an
`Actions`, and gets a `StepOutcome` that it can record as an event without further checks.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from domain.json_values import Json, JsonObject, own_copy
from domain.mistakes import Mistake

ErrorClass = Literal["permanent", "transient", "timeout", "unknown"]
"""Why a step failed: `permanent` fails again, `transient` may pass, `unknown` is tried again."""

ERROR_CLASSES: tuple[ErrorClass, ...] = ("permanent", "transient", "timeout", "unknown")


PROGRESS_BYTES_MAX = 4_096
"""Of one value that says how far a step is."""


class SecretUse(NamedTuple):
    """One place of a step's definition that names a secret.

    Only these places are filled in. A `${secret.NAME}` that arrives as data (workflow input, an
    answer of a called service) stays text: else whoever sends data could read any secret.
    """

    pointer: str
    """RFC 6901 pointer of the text inside the configuration, e.g. `/headers/Authorization`."""
    name: str
    """`NAME` of `${secret.NAME}`."""


class StepContext(Struct, frozen=True, kw_only=True, dict=True):
    """What a step may know about the execution it works for."""

    execution_id: str
    """UUID of the execution, as text."""
    workspace_id: str
    workflow_name: str
    workflow_version: int
    attempt: int
    """Run-through of the execution: 1, and +1 per explicit retry."""
    path: str
    """Place of the step in the execution, e.g. `fetch`, `split/left/p`, `each[3]/p`."""
    step_id: str
    try_no: int
    """Try inside the attempt: 1, and +1 per automatic retry."""
    delivery: int
    """Hand-over of this try to a worker: above 1 after a worker was lost."""
    epoch: int
    """Number of the claim; a receiver may refuse a number lower than one it has seen."""
    idempotency_key: str
    """`{execution_id}:{attempt}:{path}`, the same for all tries and deliveries of the step."""
    shared_input: JsonObject
    """What the execution was asked with: the very value that all its steps see, to be left as it
    is. Functions that are not ours read `workflow_input`."""
    actor: str
    """Who asked for the execution."""
    labels: Mapping[str, str]
    timeout_seconds: float
    """Time limit of this try; the worker cancels the step when it is over."""
    progress: Callable[[Json], None]
    """Reports intermediate progress, a small JSON value; returns at once."""
    secret_uses: tuple[SecretUse, ...] = ()
    """Where the definition itself names secrets inside this configuration."""

    @cached_property
    def workflow_input(self) -> JsonObject:
        """A copy of `shared_input` for this step alone.

        It is made when it is first asked for: most steps never do, and a loop over a large input
        would copy all of it for each of its items.
        """
        return own_copy(self.shared_input)


class Succeeded(Struct, frozen=True):
    """The step did its work; `output` is storable JSON."""

    output: Json


class Failed(Struct, frozen=True):
    """The step did not do its work, or nobody knows whether it did."""

    code: str
    """Stable name of the mistake in snake_case, e.g. `http_status`, `outbound_refused`."""
    message: str
    """What went wrong and what to do next; holds no secret."""
    error_class: ErrorClass = "unknown"
    retryable: bool = True
    output: Json = None
    """What came back all the same, e.g. the body of an answer with status 500."""
    detail: Json = None


StepOutcome = Succeeded | Failed


class StepFailure(Exception):
    """Raised by a built-in handler; becomes a `Failed` with the same facts.

    `retryable` defaults to everything but `permanent`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        error_class: ErrorClass = "unknown",
        retryable: bool | None = None,
        output: Json = None,
        detail: Json = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.error_class: ErrorClass = error_class
        self.retryable = error_class != "permanent" if retryable is None else retryable
        self.output = output
        self.detail = detail


class StepHandler(Protocol):
    """One action: the work of a step, done in this process."""

    @property
    def name(self) -> str:
        """What definitions call it, e.g. `call_api`."""
        ...

    @property
    def touches_outside(self) -> bool:
        """Whether its work can be noticed outside of the execution. What cannot is also done in a
        simulation."""
        ...

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        """Does the work and returns its output; raises `StepFailure` (or anything) when it fails.

        It may be called again with the same `context.idempotency_key`, and is cancelled by
        `asyncio.CancelledError`, which it must let through.
        """
        ...

    def check(self, config: JsonObject, pointer: str) -> Iterable[Mistake]:
        """Yields every mistake in a configuration as written; `pointer` is where it stands.

        Values that hold a reference are not judged: nobody knows them yet.
        """
        ...


class AgentCaller(Protocol):
    """Calls the agents that a worker calls itself."""

    async def call(self, name: str, config: JsonObject, context: StepContext) -> StepOutcome:
        """Gives the agent `name` of `context.workspace_id` one task; what came of it.

        Raises nothing but `asyncio.CancelledError`. The outcome is storable and holds no
        credential.
        """
        ...


class Actions(Protocol):
    """All actions of this process, by name."""

    def names(self) -> frozenset[str]:
        """The actions a definition may use."""
        ...

    def check(self, action: str, config: JsonObject, pointer: str) -> tuple[Mistake, ...]:
        """Every mistake in the configuration of a step; `unknown_action` names the known ones."""
        ...

    def touches_outside(self, action: str) -> bool:
        """Whether the work of the action can be noticed outside of the execution: false only of an
        action that is known to do nothing but compute its output.
        """
        ...

    async def perform(self, action: str, config: JsonObject, context: StepContext) -> StepOutcome:
        """Does the work of one try, `agent:NAME` by that agent. Raises nothing but
        `asyncio.CancelledError`.

        `config` has its references resolved but for `${secret.NAME}`. The outcome is storable and
        free of the secrets that were filled in.
        """
        ...
