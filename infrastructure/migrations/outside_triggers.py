"""The triggers of schema 0007: what an insert into a view is refused for, and what fills its gaps.

As it was released, like the migration that uses it; a later schema brings triggers of its own.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

Rule = tuple[str, str, str]
"""A condition for which an insert is refused, PostgreSQL's error code, what is said."""

STATUSES: Final = "'PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED'"
STEP_STATUSES: Final = STATUSES + ", 'SKIPPED'"
RUN_EXTRAS: Final = (
    "execution_id, workflow_version, definition_sha256, sub_status, attempt, version, position,"
    " atomic_mode, priority, labels, simulate, output, partial, error, steps_total, steps_done,"
    " steps_failed, steps_skipped, steps_running, progress, waiting_on, start_at, started_at,"
    " duration_ms, allowed_actions, steps_recovered, forked_from, forked_from_version,"
    " forked_from_step, parent, parent_run_id"
)
STEP_EXTRAS: Final = (
    "execution_id, path, attempt, try_no, action, sub_status, error_class, error, why, delivery,"
    " progress, due_at, duration_ms, position"
)
DEFINITION_EXTRAS: Final = "workflow_id, definition_sha256, definition, newest"


def _extras(dialect: str, columns: str) -> str:
    listed = ", ".join(f"NEW.{name}" for name in columns.split(", "))
    if dialect == "sqlite":
        return f"coalesce({listed}) IS NOT NULL"
    return f"num_nonnulls({listed}) > 0"


def _no_object(dialect: str, column: str) -> str:
    if dialect == "sqlite":
        return (
            f"CASE WHEN {column} IS NULL THEN 0 WHEN json_valid({column})"
            f" THEN json_type({column}) <> 'object' ELSE 1 END"
        )
    return f"json_typeof({column}) <> 'object'"


def _no_json(dialect: str, column: str) -> str:
    if dialect == "postgresql":
        return "false"  # the type refuses it
    return f"({column} IS NOT NULL AND NOT json_valid({column}))"


def _no_time(dialect: str, columns: str) -> str:
    """SQLite would read a number as days."""
    if dialect == "postgresql":
        return "false"
    return " OR ".join(
        f"(NEW.{name} IS NOT NULL AND (typeof(NEW.{name}) <> 'text'"
        f" OR strftime('%Y', NEW.{name}) IS NULL))"
        for name in columns.split(", ")
    )


def _run_rules(dialect: str) -> list[Rule]:
    run_id = "coalesce(NEW.run_id, NEW.id)"
    times = "created_at, updated_at, completed_at, cancelled_at"
    return [
        (
            _extras(dialect, RUN_EXTRAS),
            "check_violation",
            "workflow_runs: only id, run_id, workflow_id, workflow_name, workflow_definition_id,"
            " status, input_data, error_message, triggered_by, created_at, updated_at,"
            " completed_at, cancelled_at, cancelled_by and workspace_id can be inserted",
        ),
        (
            "NEW.id <> NEW.run_id",
            "check_violation",
            "workflow_runs: id and run_id are the same thing; leave one of them out",
        ),
        (
            f"length(trim({run_id})) = 0 OR length({run_id}) > 200",
            "check_violation",
            "workflow_runs: a run_id has 1 to 200 characters",
        ),
        (
            "NEW.workflow_name IS NULL",
            "not_null_violation",
            "workflow_runs: workflow_name is missing; name the workflow that shall run",
        ),
        (
            f"NEW.status NOT IN ({STATUSES})",
            "check_violation",
            "workflow_runs: unknown status; use PENDING, RUNNING, COMPLETED, FAILED or CANCELLED",
        ),
        (
            _no_object(dialect, "NEW.input_data"),
            "check_violation",
            "workflow_runs: input_data is not a JSON object",
        ),
        (
            _no_time(dialect, times),
            "check_violation",
            "workflow_runs: a time is not ISO 8601 text, as 2026-01-31T12:00:00Z",
        ),
        (
            f"EXISTS (SELECT 1 FROM workflow_runs r WHERE r.run_id = {run_id})"
            f" OR EXISTS (SELECT 1 FROM outside_runs r WHERE r.run_id = {run_id})",
            "unique_violation",
            "workflow_runs: there is a run of this run_id already; a run is inserted once",
        ),
    ]


