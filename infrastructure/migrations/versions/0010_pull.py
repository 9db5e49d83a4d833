"""Tasks of agents, and the leases of the workers that ask for them."""

from typing import Final

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# A lease outlives its task by a while, for a worker may send its result twice. `settled` says that
# the task has ended in the log, which the tables follow a little later.
POSTGRESQL: Final = (
    """
CREATE TABLE agent_tasks_v1 (
    run_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C" NOT NULL,
    workflow_name text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    try_no bigint NOT NULL,
    agent_name text COLLATE "C" NOT NULL,
    transport text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    dispatched_at timestamptz NOT NULL,
    deadline_at timestamptz,
    ended_at timestamptz,
    input_data json,
    workspace_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT agent_tasks_v1_key_g0 PRIMARY KEY (run_id, attempt, path, try_no)
)
""",
    """
CREATE TABLE task_leases (
    run_id text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    path text COLLATE "C" NOT NULL,
    try_no bigint NOT NULL,
    workspace_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C" NOT NULL,
    worker_id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    lease_until bigint NOT NULL,
    deliveries bigint NOT NULL,
    settled boolean NOT NULL,
    PRIMARY KEY (run_id, attempt, path, try_no)
)
""",
)
SQLITE: Final = (
    """
CREATE TABLE agent_tasks_v1 (
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    workflow_name TEXT NOT NULL,
    path TEXT NOT NULL,
    step_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    try_no INTEGER NOT NULL,
    agent_name TEXT NOT NULL,
    transport TEXT NOT NULL,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL,
    dispatched_at TEXT NOT NULL,
    deadline_at TEXT,
    ended_at TEXT,
    input_data TEXT,
    workspace_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (run_id, attempt, path, try_no)
)
""",
    """
CREATE TABLE task_leases (
    run_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    path TEXT NOT NULL,
    try_no INTEGER NOT NULL,
    workspace_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    PRIMARY KEY (run_id, attempt, path, try_no)
) WITHOUT ROWID
""",
)
ALIKE: Final = (
    """
CREATE INDEX agent_tasks_v1_offered_g0 ON agent_tasks_v1 (workspace_id, agent_name, priority,
    dispatched_at) WHERE status = 'OPEN' AND transport = 'pull'
""",
    """
CREATE INDEX agent_tasks_v1_status_g0 ON agent_tasks_v1 (workspace_id, status, dispatched_at)
""",
    "CREATE INDEX agent_tasks_v1_task_g0 ON agent_tasks_v1 (task_id)",
    "CREATE VIEW agent_tasks AS SELECT task_id, run_id, substr(run_id, 5) AS execution_id,"
    " correlation_id, workflow_name, path, step_id, attempt, try_no, agent_name, transport, status,"
    " priority, dispatched_at, deadline_at, ended_at, input_data, workspace_id, position"
    " FROM agent_tasks_v1",
    "CREATE INDEX task_leases_task ON task_leases (task_id)",
    "CREATE INDEX task_leases_until ON task_leases (lease_until)",
)


def upgrade() -> None:
    """Add the tables and the view; a projection that is new is filled from the log by itself."""
    bind = op.get_bind()
    for statement in (*(POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE), *ALIKE):
        bind.exec_driver_sql(statement)
