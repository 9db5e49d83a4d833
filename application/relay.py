"""Sends what the log tells to other systems: the log is the outbox, and nothing else sends.

One process of the cluster does it. It reads the log after its own checkpoint, sends in order, and
moves the checkpoint past what the broker has stored, some times a second; after a crash what was
sent since the last move is sent again. While the broker is away it keeps its place.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct, structs

from application.dead_letters import NOT_SENT
from application.messages import (
    NOT_NOW,
    POSITION_HEADER,
    BrokerAway,
    DeadLetters,
    Message,
    MessagePublisher,
    Place,
    Spelling,
    Undeliverable,
)
from application.ports import Clock, Report
from application.relay_facts import Earlier, Telling, starts_by_request
from domain.events import Recorded

BATCH_MAX: Final = 500
POLL_SECONDS: Final = 1.0
NOTE_SECONDS: Final = 1.0
MOVE_SECONDS: Final = 0.1
"""Between two moves of the checkpoint, unless it is a whole batch behind: the next task does not
wait for the move past the one before.
"""
RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class CheckpointMoved(Exception):
    """Another process moved the relay's checkpoint."""


class RelayLog(Earlier, Protocol):
    """The log for one who sends from it.

    Every call may raise StoreUnavailable or UnknownOutcome.
    """

    async def lead(self) -> bool:
        """Be the one relay of the cluster, now and until the connection is lost."""

    async def position(self) -> int:
        """Up to where everything was sent; where the log ended when Kafka was first set up."""

    async def head(self) -> int:
        """Where the log ends."""

    async def after(self, position: int, limit: int) -> Sequence[Recorded]:
        """The next events. Raises what an event did that this release cannot read, when it is the
        very next one.
        """

    async def move(self, before: int, after: int) -> None:
        """Move the checkpoint. Raises CheckpointMoved when it does not stand at `before`."""

    async def close(self) -> None:
        """Let go of the lead and of the connections."""


class Notes(Protocol):
    """Tells people why executions do not start."""

    async def note(self, execution_ids: Sequence[UUID], reason: str) -> None:
        """Their requests wait, for this reason; the same again is no news."""


class RelayHealth(Struct, frozen=True):
    """Whether this process leads, how far it has sent, and what keeps it from sending, if
    anything does.
    """

    leading: bool
    position: int
    problem: str | None


SENT: Final = "sent"
REFUSED: Final = "refused"


class RelayFigures(Struct, frozen=True, kw_only=True):
    """What the relay of a process did since that started, for operators.

    `waits` while something keeps it from sending. `lag_events` is how far the log is ahead of what
    was sent; None where another process leads, and while the store does not answer. `messages` are
    by topic and SENT or REFUSED; `failures` are the times it had to begin anew.
    """

    leading: bool
    waits: bool
    lag_events: int | None
    messages: Mapping[tuple[str, str], int]
    failures: int


