"""Queries over `workflow_runs`.

Filters, fixed sort orders, pages by number or by cursor, exact totals.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import sqlalchemy as sa

from application.reads import BadCursor, ExecutionQuery, Page
from application.views import ExecutionView
from domain.json_values import INTEGER_MAX
from infrastructure.projections import (
    workflow_definitions,
    workflow_runs,
    workflow_statistics,
)
from infrastructure.projections.tables import encode_json
from infrastructure.projections.workflow_runs import run_view

RUNS: Final = workflow_runs.TABLE.selectable
SORTS: Final = (
    "created_at",
    "updated_at",
    "completed_at",
    "duration_ms",
    "status",
    "workflow_name",
)
_NULLABLE: Final = frozenset({"completed_at", "duration_ms"})
_TIMES: Final = frozenset({"created_at", "updated_at", "completed_at"})

Condition = sa.ColumnElement[bool]


def list_executions(connection: sa.Connection, query: ExecutionQuery) -> Page[ExecutionView]:
    """One page. Raises BadCursor, and ValueError for a sort order that does not exist."""
    name, descending = query.sort.removeprefix("-"), query.sort.startswith("-")
    if name not in SORTS:
        raise ValueError(f"there is no sort order {name!r}; there are {', '.join(SORTS)}")
    named = _resolve_workflow(connection, query)
    conditions = _conditions(connection, query, named)
    wanted = sa.select(RUNS).where(*conditions)
    skipped = (query.page - 1) * query.page_size
    if query.cursor is not None:
        value, run_id = _read_cursor(query, name)
        wanted = wanted.where(_beyond(name, value, run_id, descending=descending))
        skipped = 0
    last = skipped + query.page_size + 1
    source = _by_status(wanted, query.statuses, name, last, descending=descending)
    ordered = sa.select(source).order_by(*_order(source.c, name, descending=descending))
    rows = connection.execute(ordered.offset(skipped).limit(last - skipped)).mappings().all()
    shown = rows[: query.page_size]
    more = len(rows) > query.page_size
    total = _total(connection, query, named, conditions)
    return Page(
        items=[run_view(_plain(row)) for row in shown],
        total=total,
        page=query.page,
        page_size=query.page_size,
        total_pages=-(-total // query.page_size),
        next_cursor=_cursor(query, name, shown[-1]) if more else None,
    )


def chosen_runs(connection: sa.Connection, query: ExecutionQuery) -> list[Condition]:
    """The filters of a query as conditions on `workflow_runs`."""
    return _conditions(connection, query, _resolve_workflow(connection, query))


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()}


# --------------------------------------------------------------------------------------- filters


class _Workflow(msgspec.Struct, frozen=True):
    """What `ExecutionQuery.workflow` turned out to mean.

    A condition, and the name when it is a whole workflow.
    """

    condition: Any
    name: str | None


def _resolve_workflow(connection: sa.Connection, query: ExecutionQuery) -> _Workflow | None:
    if query.workflow is None:
        return None
    columns = RUNS.c
    try:
        wanted = str(UUID(query.workflow))
    except ValueError:
        if query.workflow.startswith("wf-"):
            either = sa.or_(
                columns.workflow_id == query.workflow, columns.workflow_name == query.workflow
            )
            return _Workflow(either, None)
        return _Workflow(columns.workflow_name == query.workflow, query.workflow)
    table = workflow_definitions.TABLE.selectable
    found = connection.execute(
        sa.select(table.c.name)
        .where(table.c.id == wanted, table.c.workspace_id == query.workspace_id)
        .limit(1)
    ).scalar()
    if found is None:
        return _Workflow(columns.workflow_definition_id == wanted, None)
    # By name, which an index serves; the id keeps inline definitions of the same name out.
    by_id = sa.and_(columns.workflow_name == found, columns.workflow_definition_id == wanted)
    return _Workflow(by_id, None)


def _conditions(
    connection: sa.Connection, query: ExecutionQuery, named: _Workflow | None
) -> list[Condition]:
    columns = RUNS.c
    conditions: list[Condition] = [columns.workspace_id == query.workspace_id]
    if query.statuses:
        conditions.append(columns.status.in_(query.statuses))
    if named is not None:
        conditions.append(named.condition)
    if query.sub_status is not None:
        conditions.append(columns.sub_status == query.sub_status)
    if query.forked_from is not None:
        conditions.append(columns.forked_from == query.forked_from)
    if query.created_after is not None:
        conditions.append(columns.created_at >= _utc(query.created_after))
    if query.created_before is not None:
        conditions.append(columns.created_at < _utc(query.created_before))
    if query.waiting_on is not None:
        conditions.append(columns.status.in_(("PENDING", "RUNNING")))
        conditions.append(_waits_on(connection, query.waiting_on))
    if query.parent is not None:
        conditions.append(columns.parent_run_id == f"run-{query.parent}")
    if query.labels:
        conditions += _labelled(connection, query.labels)
    return conditions


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _waits_on(connection: sa.Connection, kind: str) -> Condition:
    if connection.dialect.name == "postgresql":
        wanted = encode_json([{"kind": kind}]).decode()
        return sa.text("waiting_on::jsonb @> CAST(:waiting_on AS jsonb)").bindparams(  # type: ignore[return-value]  # text is a condition
            waiting_on=wanted
        )
    return sa.text(  # type: ignore[return-value]  # text is a condition
        "EXISTS (SELECT 1 FROM json_each(waiting_on)"
        " WHERE json_extract(value, '$.kind') = :waiting_on)"
    ).bindparams(waiting_on=kind)


def _labelled(connection: sa.Connection, labels: Mapping[str, str]) -> list[Any]:
    if connection.dialect.name == "postgresql":
        wanted = encode_json(dict(labels)).decode()
        # The second condition is that of the partial index.
        contains = sa.text("labels @> CAST(:labels AS jsonb) AND labels <> '{}'")
        return [contains.bindparams(labels=wanted)]
    return [
        sa.text(
            f"EXISTS (SELECT 1 FROM json_each(labels) WHERE key = :key_{i} AND value = :value_{i})"  # noqa: S608 - numbered names
        ).bindparams(**{f"key_{i}": key, f"value_{i}": value})
        for i, (key, value) in enumerate(labels.items())
    ]


# ---------------------------------------------------------------------------------- order, cursor


def _by_status(
    wanted: sa.Select[Any], statuses: Sequence[str], name: str, last: int, *, descending: bool
) -> sa.FromClause:
    """The first `last` rows of each status: an index gives the order within one status only."""
    parts = [wanted.where(RUNS.c.status == status) for status in dict.fromkeys(statuses)]
    limited = [
        part.order_by(*_order(RUNS.c, name, descending=descending)).limit(last).subquery()
        for part in parts or [wanted]
    ]
    if len(limited) == 1:
        return limited[0]
    return sa.union_all(*(sa.select(part) for part in limited)).subquery()


def _order(columns: Any, name: str, *, descending: bool) -> list[Any]:
    """Missing values come last in both directions; run ids break ties."""
    column, run_id = columns[name], columns.run_id
    missing = [column.is_(None)] if name in _NULLABLE else []
    if descending:
        return [*missing, column.desc(), run_id.desc()]
    return [*missing, column, run_id]


def _beyond(name: str, value: Any, run_id: str, *, descending: bool) -> Condition:
    """What comes after the row with this sort value and id."""
    column, ids = RUNS.c[name], RUNS.c.run_id
    further_id = ids < run_id if descending else ids > run_id
    if value is None:
        return sa.and_(column.is_(None), further_id)
    further = column < value if descending else column > value
    same = sa.and_(column == value, further_id)
    if name in _NULLABLE:
        return sa.or_(further, same, column.is_(None))
    # Says that nothing before counts, which lets the index begin at the right place.
    bound = column <= value if descending else column >= value
    return sa.and_(bound, sa.or_(further, same))


def _fingerprint(query: ExecutionQuery) -> str:
    """Tells the cursor of one query from that of another; the page's size may change."""
    parts = msgspec.to_builtins(
        (
            query.workspace_id,
            sorted(query.statuses),
            query.sub_status,
            query.workflow,
            query.waiting_on,
            query.forked_from,
            query.parent,
            query.created_after,
            query.created_before,
            sorted(query.labels.items()),
            query.sort,
        )
    )
    return hashlib.sha256(encode_json(parts)).hexdigest()[:16]