def _step_rules(dialect: str) -> list[Rule]:
    step = "coalesce(NEW.id, NEW.step_execution_id)"
    return [
        (
            _extras(dialect, STEP_EXTRAS),
            "check_violation",
            "step_executions: only id, step_execution_id, run_id, step_id, step_name, agent_name,"
            " status, input_data, output_data, error_message, started_at, completed_at and"
            " workspace_id can be inserted",
        ),
        (
            "NEW.id <> NEW.step_execution_id",
            "check_violation",
            "step_executions: id and step_execution_id are the same thing; leave one of them out",
        ),
        (
            "NEW.run_id IS NULL OR NEW.step_id IS NULL",
            "not_null_violation",
            "step_executions: run_id or step_id is missing",
        ),
        (
            f"NEW.status NOT IN ({STEP_STATUSES})",
            "check_violation",
            "step_executions: unknown status; use PENDING, RUNNING, COMPLETED, FAILED, CANCELLED"
            " or SKIPPED",
        ),
        (
            f"{_no_json(dialect, 'NEW.input_data')} OR {_no_json(dialect, 'NEW.output_data')}",
            "check_violation",
            "step_executions: input_data or output_data is not JSON",
        ),
        (
            _no_time(dialect, "started_at, completed_at"),
            "check_violation",
            "step_executions: a time is not ISO 8601 text, as 2026-01-31T12:00:00Z",
        ),
        (
            "NOT EXISTS (SELECT 1 FROM outside_runs r WHERE r.run_id = NEW.run_id)",
            "foreign_key_violation",
            "step_executions: no run of this run_id was inserted; insert it into workflow_runs"
            " first. Steps of an execution of this service are written by the service alone",
        ),
        (
            f"EXISTS (SELECT 1 FROM outside_steps r WHERE r.id = {step})",
            "unique_violation",
            "step_executions: there is a step of this id already; a step is inserted once",
        ),
    ]


def _definition_rules(dialect: str) -> list[Rule]:
    workspace = "coalesce(NEW.workspace_id, 'default')"
    return [
        (
            _extras(dialect, DEFINITION_EXTRAS),
            "check_violation",
            "workflow_definitions: only id, name, description, version, workflow_data, status,"
            " created_at, updated_at, created_by, updated_by and workspace_id can be inserted",
        ),
        (
            "NEW.name IS NULL OR NEW.workflow_data IS NULL",
            "not_null_violation",
            "workflow_definitions: name or workflow_data is missing",
        ),
        (
            "NEW.version < 1"
            + (" OR typeof(NEW.version) NOT IN ('integer', 'null')" if dialect == "sqlite" else ""),
            "check_violation",
            "workflow_definitions: a version is a whole number from 1 on",
        ),
        (
            "NEW.status NOT IN ('active', 'inactive', 'deleted')",
            "check_violation",
            "workflow_definitions: unknown status; use active, inactive or deleted",
        ),
        (
            _no_object(dialect, "NEW.workflow_data"),
            "check_violation",
            "workflow_definitions: workflow_data is not a JSON object",
        ),
        (
            _no_time(dialect, "created_at, updated_at"),
            "check_violation",
            "workflow_definitions: a time is not ISO 8601 text, as 2026-01-31T12:00:00Z",
        ),
        (
            f"EXISTS (SELECT 1 FROM workflow_definitions d WHERE d.workspace_id = {workspace}"
            " AND d.name = NEW.name AND d.definition_sha256 IS NOT NULL)",
            "unique_violation",
            "workflow_definitions: a workflow of this name is published; publish its next version"
            " with POST /api/v1/workflows",
        ),
        (
            "EXISTS (SELECT 1 FROM workflow_definitions d WHERE d.id = NEW.id)"
            " OR EXISTS (SELECT 1 FROM outside_definitions d WHERE d.id = NEW.id"
            f" OR (d.workspace_id = {workspace} AND d.name = NEW.name"
            " AND d.version = NEW.version))",
            "unique_violation",
            "workflow_definitions: there is a definition of this id, or of this name and version,"
            " already; a definition is inserted once",
        ),
    ]


