"""Connections to PostgreSQL whose statements end in bounded time, whatever happens on the way."""

from collections.abc import Sequence
from typing import Any, Final

import psycopg

CONNECTING: Final[dict[str, Any]] = {  # parameters of libpq
    "connect_timeout": 2,
    # A host or a network that vanished is noticed within some seconds, not within hours.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6_000,
}
SERVER_NOTICES_VANISHED: Final = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)
"""For connections that hold what others wait for: the server lets go when the client vanished."""


def session_settings(lock_seconds: float, answer_seconds: float) -> tuple[str, ...]:
    """What makes the statements of a connection end in bounded time."""
    answer_ms = int(answer_seconds * 1000)
    return (
        f"SET lock_timeout = {int(lock_seconds * 1000)}",
        f"SET statement_timeout = {answer_ms}",
        f"SET idle_in_transaction_session_timeout = {answer_ms}",
    )


def connect(
    dsn: str, *, lock_seconds: float, answer_seconds: float, statements: Sequence[str] = ()
) -> psycopg.Connection:
    """A connection in autocommit mode whose statements end in bounded time.

    Raises psycopg.OperationalError when there is none to be had within two seconds.
    """
    connection = psycopg.connect(dsn, autocommit=True, **CONNECTING)
    try:
        for statement in (*session_settings(lock_seconds, answer_seconds), *statements):
            connection.execute(statement.encode())
    except BaseException:
        connection.close()
        raise
    return connection
