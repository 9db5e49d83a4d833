"""Stores on one back end, for tests of what only that back end can do."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import anyio.to_thread
import pytest

from infrastructure.database import Store, StoreOptions, open_store
from infrastructure.migrations import migrate
from tests.infrastructure.event_store.cutting_proxy import CuttingProxy, cutting_proxy

OpenAt = Callable[..., Awaitable[Store]]
Proxy = tuple[CuttingProxy, str]


@pytest.fixture
async def open_at() -> AsyncIterator[OpenAt]:
    """A function which opens the store at a URL, with options, until the test ends."""
    async with AsyncExitStack() as stack:

        async def open_it(url: str, **changes: object) -> Store:
            options = replace(StoreOptions(environment={}, answer_seconds=30.0), **changes)
            store = await anyio.to_thread.run_sync(open_store, url, options)
            stack.push_async_callback(store.close)
            await store.start()
            return store

        yield open_it


@pytest.fixture
def postgres_url(postgres_dsn: str) -> str:
    """URL of a PostgreSQL database with the schema."""
    migrate.upgrade(postgres_dsn)
    return postgres_dsn


@pytest.fixture
def sqlite_ledger_url(sqlite_url: str) -> str:
    """URL of an SQLite file with the schema."""
    migrate.upgrade(sqlite_url)
    return sqlite_url


@pytest.fixture
def proxy(postgres_url: str, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy to the PostgreSQL database, and the URL that leads through it."""
    with cutting_proxy(postgres_url, tmp_path) as pair:
        yield pair
