"""Positions are drawn in the order of commits, so that a reader who passes one loses nothing."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID, uuid4

import psycopg
import pytest

from infrastructure.database import Store
from tests.infrastructure.event_store.conftest import OpenAt

WRITERS = 12
APPENDS_PER_WRITER = 25
LOCK = "PERFORM pg_advisory_xact_lock"
CALL = (
    "SELECT * FROM {function}(ARRAY[%s::uuid], ARRAY[1::bigint], ARRAY['workflow.activated.v1'],"
    " ARRAY[%s::bytea], 'w', 1, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}',"
    " '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}',"
    " '{{}}', '{{}}')"
)
STATE = b'{"meta":{"at":"2026-01-02T03:04:05Z","cmd":"c","actor":"a"},"data":{},"private":{}}'


def variant(url: str, name: str, *, locked: bool) -> str:
    """A copy of the append function, on request without its lock."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT pg_get_functiondef('flowledger_append_v2'::regproc)"
        ).fetchone()
        assert row is not None
        text = str(row[0]).replace("flowledger_append_v2", name)
        assert LOCK in text
        if not locked:
            text = text.replace(LOCK, "PERFORM abs")
        connection.execute(text.encode())
    return name


def append_with(connection: psycopg.Connection, function: str, stream: UUID) -> None:
    connection.execute(CALL.format(function=function).encode(), (stream, STATE))


@pytest.mark.anyio
@pytest.mark.parametrize("locked", [True, False])
async def test_a_reader_cannot_pass_an_append_that_is_not_visible_yet(
    postgres_url: str, open_at: OpenAt, *, locked: bool
) -> None:
    """The control without the lock must lose the slow append, else this test shows nothing."""
    store = await open_at(postgres_url)
    function = variant(postgres_url, "append_variant", locked=locked)
    slow, fast = uuid4(), uuid4()
    with psycopg.connect(postgres_url) as one, psycopg.connect(postgres_url) as two:
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


class Tail(threading.Thread):
    """Reads the log forward until told to stop, and then to its end."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.seen: list[UUID] = []
        self._log = store.log
        self._writers_done = threading.Event()

    def run(self) -> None:
        position = 0
        while True:
            last_round = self._writers_done.is_set()
            while batch := self._log.read_batch(position, 50):
                self.seen += [entry.event.execution_id for entry in batch]
                position = batch[-1].position
            if last_round:
                return

    def finish(self) -> list[UUID]:
        self._writers_done.set()
        self.join()
        return self.seen


@contextmanager
def tails(store: Store, count: int) -> Iterator[list[Tail]]:
    threads = [Tail(store) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.finish()


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
    postgres_url: str, open_at: OpenAt, *, locked: bool
) -> None:
    """The control without the lock must lose some, else this test shows nothing."""
    store = await open_at(postgres_url)
    function = variant(postgres_url, "append_variant", locked=locked)
    with tails(store, 2) as readers, ThreadPoolExecutor(WRITERS) as writers:
        parts = writers.map(lambda _: write_many(postgres_url, function), range(WRITERS))
        written = {stream for part in parts for stream in part}
        seen = [reader.finish() for reader in readers]

    assert len(written) == WRITERS * APPENDS_PER_WRITER
    lost = [written - set(each) for each in seen]
    assert not any(len(each) != len(set(each)) for each in seen)
    assert (not any(lost)) is locked
    if locked:
        assert seen[0] == seen[1]