def _cursor(query: ExecutionQuery, name: str, last: Mapping[Any, Any]) -> str:
    document = encode_json([_fingerprint(query), last[name], last["run_id"]])
    return base64.urlsafe_b64encode(document).decode().rstrip("=")


def _read_cursor(query: ExecutionQuery, name: str) -> tuple[Any, str]:
    cursor = query.cursor or ""
    kind: Any = datetime if name in _TIMES else int if name == "duration_ms" else str
    try:
        document = base64.b64decode(
            cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
        given, value, run_id = msgspec.json.decode(document, type=tuple[str, kind | None, str])
        if isinstance(value, datetime):
            value = _utc(value)  # an offset may lead out of the calendar
    except (ValueError, OverflowError, binascii.Error, msgspec.DecodeError) as error:
        raise BadCursor("the cursor is not one of this server; begin without one") from error
    if given != _fingerprint(query):
        raise BadCursor("the cursor belongs to another query; keep filters and sort, or begin anew")
    missing = value is None and name not in _NULLABLE
    if missing or not _comparable(value) or not _comparable(run_id):
        raise BadCursor("the cursor is not one of this server; begin without one")
    return value, run_id


def _comparable(value: Any) -> bool:
    """Whether both databases can compare a column with it."""
    if isinstance(value, str):
        return "\x00" not in value
    return not isinstance(value, int) or abs(value) <= INTEGER_MAX


# ----------------------------------------------------------------------------------------- totals


def _total(
    connection: sa.Connection,
    query: ExecutionQuery,
    named: _Workflow | None,
    conditions: Sequence[Condition],
) -> int:
    """From the counters when status and workflow name are all that is asked, else counted."""
    others = (
        query.sub_status,
        query.waiting_on,
        query.forked_from,
        query.parent,
        query.created_after,
        query.created_before,
        query.labels or None,
    )
    by_counters = all(each is None for each in others) and (named is None or named.name is not None)
    if not by_counters:
        counted = sa.select(sa.func.count()).select_from(RUNS).where(*conditions)
        return int(connection.execute(counted).scalar_one())
    table = workflow_statistics.TABLE.selectable
    summed = sa.select(sa.func.coalesce(sa.func.sum(table.c.executions), 0)).where(
        table.c.workspace_id == query.workspace_id
    )
    if query.statuses:
        summed = summed.where(table.c.status.in_(query.statuses))
    if named is not None:
        summed = summed.where(table.c.workflow_name == named.name)
    return int(connection.execute(summed).scalar_one())
