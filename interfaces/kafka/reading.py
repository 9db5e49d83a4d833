"""Messages as other programs write them, as facts; what they never can be is Poison.

Read strictly where a mistake would be taken for something else, and leniently where clients differ:
members that are not known are passed over, times may lack an offset or be missing, ids are any
text.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from application.messages import (
    AgentResult,
    AgentTask,
    CancellationRequest,
    ExecutionRequest,
    Message,
    Poison,
)
from domain.error_classes import ERROR_CLASSES
from domain.json_values import (
    BODY_BYTES_MAX,
    Json,
    JsonObject,
    NotStorable,
    check_storable,
    parse_json,
    plain_text,
    pointer_join,
)
from interfaces.kafka.shapes import (
    ATTEMPT_HEADER,
    CLASS_HEADER,
    CODE_HEADER,
    KEY_HEADER,
    RETRYABLE_HEADER,
    TRY_HEADER,
)
from interfaces.times import read_time

ID_CHARACTERS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 10_000
HEADER_BYTES_MAX: Final = 4_000
"""The key of a step eight forks deep has 2,400: each level brings two names of 128 characters."""
_STRUCTURED: Final = b"application/cloudevents+json"
_EXECUTION: Final = "execution_request"
_CANCELLATION: Final = "cancellation_request"


def read_request(message: Message) -> ExecutionRequest | CancellationRequest:
    """A request to execute or to cancel, whichever topic it came on. Raises Poison."""
    body = _Body.of(message)
    kind = body.optional_text("message_type")
    if kind is None:
        names_work = body.members.keys() & {"workflow_plan", "workflow_id"}
        kind = _EXECUTION if names_work else _CANCELLATION
    if kind == _EXECUTION:
        return _execution_request(body)
    if kind == _CANCELLATION:
        return CancellationRequest(
            run_id=body.id("run_id"),
            cancelled_by=body.optional_text("cancelled_by"),
            reason=body.optional_text("reason"),
            at=body.time("timestamp"),
        )
    raise Poison(
        f"/message_type: {kind[:100]!r} is not known; it is {_EXECUTION} or {_CANCELLATION}"
    )


def _execution_request(body: "_Body") -> ExecutionRequest:
    name = "workflow_input" if "input_data" not in body.members else "input_data"
    return ExecutionRequest(
        run_id=body.id("run_id"),
        plan=body.optional_object("workflow_plan"),
        input=None if body.members.get(name) is None else body.payload(name),
        at=body.time("timestamp"),
        workflow_id=None if body.members.get("workflow_id") is None else body.id("workflow_id"),
    )


def read_task(message: Message) -> AgentTask:
    """A task for an agent. Raises Poison."""
    body = _Body.of(message)
    return AgentTask(
        run_id=body.id("run_id"),
        task_id=body.id("task_id"),
        agent_name=body.id("agent_name"),
        input=body.payload("input_data"),
        correlation_id=body.id("correlation_id"),
        at=body.time("timestamp"),
        idempotency_key=_header(message, KEY_HEADER),
        attempt=_number(message, ATTEMPT_HEADER),
        try_no=_number(message, TRY_HEADER),
    )


def read_result(message: Message) -> AgentResult:
    """What came of a task. Its output may be what cannot be stored: that is an outcome of the step.
    So is a failure, whatever is said about it. Raises Poison.
    """
    body = _Body.of(message, unchecked=("output_data", "error_message"))
    status = body.text("status").upper()
    if status not in ("SUCCESS", "FAILURE"):
        raise Poison(f"/status: {status[:100]!r} is not known; it is SUCCESS or FAILURE")
    return AgentResult(
        run_id=body.id("run_id"),
        task_id=body.id("task_id"),
        succeeded=status == "SUCCESS",
        output=body.members.get("output_data"),
        correlation_id=body.id("correlation_id"),
        error_message=body.plain_text("error_message"),
        at=body.time("timestamp"),
        **_error(message),
    )


def _error(message: Message) -> dict[str, Any]:
    """What the headers tell of an error; nothing when they are not those of a bridge."""
    code, kind = _header(message, CODE_HEADER), _header(message, CLASS_HEADER)
    if code is None or kind not in ERROR_CLASSES:
        return {}
    again = _header(message, RETRYABLE_HEADER) != "false"
    return {"error_code": code, "error_class": kind, "retryable": again}


def _header(message: Message, name: str) -> str | None:
    """The text of a header; None when it is missing or cannot be one."""
    value = message.header(name)
    if not value or len(value) > HEADER_BYTES_MAX or not value.isascii():
        return None
    text = value.decode()
    return text if text.isprintable() else None


def _number(message: Message, name: str) -> int | None:
    """The number in a header; None when it holds none."""
    text = _header(message, name)
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


class _Body:
    """The members of a message's body; what is wrong is told with its place."""

    def __init__(self, members: JsonObject) -> None:
        self.members = members

    @classmethod
    def of(cls, message: Message, *, unchecked: Sequence[str] = ()) -> "_Body":
        """Whether the members `unchecked` can be stored is for others to say."""
        value = _checked(lambda: parse_json(message.value))
        if (message.header("content-type") or b"").startswith(_STRUCTURED):
            value = value.get("data") if isinstance(value, dict) else None
        if not isinstance(value, dict):
            raise Poison("the body is not a JSON object")
        left_out = {name: value.pop(name) for name in unchecked if name in value}
        _checked(lambda: check_storable(value, bytes_max=BODY_BYTES_MAX))
        return cls({**value, **left_out})

    def id(self, name: str) -> str:
        """A text that names something."""
        found = self.text(name)
        if not found or len(found) > ID_CHARACTERS_MAX or not found.isprintable():
            raise Poison(
                f"/{name}: an id is 1 to {ID_CHARACTERS_MAX} printable characters, not "
                f"{found[:50]!r}"
            )
        return found

    def text(self, name: str) -> str:
        """A text that must be there."""
        found = self.optional_text(name)
        if found is None:
            raise Poison(f"/{name}: it is missing")
        return found

    def optional_text(self, name: str) -> str | None:
        """A text, or None when it is missing or null."""
        found = self._text_or_none(name)
        if found is not None and len(found) > TEXT_CHARACTERS_MAX:
            raise Poison(
                f"/{name}: it has {len(found)} characters; at most {TEXT_CHARACTERS_MAX} are taken"
            )
        return found

    def plain_text(self, name: str) -> str | None:
        """A text that is only told on, so that what cannot be stored of it is left out."""
        found = self._text_or_none(name)
        return None if found is None else plain_text(found, TEXT_CHARACTERS_MAX)

    def _text_or_none(self, name: str) -> str | None:
        found = self.members.get(name)
        if found is not None and not isinstance(found, str):
            raise Poison(f"/{name}: {_what(found)}not a text")
        return found

    def object(self, name: str) -> JsonObject:
        found = self.members.get(name)
        if not isinstance(found, dict):
            raise Poison(f"/{name}: {_what(found)}not a JSON object")
        return found

    def optional_object(self, name: str) -> JsonObject | None:
        """An object, or None when it is missing or null."""
        return None if self.members.get(name) is None else self.object(name)

    def payload(self, name: str) -> JsonObject:
        """An object that becomes an input; {} when it is missing or null."""
        if self.members.get(name) is None:
            return {}
        found = self.object(name)
        _checked(lambda: check_storable(found, pointer=pointer_join("", name)))
        return found

    def time(self, name: str) -> datetime | None:
        """A time, UTC when it names no offset; None when it is missing or null."""
        found = self.optional_text(name)
        if found is None:
            return None
        try:
            return read_time(found)
        except ValueError as error:
            raise Poison(f"/{name}: {error}, not {found[:50]!r}") from error


def _checked(read: Callable[[], Json]) -> Json:
    try:
        return read()
    except NotStorable as error:
        raise Poison(f"{error.pointer or 'the body'}: {error.message}") from error


def _what(found: Json) -> str:
    match found:
        case None:
            return "it is missing, "
        case bool():
            kind = "true or false"
        case int() | float():
            kind = "a number"
        case str():
            kind = "a text"
        case list():
            kind = "an array"
        case _:
            kind = "an object"
    return f"it is {kind}, "
