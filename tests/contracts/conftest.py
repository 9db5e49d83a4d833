"""What the contract suites share: an open store on each back end, and appends to put into it."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import replace

import psycopg
import pytest

from infrastructure.addresses import SQLiteAddress, parse_address
from infrastructure.database import Store, StoreOptions, open_store

OpenStore = Callable[..., Awaitable[Store]]
APPEND_LOCK = 7017281934620001
"""What an append on PostgreSQL takes before it draws positions."""


@contextmanager
def nothing_can_be_stored(url: str) -> Iterator[None]:
    """Hold what every append needs."""
    address = parse_address(url)
    if isinstance(address, SQLiteAddress):
        with closing(sqlite3.connect(address.path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            yield
            writer.execute("ROLLBACK")
    else:
        with psycopg.connect(url) as holder:
            holder.execute("SELECT pg_advisory_xact_lock(%s)", (APPEND_LOCK,))
            yield


@pytest.fixture
async def open_ledger(ledger_url: str) -> AsyncIterator[OpenStore]:
    """A function which opens the store once more, as another process would, with its options."""
    async with AsyncExitStack() as stack:

        async def open_it(**changes: object) -> Store:
            # The disk of a busy test machine may be slow; nothing here waits for an outage.
            options = replace(StoreOptions(environment={}, answer_seconds=30.0), **changes)
            store = open_store(ledger_url, options)
            stack.push_async_callback(store.close)
            await store.start()
            return store

        yield open_it


@pytest.fixture
async def store(open_ledger: OpenStore) -> Store:
    """The store of one process."""
    return await open_ledger(worker="w1")
