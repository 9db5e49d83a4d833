"""PostgreSQL databases with the schema, lent to one test after the other.

To make a database takes the server longer than most tests take, so one that is given back is
emptied and lent again. One whose schema, privileges, settings or statistics the test changed is
dropped instead, as all are on a server where nobody may switch triggers off.
"""

from typing import Final, LiteralString

import psycopg
from psycopg import Connection, sql

from infrastructure.migrations import migrate
from tests.postgres_server import PostgresServer

# Any change of a row of these gives it a newer transaction; emptying a table changes none of them.
_CATALOGUES: Final[tuple[LiteralString, ...]] = (
    "pg_attrdef",
    "pg_attribute",
    "pg_constraint",
    "pg_index",
    "pg_namespace",
    "pg_proc",
    "pg_rewrite",
    "pg_sequence",
    "pg_statistic",
    "pg_trigger",
    "pg_type",
    "alembic_version",
)
_MARK: Final = sql.SQL(
    "SELECT ({rows})::text || (SELECT string_agg(concat_ws(' ', relname, relkind, relowner,"
    " relacl, reloptions, relpersistence), ',' ORDER BY oid) FROM pg_class)"
    " || (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
    " WHERE d.datname = current_database())"
).format(
    rows=sql.SQL(", ").join(
        sql.SQL("(SELECT ROW(count(*), max(xmin::text::bigint)) FROM {})").format(
            sql.Identifier(each)
        )
        for each in _CATALOGUES
    )
)
_OTHERS_GONE: Final = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_USED: Final = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    " AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0"
)
_SEQUENCES_ANEW: Final = "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence"


class LedgerDatabases:
    """The databases of one server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._marks: dict[str, str] = {}
        self._idle: list[str] = []

    def lend(self) -> str:
        """URL of a database with the schema and nothing in it."""
        if self._idle:
            return self._idle.pop()
        url = self._server.create_database(migrate.upgrade)
        with psycopg.connect(url) as connection:
            if may_switch_triggers_off(connection):
                self._marks[url] = _mark(connection)
        return url

    def take_back(self, url: str) -> None:
        """Empty it for the next test, or drop it."""
        if self._emptied(url):
            self._idle.append(url)
        else:
            self._server.drop_database(url)

    def drop_idle(self) -> None:
        """Drop what is lent to nobody."""
        while self._idle:
            self._server.drop_database(self._idle.pop())

    def _emptied(self, url: str) -> bool:
        mark = self._marks.get(url)
        if mark is None:
            return False
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_OTHERS_GONE)
            if _mark(connection) != mark:
                return False
            _empty(connection)
        return True


def may_switch_triggers_off(connection: Connection) -> bool:
    """Whether the account is one that may empty the log."""
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    return row.fetchone() == (True,)


def _mark(connection: Connection) -> str:
    """The same as long as nothing but rows of the ledger's tables has changed."""
    row = connection.execute(_MARK).fetchone()
    return str(row)


def _empty(connection: Connection) -> None:
    connection.execute("SET session_replication_role = replica")  # the log refuses to be emptied
    used = [sql.Identifier(name) for (name,) in connection.execute(_USED)]
    if used:
        connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(used)))
    connection.execute(_SEQUENCES_ANEW)
