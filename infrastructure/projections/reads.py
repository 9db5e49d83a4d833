"""The Reads port over the projection tables; blocking queries run in threads."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from application.agent_views import AgentView
from application.ports import StoreUnavailable
from application.question_views import QuestionView
from application.reads import (
    AgentTaskView,
    ExecutionQuery,
    HumanTaskView,
    Page,
    ProjectionView,
    RecoveryMetricsView,
    StatisticsView,
    Unattended,
    WorkflowView,
)
from application.views import ExecutionView
from domain.agents import DELETED
from domain.lifecycle import COMPLETED, FAILED, STATUSES
from infrastructure.projections import (
    agent_tasks,
    agents,
    human_tasks,
    questions,
    workflow_definitions,
    workflow_runs,
    workflow_statistics,
)
from infrastructure.projections.agent_tasks import agent_task_view
from infrastructure.projections.agents import listed_agent
from infrastructure.projections.execution_list import list_executions
from infrastructure.projections.human_tasks import task_view
from infrastructure.projections.progress_report import lowest_position, projection_views
from infrastructure.projections.questions import listed_question
from infrastructure.projections.recovery_figures import recovery_metrics
from infrastructure.projections.runner import ProjectionRunner
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.projections.unattended import unattended
from infrastructure.projections.workflow_definitions import workflow_view
from infrastructure.store_health import StoreThreads

POLL_SECONDS: Final = 0.025
WORKFLOW_SORTS: Final = ("name", "created_at", "updated_at", "version")
_TASKS_OPEN_FIRST: Final = ("TODO", "DONE", "CANCELLED")
_QUESTIONS_OPEN_FIRST: Final = ("OPEN", "ANSWERED", "CLOSED")

T = TypeVar("T")
Item = TypeVar("Item")


class ProjectionReads:
    """See `application.reads.Reads`. Raises StoreUnavailable when the database does not answer."""

    def __init__(
        self,
        engine: sa.Engine,
        store: ProjectionStore,
        now: Callable[[], datetime],
        *,
        threads: StoreThreads,
        runner: ProjectionRunner | None = None,
    ) -> None:
        """`runner` is this process's, when it has one.

        A wait for a position then needs no query.
        """
        self._engine = engine
        self._store = store
        self._now = now
        self._runner = runner
        self._threads = threads

    async def executions(self, query: ExecutionQuery) -> Page[ExecutionView]:
        """See Reads; sorts by one of `execution_list.SORTS`."""
        return await self._read(lambda connection: list_executions(connection, query))

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
        """See Reads; deleted ones are listed only when `status` asks for them."""
        table = workflow_definitions.TABLE.selectable
        column = sort.removeprefix("-")
        if column not in WORKFLOW_SORTS:
            raise ValueError(f"there is no sort order {column!r}")
        conditions = [table.c.workspace_id == workspace_id, table.c.newest.is_(sa.true())]
        conditions.append(
            table.c.status == status if status is not None else table.c.status != "deleted"
        )
        if name is not None:
            conditions.append(table.c.name == name)
        direction = sa.desc if sort.startswith("-") else sa.asc
        statement = sa.select(table).where(*conditions)
        order = [direction(table.c[column]), table.c.name]
        return await self._page(statement, order, page, page_size, workflow_view)

    async def agents(
        self,
        workspace_id: str,
        *,
        status: str | None,
        name: str | None,
        page: int,
        page_size: int,
    ) -> Page[AgentView]:
        """See Reads."""
        table = agents.TABLE.selectable
        wanted = sa.select(table).where(table.c.workspace_id == workspace_id)
        wanted = wanted.where(
            table.c.status == status if status is not None else table.c.status != DELETED
        )
        if name is not None:
            wanted = wanted.where(table.c.name == name)
        return await self._page(wanted, [table.c.name], page, page_size, listed_agent)

    async def human_tasks(
        self,
        workspace_id: str,
        *,
        status: str | None,
        execution_id: str | None,
        page: int,
        page_size: int,
    ) -> Page[HumanTaskView]:
        """See Reads."""
        table = human_tasks.TABLE.selectable
        wanted = _asked_of(table, workspace_id, status, execution_id)
        order = _open_first(table, status, _TASKS_OPEN_FIRST, "created_at", "id")
        return await self._page(wanted, order, page, page_size, task_view)

    async def questions(
        self,
        workspace_id: str,
        *,
        status: str | None,
        execution_id: str | None,
        page: int,
        page_size: int,
    ) -> Page[QuestionView]:
        """See Reads."""
        table = questions.TABLE.selectable
        wanted = _asked_of(table, workspace_id, status, execution_id)
        order = _open_first(table, status, _QUESTIONS_OPEN_FIRST, "asked_at", "question_id")
        return await self._page(wanted, order, page, page_size, listed_question)

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
        """See Reads."""
        wanted = agent_tasks.tasks_with_leases(
            workspace_id, status=status, agent=agent, execution_id=execution_id
        )
        table, order = agent_tasks.TABLE.selectable, ("dispatched_at", "run_id", "path", "try_no")
        listed = _open_first(table, status, agent_tasks.STATUSES, *order)
        return await self._page(wanted, listed, page, page_size, agent_task_view)

    async def agent_task(self, workspace_id: str, task_id: str) -> AgentTaskView | None:
        """See Reads."""
        newest = sa.desc(agent_tasks.TABLE.selectable.c.dispatched_at)
        wanted = agent_tasks.tasks_with_leases(workspace_id, task_id=task_id).order_by(newest)

        def read(connection: sa.Connection) -> AgentTaskView | None:
            row = connection.execute(wanted.limit(1)).mappings().one_or_none()
            return None if row is None else agent_task_view(dict(row))

        return await self._read(read)

    async def recovery(self, query: ExecutionQuery) -> RecoveryMetricsView:
        """See Reads."""
        return await self._read(lambda connection: recovery_metrics(connection, query))

    async def statistics(self, workspace_id: str, workflow_name: str | None) -> StatisticsView:
        """See Reads."""
        return await self._read(
            lambda connection: _statistics(connection, workspace_id, workflow_name)
        )

    async def unattended(
        self, workspace_id: str, *, lease: timedelta, patience: timedelta, limit: int
    ) -> Sequence[Unattended]:
        """See Reads."""
        now = self._now()
        return await self._read(
            lambda connection: unattended(
                connection, workspace_id, now=now, lease=lease, patience=patience, limit=limit
            )
        )

    async def projections(self) -> Sequence[ProjectionView]:
        """See Reads."""
        return await self._read(
            lambda connection: projection_views(
                connection, self._now(), led=self._store.led(connection)
            )
        )

    def hurry(self) -> None:
        """See `application.tasks.TaskKnown`; nothing to do where another process leads."""
        if self._runner is not None:
            self._runner.hurry()

    async def wait_for(self, position: int, timeout_seconds: float) -> bool:
        """See Reads; in a process that does not lead it asks the database every 25 ms."""
        runner = self._runner
        if runner is not None and runner.position >= position:
            return True
        if runner is not None and runner.leading:
            return await runner.reached(position, timeout_seconds)
        until = time.monotonic() + timeout_seconds
        while await self._read(lowest_position) < position:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _page(
        self,
        statement: sa.Select[Any],
        order: Sequence[Any],
        page: int,
        page_size: int,
        view: Callable[[Mapping[str, Any]], Item],
    ) -> Page[Item]:
        def read(connection: sa.Connection) -> Page[Item]:
            counted = sa.select(sa.func.count()).select_from(statement.subquery())
            total = int(connection.execute(counted).scalar_one())
            shown = statement.order_by(*order).offset((page - 1) * page_size).limit(page_size)
            items = [view(dict(row)) for row in connection.execute(shown).mappings()]
            return Page(items, total, page, page_size, -(-total // page_size), None)

        return await self._read(read)

    async def _read(self, query: Callable[[sa.Connection], T]) -> T:
        def run() -> T:
            try:
                with self._engine.connect() as connection:
                    return query(connection)
            except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
                raise StoreUnavailable(f"the database does not answer: {error}") from error

        return await self._threads.run(run)


def _asked_of(
    table: sa.Table, workspace_id: str, status: str | None, execution_id: str | None
) -> sa.Select[Any]:
    """What people were asked: all of it, or that of a status or an execution."""
    wanted = sa.select(table).where(table.c.workspace_id == workspace_id)
    if status is not None:
        wanted = wanted.where(table.c.status == status)
    if execution_id is not None:
        run_id = f"run-{execution_id.removeprefix('run-')}"
        wanted = wanted.where(table.c.run_id == run_id)
    return wanted


def _open_first(
    table: sa.Table, status: str | None, statuses: Sequence[str], *columns: str
) -> Sequence[Any]:
    order: list[Any] = [table.c[name] for name in columns]
    if status is None:
        places = {name: place for place, name in enumerate(statuses)}
        order.insert(0, sa.case(places, value=table.c.status, else_=len(places)))
    return order


def _statistics(
    connection: sa.Connection, workspace_id: str, workflow_name: str | None
) -> StatisticsView:
    table = workflow_statistics.TABLE.selectable
    summed = sa.select(
        table.c.status,
        sa.func.sum(table.c.executions),
        sa.func.sum(table.c.durations),
        sa.func.sum(table.c.duration_ms_sum),
    ).where(table.c.workspace_id == workspace_id)
    if workflow_name is not None:
        summed = summed.where(table.c.workflow_name == workflow_name)
    by_status = dict.fromkeys(STATUSES, 0)
    durations = duration_ms_sum = 0
    for status, executions, count, milliseconds in connection.execute(summed.group_by("status")):
        by_status[status] = int(executions)
        durations += int(count)
        duration_ms_sum += int(milliseconds)
    judged = by_status[COMPLETED] + by_status[FAILED]
    return StatisticsView(
        workflow_name=workflow_name,
        total=sum(by_status.values()),
        by_status=by_status,
        success_rate=by_status[COMPLETED] / judged if judged else None,
        mean_duration_ms=duration_ms_sum / durations if durations else None,
        p95_duration_ms=_p95(connection, workspace_id, workflow_name, durations),
    )


def _p95(
    connection: sa.Connection, workspace_id: str, workflow_name: str | None, durations: int
) -> int | None:
    """The smallest duration that 95 % of the completed executions do not exceed, from the slow end
    of the index.
    """
    if durations == 0:
        return None
    runs = workflow_runs.TABLE.selectable
    slower = durations - -(-95 * durations // 100)
    statement = sa.select(runs.c.duration_ms).where(
        runs.c.workspace_id == workspace_id,
        runs.c.status == sa.literal_column("'COMPLETED'"),  # as in the index, to be matched with it
        runs.c.duration_ms.is_not(None),
    )
    if workflow_name is not None:
        statement = statement.where(runs.c.workflow_name == workflow_name)
    ordered = statement.order_by(runs.c.duration_ms.desc()).offset(slower).limit(1)
    found = connection.execute(ordered).scalar()
    return None if found is None else int(found)
