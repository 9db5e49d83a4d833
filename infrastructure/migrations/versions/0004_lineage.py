"""The execution that one was forked from: three columns of `workflow_runs`, last in its view.

Nothing that exists was forked, so the new columns are right without a rebuild.
"""

from typing import Final

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

POSTGRESQL: Final = (
    """
ALTER TABLE workflow_runs_v1
    ADD COLUMN forked_from text COLLATE "C",
    ADD COLUMN forked_from_version bigint,
    ADD COLUMN forked_from_step text COLLATE "C"
""",
)
SQLITE: Final = (
    "ALTER TABLE workflow_runs_v1 ADD COLUMN forked_from TEXT",
    "ALTER TABLE workflow_runs_v1 ADD COLUMN forked_from_version INTEGER",
    "ALTER TABLE workflow_runs_v1 ADD COLUMN forked_from_step TEXT",
)
INDEX: Final = """
CREATE INDEX workflow_runs_v1_forks_g0 ON workflow_runs_v1 (forked_from, created_at, run_id)
    WHERE forked_from IS NOT NULL
"""
VIEW: Final = """
VIEW workflow_runs AS SELECT run_id AS id, run_id, workflow_id, workflow_name,
    workflow_definition_id, status, input_data, error_message, triggered_by, created_at,
    updated_at, completed_at, cancelled_at, cancelled_by, substr(run_id, 5) AS execution_id,
    workspace_id, workflow_version, definition_sha256, sub_status, attempt, version, position,
    atomic_mode, priority, labels, simulate, output, partial, error, steps_total, steps_done,
    steps_failed, steps_skipped, steps_running, progress, waiting_on, start_at, started_at,
    duration_ms, allowed_actions, steps_recovered, forked_from, forked_from_version,
    forked_from_step
    FROM workflow_runs_v1
"""


def upgrade() -> None:
    """Add them; the index finds the forks of an execution. Views of others stay over ours."""
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        statements = [*POSTGRESQL, INDEX, f"CREATE OR REPLACE {VIEW.strip()}"]
    else:
        statements = [*SQLITE, INDEX, "DROP VIEW workflow_runs", f"CREATE {VIEW.strip()}"]
    for statement in statements:
        bind.exec_driver_sql(statement)
