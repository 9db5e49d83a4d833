"""Questions about many executions, answered from the projection tables.

One implementation over SQL for both back ends.

Answers are as fresh as the projections; `wait_for` makes a reader see its own write. Times are
aware UTC datetimes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

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

    `workflow` is a name, a `wf-...` id or a UUID (workflow or version), `parent` the UUID of the
    execution whose children are wanted.

    `sort` is `created_at`, `updated_at`, `completed_at`, `duration_ms`, `status`, `workflow_name`,
    with `-` for descending.
    """

    workspace_id: str
    statuses: tuple[str, ...] = ()
    sub_status: str | None = None
    workflow: str | None = None
    waiting_on: str | None = None
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

    async def statistics(self, workspace_id: str, workflow_name: str | None) -> StatisticsView:
        """Counts and durations of a workspace or of one workflow."""

    async def projections(self) -> Sequence[ProjectionView]:
        """Every projection's progress."""

    async def wait_for(self, position: int, timeout_seconds: float) -> bool:
        """Whether all projections have reached `position` in time."""
