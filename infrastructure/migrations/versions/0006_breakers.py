"""Circuit breakers of agents: one record each, shared by all processes."""

from typing import Final

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

POSTGRESQL: Final = """
CREATE TABLE agent_breakers (
    workspace_id text COLLATE "C" NOT NULL,
    agent_name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    breaker json NOT NULL,
    PRIMARY KEY (workspace_id, agent_name)
)
"""
SQLITE: Final = """
CREATE TABLE agent_breakers (
    workspace_id TEXT NOT NULL,
    agent_name TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    breaker TEXT NOT NULL,
    PRIMARY KEY (workspace_id, agent_name)
) WITHOUT ROWID
"""


def upgrade() -> None:
    """Add the table."""
    bind = op.get_bind()
    bind.exec_driver_sql(POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE)
