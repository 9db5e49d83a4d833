"""The tests' own PostgreSQL server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from tests.postgres_server import ADDRESS_VARIABLE, PostgresServer

OWNER = """
import sys
import time
from tests.postgres_server import running_postgres
with running_postgres() as server:
    print(server.admin_dsn, flush=True)
    sys.stdin.read()
"""


def gone(folder: Path) -> bool:
    """True when the folder is removed within ten seconds."""
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        os.sched_yield()
    return not folder.exists()


def fill(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE filled AS SELECT 7 AS figure")


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_the_server_is_as_durable_as_production(postgres_dsn: str, setting: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
    assert row == ("on",)


def test_a_prepared_database_is_a_copy_of_its_own(postgres_server: PostgresServer) -> None:
    first = postgres_server.create_database(fill)
    second = postgres_server.create_database(fill)
    with psycopg.connect(first) as connection:
        connection.execute("DELETE FROM filled")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT figure FROM filled").fetchall() == [(7,)]
    postgres_server.drop_database(first)
    postgres_server.drop_database(second)


def test_a_killed_owner_leaves_neither_server_nor_files() -> None:
    environment = {k: v for k, v in os.environ.items() if k != ADDRESS_VARIABLE}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        dsn = owner.stdout.readline().strip()
        folder = Path(parse_qs(urlsplit(dsn).query)["host"][0])
        with psycopg.connect(dsn) as connection:
            owner.send_signal(signal.SIGKILL)
            # The notification wait ends when the server closes the connection.
            with pytest.raises(psycopg.OperationalError):
                list(connection.notifies(timeout=30))
    assert gone(folder)
