"""Readers that tail the log, and the append function without the lock that lets them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg

from infrastructure.database import Store

APPEND = "flowledger_append_v2"
LOCK = "PERFORM pg_advisory_xact_lock"


def variant(url: str, name: str, *, locked: bool) -> str:
    """A copy of the append function, on request without its lock."""
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT pg_get_functiondef('{APPEND}'::regproc)").fetchone()
        assert row is not None
        text = str(row[0]).replace(APPEND, name)
        assert LOCK in text
        if not locked:
            text = text.replace(LOCK, "PERFORM abs")
        connection.execute(text.encode())
    return name


class Tail(threading.Thread):
    """Reads the log behind `after` until told to stop, and then to its end."""

    def __init__(self, store: Store, after: int = 0) -> None:
        super().__init__()
        self._after = after
        self.seen: list[UUID] = []
        self._log = store.log
        self._writers_done = threading.Event()

    def run(self) -> None:
        position = self._after
        while True:
            last_round = self._writers_done.is_set()
            while batch := self._log.read_batch(position, 50):
                self.seen += [entry.event.execution_id for entry in batch]
                position = batch[-1].position
            if last_round:
                return

    def finish(self) -> list[UUID]:
        self._writers_done.set()
        self.join()
        return self.seen


@contextmanager
def tails(store: Store, count: int, after: int = 0) -> Iterator[list[Tail]]:
    """Running readers, which finish at the latest when the block ends."""
    threads = [Tail(store, after) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.finish()
