"""Rows that other programs insert into workflow_runs, workflow_definitions and step_executions.

The views stay the names that people use: triggers put what is inserted into tables of its own, and
the views show it below what the projections hold, until an execution or a workflow takes over.
"""

from typing import Final

from alembic import op

from infrastructure.migrations.outside_triggers import postgresql_triggers, sqlite_triggers

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Times are timestamptz on PostgreSQL, ISO 8601 text with microseconds and Z on SQLite.
TABLES: Final = (
    """
CREATE TABLE outside_runs (
    run_id {text} PRIMARY KEY,
    workflow_id {text},
    workflow_name {text} NOT NULL,
    workflow_definition_id {text},
    status {text} NOT NULL,
    input_data {json} NOT NULL,
    error_message {text},
    triggered_by {text} NOT NULL,
    created_at {time} NOT NULL,
    updated_at {time} NOT NULL,
    completed_at {time},
    cancelled_at {time},
    cancelled_by {text},
    workspace_id {text} NOT NULL
)
""",
    # The execution that a run id names which is not the execution's own.
    """
CREATE TABLE outside_run_ids (
    workspace_id {text} NOT NULL,
    run_id {text} NOT NULL,
    execution_run_id {text} NOT NULL,
    PRIMARY KEY (workspace_id, run_id)
)
""",
    """
CREATE TABLE outside_steps (
    id {text} PRIMARY KEY,
    run_id {text} NOT NULL,
    step_id {text} NOT NULL,
    step_name {text} NOT NULL,
    agent_name {text} NOT NULL,
    status {text} NOT NULL,
    input_data {json},
    output_data {json},
    error_message {text},
    started_at {time},
    completed_at {time},
    workspace_id {text} NOT NULL
)
""",
    "CREATE INDEX outside_steps_run ON outside_steps (run_id)",
    """
CREATE TABLE outside_definitions (
    id {text} PRIMARY KEY,
    name {text} NOT NULL,
    description {text},
    version {integer} NOT NULL,
    workflow_data {json} NOT NULL,
    status {text} NOT NULL,
    created_at {time} NOT NULL,
    updated_at {time} NOT NULL,
    created_by {text} NOT NULL,
    updated_by {text} NOT NULL,
    workspace_id {text} NOT NULL,
    UNIQUE (workspace_id, name, version)
)
""",
)
OWN_RUNS: Final = """
VIEW workflow_runs AS SELECT run_id AS id, run_id, workflow_id, workflow_name,
    workflow_definition_id, status, input_data, error_message, triggered_by, created_at,
    updated_at, completed_at, cancelled_at, cancelled_by, substr(run_id, 5) AS execution_id,
    workspace_id, workflow_version, definition_sha256, sub_status, attempt, version, position,
    atomic_mode, priority, labels, simulate, output, partial, error, steps_total, steps_done,
    steps_failed, steps_skipped, steps_running, progress, waiting_on, start_at, started_at,
    duration_ms, allowed_actions, steps_recovered, forked_from, forked_from_version,
    forked_from_step, parent, parent_run_id FROM workflow_runs_v1
"""
OWN_STEPS: Final = """
VIEW step_executions AS SELECT substr(run_id, 5) || ':' || attempt || ':' || path ||
    ':' || try_no AS id, substr(run_id, 5) || ':' || attempt || ':' || path || ':' || try_no
    AS step_execution_id, run_id, step_id, step_name, agent_name, status, input_data,
    output_data, error_message, started_at, completed_at, path, attempt, try_no, action,
    sub_status, error_class, error, why, delivery, progress, due_at, duration_ms,
    workspace_id, position, substr(run_id, 5) AS execution_id FROM step_executions_v1
"""
OWN_DEFINITIONS: Final = """
VIEW workflow_definitions AS SELECT id, name, description, version, workflow_data,
    status, created_at, updated_at, created_by, updated_by, workflow_id, definition_sha256,
    definition, newest, workspace_id FROM workflow_definitions_v1
"""
OWN: Final = {
    "workflow_runs": OWN_RUNS,
    "step_executions": OWN_STEPS,
    "workflow_definitions": OWN_DEFINITIONS,
}

