"""Until when somebody has a dead letter to send or to discard it."""

from typing import Final

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

POSTGRESQL: Final = "ALTER TABLE dead_letters ADD COLUMN claimed_until timestamptz"
SQLITE: Final = "ALTER TABLE dead_letters ADD COLUMN claimed_until TEXT"


def upgrade() -> None:
    """Add the column; nobody has any now."""
    bind = op.get_bind()
    bind.exec_driver_sql(POSTGRESQL if bind.dialect.name == "postgresql" else SQLITE)
