"""Stores on one back end, for tests of what only that back end can do."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import anyio.to_thread
import pytest

from infrastructure.database import Store, StoreOptions, open_store
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
def proxy(postgresql_ledger_url: str, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy to the PostgreSQL database, and the URL that leads through it."""
    with cutting_proxy(postgresql_ledger_url, tmp_path) as pair:
        yield pair
