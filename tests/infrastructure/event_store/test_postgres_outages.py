"""What callers are told when PostgreSQL, or the way to it, fails: real sockets, really cut."""

import asyncio
import errno
import re
import socket
import threading
from contextlib import ExitStack
from uuid import UUID

import psycopg
import pytest

from application.ports import StoreUnavailable, Touch, UnknownOutcome
from infrastructure import postgres_sessions
from infrastructure.database import Store
from infrastructure.event_store import postgres
from tests.contracts.appends import LONG_AGO, append, request
from tests.contracts.conftest import APPEND_LOCK
from tests.engine import PATIENCE_SECONDS, until
from tests.infrastructure.event_store.conftest import OpenAt, Proxy
from tests.infrastructure.event_store.cutting_proxy import Fault

pytestmark = pytest.mark.anyio


def stored(url: str) -> set[UUID]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("SELECT originator_id FROM ledger_events")}


async def append_until_stored(store: Store) -> None:
    while True:
        try:
            await store.log.append(append())
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return


@pytest.mark.parametrize(
    ("fault", "is_stored"), [(Fault.REQUEST_LOST, False), (Fault.ANSWER_LOST, True)]
)
async def test_a_lost_answer_is_an_unknown_outcome(
    proxy: Proxy, postgresql_ledger_url: str, open_at: OpenAt, *, fault: Fault, is_stored: bool
) -> None:
    relay, url = proxy
    store = await open_at(url)
    await store.log.append(append())
    relay.fault = fault
    one = append()

    with pytest.raises(UnknownOutcome, match="before the answer"):
        await store.log.append(one)

    assert relay.hits == 1
    assert (one.stream_id in stored(postgresql_ledger_url)) is is_stored
    await store.log.append(append())


async def test_every_caller_of_a_lost_batch_is_told(
    proxy: Proxy, postgresql_ledger_url: str, open_at: OpenAt
) -> None:
    relay, url = proxy
    store = await open_at(url)
    await store.log.append(append())
    relay.fault = Fault.ANSWER_LOST

    outcomes = await asyncio.gather(
        *(store.log.append(append()) for _ in range(50)), return_exceptions=True
    )

    unknown = [outcome for outcome in outcomes if isinstance(outcome, UnknownOutcome)]
    assert unknown
    assert len({id(outcome) for outcome in unknown}) == len(unknown)
    assert len(stored(postgresql_ledger_url)) == 51
    assert relay.hits >= 1


async def test_a_frozen_server_is_given_up(proxy: Proxy, open_at: OpenAt) -> None:
    relay, url = proxy
    store = await open_at(url, answer_seconds=1.5)
    await store.log.append(append())
    relay.fault = Fault.FROZEN

    with pytest.raises(UnknownOutcome, match=r"no answer within 1\.5 s"):
        await store.log.append(append())

    relay.fault = Fault.NONE
    await append_until_stored(store)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True}), "asyncio"])
async def test_an_answer_counts_that_this_process_stood_still_too_long_to_read(
    postgresql_ledger_url: str, open_at: OpenAt
) -> None:
    store = await open_at(postgresql_ledger_url, answer_seconds=0.5)
    await store.log.append(append())
    with psycopg.connect(postgresql_ledger_url) as holder:
        holder.execute(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})")
        waiting = asyncio.ensure_future(store.log.append(append()))
        await until(lambda: store.log.saturation() == 0)
        threading.Timer(0.2, holder.rollback).start()

        await stand_still(1.0)

        assert (await waiting).position == 2


