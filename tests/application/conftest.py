"""The stores on which the use cases and the engine are tested."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure.migrations import migrate
from tests.postgres_server import PostgresServer


def prepare_schema(url: str) -> None:
    """Bring an empty database to the present schema."""
    migrate.upgrade(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine_url(request: pytest.FixtureRequest) -> str:
    """URL of a database with the schema and nothing in it; the test runs once on each back end."""
    return str(request.getfixturevalue(f"engine_{request.param}_url"))


@pytest.fixture
def engine_sqlite_url(tmp_path: Path) -> str:
    """An SQLite file with the schema."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    prepare_schema(url)
    return url


@pytest.fixture
def engine_postgresql_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database with the schema, dropped afterwards."""
    dsn = postgres_server.create_database(prepare_schema)
    yield dsn
    postgres_server.drop_database(dsn)