READ_ONLY: Final = {
    "workflow_runs": "workflow_runs: rows are not changed or deleted here. An execution is"
    " cancelled with POST /api/v1/executions/{id}/cancel, tried again with POST"
    " /api/v1/executions/{id}/retry; a row that another program inserted is in outside_runs",
    "step_executions": "step_executions: rows are not changed or deleted here. A step is ended with"
    " POST /api/v1/executions/{id}/steps/complete or /steps/skip; a row that another program"
    " inserted is in outside_steps",
    "workflow_definitions": "workflow_definitions: rows are not changed or deleted here. A workflow"
    " is changed with PUT /api/v1/workflows/{id}, deleted with DELETE /api/v1/workflows/{id}; a row"
    " that another program inserted is in outside_definitions",
}

# The values that are stored, by column; what a client leaves out gets what the older system gave.
_LITE_UUID: Final = (
    "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)"
    " || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
)


class _Words:
    """What the two back ends write differently."""

    def __init__(self, dialect: str) -> None:
        self.lite = dialect == "sqlite"
        self.uuid = _LITE_UUID if self.lite else "gen_random_uuid()"
        self.mark = (
            "lower(hex(randomblob(4)))" if self.lite else "substr(gen_random_uuid()::text, 1, 8)"
        )

    def time(self, column: str) -> str:
        value = f"NEW.{column}"
        return f"strftime('%Y-%m-%dT%H:%M:%f', {value}) || '000Z'" if self.lite else value

    def now_or(self, *columns: str) -> str:
        given = ", ".join(self.time(name) for name in columns)
        now = "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'" if self.lite else "now()"
        return f"coalesce({given}, {now})"


def _run_values(words: _Words) -> dict[str, str]:
    return {
        "run_id": f"coalesce(NEW.run_id, NEW.id, 'run-' || {words.uuid})",
        "workflow_id": "NEW.workflow_id",
        "workflow_name": "NEW.workflow_name",
        "workflow_definition_id": "NEW.workflow_definition_id",
        "status": "coalesce(NEW.status, 'PENDING')",
        "input_data": "coalesce(NEW.input_data, '{}')",
        "error_message": "NEW.error_message",
        "triggered_by": "coalesce(NEW.triggered_by, 'system')",
        "created_at": words.now_or("created_at"),
        "updated_at": words.now_or("updated_at", "created_at"),
        "completed_at": words.time("completed_at"),
        "cancelled_at": words.time("cancelled_at"),
        "cancelled_by": "NEW.cancelled_by",
        "workspace_id": "coalesce(NEW.workspace_id, 'default')",
    }


def _step_values(words: _Words) -> dict[str, str]:
    return {
        "id": "coalesce(NEW.id, NEW.step_execution_id,"
        f" NEW.run_id || '-' || NEW.step_id || '-' || {words.mark})",
        "run_id": "NEW.run_id",
        "step_id": "NEW.step_id",
        "step_name": "coalesce(NEW.step_name, NEW.step_id)",
        "agent_name": "coalesce(NEW.agent_name, '')",
        "status": "coalesce(NEW.status, 'PENDING')",
        "input_data": "NEW.input_data",
        "output_data": "NEW.output_data",
        "error_message": "NEW.error_message",
        "started_at": words.time("started_at"),
        "completed_at": words.time("completed_at"),
        "workspace_id": "(SELECT r.workspace_id FROM outside_runs r WHERE r.run_id = NEW.run_id)",
    }


