"""The OutsideRows port over the tables behind the views' triggers; blocking queries run in threads.

How rows get into these tables, and when the views show them, is the schema's matter.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from application.outside_runs import OutsideDefinition, OutsideRun
from application.ports import StoreUnavailable, UnknownOutcome
from infrastructure.addresses import PostgresAddress
from infrastructure.event_store.sqlite import SQLiteJobs
from infrastructure.postgres_sessions import connect
from infrastructure.projections.tables import StoredJson, StoredTime
from infrastructure.store_health import StoreThreads

WRITE_SECONDS_MAX: Final = 10.0

_KINDS: Final[dict[str, TypeEngine[Any]]] = {
    "input_data": StoredJson(),
    "workflow_data": StoredJson(),
    "created_at": StoredTime(),
    "version": sa.BigInteger(),
}


def _table(name: str, row: type[OutsideRun | OutsideDefinition]) -> sa.TableClause:
    columns = [sa.column(each, _KINDS.get(each, sa.Text())) for each in row.__slots__]
    return sa.table(name, sa.column("workspace_id", sa.Text()), *columns)


_RUNS: Final = _table("outside_runs", OutsideRun)
_DEFINITIONS: Final = _table("outside_definitions", OutsideDefinition)
_RUN_IDS: Final = sa.table(
    "outside_run_ids",
    sa.column("workspace_id", sa.Text()),
    sa.column("run_id", sa.Text()),
    sa.column("execution_run_id", sa.Text()),
)
_REMEMBER: Final = (
    "INSERT INTO outside_run_ids (workspace_id, run_id, execution_run_id) VALUES (?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)

T = TypeVar("T")


class StoredOutsideRows:
    """See OutsideRows."""

    def __init__(
        self, engine: sa.Engine, threads: StoreThreads, writes: SQLiteJobs | PostgresAddress
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._writes = writes

    async def outside_run(self, workspace_id: str, run_id: str) -> OutsideRun | None:
        """See OutsideRows."""
        columns = [_RUNS.c[name] for name in OutsideRun.__slots__]
        wanted = sa.select(*columns).where(
            _RUNS.c.run_id == run_id, _RUNS.c.workspace_id == workspace_id
        )

        def read(connection: sa.Connection) -> OutsideRun | None:
            row = connection.execute(wanted).one_or_none()
            return None if row is None else OutsideRun(*row)

        return await self._read(read)

    async def outside_definition(
        self, workspace_id: str, references: Sequence[str]
    ) -> OutsideDefinition | None:
        """See OutsideRows."""

        def read(connection: sa.Connection) -> OutsideDefinition | None:
            for reference in references:
                row = connection.execute(_meant(workspace_id, reference)).one_or_none()
                if row is not None:
                    return OutsideDefinition(*row)
            return None

        return await self._read(read)

    async def name_execution(self, workspace_id: str, run_id: str, execution_run_id: str) -> None:
        """See OutsideRows; a name that is known costs a look only."""
        known = sa.select(_RUN_IDS.c.execution_run_id).where(
            _RUN_IDS.c.workspace_id == workspace_id, _RUN_IDS.c.run_id == run_id
        )
        if await self._read(lambda connection: connection.execute(known).first()) is None:
            row = (workspace_id, run_id, execution_run_id)
            await self._threads.run(lambda: self._remember(row))

    def _remember(self, row: tuple[str, str, str]) -> None:
        try:
            match self._writes:
                case PostgresAddress(dsn):
                    with closing(
                        connect(
                            dsn, lock_seconds=WRITE_SECONDS_MAX, answer_seconds=WRITE_SECONDS_MAX
                        )
                    ) as connection:
                        connection.execute(_REMEMBER.replace("?", "%s").encode(), row)
                case jobs:
                    jobs.run(lambda lite: lite.execute(_REMEMBER, row)).result(WRITE_SECONDS_MAX)
        except (UnknownOutcome, TimeoutError, psycopg.OperationalError) as error:
            raise StoreUnavailable(f"the database does not answer: {error}") from error

    async def _read(self, query: Callable[[sa.Connection], T]) -> T:
        def run() -> T:
            try:
                with self._engine.connect() as connection:
                    return query(connection)
            except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
                raise StoreUnavailable(f"the database does not answer: {error}") from error

        return await self._threads.run(run)


def _meant(workspace_id: str, reference: str) -> sa.Select[Any]:
    """The newest version that the reference means, in any of its three forms."""
    table = _DEFINITIONS
    meanings = [table.c.id == reference, table.c.name == reference]
    name, _, number = reference.removeprefix("wf-").rpartition("-")
    if reference.startswith("wf-") and number.isdecimal() and len(number) < len(str(2**63)):
        meanings.append(sa.and_(table.c.name == name, table.c.version == int(number)))
    return (
        sa.select(*(table.c[column] for column in OutsideDefinition.__slots__))
        .where(table.c.workspace_id == workspace_id, sa.or_(*meanings))
        .order_by(sa.desc(table.c.id == reference), table.c.version.desc(), table.c.id)
        .limit(1)
    )