async def stand_still(seconds: float) -> None:
    """As while a handler blocks, or the machine sleeps."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")

        def block() -> None:
            loop.remove_reader(near)
            threading.Event().wait(seconds)
            done.set_result(None)

        loop.add_reader(near, block)
        await done


async def test_an_outage_fails_fast_and_ends_by_itself(
    proxy: Proxy, postgresql_ledger_url: str, open_at: OpenAt
) -> None:
    relay, url = proxy
    store = await open_at(url, answer_seconds=1.5)
    await store.log.append(append())
    relay.down = True
    relay.cut_all()

    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.log.append(append())
    with pytest.raises(StoreUnavailable):
        await store.log.read_all()
    with pytest.raises(StoreUnavailable):
        await store.queue.claim(1)
    assert len(stored(postgresql_ledger_url)) == 1

    relay.down = False
    await append_until_stored(store)
    while True:
        try:
            assert len(await store.log.read_all()) == 2
            assert await store.queue.claim(1) == []
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return


async def test_connections_that_ended_while_idle_are_replaced_unseen(
    postgresql_ledger_url: str, open_at: OpenAt
) -> None:
    store = await open_at(postgresql_ledger_url)
    await store.log.append(append())
    await store.log.read_all()
    with psycopg.connect(postgresql_ledger_url) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert ended is not None
    assert ended[0] >= 3

    await store.log.append(append())
    assert len(await store.log.read_all()) == 2


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True}), "asyncio"])
async def test_what_took_the_number_of_a_connection_that_ended_while_idle_is_left_alone(
    proxy: Proxy, open_at: OpenAt
) -> None:
    relay, url = proxy
    store = await open_at(url)
    await store.log.append(append())
    relay.cut_all()
    await asyncio.sleep(0.1)  # the ends are noticed, the numbers free; lower ones go first

    with ExitStack() as stack:
        ends = [stack.enter_context(end) for _ in range(10) for end in socket.socketpair()]
        streams = [await asyncio.open_connection(sock=end) for end in ends]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await append_until_stored(store)
            for _, writer in streams:
                writer.write(b"x")
            for reader, _ in streams:
                assert await reader.readexactly(1) == b"x"
        for _, writer in streams:
            writer.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EMFILE, "Too many open files"), StoreUnavailable),
        (RuntimeError("?"), RuntimeError),
    ],
)
async def test_whatever_prevents_a_connection_ends_with_it(
    postgresql_ledger_url: str,
    open_at: OpenAt,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    told: type[Exception],
) -> None:
    store = await open_at(postgresql_ledger_url)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(postgres, "connect", fail)
        with pytest.raises(told, match=re.escape(str(error))):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await store.log.append(append())
    await append_until_stored(store)


async def test_a_server_that_stands_still_while_a_connection_is_made_holds_nobody(
    postgresql_ledger_url: str, open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_at(postgresql_ledger_url, answer_seconds=0.2)
    gate, made = threading.Event(), []

    def connect_late(*given: object, **settings: object) -> psycopg.Connection:
        gate.wait()
        made.append(postgres_sessions.connect(*given, **settings))
        return made[0]

    with monkeypatch.context() as patch:
        patch.setattr(postgres, "connect", connect_late)
        patch.setitem(postgres.CONNECTING, "connect_timeout", 0)
        with pytest.raises(StoreUnavailable, match=r"no connection within 0\.2 s"):
            await store.log.append(append())
        gate.set()
        await until(lambda: made and made[0].closed)
    await append_until_stored(store)


async def test_a_held_append_lock_fails_the_append_for_certain(
    postgresql_ledger_url: str, open_at: OpenAt
) -> None:
    store = await open_at(postgresql_ledger_url, lock_seconds=0.1)
    with psycopg.connect(postgresql_ledger_url) as holder:
        holder.execute(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await store.log.append(append())
        holder.rollback()
    await store.log.append(append())
    assert len(stored(postgresql_ledger_url)) == 1


async def test_a_deadlock_is_tried_again(postgresql_ledger_url: str, open_at: OpenAt) -> None:
    store = await open_at(postgresql_ledger_url, lock_seconds=20.0)
    one = request()
    await store.log.append(one)
    with (
        psycopg.connect(postgresql_ledger_url) as rival,
        psycopg.connect(postgresql_ledger_url, autocommit=True) as observer,
    ):
        rival.execute("SET deadlock_timeout = '60s'")  # the append is the one to notice
        rival.execute("SELECT * FROM work_queue FOR UPDATE")
        touching = asyncio.ensure_future(
            store.log.append(append(one.stream_id, 2, queue=Touch(LONG_AGO)))
        )
        await asyncio.to_thread(wait_for_a_lock, observer)
        # The append holds the lock of the log and waits for the row; this closes the circle.
        await asyncio.to_thread(rival.execute, f"SELECT pg_advisory_xact_lock({APPEND_LOCK})")
        rival.rollback()
        await touching
        assert deadlocks(observer) == 1
    assert [entry.event.version for entry in await store.log.read_stream(one.stream_id)] == [1, 2]


def wait_for_a_lock(connection: psycopg.Connection) -> None:
    """Return once some session of the server waits for a lock."""
    query = "SELECT count(*), pg_sleep(0.01) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while (row := connection.execute(query).fetchone()) is not None and row[0] == 0:
        continue


def deadlocks(connection: psycopg.Connection) -> int:
    connection.execute("SELECT pg_stat_clear_snapshot()")
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    row = connection.execute(query).fetchone()
    return row[0] if row else 0
