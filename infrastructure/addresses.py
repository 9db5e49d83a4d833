"""Where the store is: the two forms of a database URL."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool


class BadAddress(ValueError):
    """The database URL has neither accepted form."""


@dataclass(frozen=True, slots=True)
class SQLiteAddress:
    """One file."""

    path: Path

    @property
    def read_only_uri(self) -> str:
        """The name under which a connection cannot write."""
        return f"file:{quote(str(self.path.absolute()))}?mode=ro"


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A libpq connection string in URL form; its query may hold every libpq parameter."""

    dsn: str


Address = SQLiteAddress | PostgresAddress


def parse_address(url: str) -> Address:
    """Read `sqlite:///file` (four slashes for an absolute path) or `postgresql://user@host/name`.

    Raises BadAddress.
    """
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        if not path or path == ":memory:":
            raise BadAddress("SQLite needs a file: sqlite:///flowledger.db")
        return SQLiteAddress(Path(path))
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresAddress(url)
    raise BadAddress(
        f"the database URL begins with {url.partition(':')[0]!r}; "
        "accepted are sqlite:///flowledger.db and postgresql://user@host/name"
    )


def administration_engine(url: str) -> Engine:
    """An engine for one short piece of work, such as a migration: it keeps no connection open."""
    match parse_address(url):
        case SQLiteAddress(path):
            return create_engine(
                "sqlite://", creator=lambda: sqlite3.connect(path), poolclass=NullPool
            )
        case PostgresAddress(dsn):
            return create_engine(
                "postgresql+psycopg://",
                creator=lambda: psycopg.connect(dsn, connect_timeout=5),
                poolclass=NullPool,
            )
