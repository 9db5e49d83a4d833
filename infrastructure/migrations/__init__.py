"""Schema of the ledger, the queue and the read models: one Alembic chain for both dialects."""
