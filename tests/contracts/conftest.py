"""What the contract suites share: an open store on each back end, and appends to put into it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from infrastructure.database import Store, StoreOptions, open_store
from infrastructure.migrations import migrate

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
def ledger_url(database_url: str) -> str:
    """URL of a database with the schema and nothing in it, on each back end."""
    migrate.upgrade(database_url)
    return database_url


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
