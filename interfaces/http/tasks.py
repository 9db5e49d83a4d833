"""Tasks of agents, for workers that ask for work: poll, heartbeat, progress, complete, fail."""

from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from application.agent_results import TaskAnswer
from application.tasks import (
    AGENTS_MAX,
    LEASE_SECONDS,
    LEASE_SECONDS_MAX,
    LEASE_SECONDS_MIN,
    MESSAGE_CHARACTERS_MAX,
    TASKS_MAX,
    WAIT_SECONDS_MAX,
    WORKER_CHARACTERS_MAX,
    Ask,
    TaskLease,
    TaskSettled,
)
from domain.error_classes import PERMANENT
from domain.errors import NotFound
from interfaces.http.body import StrictRoute, check_payload
from interfaces.http.caller import WORKSPACE
from interfaces.http.documented import answers, body_answers
from interfaces.http.lists import WantedPage, named_execution, page_answer
from interfaces.http.present import API, json_answer
from interfaces.http.serving import AGENT_PATTERN, ID_PATTERN, services_of
from interfaces.http.shapes import (
    AgentTaskPage,
    AgentTaskShape,
    PolledTasksShape,
    TaskLeaseShape,
    TaskResultShape,
)

router = APIRouter(prefix=API, tags=["tasks"], route_class=StrictRoute)

_EPOCH_MAX: Final = 2**53
_LATE: Final = (
    "The task had ended before: it has another result, its time was over, or the execution was "
    "cancelled. What you sent is noted and changes nothing."
)
TaskId = Annotated[
    str, Path(pattern=ID_PATTERN, description="`task_id` of a task.", examples=["task-score-1f0a"])
]
AgentName = Annotated[str, Field(pattern=AGENT_PATTERN)]
LeaseSeconds = Annotated[
    float,
    Field(
        ge=LEASE_SECONDS_MIN,
        le=LEASE_SECONDS_MAX,
        description="How long the task is yours without a heartbeat.",
    ),
]


def _with_example(**members: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [members]})


class Poll(BaseModel):
    """Which work is wanted, and how long it may be waited for."""

    model_config = _with_example(agents=["scorer"], worker_id="scorer-1", wait_seconds=20)

    agents: list[AgentName] = Field(
        min_length=1, max_length=AGENTS_MAX, description="Agents whose transport is pull."
    )
    worker_id: str = Field(
        pattern=rf"^[\x21-\x7e]{{1,{WORKER_CHARACTERS_MAX}}}$",
        description="Who asks, for people who look.",
    )
    max_tasks: int = Field(1, ge=1, le=TASKS_MAX)
    wait_seconds: float = Field(0, ge=0, le=WAIT_SECONDS_MAX)
    lease_seconds: LeaseSeconds = LEASE_SECONDS


class Held(BaseModel):
    """Under which lease."""

    model_config = _with_example(epoch=42)

    epoch: int = Field(ge=0, le=_EPOCH_MAX, description="As the task came with.")


class Heartbeat(Held):
    """Keep the task."""

    model_config = _with_example(epoch=42, lease_seconds=30)

    lease_seconds: LeaseSeconds = LEASE_SECONDS


class TaskProgress(Held):
    """How far it is."""

    model_config = _with_example(epoch=42, progress={"percent": 50})

    progress: Any = Field(description="Any JSON, at most 4 KB.")


class TaskOutput(Held):
    """What came of it."""

    model_config = _with_example(epoch=42, output_data={"score": 7})

    output_data: Any = Field(None, description="Any JSON, at most 256 KB; the output of the step.")


class TaskFailure(Held):
    """Why it cannot be done."""

    model_config = _with_example(epoch=42, message="no such person", error_class="permanent")

    message: str = Field(min_length=1, max_length=MESSAGE_CHARACTERS_MAX)
    code: str = Field(
        "agent_error",
        pattern="^[a-z][a-z0-9_]{0,63}$",
        description="A stable name of the mistake, which recovery may look at.",
    )
    error_class: Literal["permanent", "transient", "timeout", "unknown"] = "unknown"
    retryable: bool | None = Field(
        None, description="Whether the same work may be tried again; all but permanent by default."
    )
    output_data: Any = Field(None, description="What there is all the same.")


@router.post(
    "/tasks/poll",
    response_model=PolledTasksShape,
    responses=body_answers(
        model=PolledTasksShape,
        description="Tasks by priority and age, each yours until `lease_until`; none when the wait "
        "is over.",
    ),
)
async def poll_tasks(request: Request, body: Poll) -> Response:
    """Ask for work of agents; the answer comes as soon as there is some.

    Send `epoch` back with everything about a task. One whose lease lapses is given to the next
    who asks, three times at most.
    """
    ask = Ask(
        agents=tuple(body.agents),
        worker_id=body.worker_id,
        max_tasks=body.max_tasks,
        wait_seconds=body.wait_seconds,
        lease_seconds=body.lease_seconds,
    )
    tasks = await services_of(request).tasks.poll(WORKSPACE, ask, request.is_disconnected)
    return json_answer({"tasks": tasks})


