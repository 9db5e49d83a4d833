"""Bring a database to the schema of this release, and tell which one it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from infrastructure.addresses import SQLiteAddress, administration_engine, parse_address

MIGRATION_LOCK: Final = 7017281934620002


def head() -> str:
    """The schema version of this release."""
    newest = _scripts().get_current_head()
    if newest is None:
        raise RuntimeError("this installation has no migrations; install it anew")
    return newest


def known() -> frozenset[str]:
    """Every schema version this release can start from."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def current(url: str) -> str | None:
    """The schema version of the database, None when it has no schema yet."""
    engine = administration_engine(url)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str) -> str:
    """Apply what is missing in one transaction and return the version; safe to call at once twice.

    SQLite files are created, with write-ahead log.
    """
    with upgrade_connection(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head()


@contextmanager
def upgrade_connection(url: str) -> Iterator[Connection]:
    """A connection in a transaction which no other migration can run beside."""
    engine = administration_engine(url)
    with engine.connect() as connection:
        if isinstance(parse_address(url), SQLiteAddress):
            # The wait comes first: while another process changes the journal mode, or migrates,
            # even that answers that the database is locked. The mode cannot change inside a
            # transaction; the driver begins none by itself.
            connection.exec_driver_sql("PRAGMA busy_timeout = 30000")
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        yield connection
        connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "infrastructure:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
