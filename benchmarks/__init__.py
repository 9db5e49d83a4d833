"""Measurements: each command prints tables for people and, with --json, one JSON object last."""
