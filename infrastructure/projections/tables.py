"""What a projection's table is.

Columns from a row type, the SQL to make, fill and publish it on both back ends.

A table `workflow_runs_v1` is the store, the view `workflow_runs` over it is what people query.
While a projection is rebuilt, a second table with the suffix `_r` is filled beside the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.types import TypeDecorator, TypeEngine

from domain.json_values import Json

Dialect = Literal["postgresql", "sqlite"]
REBUILT: Final = "_r"
"""Suffix of the table that a rebuild fills."""

_TIME_LENGTH: Final = len("2026-01-31T12:00:00.000000Z")

encode_json = msgspec.json.Encoder().encode

_SQL_TYPES: Final[dict[str, tuple[str, str]]] = {
    "text": ('text COLLATE "C"', "TEXT"),
    "integer": ("bigint", "INTEGER"),
    "boolean": ("boolean", "INTEGER"),
    "timestamp": ("timestamptz", "TEXT"),
    "json": ("json", "TEXT"),
    "jsonb": ("jsonb", "TEXT"),
}
_RECORD_TYPES: Final = {"text": "text"}
_PYTHON_KINDS: Final = {str: "text", int: "integer", bool: "boolean", datetime: "timestamp"}


class StoredTime(TypeDecorator[datetime]):
    """An aware UTC time.

    Timestamptz on PostgreSQL, ISO 8601 text with microseconds and Z on SQLite.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """The column type of the back end."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.Text())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """To the driver."""
        if value is None or dialect.name == "postgresql":
            return value
        return time_text(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """From the driver."""
        if value is None:
            return None
        return (
            value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromisoformat(value)
        )


class StoredJson(TypeDecorator[Json]):
    """A JSON value: json or jsonb on PostgreSQL, text on SQLite; null is SQL's NULL."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Json, dialect: sa.Dialect) -> Any:
        """To the driver."""
        return None if value is None else encode_json(value).decode()

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Json:
        """From the driver, which has decoded PostgreSQL's already."""
        if isinstance(value, str) and dialect.name != "postgresql":
            decoded: Json = msgspec.json.decode(value)
            return decoded
        known: Json = value
        return known


