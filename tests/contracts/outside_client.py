"""Another program, as the contract suites of its rows play it: SQL and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from infrastructure.addresses import administration_engine

UUID_RUN = "run-5f0c2f0a-6f0b-4a51-9c3e-0c8a3f8f1a11"


class Client:
    """Another program, with a connection of its own and nothing but SQL."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, **values: object) -> list[dict[str, Any]]:
        with self._connection.begin():
            done = self._connection.execute(sa.text(statement), values)
            return [dict(row) for row in done.mappings()] if done.returns_rows else []

    def insert(self, view: str, **values: object) -> None:
        marks = ", ".join(f":{name}" for name in values)
        self.run(f"INSERT INTO {view} ({', '.join(values)}) VALUES ({marks})", **values)

    def refused(self, statement: str, **values: object) -> str:
        with pytest.raises(sa.exc.DBAPIError) as refusal:
            self.run(statement, **values)
        return str(refusal.value.orig)

    def insert_refused(self, view: str, **values: object) -> str:
        with pytest.raises(sa.exc.DBAPIError) as refusal:
            self.insert(view, **values)
        return str(refusal.value.orig)

    def shown(self, view: str = "workflow_runs") -> list[dict[str, Any]]:
        return self.run(f"SELECT * FROM {view}")


@contextmanager
def another_program(url: str) -> Iterator[Client]:
    engine = administration_engine(url)
    with engine.connect() as connection:
        yield Client(connection)
