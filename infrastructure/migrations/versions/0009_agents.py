"""Agents: the list of them, and their sealed credentials.

Written out as it was released.
"""

from typing import Final

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

POSTGRESQL: Final = (
    """
CREATE TABLE agent_secrets (
    secret_id text COLLATE "C" PRIMARY KEY,
    agent_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    sealed text NOT NULL,
    sealed_at timestamptz NOT NULL
)
""",
    """
CREATE TABLE agents_v1 (
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    url text COLLATE "C",
    description text COLLATE "C",
    auth_type text COLLATE "C" NOT NULL,
    auth_config json,
    timeout_ms bigint NOT NULL,
    retry_config json,
    status text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    updated_by text COLLATE "C" NOT NULL,
    transport text COLLATE "C" NOT NULL,
    protocol text COLLATE "C" NOT NULL,
    circuit_breaker_config json,
    recovery json,
    version bigint NOT NULL,
    workspace_id text COLLATE "C" NOT NULL,
    CONSTRAINT agents_v1_key_g0 PRIMARY KEY (id)
)
""",
)
SQLITE: Final = (
    """
CREATE TABLE agent_secrets (
    secret_id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    sealed TEXT NOT NULL,
    sealed_at TEXT NOT NULL
) WITHOUT ROWID
""",
    """
CREATE TABLE agents_v1 (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    url TEXT,
    description TEXT,
    auth_type TEXT NOT NULL,
    auth_config TEXT,
    timeout_ms INTEGER NOT NULL,
    retry_config TEXT,
    status TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    created_by TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    transport TEXT NOT NULL,
    protocol TEXT NOT NULL,
    circuit_breaker_config TEXT,
    recovery TEXT,
    version INTEGER NOT NULL,
    workspace_id TEXT NOT NULL,
    PRIMARY KEY (id)
)
""",
)
BOTH: Final = (
    "CREATE INDEX agent_secrets_agent ON agent_secrets (agent_id, version)",
    "CREATE INDEX agents_v1_name_g0 ON agents_v1 (workspace_id, name)",
    """
CREATE VIEW agents AS SELECT id, name, url, description, auth_type, auth_config, timeout_ms,
    retry_config, status, created_at, updated_at, created_by, updated_by, transport, protocol,
    circuit_breaker_config, recovery, version, workspace_id FROM agents_v1
""",
)


def upgrade() -> None:
    """Create everything; the next run of the server fills `agents` from the log."""
    bind = op.get_bind()
    for statement in (*(POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE), *BOTH):
        bind.exec_driver_sql(statement)
