"""The projections: tables, public views over them, how far each has come, what stopped one.

Written out as it was released; the code's own idea of the tables is held to it by a test. Times are
timestamptz on PostgreSQL and ISO 8601 text with microseconds and Z on SQLite.
"""

from typing import Final

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What both back ends read alike. `position` is that of the last event that the table holds;
# `generation` counts rebuilds; `rebuild_position` is how far a running rebuild has come.
CHECKPOINTS: Final = """
CREATE TABLE projection_checkpoints (
    name text NOT NULL,
    version integer NOT NULL,
    position bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'paused')),
    generation integer NOT NULL,
    rebuild_position bigint,
    PRIMARY KEY (name, version)
)
"""
FAILURES: Final = """
CREATE TABLE projection_failures (
    name text NOT NULL,
    version integer NOT NULL,
    position bigint NOT NULL,
    topic text NOT NULL,
    execution_id text NOT NULL,
    cause text NOT NULL,
    PRIMARY KEY (name, version)
)
"""

POSTGRESQL: Final = (
    """
CREATE TABLE workflow_runs_v1 (
    run_id text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    workflow_name text COLLATE "C" NOT NULL,
    workflow_definition_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    input_data json,
    error_message text COLLATE "C",
    triggered_by text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    completed_at timestamptz,
    cancelled_at timestamptz,
    cancelled_by text COLLATE "C",
    workspace_id text COLLATE "C" NOT NULL,
    workflow_version bigint NOT NULL,
    definition_sha256 text COLLATE "C" NOT NULL,
    sub_status text COLLATE "C",
    attempt bigint NOT NULL,
    version bigint NOT NULL,
    position bigint NOT NULL,
    atomic_mode text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    labels jsonb,
    simulate boolean NOT NULL,
    output json,
    partial boolean NOT NULL,
    error json,
    steps_total bigint NOT NULL,
    steps_done bigint NOT NULL,
    steps_failed bigint NOT NULL,
    steps_skipped bigint NOT NULL,
    steps_running bigint NOT NULL,
    progress bigint NOT NULL,
    waiting_on json,
    start_at timestamptz,
    started_at timestamptz,
    duration_ms bigint,
    allowed_actions json,
    CONSTRAINT workflow_runs_v1_key_g0 PRIMARY KEY (run_id)
)
""",
    """
CREATE INDEX workflow_runs_v1_created_g0 ON workflow_runs_v1 (workspace_id, created_at,
    run_id)
""",
    """
CREATE INDEX workflow_runs_v1_status_g0 ON workflow_runs_v1 (workspace_id, status, created_at,
    run_id)
""",
    """
CREATE INDEX workflow_runs_v1_workflow_g0 ON workflow_runs_v1 (workspace_id, workflow_name,
    created_at, run_id)
""",
    """
CREATE INDEX workflow_runs_v1_duration_g0 ON workflow_runs_v1 (workspace_id, workflow_name,
    duration_ms) WHERE status = 'COMPLETED'
""",
    """
CREATE INDEX workflow_runs_v1_labels_g0 ON workflow_runs_v1 USING gin (labels jsonb_path_ops)
    WHERE labels <> '{}'
""",
    """
CREATE TABLE step_executions_v1 (
    run_id text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    step_name text COLLATE "C" NOT NULL,
    agent_name text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    input_data json,
    output_data json,
    error_message text COLLATE "C",
    started_at timestamptz,
    completed_at timestamptz,
    path text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    try_no bigint NOT NULL,
    action text COLLATE "C" NOT NULL,
    sub_status text COLLATE "C",
    error_class text COLLATE "C",
    error json,
    why text COLLATE "C",
    delivery bigint NOT NULL,
    progress json,
    due_at timestamptz,
    duration_ms bigint,
    workspace_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT step_executions_v1_key_g0 PRIMARY KEY (run_id, attempt, path, try_no)
)
""",
    """
CREATE TABLE state_durations_v1 (
    run_id text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    entered_version bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    entered_at timestamptz NOT NULL,
    left_at timestamptz,
    duration_ms bigint,
    workflow_name text COLLATE "C" NOT NULL,
    workspace_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT state_durations_v1_key_g0 PRIMARY KEY (run_id, path, entered_version)
)
""",
    """
CREATE TABLE workflow_definitions_v1 (
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text COLLATE "C",
    version bigint NOT NULL,
    workflow_data json,
    status text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    updated_by text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    definition_sha256 text COLLATE "C" NOT NULL,
    definition json,
    newest boolean NOT NULL,
    workspace_id text COLLATE "C" NOT NULL,
    CONSTRAINT workflow_definitions_v1_key_g0 PRIMARY KEY (id, version)
)
""",
    """
CREATE INDEX workflow_definitions_v1_newest_g0 ON workflow_definitions_v1 (workspace_id, name)
    WHERE newest
""",
    """
CREATE TABLE workflow_statistics_v1 (
    workspace_id text COLLATE "C" NOT NULL,
    workflow_name text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    executions bigint NOT NULL,
    durations bigint NOT NULL,
    duration_ms_sum bigint NOT NULL,
    CONSTRAINT workflow_statistics_v1_key_g0 PRIMARY KEY (workspace_id, workflow_name, status)
)
""",
    """
CREATE TABLE human_tasks_v1 (
    run_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    workflow_name text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    priority text COLLATE "C" NOT NULL,
    wait boolean NOT NULL,
    title text COLLATE "C" NOT NULL,
    description text COLLATE "C",
    assigned_to text COLLATE "C",
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    completed_by text COLLATE "C",
    result json,
    workspace_id text COLLATE "C" NOT NULL,
    CONSTRAINT human_tasks_v1_key_g0 PRIMARY KEY (run_id, id)
)
""",
    """
CREATE INDEX human_tasks_v1_open_g0 ON human_tasks_v1 (workspace_id, status, created_at, id)
""",
)
SQLITE: Final = (
    """
CREATE TABLE workflow_runs_v1 (
    run_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    workflow_definition_id TEXT NOT NULL,
    status TEXT NOT NULL,
    input_data TEXT,
    error_message TEXT,
    triggered_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    completed_at TEXT,
    cancelled_at TEXT,
    cancelled_by TEXT,
    workspace_id TEXT NOT NULL,
    workflow_version INTEGER NOT NULL,
    definition_sha256 TEXT NOT NULL,
    sub_status TEXT,
    attempt INTEGER NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    atomic_mode TEXT NOT NULL,
    priority INTEGER NOT NULL,
    labels TEXT,
    simulate INTEGER NOT NULL,
    output TEXT,
    partial INTEGER NOT NULL,
    error TEXT,
    steps_total INTEGER NOT NULL,
    steps_done INTEGER NOT NULL,
    steps_failed INTEGER NOT NULL,
    steps_skipped INTEGER NOT NULL,
    steps_running INTEGER NOT NULL,
    progress INTEGER NOT NULL,
    waiting_on TEXT,
    start_at TEXT,
    started_at TEXT,
    duration_ms INTEGER,
    allowed_actions TEXT,
    PRIMARY KEY (run_id)
)
""",
    """
CREATE INDEX workflow_runs_v1_created_g0 ON workflow_runs_v1 (workspace_id, created_at,
    run_id)
""",
    """
CREATE INDEX workflow_runs_v1_status_g0 ON workflow_runs_v1 (workspace_id, status, created_at,
    run_id)
""",
    """
CREATE INDEX workflow_runs_v1_workflow_g0 ON workflow_runs_v1 (workspace_id, workflow_name,
    created_at, run_id)
""",
    """
CREATE INDEX workflow_runs_v1_duration_g0 ON workflow_runs_v1 (workspace_id, workflow_name,
    duration_ms) WHERE status = 'COMPLETED'
""",
    """
CREATE TABLE step_executions_v1 (
    run_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    step_name TEXT NOT NULL,
    agent_name TEXT NOT NULL,
    status TEXT NOT NULL,
    input_data TEXT,
    output_data TEXT,
    error_message TEXT,
    started_at TEXT,
    completed_at TEXT,
    path TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    try_no INTEGER NOT NULL,
    action TEXT NOT NULL,
    sub_status TEXT,
    error_class TEXT,
    error TEXT,
    why TEXT,
    delivery INTEGER NOT NULL,
    progress TEXT,
    due_at TEXT,
    duration_ms INTEGER,
    workspace_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (run_id, attempt, path, try_no)
)
""",
    """
CREATE TABLE state_durations_v1 (
    run_id TEXT NOT NULL,
    path TEXT NOT NULL,
    entered_version INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    entered_at TEXT NOT NULL,
    left_at TEXT,
    duration_ms INTEGER,
    workflow_name TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (run_id, path, entered_version)
) WITHOUT ROWID
""",
    """
CREATE TABLE workflow_definitions_v1 (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    version INTEGER NOT NULL,
    workflow_data TEXT,
    status TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    created_by TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    definition_sha256 TEXT NOT NULL,
    definition TEXT,
    newest INTEGER NOT NULL,
    workspace_id TEXT NOT NULL,
    PRIMARY KEY (id, version)
)
""",
    """
CREATE INDEX workflow_definitions_v1_newest_g0 ON workflow_definitions_v1 (workspace_id, name)
    WHERE newest
""",
    """
CREATE TABLE workflow_statistics_v1 (
    workspace_id TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    status TEXT NOT NULL,
    executions INTEGER NOT NULL,
    durations INTEGER NOT NULL,
    duration_ms_sum INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, workflow_name, status)
) WITHOUT ROWID
""",
    """
CREATE TABLE human_tasks_v1 (
    run_id TEXT NOT NULL,
    id TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    path TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    status TEXT NOT NULL,
    priority TEXT NOT NULL,
    wait INTEGER NOT NULL,
    title TEXT NOT NULL,
    description TEXT,
    assigned_to TEXT,
    created_at TEXT NOT NULL,
    completed_at TEXT,
    completed_by TEXT,
    result TEXT,
    workspace_id TEXT NOT NULL,
    PRIMARY KEY (run_id, id)
)
""",
    """
CREATE INDEX human_tasks_v1_open_g0 ON human_tasks_v1 (workspace_id, status, created_at, id)
""",
)
VIEWS: Final = (
    """
CREATE VIEW workflow_runs AS SELECT run_id AS id, run_id, workflow_id, workflow_name,
    workflow_definition_id, status, input_data, error_message, triggered_by, created_at,
    updated_at, completed_at, cancelled_at, cancelled_by, substr(run_id, 5) AS execution_id,
    workspace_id, workflow_version, definition_sha256, sub_status, attempt, version, position,
    atomic_mode, priority, labels, simulate, output, partial, error, steps_total, steps_done,
    steps_failed, steps_skipped, steps_running, progress, waiting_on, start_at, started_at,
    duration_ms, allowed_actions FROM workflow_runs_v1
""",
    """
CREATE VIEW step_executions AS SELECT substr(run_id, 5) || ':' || attempt || ':' || path ||
    ':' || try_no AS id, substr(run_id, 5) || ':' || attempt || ':' || path || ':' || try_no
    AS step_execution_id, run_id, step_id, step_name, agent_name, status, input_data,
    output_data, error_message, started_at, completed_at, path, attempt, try_no, action,
    sub_status, error_class, error, why, delivery, progress, due_at, duration_ms,
    workspace_id, position, substr(run_id, 5) AS execution_id FROM step_executions_v1
""",
    """
CREATE VIEW state_durations AS SELECT substr(run_id, 5) AS execution_id, run_id, path,
    entered_version, state, attempt, entered_at, left_at, duration_ms, workflow_name,
    workspace_id, position FROM state_durations_v1
""",
    """
CREATE VIEW workflow_definitions AS SELECT id, name, description, version, workflow_data,
    status, created_at, updated_at, created_by, updated_by, workflow_id, definition_sha256,
    definition, newest, workspace_id FROM workflow_definitions_v1
""",
    """
CREATE VIEW workflow_statistics AS SELECT workspace_id, workflow_name, status, executions,
    durations, duration_ms_sum FROM workflow_statistics_v1
""",
    """
CREATE VIEW human_tasks AS SELECT id, run_id, substr(run_id, 5) AS execution_id,
    workflow_name, path, attempt, status, priority, wait, title, description, assigned_to,
    created_at, completed_at, completed_by, result, workspace_id FROM human_tasks_v1
""",
)


def upgrade() -> None:
    """Create everything; the first run of the server fills it from the log."""
    bind = op.get_bind()
    tables = POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE
    for statement in (CHECKPOINTS, FAILURES, *tables, *VIEWS):
        bind.exec_driver_sql(statement)
