"""The store refuses to open where it would lose or misread something, and says what to set."""

from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from application.ports import StoreUnavailable
from infrastructure.addresses import BadAddress, administration_engine
from infrastructure.database import StoreOptions, open_store
from infrastructure.start_gate import UnsafeStore, unsafe_settings


def problems(url: str, **changes: object) -> list[str]:
    options = StoreOptions(**{"environment": {}, **changes})  # type: ignore[arg-type]  # as given
    with pytest.raises(UnsafeStore) as refusal:
        open_store(url, options)
    assert all(problem in str(refusal.value) for problem in refusal.value.problems)
    return refusal.value.problems


def set_version(url: str, version: str) -> None:
    with administration_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})


def test_a_database_without_schema_is_refused(database_url: str) -> None:
    (problem,) = problems(database_url)
    assert "no schema yet" in problem
    assert "flowledger migrate" in problem


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    problems(f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_an_unknown_schema_is_refused(ledger_url: str) -> None:
    set_version(ledger_url, "9999")
    (problem,) = problems(ledger_url)
    assert "9999" in problem
    assert "later one" in problem


def test_the_library_s_database_functions_are_refused(ledger_url: str) -> None:
    name = "LEDGER_POSTGRES_ENABLE_DB_FUNCTIONS"
    (problem,) = problems(ledger_url, environment={name: "y"})
    assert f"unset {name}" in problem


@pytest.mark.parametrize("level", ["OFF", "NORMAL", "1"])
def test_sqlite_without_full_synchronous_is_refused(sqlite_ledger_url: str, level: str) -> None:
    (problem,) = problems(sqlite_ledger_url, sqlite_synchronous=level)
    assert "FULL or EXTRA" in problem


@pytest.mark.parametrize("level", ["off", "local"])
def test_postgresql_without_synchronous_commit_is_refused(
    postgresql_ledger_url: str, level: str
) -> None:
    with psycopg.connect(postgresql_ledger_url, autocommit=True) as connection:
        connection.execute(
            f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = {level}".encode()
        )
    (problem,) = problems(postgresql_ledger_url)
    assert f"synchronous_commit={level}" in problem


def test_unsafe_server_settings_are_named_with_their_remedy() -> None:
    found = unsafe_settings({"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"})
    assert [problem.split(":")[0] for problem in found] == [
        "PostgreSQL runs with fsync=off",
        "PostgreSQL runs with full_page_writes=off",
    ]
    assert "ALTER SYSTEM SET fsync = 'on'" in found[0]
    safe = {"fsync": "on", "full_page_writes": "on"}
    assert unsafe_settings({**safe, "synchronous_commit": "remote_apply"}) == []


def test_every_problem_is_told_at_once(sqlite_url: str) -> None:
    name = "POSTGRES_ENABLE_DB_FUNCTIONS"
    assert len(problems(sqlite_url, sqlite_synchronous="OFF", environment={name: "1"})) == 3


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite:///", "sqlite:///:memory:", "ledger.db"])
def test_other_addresses_are_refused_with_the_accepted_forms(url: str) -> None:
    with pytest.raises(BadAddress, match=r"sqlite:///flowledger\.db"):
        open_store(url)


def test_an_unreachable_server_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        open_store(f"postgresql://nobody@/none?host={tmp_path}", StoreOptions(environment={}))
