"""A served app on a database of its own, and a client that speaks to it."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from infrastructure.settings import Settings
from interfaces.bootstrap import Services, open_services
from interfaces.http.app import create_app
from tests.interfaces.http.served import Client


@pytest.fixture
async def services(sqlite_ledger_url: str, anyio_backend: str) -> AsyncIterator[Services]:
    """The real services on SQLite, with their worker and projections."""
    opened = await open_services(Settings(database_url=sqlite_ledger_url))
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def client(services: Services) -> AsyncIterator[Client]:
    """A client of an app over `services`."""
    transport = httpx2.ASGITransport(create_app(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://ledger.test") as http:
        yield Client(http)
