"""What all lists share: pages, cursors, filters of executions, and seeing one's own write."""

from collections.abc import Awaitable
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from application.ledger import execution_uuid
from application.reads import ExecutionQuery
from application.reads import Page as Found
from domain.errors import ProjectionBehind
from interfaces.bootstrap import Services
from interfaces.http.caller import WORKSPACE
from interfaces.http.labels import label_filters
from interfaces.http.present import json_answer, page_body
from interfaces.http.problems import refused_part
from interfaces.http.serving import ID_PATTERN, services_of
from interfaces.times import Time

BEHIND_SECONDS_MAX: Final = 2.0
_POSITION_MAX: Final = 2**53

Page = Annotated[int, Query(ge=1, le=1_000_000, description="From 1; not together with cursor.")]
PageSize = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[
    str | None,
    Query(min_length=1, max_length=1_000, description="`next_cursor` of the page before."),
]
MinPosition = Annotated[
    int | None,
    Query(
        ge=0,
        le=_POSITION_MAX,
        description="`position` of a command's answer: the list has seen it, or 503 after 2 s.",
    ),
]
Status = Literal["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
SortField = Literal[
    "created_at", "-created_at",
    "updated_at", "-updated_at",
    "completed_at", "-completed_at",
    "duration_ms", "-duration_ms",
    "status", "-status",
    "workflow_name", "-workflow_name",
]  # fmt: skip
WaitKind = Literal[
    "start",
    "resume",
    "timer",
    "retry",
    "alternative",
    "question",
    "action",
    "agent",
    "human_task",
    "signal",
    "child",
    "compensation",
]
SubStatus = Literal[
    "executing", "paused", "cancelling", "compensating", "awaiting_answer", "rerouted", "retrying"
]


class Paging(NamedTuple):
    """Which page of a list is wanted, and what the list must have seen."""

    page: int
    page_size: int
    min_position: int | None


async def _paging(
    page: Page = 1, page_size: PageSize = 20, min_position: MinPosition = None
) -> Paging:
    return Paging(page, page_size, min_position)


WantedPage = Annotated[Paging, Depends(_paging)]


class ReadPage(Protocol):
    """One of the lists of `Reads`, its filters given."""

    def __call__(self, *, page: int, page_size: int) -> Awaitable[Found[Any]]:
        """The page."""


async def page_answer(request: Request, wanted: Paging, read: ReadPage) -> Response:
    """A page of what the tables hold; raises ProjectionBehind."""
    await reached(services_of(request), wanted.min_position)
    found = await read(page=wanted.page, page_size=wanted.page_size)
    return json_answer(page_body(found, found.items))


async def _filters(
    labels: Annotated[dict[str, str], Depends(label_filters)],
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    sub_status: SubStatus | None = None,
    workflow_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    waiting_on: WaitKind | None = None,
    forked_from: Annotated[
        str | None,
        Query(pattern=ID_PATTERN, description="Forks of this execution."),
    ] = None,
    parent: Annotated[
        str | None, Query(pattern=ID_PATTERN, description="Children of this execution.")
    ] = None,
    created_after: Time | None = None,
    created_before: Time | None = None,
    sort: SortField = "-created_at",
    page: Page = 1,
    page_size: PageSize = 20,
    cursor: Cursor = None,
) -> ExecutionQuery:
    if cursor is not None and page != 1:
        raise refused_part("query", "page", "contradiction", "give page or cursor, not both")
    return ExecutionQuery(
        workspace_id=WORKSPACE,
        statuses=tuple(status or ()),
        sub_status=sub_status,
        workflow=workflow_id,
        waiting_on=waiting_on,
        forked_from=named_execution(forked_from),
        parent=named_execution(parent),
        created_after=created_after,
        created_before=created_before,
        labels=labels,
        sort=sort,
        page=page,
        page_size=page_size,
        cursor=cursor,
    )


ExecutionFilters = Annotated[ExecutionQuery, Depends(_filters)]


def named_execution(reference: str | None) -> str | None:
    """The id that the tables have for an execution, however a filter names it."""
    return None if reference is None else str(execution_uuid(WORKSPACE, reference))


async def reached(services: Services, min_position: int | None) -> None:
    """Wait until the tables have seen `min_position`; raises ProjectionBehind after 2 s."""
    if min_position is None or await services.reads.wait_for(min_position, 0):
        return
    if min_position > await services.store.log.head():
        raise refused_part(
            "query", "min_position", "out_of_range", "nothing has been stored at this position yet"
        )
    if not await services.reads.wait_for(min_position, BEHIND_SECONDS_MAX):
        raise ProjectionBehind(
            f"The tables have not reached position {min_position} within {BEHIND_SECONDS_MAX:g} s."
        )


def with_next(request: Request, cursor: str | None) -> dict[str, str]:
    """The `Link` header to the next page: the same request with its cursor."""
    if cursor is None:
        return {}
    pairs = parse_qsl(request.url.query, keep_blank_values=True)
    return next_link(
        request, [pair for pair in pairs if pair[0] not in ("page", "cursor")], "cursor", cursor
    )


def next_link(
    request: Request, pairs: list[tuple[str, str]], name: str, value: str
) -> dict[str, str]:
    """A `Link` to this address with `name` set to `value`."""
    query = urlencode([*(pair for pair in pairs if pair[0] != name), (name, value)])
    return {"Link": f'<{request.url.path}?{query}>; rel="next"'}
