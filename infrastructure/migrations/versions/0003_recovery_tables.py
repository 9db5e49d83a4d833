"""Recovery in tables: questions, recovery attempts and their sums, recovered steps of executions.

Written out as it was released. Executions of before have no recovered steps: the event that tells
of one is as young as this schema.
"""

from typing import Final

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

POSTGRESQL: Final = (
    """
ALTER TABLE workflow_runs_v1 ADD COLUMN steps_recovered bigint NOT NULL DEFAULT 0
""",
    """
CREATE TABLE questions_v1 (
    run_id text COLLATE "C" NOT NULL,
    question_id text COLLATE "C" NOT NULL,
    workflow_name text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    options json,
    texts json,
    asked_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    on_timeout text COLLATE "C" NOT NULL,
    answered_at timestamptz,
    answered_by text COLLATE "C",
    answer text COLLATE "C",
    kind text COLLATE "C",
    alternative text COLLATE "C",
    read_as text COLLATE "C",
    workspace_id text COLLATE "C" NOT NULL,
    CONSTRAINT questions_v1_key_g0 PRIMARY KEY (run_id, question_id)
)
""",
    """
CREATE INDEX questions_v1_open_g0 ON questions_v1 (workspace_id, status, asked_at,
    question_id)
""",
    """
CREATE TABLE recovery_attempts_v1 (
    run_id text COLLATE "C" NOT NULL,
    started_version bigint NOT NULL,
    workflow_name text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    recovery_version bigint NOT NULL,
    number bigint NOT NULL,
    strategy text COLLATE "C" NOT NULL,
    alternative text COLLATE "C",
    question_id text COLLATE "C",
    error_class text COLLATE "C" NOT NULL,
    code text COLLATE "C" NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    outcome text COLLATE "C",
    reason text COLLATE "C",
    delay_ms bigint NOT NULL,
    duration_ms bigint,
    recovery_ms bigint,
    worked_ms bigint NOT NULL,
    saved_ms bigint,
    workspace_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT recovery_attempts_v1_key_g0 PRIMARY KEY (run_id, started_version)
)
""",
    """
CREATE INDEX recovery_attempts_v1_took_g0 ON recovery_attempts_v1 (workspace_id,
    strategy, error_class, recovery_ms) WHERE recovery_ms IS NOT NULL
""",
    """
CREATE TABLE recovery_metrics_v1 (
    workspace_id text COLLATE "C" NOT NULL,
    strategy text COLLATE "C" NOT NULL,
    error_class text COLLATE "C" NOT NULL,
    attempts bigint NOT NULL,
    successes bigint NOT NULL,
    failures bigint NOT NULL,
    cancelled bigint NOT NULL,
    recoveries bigint NOT NULL,
    recovery_ms_sum bigint NOT NULL,
    delay_ms_sum bigint NOT NULL,
    saved_ms_sum bigint NOT NULL,
    CONSTRAINT recovery_metrics_v1_key_g0 PRIMARY KEY (workspace_id, strategy, error_class)
)
""",
)
SQLITE: Final = (
    """
DROP VIEW workflow_runs
""",
    """
ALTER TABLE workflow_runs_v1 ADD COLUMN steps_recovered INTEGER NOT NULL DEFAULT 0
""",
    """
CREATE TABLE questions_v1 (
    run_id TEXT NOT NULL,
    question_id TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    step_id TEXT NOT NULL,
    path TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    status TEXT NOT NULL,
    options TEXT,
    texts TEXT,
    asked_at TEXT NOT NULL,
    due_at TEXT NOT NULL,
    on_timeout TEXT NOT NULL,
    answered_at TEXT,
    answered_by TEXT,
    answer TEXT,
    kind TEXT,
    alternative TEXT,
    read_as TEXT,
    workspace_id TEXT NOT NULL,
    PRIMARY KEY (run_id, question_id)
)
""",
    """
CREATE INDEX questions_v1_open_g0 ON questions_v1 (workspace_id, status, asked_at,
    question_id)
""",
    """
CREATE TABLE recovery_attempts_v1 (
    run_id TEXT NOT NULL,
    started_version INTEGER NOT NULL,
    workflow_name TEXT NOT NULL,
    path TEXT NOT NULL,
    step_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    recovery_version INTEGER NOT NULL,
    number INTEGER NOT NULL,
    strategy TEXT NOT NULL,
    alternative TEXT,
    question_id TEXT,
    error_class TEXT NOT NULL,
    code TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT,
    reason TEXT,
    delay_ms INTEGER NOT NULL,
    duration_ms INTEGER,
    recovery_ms INTEGER,
    worked_ms INTEGER NOT NULL,
    saved_ms INTEGER,
    workspace_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (run_id, started_version)
)
""",
    """
CREATE INDEX recovery_attempts_v1_took_g0 ON recovery_attempts_v1 (workspace_id,
    strategy, error_class, recovery_ms) WHERE recovery_ms IS NOT NULL
""",
    """
CREATE TABLE recovery_metrics_v1 (
    workspace_id TEXT NOT NULL,
    strategy TEXT NOT NULL,
    error_class TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    successes INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    recoveries INTEGER NOT NULL,
    recovery_ms_sum INTEGER NOT NULL,
    delay_ms_sum INTEGER NOT NULL,
    saved_ms_sum INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, strategy, error_class)
) WITHOUT ROWID
""",
)
RUNS: Final = """
AS SELECT run_id AS id, run_id, workflow_id, workflow_name,
    workflow_definition_id, status, input_data, error_message, triggered_by, created_at,
    updated_at, completed_at, cancelled_at, cancelled_by, substr(run_id, 5) AS
    execution_id, workspace_id, workflow_version, definition_sha256, sub_status,
    attempt, version, position, atomic_mode, priority, labels, simulate, output,
    partial, error, steps_total, steps_done, steps_failed, steps_skipped, steps_running,
    progress, waiting_on, start_at, started_at, duration_ms, allowed_actions,
    steps_recovered FROM workflow_runs_v1
"""
"""The view `workflow_runs`, with the new column last."""
VIEWS: Final = (
    """
CREATE VIEW questions AS SELECT question_id, run_id, substr(run_id, 5) AS execution_id,
    workflow_name, step_id, path, attempt, status, options, texts, asked_at, due_at,
    on_timeout, answered_at, answered_by, answer, kind, alternative, read_as,
    workspace_id FROM questions_v1
""",
    """
CREATE VIEW recovery_attempts AS SELECT substr(run_id, 5) AS execution_id, run_id,
    started_version, workflow_name, path, step_id, attempt, recovery_version, number,
    strategy, alternative, question_id, error_class, code, started_at, ended_at,
    outcome, reason, delay_ms, duration_ms, recovery_ms, worked_ms, saved_ms,
    workspace_id, position FROM recovery_attempts_v1
""",
    """
CREATE VIEW recovery_metrics AS SELECT workspace_id, strategy, error_class, attempts,
    successes, failures, cancelled, recoveries, recovery_ms_sum, delay_ms_sum,
    saved_ms_sum, recovery_ms_sum / CAST(nullif(recoveries, 0) AS double precision) AS
    recovery_ms_mean FROM recovery_metrics_v1
""",
)


def upgrade() -> None:
    """Create everything; the next run of the server fills the new tables from the log."""
    bind = op.get_bind()
    postgresql = bind.dialect.name == "postgresql"
    verb = "CREATE OR REPLACE VIEW" if postgresql else "CREATE VIEW"
    for statement in (
        *(POSTGRESQL if postgresql else SQLITE),
        f"{verb} workflow_runs {RUNS}",
        *VIEWS,
    ):
        bind.exec_driver_sql(statement)
