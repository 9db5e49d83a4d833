"""Our recorders stay recorders of the library, so that its tools can read the log."""

from uuid import uuid4

import pytest
from eventsourcing.persistence import ApplicationRecorder

from infrastructure.addresses import PostgresAddress
from infrastructure.database import Store
from infrastructure.event_store.codec import Codec
from tests.contracts.appends import append
from tests.contracts.conftest import OpenStore, open_ledger, store
from tests.infrastructure.event_store.conftest import OpenAt

__all__ = ["open_ledger", "store"]  # fixtures
pytestmark = pytest.mark.anyio


def recorder_of(store: Store) -> ApplicationRecorder:
    recorder = store.log.reader
    assert isinstance(recorder, ApplicationRecorder)
    return recorder


async def test_the_library_reads_what_we_stored(store: Store) -> None:
    recorder = recorder_of(store)
    one = append(count=4)
    await store.log.append(one)
    await store.log.append(append())
    ours = await store.log.read_all()

    events = recorder.select_events(one.stream_id, gt=1, lte=3)
    notifications = recorder.select_notifications(ours[1].position, 3)

    codec = Codec()
    assert [
        codec.recorded(0, one.stream_id, each.originator_version, each.topic, each.state).event
        for each in events
    ] == [entry.event for entry in ours[1:3]]
    assert [each.id for each in notifications] == [entry.position for entry in ours[1:4]]
    assert [each.originator_id for each in notifications] == [
        entry.event.execution_id for entry in ours[1:4]
    ]
    assert recorder.max_notification_id() == ours[-1].position


async def test_nothing_goes_round_the_committer(open_ledger: OpenStore) -> None:
    recorder = recorder_of(await open_ledger())
    with pytest.raises(NotImplementedError, match="LedgerLog"):
        recorder.insert_events([])
    with pytest.raises(NotImplementedError, match="flowledger migrate"):
        recorder.create_table()  # type: ignore[attr-defined]  # of both concrete classes


async def test_the_plan_of_the_feed_is_pinned(postgresql_ledger_url: str, open_at: OpenAt) -> None:
    """Prepared on the empty table, it must not become a sort of the whole backlog."""
    store = await open_at(postgresql_ledger_url, command_threads=1, query_threads=1)
    assert isinstance(store.writes, PostgresAddress)
    for _ in range(8):  # a server-side prepared statement with a generic plan
        await store.log.read_all()
    await store.log.append(append(uuid4(), count=3000))

    reader = store.log.reader
    with reader.datastore.get_connection() as connection:  # type: ignore[attr-defined]  # PostgreSQL's
        rows = connection.execute(
            "EXPLAIN SELECT originator_id, state FROM ledger_events WHERE notification_id > 0"
            " ORDER BY notification_id LIMIT 500"
        ).fetchall()
    plan = "\n".join(str(row["QUERY PLAN"]) for row in rows)
    assert "Index Scan using ledger_events_notification_id_idx" in plan
    assert "Sort" not in plan
