"""The product's append statement without the product: arrays made beforehand, one call a batch."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

import psycopg

from application.ports import Append
from infrastructure.event_store.codec import Codec
from infrastructure.event_store.group_commit import Pending, Written
from infrastructure.event_store.postgres import APPEND, PostgresWriter
from infrastructure.event_store.queue_writes import QueueRows, queue_rows

RAW_WORKER = "raw"
TYPES = (
    *("uuid[]", "bigint[]", "text[]", "bytea[]", "text", "bigint"),
    *("uuid[]", "bigint[]", "text[]", "bigint[]", "bigint[]", "boolean[]"),
    *("uuid[]", "bigint[]", "bigint[]"),
    *("uuid[]", "bigint[]", "bigint[]", "bigint[]", "boolean[]"),
    *("uuid[]", "bigint[]", "uuid[]", "uuid[]", "bigint[]"),
)
RAW_STATEMENT = (
    "SELECT positions, epochs FROM flowledger_append_v2("
    + ", ".join(f"%b::{kind}" for kind in TYPES)
    + ")"
).encode()
QUEUE_ROWS = {kind: get_args(rows)[0] for kind, rows in get_type_hints(QueueRows).items()}
"""The form of each kind of row, in the order of the statement."""
BINARY = [1] * 4 + [0] + [1] * 20


class RawBatch(NamedTuple):
    """One call's parameters, as Python lists and as the bytes that travel."""

    lists: list[Any]
    encoded: list[bytes]


def raw_writer(url: str) -> PostgresWriter:
    """The product's writer, which encodes batches."""
    return PostgresWriter(
        url, worker=RAW_WORKER, lease_seconds=60, lock_seconds=1, answer_seconds=5
    )


def store(url: str, batch: Sequence[Pending]) -> Written:
    """Store what must be there before, in one call."""

    async def write() -> Written:
        how: asyncio.Future[Written | Exception] = asyncio.get_running_loop().create_future()
        writer = raw_writer(url)
        writer.begin(batch, how.set_result)
        stored = await how
        writer.close()
        if isinstance(stored, Exception):
            raise stored
        return stored

    return asyncio.run(write())


def pending(append: Append, codec: Codec) -> Pending:
    """An append as the committer hands it to the writer."""
    return Pending(append, codec.encode(append.events), None, 0.0)  # type: ignore[arg-type]  # nobody waits


def raw_batch(batch: Sequence[Pending], writer: PostgresWriter) -> RawBatch:
    """What one call stores, in both forms."""
    return RawBatch(_lists(batch), writer._parameters(batch))


def _lists(batch: Sequence[Pending]) -> list[Any]:
    events = [event for each in batch for event in each.append.events]
    queue = queue_rows([each.append for each in batch])
    columns = [
        [getattr(row, name) for row in getattr(queue, kind)]
        for kind, form in QUEUE_ROWS.items()
        for name in form._fields
    ]
    return [
        [event.execution_id for event in events],
        [event.version for event in events],
        [event.data.TOPIC for event in events],
        [state for each in batch for state in each.states],
        RAW_WORKER,
        60_000_000,
        *columns,
    ]


def append_by_psycopg(
    connection: psycopg.Connection[Any], batches: Sequence[RawBatch]
) -> list[float]:
    """Seconds of each call, one after the other, through a psycopg cursor."""
    cursor = connection.cursor(binary=True)
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        cursor.execute(RAW_STATEMENT, batch.lists, prepare=True)
        cursor.fetchall()
        seconds.append(time.perf_counter() - started)
    return seconds


def append_by_libpq(
    connection: psycopg.Connection[Any], batches: Sequence[RawBatch]
) -> list[float]:
    """The same through psycopg's libpq layer, nothing left to encode."""
    call = connection.pgconn
    call.prepare(b"raw", APPEND.encode())
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        result = call.exec_prepared(b"raw", batch.encoded, BINARY, 1)
        if result.error_message:
            raise RuntimeError(result.error_message.decode())
        seconds.append(time.perf_counter() - started)
    return seconds
