"""The event log on SQLite and PostgreSQL: codec, recorders, group commit, state cache."""