@dataclass(frozen=True, slots=True)
class Index:
    """An index.

    `columns` and `where` are SQL, `postgresql` for one that only PostgreSQL can make.
    """

    name: str
    columns: str
    where: str | None = None
    using: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `kind` is text, integer, boolean, timestamp, json or jsonb."""

    name: str
    kind: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class OutsideRows:
    """Rows of other programs, which a view shows below those of its projection.

    `table`, called `o` in SQL, has the view's columns in `given`; `computed` is the SQL of others
    by name; all the rest are null. A row is shown while `shown` holds, in which `{stored}` is the
    projection's table.
    """

    table: str
    given: frozenset[str]
    shown: str
    computed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ProjectedTable:
    """A table that a projection fills, with the view over it.

    `row` declares the columns in order. `stream` is the key column that tells the event stream of a
    row. Columns in `summed` are added to what is stored, all others overwrite it. `public` are the
    view's columns: names, or SQL behind its name, before its type where that is not text.
    """

    name: str
    version: int
    row: type[Struct]
    key: tuple[str, ...]
    public: tuple[str | tuple[str, str] | tuple[str, str, str], ...]
    json: frozenset[str] = frozenset()
    jsonb: frozenset[str] = frozenset()
    summed: frozenset[str] = frozenset()
    indexes: tuple[Index, ...] = ()
    outside: OutsideRows | None = None
    stream: str | None = None
    narrow: bool = False
    """Small rows: on SQLite the table is its primary key (WITHOUT ROWID)."""

    @property
    def stored(self) -> str:
        """Name of the live table."""
        return f"{self.name}_v{self.version}"

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Columns in order, from the row type."""
        return tuple(self._column(each) for each in msgspec.structs.fields(self.row))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    def _column(self, declared: msgspec.structs.FieldInfo) -> Column:
        name = declared.name
        if name in self.jsonb or name in self.json:
            return Column(name, "jsonb" if name in self.jsonb else "json", nullable=True)
        args = getattr(declared.type, "__args__", None)
        nullable = args is not None and type(None) in args
        plain = next(each for each in args if each is not type(None)) if args else declared.type
        return Column(name, _PYTHON_KINDS[plain], nullable)

    def create_statement(self, dialect: Dialect, suffix: str, generation: int) -> str:
        """The table with its key."""
        side = 0 if dialect == "postgresql" else 1
        columns = [
            f"{column.name} {_SQL_TYPES[column.kind][side]}{'' if column.nullable else ' NOT NULL'}"
            for column in self.columns
        ]
        columns.append(f"PRIMARY KEY ({', '.join(self.key)})")
        options = " WITHOUT ROWID" if dialect == "sqlite" and self.narrow else ""
        if (
            dialect == "postgresql"
        ):  # the key's index is named after the table, which a rebuild renames
            columns[-1] = f"CONSTRAINT {self.stored}_key_g{generation} {columns[-1]}"
        return f"CREATE TABLE {self.stored}{suffix} ({', '.join(columns)}){options}"

    def index_statements(self, dialect: Dialect, suffix: str, generation: int) -> list[str]:
        """The other indexes.

        An index's name carries the generation, for names are unique in a schema.
        """
        made = []
        for index in self.indexes:
            if index.using is not None and dialect != "postgresql":
                continue
            method = f" USING {index.using}" if index.using else ""
            where = f" WHERE {index.where}" if index.where else ""
            made.append(
                f"CREATE INDEX {self.stored}_{index.name}_g{generation}"
                f" ON {self.stored}{suffix}{method} ({index.columns}){where}"
            )
        return made

    def view_statement(self, dialect: Dialect, *, replace: bool = False) -> str:
        """The public view over the live table, and over what other programs inserted."""
        verb = "CREATE OR REPLACE VIEW" if replace else "CREATE VIEW"
        listed = (
            each if isinstance(each, str) else f"{each[1]} AS {each[0]}" for each in self.public
        )
        own = f"{verb} {self.name} AS SELECT {', '.join(listed)} FROM {self.stored}"  # noqa: S608 - names of the code
        return (
            own
            if self.outside is None
            else f"{own} UNION ALL {self._shown_of(self.outside, dialect)}"
        )

    def _shown_of(self, outside: OutsideRows, dialect: Dialect) -> str:
        """What of them the view shows.

        Types are spelled out: SQLite looks into a union only when both sides have the same.
        """
        kinds = {column.name: column.kind for column in self.columns}
        listed = []
        for each in self.public:
            name = each if isinstance(each, str) else each[0]
            value = f"o.{name}" if name in outside.given else outside.computed.get(name, "NULL")
            if name in kinds and name not in outside.given:
                value = f"CAST({value} AS {_type_name(kinds[name], dialect)})"
            listed.append(value)
        shown = outside.shown.format(stored=self.stored)
        return f"SELECT {', '.join(listed)} FROM {outside.table} o WHERE {shown}"  # noqa: S608 - names of the code

    @cached_property
    def _statements(self) -> dict[tuple[str, int], Any]:
        """Upserts made so far, by suffix and rows."""
        return {}

    def postgresql_upsert(self, suffix: str) -> bytes:
        """One statement for any number of rows, which are one JSON parameter (%s)."""
        known: bytes | None = self._statements.get((suffix, 0))
        if known is not None:
            return known
        record = ", ".join(f"{column.name} {_record_type(column)}" for column in self.columns)
        columns = ", ".join(self.names)
        made = self._statements[(suffix, 0)] = (
            f"INSERT INTO {self.stored}{suffix} AS t ({columns})"  # noqa: S608 - names of the code
            f" SELECT {columns} FROM json_to_recordset(%s::json) AS given({record})"
            f" {self._on_conflict()}"
        ).encode()
        return made

    def sqlite_upsert(self, suffix: str, rows: int) -> str:
        """One statement for `rows` rows, whose values are its parameters one after the other."""
        known: str | None = self._statements.get((suffix, rows))
        if known is not None:
            return known
        one = f"({', '.join('?' * len(self.columns))})"
        values = ", ".join([one] * rows)
        made = self._statements[(suffix, rows)] = (
            f"INSERT INTO {self.stored}{suffix} AS t ({', '.join(self.names)}) VALUES {values}"  # noqa: S608 - like above
            f" {self._on_conflict()}"
        )
        return made

    def _on_conflict(self) -> str:
        assignments = ", ".join(
            f"{name} = t.{name} + excluded.{name}"
            if name in self.summed
            else f"{name} = excluded.{name}"
            for name in self.names
            if name not in self.key
        )
        return f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {assignments}"

    @cached_property
    def _stored_form(self) -> tuple[msgspec.json.Decoder[list[Struct]], list[int], list[int]]:
        """Reads rows from JSON with times as text and JSON values unread; where those are."""
        kinds = {"text": str, "integer": int, "boolean": bool, "timestamp": str}
        form = msgspec.defstruct(
            self.row.__name__ + "Stored",
            [
                (each.name, kinds[each.kind] | None if each.kind in kinds else msgspec.Raw)
                for each in self.columns
            ],
            gc=False,
        )
        places = list(enumerate(self.columns))
        times = [i for i, column in places if column.kind == "timestamp"]
        values = [i for i, column in places if column.kind in ("json", "jsonb")]
        return msgspec.json.Decoder(list[form]), times, values  # type: ignore[valid-type]  # made above

    def sqlite_values(self, rows: Sequence[Struct]) -> list[list[Any]]:
        """Rows as SQLite stores them. One way through JSON costs less than a look at each value."""
        decoder, times, documents = self._stored_form
        stored = []
        for row in decoder.decode(encode_json(rows)):
            values = list(msgspec.structs.astuple(row))
            for i in times:
                text = values[i]
                if text is not None and (len(text) != _TIME_LENGTH or text[-1] != "Z"):
                    values[i] = time_text(datetime.fromisoformat(text))
            for i in documents:
                document = bytes(values[i])
                values[i] = None if document == b"null" else document.decode()
            stored.append(values)
        return stored

    def comparable(self, row: Struct) -> tuple[Any, ...]:
        """The row in the form in which `comparison_columns` reads stored rows."""
        (values,) = self.sqlite_values((row,))
        for i, column in enumerate(self.columns):
            if column.kind == "jsonb" and values[i] is not None:
                values[i] = msgspec.json.decode(values[i])
        return tuple(values)

    def comparison_columns(self, dialect: Dialect) -> str:
        """Select list that reads rows alike on both back ends: times and JSON as text."""
        if dialect == "sqlite":
            return ", ".join(self.names)
        as_text = {
            "json": "{0}::text",
            "jsonb": "{0}::text",
            "timestamp": """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
        }
        return ", ".join(
            as_text.get(column.kind, "{0}").format(column.name) for column in self.columns
        )

    def read_comparable(self, stored: Sequence[Any]) -> tuple[Any, ...]:
        """A row selected with `comparison_columns`, ready to be compared."""
        values = list(stored)
        for i, column in enumerate(self.columns):
            if column.kind == "jsonb" and values[i] is not None:
                values[i] = msgspec.json.decode(values[i])
        return tuple(values)

    @cached_property
    def selectable(self) -> sa.Table:
        """For queries."""
        return sa.Table(
            self.stored,
            sa.MetaData(),
            *(
                sa.Column(
                    column.name, _alchemy_type(column.kind), primary_key=column.name in self.key
                )
                for column in self.columns
            ),
        )


def time_text(at: datetime) -> str:
    """ISO 8601 in UTC, always with microseconds, so that text sorts like time."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _record_type(column: Column) -> str:
    return _type_name(column.kind, "postgresql")


def _type_name(kind: str, dialect: Dialect) -> str:
    """The type without a collation."""
    if dialect == "postgresql":
        return _RECORD_TYPES.get(kind, _SQL_TYPES[kind][0])
    return _SQL_TYPES[kind][1]


def _alchemy_type(kind: str) -> TypeEngine[Any]:
    match kind:
        case "text":
            return sa.Text()
        case "integer":
            return sa.BigInteger()
        case "boolean":
            return sa.Boolean()
        case "timestamp":
            return StoredTime()
        case _:
            return StoredJson()
