"""Positions are drawn in the order of commits, so that a reader who passes one loses nothing."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.infrastructure.event_store.conftest import OpenAt
from tests.infrastructure.event_store.tailing import tails, variant

WRITERS = 12
APPENDS_PER_WRITER = 25
CALL = (
    "SELECT * FROM {function}(ARRAY[%s::uuid], ARRAY[1::bigint], ARRAY['workflow.activated.v1'],"
    " ARRAY[%s::bytea], 'w', 1, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}',"
    " '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}',"
    " '{{}}', '{{}}')"
)
STATE = b'{"meta":{"at":"2026-01-02T03:04:05Z","cmd":"c","actor":"a"},"data":{},"private":{}}'


def append_with(connection: psycopg.Connection, function: str, stream: UUID) -> None:
    connection.execute(CALL.format(function=function).encode(), (stream, STATE))


@pytest.mark.anyio
@pytest.mark.parametrize("locked", [True, False])
async def test_a_reader_cannot_pass_an_append_that_is_not_visible_yet(
    postgresql_ledger_url: str, open_at: OpenAt, *, locked: bool
) -> None:
    """The control without the lock must lose the slow append, else this test shows nothing."""
    store = await open_at(postgresql_ledger_url)
    function = variant(postgresql_ledger_url, "append_variant", locked=locked)
    slow, fast = uuid4(), uuid4()
    with (
        psycopg.connect(postgresql_ledger_url) as one,
        psycopg.connect(postgresql_ledger_url) as two,
    ):
        append_with(one, function, slow)
        two.execute("SET lock_timeout = '200ms'")
        if locked:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                append_with(two, function, fast)
            two.rollback()
        else:
            append_with(two, function, fast)
            two.commit()
        passed = await store.log.read_all()
        one.commit()

    position = passed[-1].position if passed else 0
    seen = [
        entry.event.execution_id for entry in [*passed, *await store.log.read_all(after=position)]
    ]
    assert (slow in seen) is locked


def write_many(url: str, function: str) -> list[UUID]:
    """Appends of one writer, each in a transaction that stays open for a moment at random."""
    streams = [uuid4() for _ in range(APPENDS_PER_WRITER)]
    with psycopg.connect(url, autocommit=True) as connection:
        for stream in streams:
            with connection.transaction():
                append_with(connection, function, stream)
                connection.execute("SELECT pg_sleep(random() * 0.004)")
    return streams


@pytest.mark.anyio
@pytest.mark.parametrize("locked", [True, False])
async def test_twelve_writers_and_tailing_readers_lose_nothing(
    postgresql_ledger_url: str, open_at: OpenAt, *, locked: bool
) -> None:
    """The control without the lock must lose some, else this test shows nothing."""
    store = await open_at(postgresql_ledger_url)
    function = variant(postgresql_ledger_url, "append_variant", locked=locked)
    with tails(store, 2) as readers, ThreadPoolExecutor(WRITERS) as writers:
        parts = writers.map(lambda _: write_many(postgresql_ledger_url, function), range(WRITERS))
        written = {stream for part in parts for stream in part}
        seen = [reader.finish() for reader in readers]

    assert len(written) == WRITERS * APPENDS_PER_WRITER
    lost = [written - set(each) for each in seen]
    assert not any(len(each) != len(set(each)) for each in seen)
    assert (not any(lost)) is locked
    if locked:
        assert seen[0] == seen[1]
