"""Lists and figures over the projection tables on both back ends."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from application.reads import BadCursor, ExecutionQuery
from application.views import ExecutionView
from domain.events import Event
from infrastructure.database import Store
from infrastructure.projections.execution_list import SORTS
from infrastructure.projections.reads import ProjectionReads
from tests.builders import Run, linear
from tests.contracts import projected as told

pytestmark = pytest.mark.anyio

ANY = ExecutionQuery(workspace_id="default", page_size=7)


def later(events: list[Event], minutes: float) -> list[Event]:
    """The same, so many minutes later."""
    by = timedelta(minutes=minutes)
    return [
        structs.replace(event, meta=structs.replace(event.meta, at=event.meta.at + by))
        for event in events
    ]


@pytest.fixture
async def reads(store: Store, ledger_url: str) -> AsyncIterator[ProjectionReads]:
    """Lists over 28 executions, requested a minute apart."""
    stories = [later(story, number) for number, story in enumerate(told.stories(2))]
    await told.append_mixed(store, [*stories, told.published("flow-0", 2)])
    tables = told.projection_store(store, ledger_url)
    told.catch_up(tables)
    opened = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)
    yield opened
    tables.close()


async def everything(reads: ProjectionReads) -> list[ExecutionView]:
    return list((await reads.executions(replace(ANY, page_size=100))).items)


@pytest.mark.parametrize("sort", [sign + name for name in SORTS for sign in ("", "-")])
async def test_cursors_and_page_numbers_show_everything_once(
    reads: ProjectionReads, sort: str
) -> None:
    by_cursor, by_number = [], []
    query = replace(ANY, sort=sort)
    for number in range(1, 5):
        page = await reads.executions(query)
        by_cursor += [view.id for view in page.items]
        numbered = await reads.executions(replace(ANY, sort=sort, page=number))
        by_number += [view.id for view in numbered.items]
        assert (page.total, page.total_pages, numbered.page) == (28, 4, number)
        assert (page.next_cursor is None) == (number == 4)
        query = replace(query, cursor=page.next_cursor)

    assert by_cursor == by_number
    assert sorted(by_cursor) == sorted(view.id for view in await everything(reads))


async def test_the_sort_order_is_kept_and_missing_values_come_last(
    reads: ProjectionReads,
) -> None:
    for sort in ("duration_ms", "-duration_ms"):
        page = await reads.executions(replace(ANY, sort=sort, page_size=100))
        values = [view.duration_ms for view in page.items]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=sort.startswith("-"))
        assert values[: len(known)] == known


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%%%",
        "e30",
        base64.urlsafe_b64encode(b'["x",null,"run-1"]').decode(),
        "Ā",
        "A" * 99,
    ],
)
async def test_a_foreign_cursor_is_refused(reads: ProjectionReads, cursor: str) -> None:
    with pytest.raises(BadCursor):
        await reads.executions(replace(ANY, cursor=cursor))


async def test_a_cursor_of_another_query_is_refused(reads: ProjectionReads) -> None:
    cursor = (await reads.executions(ANY)).next_cursor
    for other in (replace(ANY, sort="created_at"), replace(ANY, statuses=("FAILED",))):
        with pytest.raises(BadCursor):
            await reads.executions(replace(other, cursor=cursor))


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("created_at", "0001-01-01T00:00:00+23:59"),
        ("-created_at", "9999-12-31T23:59:59-23:59"),
        ("duration_ms", 2**63),
        ("-duration_ms", -(10**30)),
        ("status", "\x00"),
        ("workflow_name", "\x00"),
    ],
)
async def test_a_cursor_with_a_place_that_no_table_has_is_refused(
    reads: ProjectionReads, sort: str, value: str | int
) -> None:
    query = replace(ANY, sort=sort)
    given = (await reads.executions(query)).next_cursor
    assert given is not None
    fingerprint, _, run_id = json.loads(base64.urlsafe_b64decode(given + "=="))
    document = json.dumps([fingerprint, value, run_id]).encode()
    changed = base64.urlsafe_b64encode(document).decode().rstrip("=")
    with pytest.raises(BadCursor):
        await reads.executions(replace(query, cursor=changed))


async def test_filters_choose_what_they_say(reads: ProjectionReads) -> None:
    views = await everything(reads)
    some = views[5]
    cases = [
        (replace(ANY, statuses=("FAILED", "PENDING")), lambda v: v.status in ("FAILED", "PENDING")),
        (replace(ANY, statuses=("COMPLETED",), workflow="flow-1"),
         lambda v: (v.status, v.workflow_name) == ("COMPLETED", "flow-1")),
        (replace(ANY, workflow="flow-2"), lambda v: v.workflow_name == "flow-2"),
        (replace(ANY, workflow="wf-orders-1"), lambda v: v.workflow_id == "wf-orders-1"),
        (replace(ANY, workflow="nobody"), lambda v: False),
        (replace(ANY, workflow=some.workflow_definition_id), lambda v: True),
        (replace(ANY, sub_status="retrying"), lambda v: v.sub_status == "retrying"),
        (replace(ANY, waiting_on="human_task"),
         lambda v: any(wait.kind == "human_task" for wait in v.waiting_on)),
        (replace(ANY, waiting_on="retry"),
         lambda v: any(wait.kind == "retry" for wait in v.waiting_on)),
        (replace(ANY, labels={"copy": "1"}), lambda v: v.labels.get("copy") == "1"),
        (replace(ANY, labels={"copy": "1", 'odd "key"': "x'y"}),
         lambda v: v.labels.get("copy") == "1"),
        (replace(ANY, labels={"copy": "2' OR '1'='1"}), lambda v: False),
        (replace(ANY, created_after=some.created_at), lambda v: v.created_at >= some.created_at),
        (replace(ANY, created_before=some.created_at), lambda v: v.created_at < some.created_at),
        (replace(ANY, workspace_id="other"), lambda v: False),
    ]  # fmt: skip
    for query, chosen in cases:
        page = await reads.executions(replace(query, page_size=100))
        expected = {view.id for view in views if chosen(view)}
        assert {view.id for view in page.items} == expected, query
        assert page.total == len(expected), query


async def test_a_sort_order_outside_the_list_is_refused(reads: ProjectionReads) -> None:
    with pytest.raises(ValueError, match="sort order"):
        await reads.executions(replace(ANY, sort="input_data; DROP TABLE workflow_runs_v1"))


async def test_human_tasks_are_listed_open_ones_first(reads: ProjectionReads) -> None:
    page = await reads.human_tasks("default", status=None, execution_id=None, page=1, page_size=100)
    statuses = [task.status for task in page.items]
    assert statuses == sorted(statuses, key=["TODO", "DONE", "CANCELLED"].index)
    assert set(statuses) == {"TODO", "DONE", "CANCELLED"}
    done = await reads.human_tasks("default", status="DONE", execution_id=None, page=1, page_size=1)
    (task,) = done.items
    assert (task.result, task.completed_by, done.total) == ({"signed": True}, "ann", 2)
    own = await reads.human_tasks(
        "default", status="DONE", execution_id=task.execution_id, page=1, page_size=100
    )
    assert list(own.items) == [task]


async def test_statistics_count_and_measure(store: Store, ledger_url: str) -> None:
    stories = []
    for number in range(1, 101):
        run = Run(linear(1))
        run.go()
        run.pass_time(number)
        stories.append(
            told.as_another(run.succeed_all().events, 5_000 + number, workflow_name="timed")
        )
    failed = Run(linear(1))
    failed.go()
    failed.fail("s1", "permanent", retryable=False)
    stories.append(told.as_another(failed.events, 5_000, workflow_name="timed"))
    stories += told.stories()
    await told.append_mixed(store, stories)
    tables = told.projection_store(store, ledger_url)
    told.catch_up(tables, batch=60)
    reads = ProjectionReads(store.engine, tables, store.clock.now, threads=store.query_threads)

    timed = await reads.statistics("default", "timed")
    whole = await reads.statistics("default", None)
    nobody = await reads.statistics("other", None)
    tables.close()

    assert (timed.total, timed.by_status["COMPLETED"], timed.by_status["FAILED"]) == (101, 100, 1)
    assert timed.success_rate == 100 / 101
    assert (timed.mean_duration_ms, timed.p95_duration_ms) == (50_500, 95_000)
    assert whole.total == 101 + len(told.stories())
    assert (nobody.total, nobody.success_rate, nobody.p95_duration_ms) == (0, None, None)


async def test_pages_over_several_statuses_keep_one_order(reads: ProjectionReads) -> None:
    query = replace(ANY, statuses=("RUNNING", "COMPLETED", "FAILED"), sort="-created_at")
    whole = await reads.executions(replace(query, page_size=100))
    first = await reads.executions(query)
    second = await reads.executions(replace(query, cursor=first.next_cursor))
    also_second = await reads.executions(replace(query, page=2))

    times = [view.created_at for view in whole.items]
    assert times == sorted(times, reverse=True)
    assert [*first.items, *second.items] == list(whole.items)[:14]
    assert also_second.items == second.items
