"""Fixtures every test may use: an event loop, a PostgreSQL server, a fresh database."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka import broker as kafka_broker
from tests.kafka.mock import mock_cluster
from tests.postgres_server import PostgresServer, running_postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--heavy", action="store_true", help="run the long forms of the fault and property tests"
    )
    parser.addoption(
        "--processes-too", action="store_true", help="run the faults of whole fleets of processes"
    )


def no_broker() -> str | None:
    """Why the tests on a real broker are left out; None when they run. Where one is required, as in
    CI, they run, and fail without it.
    """
    asked = (kafka_broker.ADDRESS_VARIABLE, kafka_broker.REQUIRED_VARIABLE)
    return None if any(map(os.environ.get, asked)) else kafka_broker.missing()


def pytest_report_header() -> str | None:
    return no_broker()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Leave out what needs a real broker where there is none."""
    if no_broker() is None:
        return
    left_out = [each for each in items if _on_real_broker(each)]
    items[:] = [each for each in items if each not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _on_real_broker(item: pytest.Function) -> bool:
    named = getattr(item, "fixturenames", ())
    callspec = getattr(item, "callspec", None)
    return "real_kafka" in named or (
        callspec is not None and callspec.params.get("kafka") == "real"
    )


@pytest.fixture(scope="session")
def heavy(request: pytest.FixtureRequest) -> bool:
    """True when the long form of a test is wanted (`make faults`)."""
    return bool(request.config.getoption("--heavy"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests (marked `anyio`) run on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests of this process."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a fresh, empty PostgreSQL database which is dropped afterwards."""
    dsn = postgres_server.create_database()
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh, empty database; the test runs once on each back end."""
    return str(
        request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_dsn")
    )


@pytest.fixture(scope="session")
def mock_kafka() -> Iterator[str]:
    """Address of the mock cluster of the Kafka library; topics are made on first use."""
    with mock_cluster() as address:
        yield address


@pytest.fixture(scope="session")
def real_kafka() -> Iterator[str]:
    """Address of a real broker, shared by the tests of this process; choose topics of your own."""
    with kafka_broker.running_kafka() as running:
        yield running


@pytest.fixture(params=["mock", "real"])
def kafka(request: pytest.FixtureRequest) -> str:
    """Address of a broker; the test runs once on the mock cluster and once on a real one."""
    return str(request.getfixturevalue(f"{request.param}_kafka"))