VIEWS: Final = {
    "workflow_runs": "outside_runs",
    "step_executions": "outside_steps",
    "workflow_definitions": "outside_definitions",
}
# Columns that these rows do not have are null, of the type that stands above: SQLite looks into a
# union only when both sides have the same types.
OUTSIDE: Final = {
    "workflow_runs": """
SELECT o.run_id, o.run_id, o.workflow_id, o.workflow_name, o.workflow_definition_id, o.status,
    o.input_data, o.error_message, o.triggered_by, o.created_at, o.updated_at, o.completed_at,
    o.cancelled_at, o.cancelled_by, NULL, o.workspace_id, {no_integer}, {no_text}, {no_text},
    {no_integer}, {no_integer}, {no_integer}, {no_text}, {no_integer}, {no_jsonb}, {no_boolean},
    {no_json}, {no_boolean}, {no_json}, {no_integer}, {no_integer}, {no_integer}, {no_integer},
    {no_integer}, {no_integer}, {no_json}, {no_time}, {no_time}, {no_integer}, {no_json},
    {no_integer}, {no_text}, {no_integer}, {no_text}, {no_json}, {no_text} FROM outside_runs o
    WHERE NOT EXISTS (SELECT 1 FROM workflow_runs_v1 r WHERE r.run_id = o.run_id)
    AND NOT EXISTS (SELECT 1 FROM outside_run_ids n
    JOIN workflow_runs_v1 r ON r.run_id = n.execution_run_id
    WHERE n.workspace_id = o.workspace_id AND n.run_id = o.run_id)
""",
    "step_executions": """
SELECT o.id || '', o.id || '', o.run_id, o.step_id, o.step_name, o.agent_name, o.status,
    o.input_data, o.output_data, o.error_message, o.started_at, o.completed_at, {no_text},
    {no_integer}, {no_integer}, {no_text}, {no_text}, {no_text}, {no_json}, {no_text},
    {no_integer}, {no_json}, {no_time}, {no_integer}, o.workspace_id, {no_integer}, NULL
    FROM outside_steps o
    WHERE NOT EXISTS (SELECT 1 FROM step_executions_v1 r WHERE r.run_id = o.run_id)
    AND NOT EXISTS (SELECT 1 FROM outside_run_ids n
    JOIN step_executions_v1 r ON r.run_id = n.execution_run_id
    WHERE n.workspace_id = o.workspace_id AND n.run_id = o.run_id)
""",
    "workflow_definitions": """
SELECT o.id, o.name, o.description, o.version, o.workflow_data, o.status, o.created_at,
    o.updated_at, o.created_by, o.updated_by,
    CAST('wf-' || o.name || '-' || o.version AS {bare_text}), {no_text}, {no_json},
    CAST(NOT EXISTS (SELECT 1 FROM outside_definitions n WHERE n.workspace_id = o.workspace_id
    AND n.name = o.name AND n.version > o.version) AS {boolean}), o.workspace_id
    FROM outside_definitions o
    WHERE NOT EXISTS (SELECT 1 FROM workflow_definitions_v1 r
    WHERE r.workspace_id = o.workspace_id AND r.name = o.name AND r.newest)
""",
}


def _types(dialect: str) -> dict[str, str]:
    """What stands for the names in braces."""
    if dialect == "sqlite":
        bare = dict.fromkeys(("text", "time", "json", "jsonb"), "TEXT")
        bare |= dict.fromkeys(("integer", "boolean"), "INTEGER")
    else:
        bare = {each: each for each in ("text", "boolean", "json", "jsonb")}
        bare |= {"integer": "bigint", "time": "timestamptz"}
    nulls = {f"no_{name}": f"CAST(NULL AS {kind})" for name, kind in bare.items()}
    collated = bare["text"] if dialect == "sqlite" else 'text COLLATE "C"'
    return bare | nulls | {"text": collated, "bare_text": bare["text"]}


def upgrade() -> None:
    """Add tables, then views over both, then triggers. Views of others stay over ours."""
    bind = op.get_bind()
    dialect = bind.dialect.name
    types = _types(dialect)
    statements = [each.format(**types) for each in TABLES]
    for view in VIEWS:
        text = f"{OWN[view].strip()} UNION ALL {OUTSIDE[view].strip().format(**types)}"
        if dialect == "sqlite":
            statements += [f"DROP VIEW {view}", f"CREATE {text}", *sqlite_triggers(view)]
        else:
            statements += [f"CREATE OR REPLACE {text}", *postgresql_triggers(view)]
    for statement in statements:
        bind.exec_driver_sql(statement)


def downgrade() -> None:
    """Back to views over the projections alone. What other programs inserted is lost."""
    bind = op.get_bind()
    statements = []
    for view, table in VIEWS.items():
        if bind.dialect.name == "sqlite":
            statements += [f"DROP VIEW {view}", f"CREATE {OWN[view].strip()}"]
        else:
            statements += [
                f"DROP TRIGGER {table}_{name} ON {view}" for name in ("insert", "refuse")
            ]
            statements += [
                f"DROP FUNCTION flowledger_{table}_{name}()" for name in ("insert", "refuse")
            ]
            statements.append(f"CREATE OR REPLACE {OWN[view].strip()}")
        statements.append(f"DROP TABLE {table}")
    for statement in (*statements, "DROP TABLE outside_run_ids"):
        bind.exec_driver_sql(statement)
