"""The migrations make one schema on both back ends, and what analysts see of the events."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from application.ports import Append
from domain.events import WORKFLOW_PAYLOADS, BranchTaken, Event
from infrastructure.addresses import administration_engine
from infrastructure.database import StoreOptions, open_store
from infrastructure.migrations import migrate
from tests.contracts.appends import append, completed, events
from tests.histories import golden

VIEW_COLUMNS = (
    "position",
    "execution_id",
    "version",
    "topic",
    "type",
    "recorded_at",
    "actor",
    "command_id",
    "correlation_id",
    "causation_id",
    "workspace_id",
    "data",
)


def test_a_migration_brings_the_database_to_the_newest_schema(database_url: str) -> None:
    assert migrate.current(database_url) is None
    assert migrate.upgrade(database_url) == migrate.head()
    assert migrate.current(database_url) == migrate.head()
    assert migrate.upgrade(database_url) == migrate.head()
    assert migrate.head() in migrate.known()


def test_processes_may_migrate_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(4) as processes:
        versions = list(processes.map(migrate.upgrade, [database_url] * 4))
    assert versions == [migrate.head()] * 4


def test_the_ledger_s_tables_have_the_same_names_on_both(database_url: str) -> None:
    migrate.upgrade(database_url)
    with administration_engine(database_url).connect() as connection:
        found = inspect(connection)
        assert {"ledger_events", "work_queue"} <= set(found.get_table_names())
        assert [column["name"] for column in found.get_columns("work_queue")] == [
            "execution_id",
            "workspace_id",
            "priority",
            "ready_at",
            "lease_owner",
            "lease_until",
            "epoch",
            "version",
            "deliveries",
            "woken",
        ]
        assert tuple(column["name"] for column in found.get_columns("execution_events")) == (
            VIEW_COLUMNS
        )


@pytest.mark.anyio
async def test_the_view_shows_every_execution_event_with_its_data(database_url: str) -> None:
    shown = await events_shown(
        database_url,
        Append(
            golden.EXECUTION_ID,
            (
                Event(
                    golden.EXECUTION_ID, 1, golden.META, completed({"a": None, "é": [1, {"b": 2}]})
                ),
            ),
        ),
        append(),
    )
    first, second = shown
    assert str(first["execution_id"]) == str(golden.EXECUTION_ID)
    assert (first["version"], first["topic"]) == (1, "execution.step_completed.v1")
    assert first["type"] == "step_completed"
    assert (first["actor"], first["workspace_id"]) == (golden.META.actor, golden.META.ws)
    assert first["command_id"] == golden.META.cmd
    assert (first["correlation_id"], first["causation_id"]) == ("order-17", "cmd-16")
    assert as_time(first["recorded_at"]) == golden.AT
    assert as_json(first["data"]) == {
        "path": "fetch",
        "attempt": 1,
        "try_no": 1,
        "epoch": 7,
        "size": 2,
        "output": {"a": None, "é": [1, {"b": 2}]},
    }
    assert as_json(second["data"]) == {"attempt": 1, "deadline_at": None}
    assert (second["workspace_id"], second["correlation_id"]) == ("default", None)
    assert second["position"] > first["position"]


@pytest.mark.anyio
async def test_the_view_keeps_nulls_and_leaves_workflows_out(database_url: str) -> None:
    workflow = golden.sample_payload(WORKFLOW_PAYLOADS[0])
    branch = BranchTaken(
        path="check", attempt=1, branch="else", child=None, error=None, actual=[None]
    )
    other = append().stream_id
    (shown,) = await events_shown(
        database_url,
        Append(golden.EXECUTION_ID, (Event(golden.EXECUTION_ID, 1, golden.META, workflow),)),
        Append(other, events(other, 1, branch)),
    )
    assert as_json(shown["data"]) == {
        "path": "check",
        "attempt": 1,
        "branch": "else",
        "child": None,
        "error": None,
        "actual": [None],
    }


async def events_shown(url: str, *appends: Append) -> list[dict[str, Any]]:
    migrate.upgrade(url)
    store = open_store(url, StoreOptions(environment={}))
    try:
        for each in appends:
            await store.log.append(each)
        with store.engine.connect() as connection:
            query = text("SELECT * FROM execution_events ORDER BY position")
            return [dict(row) for row in connection.execute(query).mappings()]
    finally:
        await store.close()


def as_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


def as_time(value: object) -> datetime:
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(when, datetime)
    return when.astimezone(UTC)


def test_tables_of_an_older_schema_keep_their_rows(database_url: str) -> None:
    row = {"run_id": "run-1", "labels": "{}", "input_data": "{}"}
    with administration_engine(database_url).connect() as connection:
        older(connection, "0002")
        columns = inspect(connection).get_columns("workflow_runs_v1")
        for column in columns:
            if not column["nullable"] and column["name"] not in row:
                row[column["name"]] = _any_value(str(column["type"]))
        names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO workflow_runs_v1 ({names}) VALUES ({values})"), row)
        connection.commit()

    assert migrate.upgrade(database_url) == migrate.head()

    with administration_engine(database_url).connect() as connection:
        shown = connection.execute(text("SELECT run_id, steps_recovered FROM workflow_runs"))
        assert [tuple(each) for each in shown] == [("run-1", 0)]
        columns = [each["name"] for each in inspect(connection).get_columns("workflow_runs")]
        assert columns[columns.index("allowed_actions") + 1] == "steps_recovered"


def older(connection: Connection, revision: str) -> None:
    """The schema of an earlier release in an empty database."""
    command.upgrade(alembic_config(connection), revision)
    connection.commit()


def alembic_config(connection: Connection) -> Config:
    """What runs a migration on this connection."""
    config = Config()
    config.set_main_option("script_location", "infrastructure:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _any_value(kind: str) -> Any:
    if "TIME" in kind:
        return datetime(2026, 1, 31, tzinfo=UTC)
    return {"BIGINT": 1, "INTEGER": 1, "BOOLEAN": False}.get(kind, "text")
