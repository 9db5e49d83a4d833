"""What a consumer does with each message, and the figures of those who receive."""

import hashlib
from collections import Counter
from typing import Final

from application.bridge import Bridge
from application.incoming import Incoming
from application.messages import (
    POSITION_HEADER,
    ExecutionRequest,
    Message,
    MessageHandler,
    Poison,
    Topics,
)
from interfaces.kafka.reading import read_request, read_result, read_task

TAKEN: Final = "taken"
POISON: Final = "poison"


class ConsumedMessages:
    """Takes execution requests, cancellations and results."""

    def __init__(self, incoming: Incoming, topics: Topics) -> None:
        self._incoming = incoming
        self._topics = topics

    async def __call__(self, message: Message) -> None:
        """See MessageHandler."""
        if message.topic == self._topics.results:
            await self._incoming.record(read_result(message))
            return
        wanted = read_request(message)
        if isinstance(wanted, ExecutionRequest):
            await self._incoming.execute(wanted)
        elif message.header(POSITION_HEADER) is None:
            # What the log told is done already, and the run may have been retried since.
            await self._incoming.cancel(wanted, _identity(message, timed=wanted.at is not None))


class BridgedMessages:
    """Takes tasks of agents."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    async def __call__(self, message: Message) -> None:
        """See MessageHandler."""
        await self._bridge.perform(read_task(message))


class Counted:
    """A handler whose messages are counted, by topic and by what became of them (`taken`,
    `poison`); one that is to come again is not.
    """

    def __init__(self, handle: MessageHandler) -> None:
        self._handle = handle
        self.messages: Counter[tuple[str, str]] = Counter()

    async def __call__(self, message: Message) -> None:
        """See MessageHandler."""
        try:
            await self._handle(message)
        except Poison:
            self.messages[message.topic, POISON] += 1
            raise
        self.messages[message.topic, TAKEN] += 1


def _identity(message: Message, *, timed: bool) -> str:
    """What tells a message from others: its contents, and its place when these have no time."""
    digest = hashlib.sha256(message.value).hexdigest()
    if timed or message.place is None:
        return digest
    return f"{digest}/{message.place.partition}/{message.place.offset}"
