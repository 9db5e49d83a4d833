"""What the messages of Kafka look like, for the page of topics: made by what writes them."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from application.messages import (
    WHOLE_RUN,
    AgentResult,
    AgentTask,
    CancellationRequest,
    ExecutionRequest,
    Fact,
    Message,
    MonitoringUpdate,
)
from application.views import step_execution_id
from domain.dispatching import task_ids
from domain.json_values import Json, JsonObject
from infrastructure.kafka.opening import kafka_topics
from infrastructure.settings import Settings
from interfaces.kafka.shapes import Shapes
from tools.markdown import table
from tools.topic_meanings import HEADERS, MEMBERS

_EXECUTION: Final = UUID("0198f3d2-8f3e-7c4d-9f0a-6b8f2f0f8a11")
_RUN: Final = f"run-{_EXECUTION}"
_TASK, _CORRELATION = task_ids(_EXECUTION, "count", 1, 1)
_AT: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
_POSITION: Final = 4711
_INPUT: Final[JsonObject] = {"text": "the ledger of every run"}
_PLAN: Final[JsonObject] = {
    "workflow_id": "wf-count-words",
    "name": "count-words",
    "version": "1",
    "start_step": "count",
    "steps": {
        "count": {"agent_name": "counter", "input_mapping": {"text": "$.workflow_input.text"}}
    },
}


class Topic(NamedTuple):
    """One topic. `kind` is that of its messages, `setting` names it."""

    setting: str
    kind: str
    heading: str
    told: str
    examples: tuple[Fact, ...]


TOPICS: Final = (
    Topic(
        "kafka_execution_topic",
        "execution_request",
        "Execution requests",
        "Somebody wants a run.",
        (ExecutionRequest(run_id=_RUN, plan=_PLAN, input=_INPUT, at=_AT),),
    ),
    Topic(
        "kafka_cancellation_topic",
        "cancellation_request",
        "Cancellations",
        "Somebody wants a run to stop. Flowledger sends one for each cancel that it takes, "
        "whichever way that came.",
        (CancellationRequest(run_id=_RUN, cancelled_by="alice", reason="wrong text", at=_AT),),
    ),
    Topic(
        "kafka_task_topic",
        "task",
        "Tasks",
        "Work for an agent: one for each try of a step whose agent has the transport `kafka`, or "
        "`http` with `FLOWLEDGER_AGENT_TRANSPORT=kafka`.",
        (
            AgentTask(
                run_id=_RUN,
                task_id=_TASK,
                agent_name="counter",
                input=_INPUT,
                correlation_id=_CORRELATION,
                at=_AT,
                idempotency_key=f"{_EXECUTION}:1:count",
            ),
        ),
    ),
    Topic(
        "kafka_result_topic",
        "result",
        "Results",
        "What came of a task.",
        (
            AgentResult(
                run_id=_RUN,
                task_id=_TASK,
                succeeded=True,
                output={"words": 5, "longest": "ledger"},
                correlation_id=_CORRELATION,
                error_message=None,
                at=_AT,
            ),
            AgentResult(
                run_id=_RUN,
                task_id=_TASK,
                succeeded=False,
                output=None,
                correlation_id=_CORRELATION,
                error_message="HTTP 503: no stock",
                at=_AT,
                error_code="http_status",
                error_class="transient",
            ),
        ),
    ),
    Topic(
        "kafka_monitoring_topic",
        "monitoring_update",
        "Monitoring",
        "What a step or a whole run came to. One for each try that began, was completed or failed, "
        "and one for the end of the run. Steps that were skipped are not told of.",
        (
            MonitoringUpdate(
                run_id=_RUN,
                step_id="count",
                step_name="count",
                status="RUNNING",
                at=_AT,
                step_execution_id=step_execution_id(_EXECUTION, 1, "count", 1),
                task_id=_TASK,
            ),
            MonitoringUpdate(
                run_id=_RUN,
                step_id=WHOLE_RUN,
                step_name=WHOLE_RUN,
                status="FAILED",
                at=_AT,
                failed_step="count",
                error="HTTP 503: no stock",
            ),
        ),
    ),
)

_PLACE: Final = re.compile(
    r"(<!-- messages -->\n\n).*?(\n<!-- end of messages -->)", re.MULTILINE | re.DOTALL
)


def with_messages(text: str) -> str:
    """A page with the topics and their messages between its `<!-- messages -->` marks made anew."""
    settings = Settings.model_construct()
    shapes = Shapes(kafka_topics(settings), cloudevents=True)
    rows = [
        (
            f"[{each.heading}](#{each.heading.lower().replace(' ', '-')})",
            f"`{getattr(settings, each.setting)}`",
            f"`FLOWLEDGER_{each.setting.upper()}`",
            f"`{_key(shapes(each.examples[0], _POSITION))}`",
        )
        for each in TOPICS
    ]
    topics = table(("topic", "name", "setting", "key"), rows)
    sections = "".join(_section(each, shapes) for each in TOPICS)
    made = f"{topics}\n{sections}{_headers(shapes)}"
    return _PLACE.sub(lambda found: f"{found[1]}{made}{found[2]}", text)


def _key(message: Message) -> str:
    """The member of the body that is the key, too."""
    key = (message.key or b"").decode()
    members: dict[str, Json] = json.loads(message.value)
    return next(name for name, value in members.items() if value == key)


def _section(topic: Topic, shapes: Shapes) -> str:
    bodies = [json.loads(shapes(each, _POSITION).value) for each in topic.examples]
    meanings = MEMBERS[topic.kind]
    members = dict.fromkeys(name for body in bodies for name in _members(body))
    rows = [(f"`{name}`", meanings[name]) for name in members]
    shown = [f"```json\n{json.dumps(body, indent=2)}\n```\n" for body in bodies]
    parts = [f"## {topic.heading}\n\n{topic.told}\n", *shown, table(("member", "meaning"), rows)]
    return "\n".join(parts) + "\n"


def _members(body: Mapping[str, Json]) -> Iterator[str]:
    for name, value in body.items():
        if name == "metadata" and isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def _headers(shapes: Shapes) -> str:
    """Of all examples, those of CloudEvents included."""
    names = {
        name
        for topic in TOPICS
        for fact in topic.examples
        for name, _ in shapes(fact, _POSITION).headers
    }
    rows = [(f"`{name}`", HEADERS[name]) for name in sorted(names, key=list(HEADERS).index)]
    return "## Headers\n\n" + table(("header", "meaning"), rows)
