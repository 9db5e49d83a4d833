"""Messages that nobody can take, and how far what is sent from the log has come."""

from typing import Final

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

POSTGRESQL: Final = (
    """
CREATE TABLE dead_letters (
    id text COLLATE "C" PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    partition_number bigint NOT NULL,
    message_offset bigint NOT NULL,
    message_key bytea,
    message_value bytea NOT NULL,
    headers text NOT NULL,
    cause text NOT NULL,
    received_at timestamptz NOT NULL,
    status text COLLATE "C" NOT NULL,
    replayed_at timestamptz,
    UNIQUE (topic, partition_number, message_offset)
)
""",
    """
CREATE TABLE relay_checkpoints (
    name text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL
)
""",
)
SQLITE: Final = (
    """
CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY,
    topic TEXT NOT NULL,
    partition_number INTEGER NOT NULL,
    message_offset INTEGER NOT NULL,
    message_key BLOB,
    message_value BLOB NOT NULL,
    headers TEXT NOT NULL,
    cause TEXT NOT NULL,
    received_at TEXT NOT NULL,
    status TEXT NOT NULL,
    replayed_at TEXT,
    UNIQUE (topic, partition_number, message_offset)
)
""",
    """
CREATE TABLE relay_checkpoints (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID
""",
)
INDEXES: Final = (
    "CREATE INDEX dead_letters_status ON dead_letters (status, received_at, id)",
    "CREATE INDEX outside_run_ids_execution ON outside_run_ids (workspace_id, execution_run_id)",
)


def upgrade() -> None:
    """Add the two tables, the order in which dead letters are listed, and the way from an
    execution to the name that others have for it.
    """
    bind = op.get_bind()
    for statement in (*(POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE), *INDEXES):
        bind.exec_driver_sql(statement)
