"""Questions about many executions, answered from the projection tables.

One implementation over SQL for both back ends.

Answers are as fresh as the projections; `wait_for` makes a reader see its own write. Times are
aware UTC datetimes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from application.agent_views import AgentView
from application.question_views import QuestionView
from application.views import ExecutionView
from domain.json_values import Json

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page. `page` counts from 1; `next_cursor` is opaque and None on the last page."""

    items: Sequence[Item]
    total: int
    page: int
    page_size: int
    total_pages: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionQuery:
    """Filters of `GET /executions`; empty means any.

    `workflow` is a name, a `wf-...` id or a UUID (workflow or version), `forked_from` the id of the
    execution that they were forked from, `parent` of the one whose children are wanted.

    `sort` is `created_at`, `updated_at`, `completed_at`, `duration_ms`, `status`, `workflow_name`,
    with `-` for descending.
    """

    workspace_id: str
    statuses: tuple[str, ...] = ()
    sub_status: str | None = None
    workflow: str | None = None
    waiting_on: str | None = None
    forked_from: str | None = None
    parent: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    sort: str = "-created_at"
    page: int = 1
    page_size: int = 20
    cursor: str | None = None


class BadCursor(ValueError):
    """A cursor that this server did not give out, or one of another query."""


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """The newest version of a workflow, or one version of it.

    `workflow_data` is the definition as it was sent.
    """

    id: str
    workflow_id: str
    name: str
    description: str | None
    version: int
    definition_id: str
    definition_sha256: str
    workflow_data: Json
    status: str
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str


@dataclass(frozen=True, slots=True)
class HumanTaskView:
    """A task given to a person; `status` is TODO, DONE or CANCELLED."""

    id: str
    execution_id: str
    workflow_name: str
    path: str
    attempt: int
    status: str
    priority: str
    wait: bool
    title: str
    description: str | None
    assigned_to: str | None
    created_at: datetime
    completed_at: datetime | None
    completed_by: str | None
    result: Json


@dataclass(frozen=True, slots=True)
class AgentTaskView:
    """A task that went out to an agent; `status` is OPEN, DONE, TIMED_OUT or CANCELLED.

    `worker_id`, `lease_until` and `delivery` are those of the newest lease, None for a task that
    no worker has asked for.
    """

    task_id: str
    correlation_id: str
    execution_id: str
    run_id: str
    workflow_name: str
    path: str
    step_id: str
    attempt: int
    try_no: int
    agent_name: str
    transport: str
    status: str
    priority: int
    dispatched_at: datetime
    deadline_at: datetime | None
    ended_at: datetime | None
    input_data: Json
    worker_id: str | None
    lease_until: datetime | None
    delivery: int | None


@dataclass(frozen=True, slots=True)
class StatisticsView:
    """Counts by status.

    `success_rate` is COMPLETED / (COMPLETED + FAILED), None before the first; durations in ms of
    COMPLETED.
    """

    workflow_name: str | None
    total: int
    by_status: Mapping[str, int]
    success_rate: float | None
    mean_duration_ms: float | None
    p95_duration_ms: int | None


@dataclass(frozen=True, slots=True)
class RecoveryFigures:
    """Recoveries by strategy and class of error; None stands for all.

    A recovery that has ended counts with the last strategy it used: `recoveries` of them, which
    took so long, without the time a person was waited for; in `successes` of them the step worked
    after all, `recovered_share` of them. `total_saved_time_ms` compares with running the execution
    again from the start. Times in ms.
    """

    strategy: str | None
    error_class: str | None
    attempts: int
    successes: int
    failures: int
    cancelled: int
    recoveries: int
    recovered_share: float | None
    total_recovery_time_ms: int
    average_recovery_time_ms: int | None
    p95_recovery_time_ms: int | None
    total_saved_time_ms: int


@dataclass(frozen=True, slots=True)
class StrategiesUsed:
    """How often each strategy was used."""

    retry_attempts: int
    alternative_flows_used: int
    user_fulfillment_used: int


