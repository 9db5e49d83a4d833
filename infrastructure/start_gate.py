"""Refuses to run on a store that would lose acknowledged appends or that it cannot read."""

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Final

import psycopg

from infrastructure.addresses import Address, PostgresAddress, SQLiteAddress, parse_address
from infrastructure.migrations import migrate

DB_FUNCTIONS: Final = "POSTGRES_ENABLE_DB_FUNCTIONS"
SQLITE_FULL: Final = 2
_SERVER_SETTINGS: Final = {
    "fsync": (frozenset({"off"}), "a crash of the machine would corrupt the database"),
    "full_page_writes": (frozenset({"off"}), "a crash of the machine could corrupt pages"),
    "synchronous_commit": (
        frozenset({"off", "local"}),
        "appends would be acknowledged before they are safe",
    ),
}


class UnsafeStore(Exception):
    """The store must not be used as it is; `problems` says what is wrong and what to set."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("refusing to start:\n" + "\n".join(f"- {text}" for text in problems))
        self.problems = problems


def check_store(url: str, *, sqlite_synchronous: str, environment: Mapping[str, str]) -> None:
    """Raise UnsafeStore with every problem found; psycopg or sqlite3 errors when unreachable."""
    address = parse_address(url)
    problems = [
        *_environment_problems(environment),
        *_durability_problems(address, sqlite_synchronous),
        *_schema_problems(url, address),
    ]
    if problems:
        raise UnsafeStore(problems)


def unsafe_settings(settings: Mapping[str, str]) -> list[str]:
    """What is unsafe among these PostgreSQL settings, each with what to set."""
    return [
        f"PostgreSQL runs with {name}={settings[name]}: {consequence}. "
        f"Set it back: ALTER SYSTEM SET {name} = 'on'; SELECT pg_reload_conf(); and look for "
        "settings of this role or database in pg_db_role_setting."
        for name, (unsafe, consequence) in _SERVER_SETTINGS.items()
        if settings.get(name) in unsafe
    ]


def _environment_problems(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if (name == DB_FUNCTIONS or name.endswith("_" + DB_FUNCTIONS)) and value:
            yield (
                f"{name} is set: the event store library would insert without a lock, and readers "
                f"would miss events. Unset it: unset {name}"
            )


def _durability_problems(address: Address, sqlite_synchronous: str) -> list[str]:
    match address:
        case SQLiteAddress():
            # Through SQLite itself, which knows the levels also as numbers.
            with sqlite3.connect(":memory:") as connection:
                connection.execute(f"PRAGMA synchronous = {sqlite_synchronous}")
                (level,) = connection.execute("PRAGMA synchronous").fetchone()
            connection.close()
            if level < SQLITE_FULL:
                return [
                    f"SQLite would run with synchronous={sqlite_synchronous}: a power failure "
                    "would take acknowledged appends along. Set it to FULL or EXTRA."
                ]
            return []
        case PostgresAddress(dsn):
            with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as server:
                rows = server.execute(
                    "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)",
                    (list(_SERVER_SETTINGS),),
                ).fetchall()
            return unsafe_settings(dict(rows))


def _schema_problems(url: str, address: Address) -> Iterator[str]:
    exists = not isinstance(address, SQLiteAddress) or address.path.exists()
    version = migrate.current(url) if exists else None
    newest = migrate.head()
    if version == newest:
        return
    if version is None:
        yield "the database has no schema yet. Make it: flowledger migrate"
    elif version in migrate.known():
        yield (
            f"the database has schema {version}, this release needs {newest}. "
            "Bring it up to date: flowledger migrate"
        )
    else:
        yield (
            f"the database has schema {version}, which this release does not know (it knows up to "
            f"{newest}). Run the release which migrated it, or a later one."
        )
