"""Fixtures every test may use: an event loop, a PostgreSQL server, fresh databases with the schema
and without it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure.migrations import migrate
from tests.kafka import broker as kafka_broker
from tests.kafka.mock import mock_cluster
from tests.ledger_databases import LedgerDatabases
from tests.postgres_server import PostgresServer, running_postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--heavy", action="store_true", help="run the long forms of the fault and property tests"
    )
    parser.addoption(
        "--processes-too", action="store_true", help="run the faults of whole fleets of processes"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    if not _broker_wanted(config):
        return "tests over a real Kafka broker: make test-kafka"
    return None if kafka_broker.required() else kafka_broker.missing()


def _broker_wanted(config: pytest.Config) -> bool:
    """To start one takes its time: `make test` uses the mock cluster, unless a broker is given."""
    return kafka_broker.given() is not None or bool(config.getoption("--processes-too"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Leave out what needs a real broker where none is wanted, or there is none. Where one is
    required, as in CI, it runs, and fails without it.
    """
    if _broker_wanted(config) and (kafka_broker.required() or kafka_broker.missing() is None):
        return
    absent = {"own_kafka"} if kafka_broker.given() else {"own_kafka", "real_kafka"}
    left_out = [each for each in items if absent & _brokers_of(each)]
    items[:] = [each for each in items if each not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _brokers_of(item: pytest.Function) -> set[str]:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    named = set(getattr(item, "fixturenames", ()))
    return named | {f"{parameters['kafka']}_kafka"} if "kafka" in parameters else named


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
def _ledger_databases(postgres_server: PostgresServer) -> Iterator[LedgerDatabases]:
    databases = LedgerDatabases(postgres_server)
    yield databases
    databases.drop_idle()


@pytest.fixture
def postgresql_ledger_url(_ledger_databases: LedgerDatabases) -> Iterator[str]:
    """URL of a PostgreSQL database with the schema and nothing in it."""
    url = _ledger_databases.lend()
    yield url
    _ledger_databases.take_back(url)


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("schema") / "ledger.db"
    migrate.upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_ledger_url(_migrated_file: Path, tmp_path: Path) -> str:
    """URL of an SQLite file with the schema and nothing in it."""
    return f"sqlite:///{shutil.copy(_migrated_file, tmp_path)}"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest) -> str:
    """URL of a database with the schema and nothing in it; the test runs once on each back end."""
    return str(request.getfixturevalue(f"{request.param}_ledger_url"))


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


@pytest.fixture
def own_kafka() -> Iterator[kafka_broker.KafkaBroker]:
    """A real broker of the test's own, to be broken."""
    with kafka_broker.own_broker() as broker:
        yield broker


@pytest.fixture(params=["mock", "real"])
def kafka(request: pytest.FixtureRequest) -> str:
    """Address of a broker; the test runs once on the mock cluster and once on a real one."""
    return str(request.getfixturevalue(f"{request.param}_kafka"))
