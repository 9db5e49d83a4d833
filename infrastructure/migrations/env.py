"""What Alembic runs for a migration: on the connection it is handed, else on `-x url=...`."""

from alembic import context
from sqlalchemy import Connection

from infrastructure.migrations.migrate import upgrade_connection


def migrate(connection: Connection) -> None:
    """Run the migrations in the transaction that `connection` is in."""
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


handed = context.config.attributes.get("connection")
if handed is not None:
    migrate(handed)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("name the database: alembic -x url=sqlite:///ledger.db upgrade head")
    with upgrade_connection(url) as opened:
        migrate(opened)