@dataclass(frozen=True, slots=True)
class RecoveryMetricsView:
    """Recovery in figures: those that older clients read, and more.

    `total_flows` are executions, `recovered_flows` those that completed after a step had recovered;
    `success_rate` is that of executions, `recovered_share` that of the recoveries that have ended.
    `recoveries_by_strategy` counts a recovery once for each strategy it used. Times in ms.
    """

    total_flows: int
    successful_flows: int
    failed_flows: int
    recovered_flows: int
    total_recovery_time_ms: int
    average_recovery_time_ms: int
    success_rate: float
    strategies_used: StrategiesUsed
    last_updated: datetime | None
    total_attempts: int
    successful_recoveries: int
    failed_recoveries: int
    recoveries_by_strategy: Mapping[str, int]
    p95_recovery_time_ms: int | None
    recovered_share: float | None
    by_strategy: Sequence[RecoveryFigures]
    by_error_class: Sequence[RecoveryFigures]
    by_strategy_and_error_class: Sequence[RecoveryFigures]


@dataclass(frozen=True, slots=True)
class ProjectionView:
    """How far one projection is.

    `state` is running, paused, rebuilding or stopped; lag in events and seconds.
    """

    name: str
    version: int
    state: str
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    last_error: str | None
    failed_position: int | None


NO_ROW: Final = "no_queue_row"
LAPSED: Final = "lease_lapsed"
NOT_TAKEN: Final = "not_taken"
NOTHING_DUE: Final = "nothing_due"


class Unattended(NamedTuple):
    """An open execution that no worker holds, as the tables and the queue have it; `why` is one of
    the four above.
    """

    execution_id: str
    why: str
    since: datetime


class Reads(Protocol):
    """Lists and figures."""

    async def executions(self, query: ExecutionQuery) -> Page[ExecutionView]:
        """Executions by filter; raises BadCursor."""

    async def workflows(
        self,
        workspace_id: str,
        *,
        status: str | None,
        name: str | None,
        sort: str,
        page: int,
        page_size: int,
    ) -> Page[WorkflowView]:
        """Newest versions.

        `sort` is name, created_at, updated_at or version, with `-` for descending.
        """

    async def agents(
        self,
        workspace_id: str,
        *,
        status: str | None,
        name: str | None,
        page: int,
        page_size: int,
    ) -> Page[AgentView]:
        """Agents by name; deleted ones only when `status` asks for them."""

    async def human_tasks(
        self,
        workspace_id: str,
        *,
        status: str | None,
        execution_id: str | None,
        page: int,
        page_size: int,
    ) -> Page[HumanTaskView]:
        """Tasks, oldest open first."""

    async def questions(
        self,
        workspace_id: str,
        *,
        status: str | None,
        execution_id: str | None,
        page: int,
        page_size: int,
    ) -> Page[QuestionView]:
        """Questions about failed steps, oldest open first."""

    async def agent_tasks(
        self,
        workspace_id: str,
        *,
        status: str | None,
        agent: str | None,
        execution_id: str | None,
        page: int,
        page_size: int,
    ) -> Page[AgentTaskView]:
        """Tasks of agents, the oldest open one first."""

    async def agent_task(self, workspace_id: str, task_id: str) -> AgentTaskView | None:
        """One of them; the newest, should two have the same id."""

    async def recovery(self, query: ExecutionQuery) -> RecoveryMetricsView:
        """Recovery in the executions that the filters leave; sort and page are not looked at."""

    async def statistics(self, workspace_id: str, workflow_name: str | None) -> StatisticsView:
        """Counts and durations of a workspace or of one workflow."""

    async def unattended(
        self, workspace_id: str, *, lease: timedelta, patience: timedelta, limit: int
    ) -> Sequence[Unattended]:
        """Open executions that nobody has touched for longer than `lease` and `patience`, and that
        no worker holds nor will take at a time to come; those waiting for a person come last.
        """

    async def projections(self) -> Sequence[ProjectionView]:
        """Every projection's progress."""

    def hurry(self) -> None:
        """Somebody waits for what was stored a moment ago: let the tables follow at once."""

    async def wait_for(self, position: int, timeout_seconds: float) -> bool:
        """Whether all projections have reached `position` in time."""
