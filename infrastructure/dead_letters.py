"""The DeadLetterStore port: table `dead_letters` on both back ends."""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from application.dead_letters import OPEN, DeadLetter
from application.messages import Message, Place
from application.reads import Page
from infrastructure.projections.sessions import ProjectionStore, Session
from infrastructure.projections.tables import time_text
from infrastructure.store_health import StoreThreads

_COLUMNS: Final = (
    "id, topic, partition_number, message_offset, message_key, message_value, headers, cause,"
    " received_at, status, replayed_at"
)
# A topic that was made anew begins at offset 0 again: another message may come from the same place.
_ADD: Final = (
    f"INSERT INTO dead_letters AS kept ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
    " ON CONFLICT (topic, partition_number, message_offset) DO UPDATE SET"
    " message_key = excluded.message_key, message_value = excluded.message_value,"
    " headers = excluded.headers, cause = excluded.cause, received_at = excluded.received_at,"
    " status = excluded.status, replayed_at = excluded.replayed_at, claimed_until = NULL"
    " WHERE kept.message_value <> excluded.message_value"
)
_FIND: Final = f"SELECT {_COLUMNS} FROM dead_letters WHERE id = ?"  # noqa: S608 - constants
_CLAIM: Final = (
    "UPDATE dead_letters SET claimed_until = ? WHERE id = ? AND status = ?"  # noqa: S608 - constants
    f" AND (claimed_until IS NULL OR claimed_until <= ?) RETURNING {_COLUMNS}"
)
_RELEASE: Final = "UPDATE dead_letters SET claimed_until = NULL WHERE id = ? AND claimed_until = ?"
_SETTLE: Final = (
    "UPDATE dead_letters SET status = ?, replayed_at = ?, claimed_until = NULL"
    " WHERE id = ? AND status = ? AND claimed_until = ? RETURNING id"
)

T = TypeVar("T")


class DeadLetterTable:
    """See DeadLetterStore. `threads` has one thread, which alone uses the store's connections."""

    def __init__(self, store: ProjectionStore, threads: StoreThreads) -> None:
        self._store = store
        self._threads = threads

    async def add(self, letter: DeadLetter) -> None:
        """See DeadLetterStore."""
        await self._write(lambda session: session.execute(_ADD, _row(letter, session)))

    async def page(
        self, *, status: str | None, topic: str | None, page: int, page_size: int
    ) -> Page[DeadLetter]:
        """See DeadLetterStore."""
        wanted = [("status", status), ("topic", topic)]
        given = [(name, value) for name, value in wanted if value is not None]
        where = " AND ".join(f"{name} = ?" for name, _ in given) or "1 = 1"
        values = [value for _, value in given]

        def read(session: Session) -> Page[DeadLetter]:
            total = session.execute(
                f"SELECT count(*) FROM dead_letters WHERE {where}",  # noqa: S608 - constants
                values,
            )
            rows = session.execute(
                f"SELECT {_COLUMNS} FROM dead_letters WHERE {where}"  # noqa: S608 - constants
                " ORDER BY received_at DESC, id LIMIT ? OFFSET ?",
                (*values, page_size, (page - 1) * page_size),
            )
            count = int(total[0][0])
            pages = -(-count // page_size)
            return Page([_letter(row) for row in rows], count, page, page_size, pages, None)

        return await self._read(read)

    async def find(self, letter_id: str) -> DeadLetter | None:
        """See DeadLetterStore."""
        rows = await self._read(lambda session: session.execute(_FIND, (letter_id,)))
        return _letter(rows[0]) if rows else None

    async def claim(self, letter_id: str, now: datetime, until: datetime) -> DeadLetter | None:
        """See DeadLetterStore."""

        def write(session: Session) -> DeadLetter | None:
            values = (_time(until, session), letter_id, OPEN, _time(now, session))
            rows = session.execute(_CLAIM, values)
            return _letter(rows[0]) if rows else None

        return await self._write(write)

    async def release(self, letter_id: str, claim: datetime) -> None:
        """See DeadLetterStore."""
        await self._write(
            lambda session: session.execute(_RELEASE, (letter_id, _time(claim, session)))
        )

    async def settle(
        self, letter_id: str, claim: datetime, status: str, at: datetime | None
    ) -> bool:
        """See DeadLetterStore."""

        def write(session: Session) -> bool:
            values = (status, _time(at, session), letter_id, OPEN, _time(claim, session))
            return bool(session.execute(_SETTLE, values))

        return await self._write(write)

    async def close(self) -> None:
        """Let go of the connections."""
        await asyncio.to_thread(self._threads.close)
        await asyncio.to_thread(self._store.close)

    async def _write(self, work: Callable[[Session], T]) -> T:
        return await self._threads.run(lambda: self._store.write(work))

    async def _read(self, work: Callable[[Session], T]) -> T:
        def read() -> T:
            with self._store.reading() as session:
                return work(session)

        return await self._threads.run(read)


def _row(letter: DeadLetter, session: Session) -> tuple[object, ...]:
    message = letter.message
    return (
        letter.id,
        message.topic,
        letter.place.partition,
        letter.place.offset,
        message.key,
        message.value,
        json.dumps([_told(*header) for header in message.headers]),
        letter.cause.replace("\x00", ""),
        _time(letter.received_at, session),
        letter.status,
        _time(letter.replayed_at, session),
    )


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    name, topic, partition, offset, key, value, headers, cause, received, status, replayed = row
    place = Place(partition, offset)
    return DeadLetter(
        id=name,
        message=Message(
            topic=topic,
            key=None if key is None else bytes(key),
            value=bytes(value),
            headers=tuple(_heard(*header) for header in json.loads(headers)),
            place=place,
        ),
        place=place,
        cause=cause,
        received_at=_read_time(received),
        status=status,
        replayed_at=None if replayed is None else _read_time(replayed),
    )


def _told(name: str, value: bytes) -> list[str]:
    """A header as JSON: its text, or base64 with a mark."""
    try:
        return [name, value.decode()]
    except UnicodeDecodeError:
        return [name, b64encode(value).decode(), "base64"]


def _heard(name: str, text: str, encoding: str = "") -> tuple[str, bytes]:
    return name, b64decode(text) if encoding else text.encode()


def _time(at: datetime | None, session: Session) -> object:
    """As each back end stores times; on SQLite text whose order is that of time."""
    if at is None or session.dialect == "postgresql":
        return at
    return time_text(at)


def _read_time(stored: datetime | str) -> datetime:
    if isinstance(stored, str):
        return datetime.fromisoformat(stored)
    return stored.astimezone(UTC)
