"""The answers as OpenAPI knows them, made from the views: no list of fields is kept twice.

They describe; `present.py` writes the bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, cast, get_args, get_origin

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model

from application.agent_views import AgentHealthView, AgentView, CircuitView
from application.dead_letters import DeadLetterView
from application.explain import Explanation, Waiting
from application.ports import QueueStatistics
from application.question_views import QuestionView
from application.reads import (
    AgentTaskView,
    HumanTaskView,
    ProjectionView,
    RecoveryFigures,
    RecoveryMetricsView,
    StatisticsView,
    StrategiesUsed,
    WorkflowView,
)
from application.stuck import StuckView
from application.tasks import OfferedTask
from application.verb_effects import VerbEffect
from application.views import (
    ErrorView,
    ExecutionView,
    OriginView,
    ParentView,
    ProgressView,
    StepView,
    WaitView,
)
from domain.agent_names import TRANSPORTS
from domain.agent_reader import (
    DELAY_MS_LIMIT,
    MULTIPLIER_MAX,
    RETRIES_MAX,
    TIMEOUT_MS_MAX,
    TIMEOUT_MS_MIN,
)
from domain.agents import AUTH_TYPES, ON_FAILURE, PROTOCOLS, AgentRecovery, RetryConfig
from domain.breaker import BreakerSettings
from domain.json_values import JsonObject
from interfaces.http.examples import (
    AGENT,
    AGENT_TASK,
    DEAD_LETTER,
    EVENT,
    EXECUTION,
    HUMAN_TASK,
    PROJECTION,
    QUESTION,
    QUEUE,
    RECOVERY_METRICS,
    STATISTICS,
    STEP,
    WORKFLOW,
)
from interfaces.http.problems import Problem

Model = type[BaseModel]
_made: dict[type, Model] = {}


def _model(name: str, members: Mapping[str, Any], example: JsonObject | None = None) -> Model:
    extra = {"examples": [example]} if example is not None else None
    config = ConfigDict(json_schema_extra=cast("Any", extra))  # pydantic's own alias is narrower
    required: dict[str, Any] = {key: (kind, ...) for key, kind in members.items()}
    made: Model = create_model(name, __config__=config, **required)
    return made


def _shape(
    view: type,
    name: str,
    *,
    renamed: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
    example: JsonObject | None = None,
) -> Model:
    """The model of a view; every member is there in every answer."""
    new_names = renamed or {}
    members = {new_names.get(name, name): _member(kind) for name, kind in _fields(view)}
    _made[view] = _model(name, members | dict(more or {}), example)
    return _made[view]


def _fields(view: type) -> Iterator[tuple[str, Any]]:
    """Names and annotations of a view: a struct where many are made, else a dataclass."""
    if is_dataclass(view):
        yield from ((each.name, each.type) for each in fields(view))
    elif issubclass(view, Struct):
        yield from ((name, view.__annotations__[name]) for name in view.__struct_fields__)


def _member(annotation: Any) -> Any:
    """A view's annotation with JSON values left open and views replaced by their models."""
    if isinstance(annotation, str):  # `Json` refers to itself by name
        return Any
    if annotation in _made:
        return _made[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return Union[tuple(NoneType if each is NoneType else _member(each) for each in arguments)]  # noqa: UP007 - the members are only known now
    if origin is dict or origin is Mapping:
        return dict[str, _member(arguments[1])]  # type: ignore[misc]  # a run-time type
    if origin is Sequence:
        return list[_member(arguments[0])]  # type: ignore[misc]  # a run-time type
    return annotation


def page_of(item: Model, name: str) -> Model:
    """The envelope of every list."""
    members = {
        "items": list[item],  # type: ignore[valid-type]  # a run-time type
        "total": int,
        "page": int,
        "page_size": int,
        "total_pages": int,
        "next_cursor": str | None,
    }
    return _model(name, members)


def _list_of(item: Model, name: str) -> Model:
    """A whole list."""
    return _model(name, {"items": list[item], "total": int})  # type: ignore[valid-type]  # a run-time type


ErrorShape: Final = _shape(ErrorView, "ExecutionError", renamed={"error_class": "class"})
ProgressShape: Final = _shape(ProgressView, "Progress")
WaitShape: Final = _shape(WaitView, "WaitingOn")
OriginShape: Final = _shape(OriginView, "ForkedFrom")
ParentShape: Final = _shape(ParentView, "Parent")
_LINKS: Final = {
    "links": dict[str, str],
}
ExecutionShape: Final = _shape(ExecutionView, "Execution", more=_LINKS, example=EXECUTION)
StepShape: Final = _shape(StepView, "StepExecution", more={"id": str}, example=STEP)
WorkflowShape: Final = _shape(WorkflowView, "Workflow", example=WORKFLOW)
HumanTaskShape: Final = _shape(HumanTaskView, "HumanTask", example=HUMAN_TASK)
StatisticsShape: Final = _shape(StatisticsView, "Statistics", example=STATISTICS)
RecoveryFiguresShape: Final = _shape(RecoveryFigures, "RecoveryFigures")
StrategiesUsedShape: Final = _shape(StrategiesUsed, "StrategiesUsed")
RecoveryMetricsShape: Final = _shape(
    RecoveryMetricsView, "RecoveryMetrics", example=RECOVERY_METRICS
)
QuestionShape: Final = _shape(QuestionView, "Question", example=QUESTION)
OverallShape: Final = _shape(
    StatisticsView,
    "OverallStatistics",
    more={"queue": _shape(QueueStatistics, "WorkQueue"), "why_not_moving": str | None},
    example=STATISTICS | {"workflow_name": None, "queue": QUEUE, "why_not_moving": None},
)
ProjectionShape: Final = _shape(ProjectionView, "Projection", example=PROJECTION)


class EventShape(BaseModel):
    """An event; `data` has the fields of its topic (docs/reference/events)."""

    model_config = ConfigDict(title="Event", json_schema_extra={"examples": [EVENT]})

    position: int = Field(description="Place in the global log; grows, may have gaps.")
    version: int = Field(description="Place within the execution (or workflow), from 1.")
    stream_id: str = Field(description="The execution, or the workflow for `workflow.*` topics.")
    topic: str
    type: str
    recorded_at: datetime
    actor: str
    command_id: str
    correlation_id: str | None
    causation_id: str | None
    workspace_id: str
    reason: str | None
    data: dict[str, Any]  # JSON


class EventPage(BaseModel):
    """Events in order. `next_after` goes into the next request; None when this is all by now."""

    items: list[EventShape]
    next_after: int | None


class MistakeShape(BaseModel):
    """One thing wrong with a definition, or one remark."""

    pointer: Annotated[
        str, Field(description="RFC 6901 pointer into the definition as it was sent.")
    ]
    code: str
    message: str


WaitingShape: Final = _shape(Waiting, "WaitingSentence")
VerbShape: Final = _shape(VerbEffect, "VerbEffect")
ExplanationShape: Final = _shape(Explanation, "Explanation")

ExecutionPage: Final = page_of(ExecutionShape, "ExecutionPage")
WorkflowPage: Final = page_of(WorkflowShape, "WorkflowPage")
DeadLetterShape: Final = _shape(DeadLetterView, "DeadLetter", example=DEAD_LETTER)
DeadLetterPage: Final = page_of(DeadLetterShape, "DeadLetterPage")
HumanTaskPage: Final = page_of(HumanTaskShape, "HumanTaskPage")
AgentTaskShape: Final = _shape(AgentTaskView, "AgentTask", example=AGENT_TASK)
AgentTaskPage: Final = page_of(AgentTaskShape, "AgentTaskPage")
PolledTaskShape: Final = _shape(OfferedTask, "PolledTask")
PolledTasksShape: Final = _model("PolledTasks", {"tasks": list[PolledTaskShape]})  # type: ignore[valid-type]  # a run-time type
TaskLeaseShape: Final = _model(
    "TaskLease", {"task_id": str, "epoch": int, "delivery": int, "lease_until": datetime}
)
TaskResultShape: Final = _model(
    "TaskResult",
    {
        "task_id": str,
        "execution_id": str,
        "path": str,
        "attempt": int,
        "try_no": int,
        "recorded": bool,
        "repeated": bool,
        "why": str | None,
    },
)
QuestionList: Final = _list_of(QuestionShape, "QuestionList")
QuestionPage: Final = page_of(QuestionShape, "QuestionPage")
StepList: Final = _list_of(StepShape, "StepList")
StuckList: Final = _list_of(_shape(StuckView, "StuckExecution"), "StuckList")
ProjectionList: Final = _list_of(ProjectionShape, "ProjectionList")
RunCommandShape: Final = _shape(
    ExecutionView,
    "RunCommand",
    more=_LINKS
    | {
        "message": str,
        "new_run_id": str,
        "original_run_id": str,
        "retry_count": int,
        "timestamp": datetime,
    },
)
PublishedShape: Final = _shape(
    WorkflowView, "PublishedWorkflow", more={"warnings": list[MistakeShape]}
)


class RetiredShape(BaseModel):
    """What became of it."""

    message: str
    timestamp: datetime
    data: WorkflowShape  # type: ignore[valid-type]  # a run-time type


class LineageShape(BaseModel):
    """Where an execution comes from, and what was forked from it."""

    execution_id: str
    ancestors: list[ExecutionShape]  # type: ignore[valid-type]  # a run-time type
    forks: list[ExecutionShape]  # type: ignore[valid-type]  # a run-time type
    forks_total: int


RetryConfigShape: Final = _shape(RetryConfig, "AgentRetryConfig")
BreakerConfigShape: Final = _shape(BreakerSettings, "CircuitBreakerConfig")
AgentRecoveryShape: Final = _shape(AgentRecovery, "AgentRecovery")
AgentShape: Final = _shape(AgentView, "Agent", example=AGENT)
AgentPage: Final = page_of(AgentShape, "AgentPage")
AgentHealthShape: Final = _shape(AgentHealthView, "AgentHealth")
CircuitShape: Final = _shape(CircuitView, "AgentCircuit")


class DeletedAgentShape(BaseModel):
    """An agent that was deleted."""

    message: str
    timestamp: datetime
    data: AgentShape  # type: ignore[valid-type]  # a run-time type


class AuthShape(BaseModel):
    """How calls to an agent show who calls; credentials are masked."""

    type: str
    token: str | None = None
    key: str | None = None
    header: str | None = None


class RegistryEntryShape(BaseModel):
    """An agent as older bridges read it; `timeout` is in ms."""

    name: str
    url: str | None
    auth_config: AuthShape | None
    timeout: int
    retry_config: RetryConfigShape  # type: ignore[valid-type]  # a run-time type
    circuit_breaker_config: BreakerConfigShape  # type: ignore[valid-type]  # a run-time type


class VerdictShape(BaseModel):
    """What publishing would say. `definition` is what it would store beside what was sent: with all
    defaults, and what the agents' records say of failure; null when it is not valid.
    """

    valid: bool
    errors: list[MistakeShape]
    warnings: list[MistakeShape]
    definition: dict[str, Any] | None


class BatchAnswer(BaseModel):
    """`execution` when it was taken, else `problem`."""

    status: int
    execution: ExecutionShape | None = None  # type: ignore[valid-type]  # a run-time type
    problem: Problem | None = None
    replayed: bool = False


class BatchShape(BaseModel):
    """One answer per item, in order."""

    items: list[BatchAnswer]


class StepArray(RootModel[list[StepShape]]):  # type: ignore[valid-type]  # a run-time type
    """Step executions, bare."""


class LogLines(RootModel[list[str]]):
    """Lines of text."""


class AliveShape(BaseModel):
    """It answers."""

    status: str


class CheckShape(BaseModel):
    """One check."""

    ok: bool
    detail: str


class ReadyShape(BaseModel):
    """Whether it takes work, and why not."""

    ready: bool
    checks: dict[str, CheckShape]


class VersionShape(BaseModel):
    """A build."""

    name: str
    version: str
    python: str


class KindShape(BaseModel):
    """A kind of problem."""

    code: str
    title: str
    status: int
    advice: str


DEFINITION_SCHEMA: Final[JsonObject] = {
    "type": "object",
    "description": "A workflow definition; docs/reference/definitions says what steps may hold. "
    "`POST /workflows/validate` names every mistake.",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "description": {"type": ["string", "null"]},
        "start_step": {"type": "string"},
        "steps": {"type": "object", "additionalProperties": {"type": "object"}},
        "actions": {"type": "array", "items": {"type": "object"}},
        "timeout_seconds": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "input_schema": {"type": ["object", "boolean", "null"]},
        "output": {},
    },
}
"""The outline; the rules are those of `domain/validation.py`."""


