"""One file per change of the schema, each for SQLite and PostgreSQL."""
