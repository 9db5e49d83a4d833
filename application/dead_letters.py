"""Messages that could not be taken, or could not be sent: kept with the cause until a person sends
them again or drops them.
"""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import uuid5

from msgspec import Struct

from application.messages import (
    NOT_NOW,
    BrokerAway,
    Message,
    MessagePublisher,
    Place,
    Undeliverable,
)
from application.ports import Clock
from application.reads import Page
from domain.errors import NotFound, NotReady, StateConflict
from domain.workflow import NAMESPACE

OPEN: Final = "OPEN"
REPLAYED: Final = "REPLAYED"
DISCARDED: Final = "DISCARDED"
REPLAY: Final = "replay"
DISCARD: Final = "discard"
CAUSE_CHARACTERS_MAX: Final = 2_000
REPLAY_SECONDS_MAX: Final = 10.0
CLAIM_SECONDS: Final = 30
"""How long a dead letter is kept for who sends it, should its process be lost."""
REPLAY_HEADER: Final = "flowledger-dead-letter"
"""Header of a message that was sent again: the id of its dead letter."""
NOT_SENT: Final = -1
"""Partition of a message that the broker would not take; its offset is the log's position."""


class DeadLetter(Struct, frozen=True, kw_only=True):
    """One of them. `replayed_at` is when it was last sent again."""

    id: str
    message: Message
    place: Place
    cause: str
    received_at: datetime
    status: str
    replayed_at: datetime | None


class DeadLetterView(Struct, frozen=True):
    """One of them as callers see it.

    `key` and `value` are texts when they are UTF-8; `encoding` is base64 when they are not. A list
    leaves `value` out (null) and tells its size only.
    """

    id: str
    status: str
    topic: str
    partition: int
    offset: int
    key: str | None
    value: str | None
    value_bytes: int
    encoding: str
    headers: dict[str, str]
    cause: str
    received_at: datetime
    replayed_at: datetime | None
    allowed_actions: Sequence[str]


class DeadLetterStore(Protocol):
    """The table. Every call may raise StoreUnavailable, Overloaded or UnknownOutcome."""

    async def add(self, letter: DeadLetter) -> None:
        """Keep it; the same message from the same place is kept once."""

    async def page(
        self, *, status: str | None, topic: str | None, page: int, page_size: int
    ) -> Page[DeadLetter]:
        """The newest first."""

    async def find(self, letter_id: str) -> DeadLetter | None:
        """One of them."""

    async def claim(self, letter_id: str, now: datetime, until: datetime) -> DeadLetter | None:
        """Take an OPEN one that nobody has, to decide about it alone; None when there is no such
        one. `until` ends the claim and is its name.
        """

    async def release(self, letter_id: str, claim: datetime) -> None:
        """Give a claim back, if it still holds."""

    async def settle(
        self, letter_id: str, claim: datetime, status: str, at: datetime | None
    ) -> bool:
        """Give a claimed one its last status; False when somebody else has it by now. `at` is when
        it was sent again.
        """