def _definition_values(words: _Words) -> dict[str, str]:
    return {
        "id": f"coalesce(NEW.id, {words.uuid}{'' if words.lite else '::text'})",
        "name": "NEW.name",
        "description": "NEW.description",
        "version": "coalesce(NEW.version, (SELECT 1 + coalesce(max(d.version), 0)"
        " FROM outside_definitions d WHERE d.name = NEW.name"
        " AND d.workspace_id = coalesce(NEW.workspace_id, 'default')))",
        "workflow_data": "NEW.workflow_data",
        "status": "coalesce(NEW.status, 'active')",
        "created_at": words.now_or("created_at"),
        "updated_at": words.now_or("updated_at", "created_at"),
        "created_by": "coalesce(NEW.created_by, 'system')",
        "updated_by": "coalesce(NEW.updated_by, NEW.created_by, 'system')",
        "workspace_id": "coalesce(NEW.workspace_id, 'default')",
    }


class _View(NamedTuple):
    """How a view takes inserts: `copy` is the column that repeats `key`."""

    table: str
    rules: Callable[[str], list[Rule]]
    values: Callable[[_Words], dict[str, str]]
    key: str
    copy: str


_VIEWS: Final = {
    "workflow_runs": _View("outside_runs", _run_rules, _run_values, "run_id", "id"),
    "step_executions": _View("outside_steps", _step_rules, _step_values, "id", "step_execution_id"),
    "workflow_definitions": _View(
        "outside_definitions", _definition_rules, _definition_values, "id", "id"
    ),
}


def sqlite_triggers(view: str) -> list[str]:
    """`RAISE` takes a literal only, so what is said does not repeat the value."""
    table, rules, values, _, _ = _VIEWS[view]
    stored = values(_Words("sqlite"))
    checks = "\n".join(
        f"    SELECT RAISE(ABORT, '{said}') WHERE {condition};"
        for condition, _, said in rules("sqlite")
    )
    insert = (
        f"CREATE TRIGGER {table}_insert INSTEAD OF INSERT ON {view} BEGIN\n{checks}\n"
        f"    INSERT INTO {table} ({', '.join(stored)})\n"
        f"    VALUES ({', '.join(stored.values())});\nEND"
    )
    refused = [
        f"CREATE TRIGGER {table}_{verb.lower()} INSTEAD OF {verb} ON {view} BEGIN\n"
        f"    SELECT RAISE(ABORT, '{READ_ONLY[view]}');\nEND"
        for verb in ("UPDATE", "DELETE")
    ]
    return [insert, *refused]


def postgresql_triggers(view: str) -> list[str]:
    """They act for the owner of the tables: who may insert into the view needs no other right."""
    table, rules, values, key, copy = _VIEWS[view]
    stored = values(_Words("postgresql"))
    checks = "\n".join(
        f"    IF {condition} THEN\n        RAISE EXCEPTION USING ERRCODE = '{code}',"
        f" MESSAGE = '{said}';\n    END IF;"
        for condition, code, said in rules("postgresql")
        if condition != "false"
    )
    settled = "\n".join(f"    NEW.{name} := {value};" for name, value in stored.items())
    options = "LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT"
    insert = (
        f"CREATE FUNCTION flowledger_{table}_insert() RETURNS trigger {options} AS $$\nBEGIN\n"
        f"{checks}\n{settled}\n    NEW.{copy} := NEW.{key};\n"
        f"    INSERT INTO {table} ({', '.join(stored)})\n"
        f"    VALUES ({', '.join(f'NEW.{name}' for name in stored)});\n    RETURN NEW;\nEND $$"
    )
    refuse = (
        f"CREATE FUNCTION flowledger_{table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',"
        f" MESSAGE = '{READ_ONLY[view]}';\nEND $$"
    )
    return [
        insert,
        refuse,
        f"REVOKE ALL ON FUNCTION flowledger_{table}_insert() FROM PUBLIC",
        f"CREATE TRIGGER {table}_insert INSTEAD OF INSERT ON {view} FOR EACH ROW"
        f" EXECUTE FUNCTION flowledger_{table}_insert()",
        f"CREATE TRIGGER {table}_refuse INSTEAD OF UPDATE OR DELETE ON {view} FOR EACH ROW"
        f" EXECUTE FUNCTION flowledger_{table}_refuse()",
    ]