class Relay:
    """`start` and `stop` it in the event loop; `wake` it when something was appended."""

    def __init__(
        self,
        log: RelayLog,
        publisher: MessagePublisher,
        spell: Spelling,
        letters: DeadLetters,
        clock: Clock,
        report: Report,
        notes: Notes,
    ) -> None:
        self._notes = notes
        self._log = log
        self._publisher = publisher
        self._spell = spell
        self._letters = letters
        self._clock = clock
        self._report = report
        self._telling = Telling(log)
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._leading = False
        self._position = 0
        """Up to where all is sent."""
        self._kept = 0
        """Where the checkpoint stands."""
        self._keep_at = clock.now()
        self._problem: str | None = None
        self._messages_sent: Counter[tuple[str, str]] = Counter()
        self._failures = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End at once; what was not confirmed is sent again by the next one. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._leading = False
            with suppress(CheckpointMoved, *NOT_NOW):
                await self._keep()
            await self._log.close()

    def wake(self, *_: object) -> None:
        """Something was appended; in the event loop."""
        self._wanted.set()

    def health(self) -> RelayHealth:
        """As of now; costs nothing."""
        problem = self._problem
        if problem is None and self._leading:
            told = self._publisher.health()
            problem = None if told.answers else told.detail
        return RelayHealth(self._leading, self._position, problem)

    async def figures(self) -> RelayFigures:
        """As of now; looks where the log ends."""
        lag = None
        if self._leading:
            with suppress(*NOT_NOW):
                lag = max(0, await self._log.head() - self._position)
        told = self.health()
        return RelayFigures(
            leading=told.leading,
            waits=told.problem is not None,
            lag_events=lag,
            messages=dict(self._messages_sent),
            failures=self._failures,
        )

    async def _run(self) -> None:
        failures = 0
        while True:
            before = self._position
            try:
                if await self._log.lead():
                    await self._serve()
                self._leading, self._problem = False, None
                await self._clock.sleep(POLL_SECONDS)  # another one leads; appends are its business
                continue
            except CheckpointMoved:
                self._leading = False
                continue
            except (BrokerAway, *NOT_NOW) as error:
                self._note(str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be sent past it
                self._note(f"{type(error).__name__}: {error}", error)
            self._failures += 1
            failures = failures + 1 if self._position == before else 0
            await self._clock.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])

    async def _serve(self) -> None:
        """Send until something goes wrong."""
        self._position = self._kept = await self._log.position()
        self._leading = True
        while True:
            self._wanted.clear()
            events = await self._log.after(self._position, BATCH_MAX)
            if events:
                await self._send_or_tell(events, await self._messages(events))
                self._position = events[-1].position
            self._problem = None
            ahead = self._position - self._kept
            if ahead and (ahead >= BATCH_MAX or self._clock.now() >= self._keep_at):
                await self._keep()
            elif not events:
                await self._wait(MOVE_SECONDS if ahead else POLL_SECONDS)

    async def _keep(self) -> None:
        """Move the checkpoint to where all is sent."""
        if self._position != self._kept:
            position = self._position
            await self._log.move(self._kept, position)
            self._kept = position
        self._keep_at = self._clock.now() + timedelta(seconds=MOVE_SECONDS)

    async def _messages(self, events: Sequence[Recorded]) -> list[Message]:
        positions = {id(each.event): each.position for each in events}
        told = await self._telling.facts([each.event for each in events])
        return [self._spell(fact, positions[id(event)]) for event, fact in told]

    async def _send_or_tell(self, events: Sequence[Recorded], messages: list[Message]) -> None:
        """Send, and while the broker is away note that on the executions that wait for it."""
        waiting = [each.event.execution_id for each in events if starts_by_request(each.event)]
        if not waiting:
            await self._send(messages)
            return
        sending = asyncio.ensure_future(self._send(messages))
        try:
            while not (await asyncio.wait({sending}, timeout=NOTE_SECONDS))[0]:
                told = self._publisher.health()
                if not told.answers:
                    await self._notes.note(waiting, told.detail)
            await sending
        finally:  # when a note failed, nothing of it may go out beside what is sent next
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, messages: list[Message]) -> None:
        """All of them. One that the broker refuses for ever is put aside, so that it holds nobody
        up; those after it were taken with it, and are sent a second time.
        """
        while True:
            try:
                await self._publisher.publish(messages)
            except Undeliverable as error:
                refused = error.message
                await self._put_aside(refused, error.cause)
                messages = [each for each in messages if each is not refused]
            else:
                self._messages_sent.update((each.topic, SENT) for each in messages)
                return

    async def _put_aside(self, message: Message, cause: str) -> None:
        self._report("message_not_sent", {"topic": message.topic, "cause": cause})
        position = message.header(POSITION_HEADER) or b"0"
        placed = structs.replace(message, place=Place(NOT_SENT, int(position)))
        await self._letters.add(placed, f"It could not be sent: {cause}")
        self._messages_sent[message.topic, REFUSED] += 1

    async def _wait(self, seconds: float) -> None:
        """Until somebody wakes it, at most so long."""
        until = self._clock.now() + timedelta(seconds=seconds)
        forget = self._clock.call_at(until, self._wanted.set)
        try:
            await self._wanted.wait()
        finally:
            forget()

    def _note(self, problem: str, error: Exception | None = None) -> None:
        if problem != self._problem:
            self._report("relay_waits", {"cause": problem, "exception": error})
        self._problem = problem