class DeadLetterOffice:
    """The use cases; also the receivers' DeadLetters port."""

    def __init__(
        self, store: DeadLetterStore, clock: Clock, publisher: MessagePublisher | None
    ) -> None:
        """`publisher` is None where no broker is configured: nothing can be sent again there."""
        self._store = store
        self._clock = clock
        self._publisher = publisher

    async def add(self, message: Message, cause: str) -> None:
        """See DeadLetters."""
        assert message.place is not None, "it names the place it was found at"  # noqa: S101 - a slip of ours
        place = message.place
        text = f"dead letter\n{message.topic}\n{place.partition}\n{place.offset}"
        letter = DeadLetter(
            id=str(uuid5(NAMESPACE, text)),
            message=message,
            place=place,
            cause=cause[:CAUSE_CHARACTERS_MAX],
            received_at=self._clock.now(),
            status=OPEN,
            replayed_at=None,
        )
        await self._store.add(letter)

    async def list(
        self, *, status: str | None, topic: str | None, page: int, page_size: int
    ) -> Page[DeadLetterView]:
        """The newest first, without their values."""
        found = await self._store.page(status=status, topic=topic, page=page, page_size=page_size)
        return Page(
            [_view(each, in_full=False) for each in found.items],
            found.total,
            found.page,
            found.page_size,
            found.total_pages,
            found.next_cursor,
        )

    async def show(self, letter_id: str) -> DeadLetterView:
        """One in full. Raises NotFound."""
        return _view(await self._found(letter_id), in_full=True)

    async def replay(self, letter_id: str) -> DeadLetterView:
        """Send it to its topic once more. Raises NotFound, StateConflict, NotReady."""
        letter, claim = await self._claimed(letter_id, REPLAY)
        try:
            await self._send(letter)
        except (NotReady, StateConflict):
            await self._release(letter_id, claim)
            raise
        await self._store.settle(letter_id, claim, REPLAYED, self._clock.now())
        return await self.show(letter_id)

    async def discard(self, letter_id: str) -> DeadLetterView:
        """Say that it is of no use. Raises NotFound, StateConflict."""
        _, claim = await self._claimed(letter_id, DISCARD)
        try:
            await self._store.settle(letter_id, claim, DISCARDED, None)
        except NOT_NOW:
            await self._release(letter_id, claim)
            raise
        return await self.show(letter_id)

    async def _release(self, letter_id: str, claim: datetime) -> None:
        with suppress(*NOT_NOW):  # then it ends by time
            await self._store.release(letter_id, claim)

    async def _send(self, letter: DeadLetter) -> None:
        if self._publisher is None:
            raise NotReady(
                "This process has no Kafka to send it to; set FLOWLEDGER_KAFKA_BROKERS and start "
                "it again.",
                60,
            )
        health = self._publisher.health()
        if not health.answers:
            raise NotReady(f"It was not sent: {health.detail}")
        sent = Message(
            topic=letter.message.topic,
            key=letter.message.key,
            value=letter.message.value,
            headers=(*letter.message.headers, (REPLAY_HEADER, letter.id.encode())),
        )
        try:
            async with asyncio.timeout(REPLAY_SECONDS_MAX):
                await self._publisher.publish([sent])
        except TimeoutError as error:
            raise NotReady(
                f"Kafka has not taken it within {REPLAY_SECONDS_MAX:g} s, and may still; look at "
                "its consumer before you send it again."
            ) from error
        except BrokerAway as error:
            raise NotReady(f"It was not sent: {error}") from error
        except Undeliverable as error:  # the same again would be refused again
            raise StateConflict(
                f"Kafka refuses it ({error}). Change that first, as max.message.bytes of the "
                f"topic {letter.message.topic} for one that is too large, or discard it.",
                current_status=letter.status,
                allowed_actions=(REPLAY, DISCARD),
            ) from error

    async def _claimed(self, letter_id: str, action: str) -> tuple[DeadLetter, datetime]:
        """The letter and the claim to it, when it is OPEN and nobody else has it just now."""
        now = self._clock.now()
        claim = now + timedelta(seconds=CLAIM_SECONDS)
        claimed = await self._store.claim(letter_id, now, claim)
        if claimed is not None:
            return claimed, claim
        letter = await self._found(letter_id)
        if letter.status != OPEN:
            raise StateConflict(
                f"This dead letter is {letter.status}; only an {OPEN} one can be {action}ed.",
                current_status=letter.status,
            )
        raise StateConflict(
            "This dead letter is being sent right now; read it again in a moment. If whoever sends "
            f"it was lost, it can be {action}ed {CLAIM_SECONDS} s after that began.",
            current_status=letter.status,
        )

    async def _found(self, letter_id: str) -> DeadLetter:
        letter = await self._store.find(letter_id)
        if letter is None:
            raise NotFound(
                f"There is no dead letter {letter_id}; GET /api/v1/dead-letters lists them."
            )
        return letter


def _view(letter: DeadLetter, *, in_full: bool) -> DeadLetterView:
    message, place = letter.message, letter.place
    parts = [message.key or b"", message.value]
    binary = not all(map(_is_text, parts))

    def told(value: bytes) -> str:
        return b64encode(value).decode() if binary else value.decode()

    return DeadLetterView(
        id=letter.id,
        status=letter.status,
        topic=message.topic,
        partition=place.partition,
        offset=place.offset,
        key=None if message.key is None else told(message.key),
        value=told(message.value) if in_full else None,
        value_bytes=len(message.value),
        encoding="base64" if binary else "utf-8",
        headers={name: value.decode(errors="replace") for name, value in message.headers},
        cause=letter.cause,
        received_at=letter.received_at,
        replayed_at=letter.replayed_at,
        allowed_actions=(REPLAY, DISCARD) if letter.status == OPEN else (),
    )


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
