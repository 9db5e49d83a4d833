"""What the tests of projections on PostgreSQL share."""

from collections.abc import AsyncIterator

import pytest

from infrastructure.database import Store, StoreOptions, open_store


@pytest.fixture
async def store(postgresql_ledger_url: str) -> AsyncIterator[Store]:
    """The store of one process, with the schema and nothing in it."""
    opened = open_store(postgresql_ledger_url, StoreOptions(environment={}, answer_seconds=30.0))
    await opened.start()
    yield opened
    await opened.close()