def _whole(low: int, high: int, default: int) -> JsonObject:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


_RETRY: Final = RetryConfig()
AGENT_MEMBERS: Final[JsonObject] = {
    "url": {"type": ["string", "null"], "description": "Needed with transport http."},
    "description": {"type": ["string", "null"], "maxLength": 4_096},
    "transport": {"enum": list(TRANSPORTS), "default": "http"},
    "protocol": {"enum": list(PROTOCOLS), "default": "jsonrpc"},
    "auth_type": {"enum": list(AUTH_TYPES), "default": "none"},
    "auth_config": {
        "type": ["object", "null"],
        "description": "With bearer `{token}`, with apikey `{key, header_name}`: the credential "
        "itself, which is sealed and never shown, or `${secret.NAME}`.",
        "properties": {
            "token": {"type": "string"},
            "key": {"type": "string"},
            "header_name": {"type": "string", "default": "X-API-Key"},
        },
    },
    "timeout_ms": _whole(TIMEOUT_MS_MIN, TIMEOUT_MS_MAX, 30_000),
    "retry_config": {
        "type": ["object", "null"],
        "properties": {
            "max_retries": _whole(0, RETRIES_MAX, _RETRY.max_retries),
            "initial_delay_ms": _whole(100, DELAY_MS_LIMIT, _RETRY.initial_delay_ms),
            "max_delay_ms": _whole(1_000, DELAY_MS_LIMIT, _RETRY.max_delay_ms),
            "backoff_multiplier": {
                "type": "number",
                "minimum": 1,
                "maximum": MULTIPLIER_MAX,
                "default": _RETRY.backoff_multiplier,
            },
        },
    },
    "circuit_breaker_config": {"type": ["object", "null"]},
    "recovery": {
        "type": ["object", "null"],
        "properties": {
            "on_failure": {"enum": list(ON_FAILURE), "default": "RETRY"},
            "fallback_agent": {"type": ["string", "null"]},
            "max_retries": {
                "type": "integer",
                "minimum": 0,
                "maximum": RETRIES_MAX,
                "description": "That of `retry_config`, or left out.",
            },
        },
    },
}
"""The outline; the rules are those of `domain/agent_reader.py`."""
