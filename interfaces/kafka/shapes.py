"""Facts as messages: the topic, the key and the JSON body of each, and the CloudEvents form."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, assert_never
from uuid import NAMESPACE_URL, uuid5

import msgspec

from application.messages import (
    POSITION_HEADER,
    WHOLE_RUN,
    AgentResult,
    AgentTask,
    CancellationRequest,
    ExecutionRequest,
    Fact,
    Message,
    MonitoringUpdate,
    Topics,
)
from domain.json_values import Json, JsonObject

SOURCE: Final = "/flowledger"
ATTEMPT_HEADER: Final = "flowledger-attempt"
TRY_HEADER: Final = "flowledger-try"
"""Of a task: which run-through of the execution, which try of the step."""
KEY_HEADER: Final = "flowledger-idempotency-key"
"""Of a task: what its agent is given as Idempotency-Key, the same for all tries of the step."""
CODE_HEADER: Final = "flowledger-error-code"
CLASS_HEADER: Final = "flowledger-error-class"
RETRYABLE_HEADER: Final = "flowledger-retryable"
"""`false` in a result: the same call fails again."""
_ENCODER: Final = msgspec.json.Encoder()


class Shapes:
    """The spelling of facts (see `application.messages.Spelling`)."""

    def __init__(self, topics: Topics, *, cloudevents: bool = False) -> None:
        """`cloudevents` adds the headers of CloudEvents 1.0 in binary mode; bodies stay as they
        are.
        """
        self._topics = topics
        self._cloudevents = cloudevents

    def __call__(self, fact: Fact, position: int | None = None) -> Message:
        """The message for a fact; `position` is that of the event it tells of."""
        topic, key, kind, body = self._form(fact)
        value = _ENCODER.encode(body)
        headers: list[tuple[str, bytes]] = [("content-type", b"application/json")]
        if position is not None:
            headers.append((POSITION_HEADER, b"%d" % position))
        headers += _more(fact)
        if self._cloudevents:
            headers += _cloudevents(kind, fact, value, position)
        return Message(topic=topic, key=key.encode(), value=value, headers=tuple(headers))

    def _form(self, fact: Fact) -> tuple[str, str, str, JsonObject]:
        """Topic, key, kind, body."""
        topics = self._topics
        match fact:
            case ExecutionRequest():
                return topics.executions, fact.run_id, "execution_request", _execution(fact)
            case CancellationRequest():
                return topics.cancellations, fact.run_id, "cancellation_request", _cancel(fact)
            case AgentTask():
                return topics.tasks, fact.run_id, "task", _task(fact)
            case AgentResult():
                return topics.results, fact.correlation_id, "result", _result(fact)
            case MonitoringUpdate():
                return topics.monitoring, fact.run_id, "monitoring_update", _monitoring(fact)
            case _:
                assert_never(fact)


def _more(fact: Fact) -> list[tuple[str, bytes]]:
    """What has no place in the body: headers that other programs may pass over."""
    match fact:
        case AgentTask():
            told = {
                KEY_HEADER: fact.idempotency_key,
                ATTEMPT_HEADER: fact.attempt,
                TRY_HEADER: fact.try_no,
            }
            return [(name, str(each).encode()) for name, each in told.items() if each is not None]
        case AgentResult(succeeded=False):
            return [
                (CODE_HEADER, fact.error_code.encode()),
                (CLASS_HEADER, fact.error_class.encode()),
                (RETRYABLE_HEADER, b"true" if fact.retryable else b"false"),
            ]
        case _:
            return []


def _execution(fact: ExecutionRequest) -> JsonObject:
    return {
        "run_id": fact.run_id,
        "workflow_plan": fact.plan,
        "input_data": fact.input or {},
        "timestamp": _time(fact.at),
        "message_type": "execution_request",
    }


def _cancel(fact: CancellationRequest) -> JsonObject:
    return {
        "run_id": fact.run_id,
        "cancelled_by": fact.cancelled_by,
        "reason": fact.reason,
        "timestamp": _time(fact.at),
        "message_type": "cancellation_request",
    }


def _task(fact: AgentTask) -> JsonObject:
    return {
        "run_id": fact.run_id,
        "task_id": fact.task_id,
        "agent_name": fact.agent_name,
        "input_data": fact.input,
        "correlation_id": fact.correlation_id,
        "timestamp": _time(fact.at),
    }


def _result(fact: AgentResult) -> JsonObject:
    return {
        "run_id": fact.run_id,
        "task_id": fact.task_id,
        "status": "SUCCESS" if fact.succeeded else "FAILURE",
        "output_data": fact.output,
        "correlation_id": fact.correlation_id,
        "error_message": fact.error_message,
        "timestamp": _time(fact.at),
    }


def _monitoring(fact: MonitoringUpdate) -> JsonObject:
    """One reader looks for `error`, another for `error_message`: both are there."""
    given: Sequence[tuple[str, Json]] = (
        ("step_execution_id", fact.step_execution_id),
        ("task_id", fact.task_id),
        ("failed_step", fact.failed_step),
        ("error", fact.error),
        ("error_message", fact.error),
    )
    return {
        "run_id": fact.run_id,
        "step_id": fact.step_id,
        "step_name": fact.step_name,
        "status": fact.status,
        "timestamp": _time(fact.at),
        "metadata": {name: value for name, value in given if value is not None},
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _cloudevents(
    kind: str, fact: Fact, value: bytes, position: int | None
) -> list[tuple[str, bytes]]:
    """The id is computed from what is told, so that a repeated message is seen to be one."""
    subject = fact.run_id
    if isinstance(fact, MonitoringUpdate) and fact.step_id != WHOLE_RUN:
        subject = f"{fact.run_id}/{fact.step_id}"
    name = uuid5(NAMESPACE_URL, f"{kind}\n{position}\n{value.decode()}")
    given = {
        "specversion": "1.0",
        "id": str(name),
        "source": SOURCE,
        "type": f"flowledger.{kind}.v1",
        "subject": subject,
        "time": _time(fact.at),
    }
    return [(f"ce_{part}", text.encode()) for part, text in given.items() if text is not None]
