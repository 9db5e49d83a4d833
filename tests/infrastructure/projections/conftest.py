"""What the tests of projections on PostgreSQL share."""

from collections.abc import AsyncIterator

import pytest

from infrastructure.database import Store, StoreOptions, open_store
from infrastructure.migrations import migrate


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    """The store of one process, with the schema and nothing in it."""
    migrate.upgrade(postgres_dsn)
    opened = open_store(postgres_dsn, StoreOptions(environment={}, answer_seconds=30.0))
    await opened.start()
    yield opened
    await opened.close()
