"""The page of tables: the views for SQL with their columns, and what lies beneath them."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from infrastructure.migrations import migrate
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.projections.folding import Projection
from tools.markdown import table, told
from tools.table_meanings import COLUMNS, EVENT_COLUMNS, STORED, VIEWS

_INTRODUCTION: Final = """# Tables

What people query in SQL are views. They stand over tables whose names end in a version, so that a
table can be built anew beside the old one and the view switched. Columns of a view never change
their order or their name; new ones come last. [Query with SQL](../how-to/query-with-sql.md) has
examples, [projections](../explanation/projections.md) tells how the tables are kept.

Types are those of PostgreSQL. On SQLite a `timestamptz` is ISO 8601 text in UTC with microseconds
and `Z` (text order is time order), `boolean` is 0 or 1, `json` and `jsonb` are text, `bigint` is
INTEGER.
"""
_TYPES: Final = {
    "text": "text",
    "integer": "bigint",
    "boolean": "boolean",
    "timestamp": "timestamptz",
    "json": "json",
    "jsonb": "jsonb",
}


class Schema(NamedTuple):
    """Views with their columns, and the tables beneath, as a freshly made database has them."""

    views: Mapping[str, tuple[str, ...]]
    tables: frozenset[str]


def tables_page() -> str:
    """The page. Raises KeyError for a view, table or column without a meaning."""
    schema = migrated_schema()
    kept = {projection.table.stored for projection in PROJECTIONS}
    stored = sorted(schema.tables - kept)
    parts = [_INTRODUCTION, "\n## Views\n"]
    parts += [_view(projection, schema) for projection in PROJECTIONS]
    parts += [_events_view(schema)]
    parts += ["\n## Tables beneath\n\nNot for queries: they may change with any release.\n\n"]
    parts.append(table(("table", "holds"), [(f"`{name}`", STORED[name]) for name in stored]))
    return "".join(parts)


def migrated_schema() -> Schema:
    """What the migrations make."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.db"
        migrate.upgrade(f"sqlite:///{file}")
        with closing(sqlite3.connect(file)) as connection:
            listed = connection.execute(
                "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table')"
                " AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            views = {
                name: tuple(
                    row[0]
                    for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
                )
                for kind, name in listed
                if kind == "view"
            }
    return Schema(views, frozenset(name for kind, name in listed if kind == "table"))


def _view(projection: Projection, schema: Schema) -> str:
    stored = projection.table
    kinds = {
        column.name: _TYPES[column.kind] + (", may be null" if column.nullable else "")
        for column in stored.columns
    }
    kinds |= {each[0]: each[2] for each in stored.public if len(each) == 3 and each[0] not in kinds}
    special = COLUMNS.get(stored.name, {})
    rows = [
        (f"`{name}`", kinds.get(name, "text"), special.get(name) or COLUMNS["any"][name])
        for name in schema.views[stored.name]
    ]
    key = ", ".join(f"`{name}`" for name in stored.key)
    return (
        f"\n### {stored.name}\n\n{VIEWS[stored.name]} Key: {key}. {told(stored.row)}\n\n"
        + table(("column", "type", "meaning"), rows)
    )


def _events_view(schema: Schema) -> str:
    name = "execution_events"
    rows = [(f"`{column}`", *EVENT_COLUMNS[column]) for column in schema.views[name]]
    return f"\n### {name}\n\n{VIEWS[name]}\n\n" + table(("column", "type", "meaning"), rows)