@router.get(
    "/tasks",
    response_model=AgentTaskPage,
    responses=answers("projection_behind", model=AgentTaskPage),
)
async def list_tasks(
    request: Request,
    wanted: WantedPage,
    status: Literal["OPEN", "DONE", "TIMED_OUT", "CANCELLED"] | None = None,
    agent: Annotated[str | None, Query(pattern=AGENT_PATTERN)] = None,
    execution_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """Tasks that went out to agents, by pull or Kafka; the oldest open one first."""
    reads = services_of(request).reads
    named = named_execution(execution_id)
    read = partial(reads.agent_tasks, WORKSPACE, status=status, agent=agent, execution_id=named)
    return await page_answer(request, wanted, read)


@router.get(
    "/tasks/{task_id}",
    response_model=AgentTaskShape,
    responses=answers("not_found", model=AgentTaskShape),
)
async def get_task(request: Request, task_id: TaskId) -> Response:
    """A task, and which worker has it."""
    found = await services_of(request).reads.agent_task(WORKSPACE, task_id)
    if found is None:
        raise NotFound(f"There is no task {task_id[:200]!r}. List them with GET /tasks.")
    return json_answer(found)


@router.post(
    "/tasks/{task_id}/heartbeat",
    response_model=TaskLeaseShape,
    responses=body_answers("not_found", "lease_lost", "task_ended", model=TaskLeaseShape),
)
async def heartbeat_task(request: Request, task_id: TaskId, body: Heartbeat) -> Response:
    """Keep a task for longer; 409 tells to stop working on it."""
    lease = await services_of(request).tasks.heartbeat(
        WORKSPACE, task_id, body.epoch, body.lease_seconds
    )
    return json_answer(_lease(lease))


@router.post(
    "/tasks/{task_id}/progress",
    response_model=TaskLeaseShape,
    responses=body_answers(
        "not_found", "lease_lost", "task_ended", "concurrent_update", model=TaskLeaseShape
    ),
)
async def report_task_progress(request: Request, task_id: TaskId, body: TaskProgress) -> Response:
    """Say how far a task is; the step shows it. The lease stays as it is."""
    lease = await services_of(request).tasks.progress(WORKSPACE, task_id, body.epoch, body.progress)
    return json_answer(_lease(lease))


@router.post(
    "/tasks/{task_id}/complete",
    response_model=TaskResultShape,
    responses=body_answers("not_found", "lease_lost", "concurrent_update", model=TaskResultShape),
)
async def complete_task(request: Request, task_id: TaskId, body: TaskOutput) -> Response:
    """The task is done. The same again has the same answer; `recorded` is false when it came too
    late.
    """
    check_payload(body.output_data, await request.body(), "/output_data")
    settled = await services_of(request).tasks.complete(
        WORKSPACE, task_id, body.epoch, body.output_data
    )
    return json_answer(_settled(settled))


@router.post(
    "/tasks/{task_id}/fail",
    response_model=TaskResultShape,
    responses=body_answers("not_found", "lease_lost", "concurrent_update", model=TaskResultShape),
)
async def fail_task(request: Request, task_id: TaskId, body: TaskFailure) -> Response:
    """The task cannot be done; what follows is what the workflow says of failures."""
    check_payload(body.output_data, await request.body(), "/output_data")
    retryable = body.error_class != PERMANENT if body.retryable is None else body.retryable
    settled = await services_of(request).tasks.fail(
        WORKSPACE,
        task_id,
        body.epoch,
        code=body.code,
        message=body.message,
        error_class=body.error_class,
        retryable=retryable,
        output=body.output_data,
    )
    return json_answer(_settled(settled))


def _lease(lease: TaskLease) -> dict[str, object]:
    return {
        "task_id": lease.task_id,
        "epoch": lease.epoch,
        "delivery": lease.delivery,
        "lease_until": lease.lease_until,
    }


def _settled(settled: TaskSettled) -> dict[str, object]:
    lease, answer = settled
    return {
        "task_id": lease.task_id,
        "execution_id": answer.execution_id,
        "path": answer.path,
        "attempt": answer.attempt,
        "try_no": answer.try_no,
        "recorded": answer.accepted,
        "repeated": answer.repeated,
        "why": _why(answer),
    }


def _why(answer: TaskAnswer) -> str | None:
    return None if answer.accepted else _LATE
