"""The messages of one partition on their way through the handler, in the event loop."""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from application.messages import NOT_NOW, DeadLetters, Message, MessageHandler, Poison

RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
FAILURES_MAX: Final = 3
"""How often a handler may fail in a way nobody foresaw before the message is put aside."""

_log = logging.getLogger("flowledger.kafka")


class Partition:
    """Takes messages in order of offset and handles up to `at_once` of them at a time, those of one
    key one after the other if they are to be `in_order`.

    `done` is the offset up to which (exclusive) all are handled; `moved` is called when it grows.
    """

    def __init__(
        self,
        handle: MessageHandler,
        dead_letters: DeadLetters,
        *,
        at_once: int,
        in_order: bool = True,
        moved: Callable[[], None],
    ) -> None:
        self.done: int | None = None
        self.retrying: str | None = None
        """Why a message is tried again and again; None when none is."""
        self._handle = handle
        self._dead_letters = dead_letters
        self._at_once = at_once
        self._in_order = in_order
        self._moved = moved
        self._open: OrderedDict[int, bool] = OrderedDict()
        """By offset, in order: whether it is handled."""
        self._waiting: deque[Message] = deque()
        self._behind: dict[bytes, deque[Message]] = {}
        """By key of a message in hand: those of the same key that came after it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def pending(self) -> int:
        """How many messages are here and not handled."""
        return len(self._open)

    def take(self, messages: list[Message]) -> None:
        """Messages that follow those before."""
        for message in messages:
            assert message.place is not None, "only received messages come here"  # noqa: S101 - a slip of ours
            self._open[message.place.offset] = False
        self._waiting.extend(messages)
        self._begin()

    async def end(self, seconds: float) -> None:
        """Begin nothing more, let end what is in hand, and interrupt it after `seconds`."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self) -> None:
        while self._waiting and len(self._tasks) < self._at_once and not self._closing:
            message = self._waiting.popleft()
            key = self._key(message)
            if key is not None and key in self._behind:
                self._behind[key].append(message)
                continue
            if key is not None:
                self._behind[key] = deque()
            self._start(message)

    def _key(self, message: Message) -> bytes | None:
        """That whose messages follow one another."""
        return message.key if self._in_order else None

    def _start(self, message: Message) -> None:
        task = asyncio.create_task(self._settle(message))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is None:
                self._finish(message)

        task.add_done_callback(ended)

    def _finish(self, message: Message) -> None:
        assert message.place is not None  # noqa: S101 - see `take`
        self._open[message.place.offset] = True
        before = self.done
        while self._open and self._open[next(iter(self._open))]:
            self.done = self._open.popitem(last=False)[0] + 1
        if self.done != before:
            self._moved()
        key = self._key(message)
        if key is not None:
            followers = self._behind[key]
            if followers and not self._closing:
                self._start(followers.popleft())
                return
            del self._behind[key]
        self._begin()

    async def _settle(self, message: Message) -> None:
        """Handle one message until it is taken or put aside."""
        failures = tries = 0
        cause: str | None = None
        while True:
            try:
                if cause is None:
                    await self._handle(message)
                else:
                    await self._dead_letters.add(message, cause)
            except Poison as error:
                cause = str(error)
                _log.warning("message_put_aside", extra={"facts": _facts(message, cause)})
            except NOT_NOW as error:
                self.retrying = str(error)
            except Exception as error:  # noqa: BLE001 - a handler's slip must not stop the partition
                failures += 1
                self.retrying = f"{type(error).__name__}: {error}"
                _log.exception("message_not_handled", extra={"facts": _facts(message, "")})
                if failures >= FAILURES_MAX and cause is None:
                    cause = f"It could not be handled {failures} times: {self.retrying}"
            else:
                self.retrying = None
                return
            if self.retrying is not None:
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1


def _facts(message: Message, cause: str) -> dict[str, object]:
    place = message.place
    return {
        "topic": message.topic,
        "partition": place and place.partition,
        "offset": place and place.offset,
        "cause": cause,
    }
