"""All actions of a process behind the `Actions` port: by name, and always with an outcome."""

import asyncio
import re
import traceback
from collections.abc import Iterable
from pathlib import PurePath

from msgspec import structs

from application.steps import (
    ERROR_CLASSES,
    AgentCaller,
    ErrorClass,
    Failed,
    StepContext,
    StepFailure,
    StepHandler,
    StepOutcome,
    Succeeded,
)
from domain.agent_names import agent_of
from domain.json_values import Json, JsonObject, NotStorable, check_storable, own_copy
from domain.mistakes import Mistake
from infrastructure.effects.failure_texts import plain_message
from infrastructure.effects.secrets import Mask, Secrets

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class ActionRegistry:
    """The `Actions` of this process. Raises `ValueError` when two handlers have one name, or one is
    named as an agent is.
    """

    def __init__(
        self, handlers: Iterable[StepHandler], secrets: Secrets, agents: AgentCaller | None = None
    ) -> None:
        """`agents` None: steps of agents fail here."""
        self._agents = agents
        self._handlers: dict[str, StepHandler] = {}
        self._secrets = secrets
        for handler in handlers:
            if handler.name in self._handlers:
                raise ValueError(f"two handlers are named {handler.name!r}")
            if agent_of(handler.name) is not None:
                raise ValueError(f"the name of the handler {handler.name!r} stands for an agent")
            self._handlers[handler.name] = handler
        self._names = frozenset(self._handlers)

    def calling(self, agents: AgentCaller) -> "ActionRegistry":
        """The same actions, with somebody who calls agents."""
        return ActionRegistry(self._handlers.values(), self._secrets, agents)

    def names(self) -> frozenset[str]:
        return self._names

    def check(self, action: str, config: JsonObject, pointer: str) -> tuple[Mistake, ...]:
        handler = self._handlers.get(action)
        if handler is None:
            known = ", ".join(sorted(self._names))
            return (Mistake(pointer, "unknown_action", f"the known actions are: {known}"),)
        return tuple(handler.check(config, pointer))

    def touches_outside(self, action: str) -> bool:
        handler = self._handlers.get(action)
        return handler is None or handler.touches_outside

    async def perform(self, action: str, config: JsonObject, context: StepContext) -> StepOutcome:
        agent = agent_of(action)
        if agent is not None:
            return await self._call_agent(agent, config, context)
        handler = self._handlers.get(action)
        if handler is None:
            return _permanent(
                "unknown_action",
                f"this server has no action {action[:100]!r}; start it with the "
                "FLOWLEDGER_ACTIONS it had when the workflow was published",
            )
        if not context.secret_uses:
            return await _outcome(handler, config, context)
        try:
            config, mask = self._secrets.fill_in(config, context.secret_uses)
        except StepFailure as failure:
            return _failed(failure)
        report = context.progress
        context = structs.replace(context, progress=lambda value: report(mask.json(value)))
        return _masked(await _outcome(handler, config, context), mask)

    async def _call_agent(
        self, agent: str, config: JsonObject, context: StepContext
    ) -> StepOutcome:
        """An agent is told no secret: `${secret.NAME}` of the step that it stands in for stays."""
        if self._agents is None:
            return Failed(
                "agent_unavailable",
                f"this process calls no agents, so it cannot call {agent[:200]!r}; let a process "
                "with agents run the execution",
                "transient",
            )
        return await self._agents.call(agent, config, context)


async def _outcome(handler: StepHandler, config: JsonObject, context: StepContext) -> StepOutcome:
    try:
        output = await handler(config, context)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Failed("cancelled_error", f"{handler.name} was cancelled from within itself")
    # SystemExit too: a library's `sys.exit()` must fail its step, not stop the server.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - every failure has an outcome
        return _failed_or_unreadable(error)
    try:
        return Succeeded(own_copy(check_storable(output)))
    except NotStorable as error:
        return _permanent(
            "output_not_storable",
            f"the output of {handler.name} cannot be kept, at {error.pointer or 'its root'}: "
            f"{error.message}",
        )


def _failed_or_unreadable(error: BaseException) -> Failed:
    """As `_failed`, also for an exception whose own text or attributes raise."""
    try:
        return _failed(error)
    except Exception:  # noqa: BLE001 - foreign code
        return Failed(_code_of_class(error), "the exception raised another one when it was read")


def _failed(error: BaseException) -> Failed:
    """The failure that an exception stands for; its own `code`, `retryable`, `error_class` win."""
    error_class = _error_class(error)
    retryable = getattr(error, "retryable", None)
    message, output = (
        plain_message(str(error)) or type(error).__name__,
        getattr(error, "output", None),
    )
    try:
        output = own_copy(check_storable(output))
    except NotStorable as reason:
        message, output = f"{message} (its output cannot be kept: {reason.message})", None
    return Failed(
        _code(error),
        message,
        error_class,
        retryable if isinstance(retryable, bool) else error_class != "permanent",
        output,
        error.detail if isinstance(error, StepFailure) else _place(error),
    )


def _code(error: BaseException) -> str:
    code = getattr(error, "code", None)
    # The "code" of SystemExit is what the process would have ended with.
    if isinstance(code, str) and _CODE.fullmatch(code) and not isinstance(error, SystemExit):
        return code
    return _code_of_class(error)


def _code_of_class(error: BaseException) -> str:
    """`PaymentHTTPError` is `payment_http_error`."""
    return _WORD_START.sub("_", type(error).__name__).lower().strip("_")[:64]


def _error_class(error: BaseException) -> ErrorClass:
    given = getattr(error, "error_class", None)
    for known in ERROR_CLASSES:
        if given == known:
            return known
    if isinstance(error, TimeoutError):
        return "timeout"
    return "transient" if isinstance(error, ConnectionError) else "unknown"


def _place(error: BaseException) -> Json:
    """Where an unexpected exception was raised: file, line, function; never a value."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return None
    last = frames[-1]
    where = f"{PurePath(last.filename).name}:{last.lineno} in {last.name}"
    return {"exception": type(error).__name__, "where": where}


def _masked(outcome: StepOutcome, mask: Mask) -> StepOutcome:
    match outcome:
        case Succeeded(output):
            return Succeeded(mask.json(output))
        case Failed():
            return structs.replace(
                outcome,
                message=mask.text(outcome.message),
                output=mask.json(outcome.output),
                detail=mask.json(outcome.detail),
            )


def _permanent(code: str, message: str) -> Failed:
    return Failed(code, message, "permanent", retryable=False)
