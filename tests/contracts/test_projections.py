"""The projection tables on both back ends: what they hold, and that they can be checked."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

import pytest

from application.reads import ExecutionQuery
from application.step_history import step_history
from application.views import summarise
from domain.errors import LogDamaged
from domain.events import Recorded
from domain.execution import fold
from infrastructure.database import Store
from infrastructure.projections.catalogue import PROJECTIONS, chosen
from infrastructure.projections.checkpoints import CheckpointMoved, read_checkpoint
from infrastructure.projections.folding import Batch, States
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.rebuilding import Rebuild, RebuildTakenOver
from infrastructure.projections.sessions import ProjectionStore, Session
from infrastructure.projections.verification import verify
from tests.contracts import projected as told
from tests.contracts.projected import Reading

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@pytest.fixture
def tables(store: Store, ledger_url: str) -> Iterator[ProjectionStore]:
    opened = told.projection_store(store, ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def reading(store: Store) -> Reading:
    return lambda projected: ProjectionReads(
        store.engine, projected, store.clock.now, threads=store.query_threads
    )


async def recorded_by_stream(store: Store) -> dict[str, list[Recorded]]:
    streams: dict[str, list[Recorded]] = {}
    for recorded in await store.log.read_all(limit=10_000):
        streams.setdefault(str(recorded.event.execution_id), []).append(recorded)
    return streams


def change(tables: ProjectionStore, statement: str, parameters: Sequence[object] = ()) -> None:
    def work(session: Session) -> None:
        session.execute(statement, parameters)

    tables.write(work)


# --------------------------------------------------------------------------- what the tables hold


async def test_a_listed_execution_is_the_summary_of_its_events(
    store: Store, tables: ProjectionStore, reading: Reading
) -> None:
    await told.append_mixed(store, told.stories(2))
    told.catch_up(tables, batch=7)

    page = await reading(tables).executions(ExecutionQuery(workspace_id="default", page_size=100))

    expected = {}
    for stream, recorded in (await recorded_by_stream(store)).items():
        state = fold(each.event for each in recorded)
        assert state is not None
        expected[stream] = summarise(state, recorded[-1].position)
    assert {view.id: view for view in page.items} == expected
    assert page.total == len(expected)


async def test_step_rows_are_the_history_of_the_steps(
    store: Store, tables: ProjectionStore
) -> None:
    stories = told.stories()
    await told.append_mixed(store, stories)
    told.catch_up(tables, batch=5)

    columns = "step_execution_id, status, sub_status, error_message, action, delivery, duration_ms"
    with tables.reading() as session:
        rows = session.execute(f"SELECT {columns} FROM step_executions")

    views = [view for story in stories for view in step_history(story)]
    wanted = [tuple(getattr(view, name) for name in columns.split(", ")) for view in views]
    assert sorted(rows) == sorted(wanted)


async def test_stays_of_an_execution_follow_each_other_without_gap(
    store: Store, tables: ProjectionStore
) -> None:
    await told.append_mixed(store, told.stories())
    told.catch_up(tables, batch=3)

    with tables.reading() as session:
        rows = session.execute(
            "SELECT run_id, state, entered_at, left_at, duration_ms FROM state_durations"
            " WHERE path = '' ORDER BY run_id, entered_version"
        )
        status = dict(session.execute("SELECT run_id, status FROM workflow_runs"))

    last: dict[str, tuple[object, ...]] = {}
    for run_id, *stay in rows:
        assert run_id not in last or last[run_id][2] == stay[1]
        last[run_id] = tuple(stay)
    assert {run_id: str(stay[0]).partition(".")[0] for run_id, stay in last.items()} == status
    assert all(stay[2] is None and stay[3] is None for stay in last.values())


async def test_definitions_have_a_row_a_version_and_one_newest(
    store: Store, tables: ProjectionStore, reading: Reading
) -> None:
    await told.append_mixed(
        store, [told.published("a", 3), told.published("b", 1, deactivated=True)]
    )
    told.catch_up(tables, batch=2)

    with tables.reading() as session:
        rows = session.execute("SELECT name, version, status FROM workflow_definitions")
    page = await reading(tables).workflows(
        "default", status=None, name=None, sort="-name", page=1, page_size=1
    )

    assert sorted(rows) == [
        ("a", 1, "superseded"),
        ("a", 2, "superseded"),
        ("a", 3, "active"),
        ("b", 1, "inactive"),
    ]
    assert [(view.name, view.version, view.updated_by) for view in page.items] == [("b", 1, "bob")]
    assert (page.total, page.total_pages) == (2, 2)


async def test_the_three_monitoring_queries_run_as_printed(
    store: Store, tables: ProjectionStore
) -> None:
    await told.append_mixed(store, told.stories())
    told.catch_up(tables)

    with tables.reading() as session:
        live = session.execute(
            """
            SELECT run_id, workflow_name, status, created_at FROM workflow_runs
            WHERE status IN ('PENDING', 'RUNNING') ORDER BY created_at DESC;
            """.strip()
        )
        failed = session.execute(
            """
            SELECT run_id, workflow_name, error_message, created_at FROM workflow_runs
            WHERE status = 'FAILED' ORDER BY created_at DESC LIMIT 10;
            """.strip()
        )
        agents = session.execute(
            """
            SELECT agent_name, status, COUNT(*) as count FROM step_executions
            GROUP BY agent_name, status ORDER BY agent_name, status;
            """.strip()
        )

    assert {row[2] for row in live} == {"PENDING", "RUNNING"}
    assert [row[2] for row in failed] == ["it broke"]
    assert ("set_variables", "COMPLETED") in {row[:2] for row in agents}


async def test_the_public_columns_begin_with_those_that_tools_rely_on(
    tables: ProjectionStore,
) -> None:
    relied_on = {
        "workflow_runs": "id, run_id, workflow_id, workflow_name, workflow_definition_id, status,"
        " input_data, error_message, triggered_by, created_at, updated_at, completed_at,"
        " cancelled_at, cancelled_by",
        "step_executions": "id, step_execution_id, run_id, step_id, step_name, agent_name, status,"
        " input_data, output_data, error_message, started_at, completed_at",
    }
    for each in PROJECTIONS:
        names = [part if isinstance(part, str) else part[0] for part in each.table.public]
        wanted = relied_on.get(each.table.name, "").split(", ")
        assert each.table.name not in relied_on or names[: len(wanted)] == wanted


# ------------------------------------------------------------------------------- one transaction


class ProcessDied(Exception):
    """What the crash is in these tests."""


class _Crashing:
    """A store whose process dies at the end of a write, before the commit, after `writes` that are
    stored.
    """

    def __init__(self, store: ProjectionStore, writes: int = 0) -> None:
        self._store = store
        self._left = writes
        self.dialect = store.dialect
        self.reading = store.reading
        self.prepare = store.prepare

    def go_on(self) -> None:
        """Another process takes its place."""
        self._left = 1_000_000

    def write_soon(self, work: Callable[[Session], T]) -> Callable[[], T]:
        def die(session: Session) -> T:
            work(session)
            raise ProcessDied

        self._left -= 1
        return self._store.write_soon(work if self._left >= 0 else die)

    def write(self, work: Callable[[Session], T]) -> T:
        return self.write_soon(work)()


async def test_a_crash_before_the_commit_leaves_neither_rows_nor_checkpoint(
    store: Store, tables: ProjectionStore
) -> None:
    await told.append_mixed(store, told.stories())
    told.catch_up(tables, batch=20)
    before = [told.dump(tables, each) for each in PROJECTIONS]
    stood = await store.log.head()
    await told.append_mixed(
        store, [told.as_another(s, 900 + i) for i, s in enumerate(told.stories())]
    )

    with pytest.raises(ProcessDied):
        told.lane(_Crashing(tables), stood).advance()  # type: ignore[arg-type]  # what a lane needs of one

    with tables.reading() as session:
        assert read_checkpoint(session, PROJECTIONS[0]).position == stood
    assert [told.dump(tables, each) for each in PROJECTIONS] == before


async def test_a_batch_that_fails_beside_the_next_one_is_taken_again(
    store: Store, tables: ProjectionStore
) -> None:
    """Its rows are on their way while the next batch is folded, upon states that are not stored."""
    told.catch_up(tables)
    await told.append_mixed(store, told.stories())
    crashing = _Crashing(tables, writes=1)
    lane = told.lane(crashing, 0, batch=5)  # type: ignore[arg-type]  # what a lane needs of one
    with pytest.raises(ProcessDied):
        lane.advance()

    with tables.reading() as session:
        assert read_checkpoint(session, PROJECTIONS[0]).position == lane.position
    first, *_ = lane.last_read
    assert (first.position, len(lane.last_read)) == (lane.position + 1, 5)
    crashing.go_on()
    while lane.advance():
        pass
    assert lane.position == await store.log.head()
    verdicts = verify(tables, PROJECTIONS)
    assert [verdict.difference for verdict in verdicts] == [None] * len(PROJECTIONS)


async def test_a_second_runner_cannot_apply_a_batch_again(
    store: Store, tables: ProjectionStore
) -> None:
    await told.append_mixed(store, told.stories())
    slow = told.lane(tables, 0)
    told.catch_up(tables)

    with pytest.raises(CheckpointMoved):
        slow.advance()

    assert [verdict.difference for verdict in verify(tables, PROJECTIONS)] == [None] * len(
        PROJECTIONS
    )


# --------------------------------------------------------------------------------------- verify


@pytest.mark.parametrize("batch", [1, 3, 1_000])
async def test_tables_equal_the_log_whatever_the_batches(
    store: Store, tables: ProjectionStore, batch: int
) -> None:
    flows = [told.published("a", 2), told.published("b", 1, deactivated=True)]
    flows.append(told.registered("scorer"))
    shaky = [told.as_another(s, 800 + i) for i, s in enumerate(told.recovery_stories())]
    shaky += told.agent_stories()
    position = await told.append_mixed(store, [*told.stories(), *shaky, *flows])
    told.catch_up(tables, batch=batch)
    seen: list[tuple[int, int]] = []

    verdicts = verify(tables, PROJECTIONS, lambda done, total: seen.append((done, total)))

    assert [(verdict.position, verdict.difference) for verdict in verdicts] == [
        (position, None)
    ] * len(PROJECTIONS)
    assert all(verdict.rows for verdict in verdicts)
    assert seen[0] == (0, seen[-1][0])
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("name", "statement", "column"),
    [
        (
            "workflow_runs",
            "UPDATE workflow_runs_v1 SET steps_done = steps_done + 1 WHERE run_id = ?",
            "steps_done",
        ),
        ("workflow_runs", "DELETE FROM workflow_runs_v1 WHERE run_id = ?", None),
        (
            "workflow_runs",
            "UPDATE workflow_runs_v1 SET run_id = 'run-ffffffff-0' WHERE run_id = ?",
            None,
        ),
        (
            "step_executions",
            "UPDATE step_executions_v1 SET output_data = '[]' WHERE run_id = ?",
            "output_data",
        ),
        (
            "state_durations",
            "UPDATE state_durations_v1 SET left_at = entered_at WHERE run_id = ?",
            "left_at",
        ),
    ],
)
async def test_verify_names_a_planted_difference(
    store: Store, tables: ProjectionStore, name: str, statement: str, column: str | None
) -> None:
    stories = told.stories()
    await told.append_mixed(store, stories)
    told.catch_up(tables)
    changed = f"run-{stories[1][0].execution_id}"
    change(tables, statement, (changed,))

    verdicts = {verdict.name: verdict.difference for verdict in verify(tables, PROJECTIONS)}

    found = verdicts.pop(name)
    assert found is not None
    assert changed in found.key
    assert found.column == column
    assert found.table in str(found)
    assert set(verdicts.values()) == {None}


async def test_verify_finds_a_wrong_sum_and_a_row_of_nobody(
    store: Store, tables: ProjectionStore
) -> None:
    await told.append_mixed(store, told.stories())
    told.catch_up(tables)
    change(tables, "UPDATE workflow_statistics_v1 SET executions = 99 WHERE status = 'FAILED'")
    change(
        tables,
        "INSERT INTO state_durations_v1 (run_id, path, entered_version, state, attempt, entered_at,"
        " workflow_name, workspace_id, position) SELECT 'run-zz', path, entered_version, state,"
        " attempt, entered_at, workflow_name, workspace_id, position FROM state_durations_v1"
        " WHERE path = '' AND entered_version = 1 LIMIT 1",
    )

    verdicts = verify(tables, (*chosen("workflow_statistics"), *chosen("state_durations")))

    sums, stays = (verdict.difference for verdict in verdicts)
    assert sums is not None
    assert (sums.column, sums.found) == ("executions", 99)
    assert stays is not None
    assert (stays.key, stays.expected) == ("run_id=run-zz, path=, entered_version=1", None)


# -------------------------------------------------------------------------------------- rebuild


async def test_a_rebuilt_table_equals_the_live_one_byte_for_byte(
    store: Store, tables: ProjectionStore
) -> None:
    await told.append_mixed(store, [*told.recovery_stories(), told.published("a", 2)])
    told.catch_up(tables, batch=4)
    before = {each.table.name: told.dump(tables, each) for each in PROJECTIONS}
    indexes = told.indexes(store)

    for _ in range(2):
        for each in PROJECTIONS:
            Rebuild(tables, each).run()

    assert {each.table.name: told.dump(tables, each) for each in PROJECTIONS} == before
    assert told.indexes(store) == indexes
    with tables.reading() as session:
        assert len(session.execute("SELECT id FROM workflow_runs")) == len(before["workflow_runs"])
        assert read_checkpoint(session, PROJECTIONS[0]).generation == 2


async def test_a_rebuild_repairs_and_the_feed_goes_on(
    store: Store, tables: ProjectionStore
) -> None:
    stories = told.stories()
    await told.append_mixed(store, stories[:7])
    told.catch_up(tables)
    change(tables, "UPDATE workflow_runs_v1 SET status = 'LOST'")
    reports: list[tuple[int, int]] = []

    Rebuild(tables, *chosen("workflow_runs")).run(lambda *report: reports.append(report))
    await told.append_mixed(store, stories[7:])
    told.catch_up(tables)

    assert verify(tables, chosen("workflow_runs"))[0].difference is None
    assert reports[-1][0] == reports[-1][1]


async def test_a_rebuild_from_nothing_needs_no_server(
    store: Store, tables: ProjectionStore
) -> None:
    await told.append_mixed(store, told.stories())

    for each in PROJECTIONS:
        Rebuild(tables, each).run()

    assert [verdict.difference for verdict in verify(tables, PROJECTIONS)] == [None] * len(
        PROJECTIONS
    )


async def test_of_two_rebuilds_the_later_one_goes_on(
    store: Store, tables: ProjectionStore, ledger_url: str
) -> None:
    await told.append_mixed(store, told.stories())
    told.catch_up(tables)
    (runs,) = chosen("workflow_runs")
    other = told.projection_store(store, ledger_url)

    def begin_another(position: int, head: int) -> None:
        if not begun:
            begun.append(position)
            Rebuild(other, runs).run()

    begun: list[int] = []
    with pytest.raises(RebuildTakenOver):
        Rebuild(tables, runs).run(begin_another)

    other.close()
    assert verify(tables, [runs])[0].difference is None


async def test_a_rebuild_that_fails_leaves_the_table_as_it_was(
    store: Store, tables: ProjectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told.append_mixed(store, told.stories())
    told.catch_up(tables)
    (runs,) = chosen("workflow_runs")
    before = told.dump(tables, runs)
    with tables.reading() as session:
        checkpoint = read_checkpoint(session, runs)

    def damaged(states: States, events: object) -> Batch:
        raise LogDamaged("execution", UUID(int=1), after=1, found=3)

    with monkeypatch.context() as patched:
        patched.setattr(States, "apply", damaged)
        with pytest.raises(LogDamaged):
            Rebuild(tables, runs).run()

    with tables.reading() as session:
        assert read_checkpoint(session, runs) == checkpoint
    assert told.dump(tables, runs) == before
    Rebuild(tables, runs).run()
    assert told.dump(tables, runs) == before
