"""Executions in and out of the log: load, decide, append; conflicts, lost answers and repeats are
settled here, once.

States are immutable and cached. A read folds what is newer onto the cached state, so it is current
in every process.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from application.callers import Answer, Caller
from application.ports import (
    Append,
    Appended,
    Clock,
    EventLog,
    Overloaded,
    QueueWrite,
    StoreUnavailable,
    UnknownOutcome,
    VersionConflict,
)
from domain.draft import Draft
from domain.errors import ConcurrentUpdate, ExecutionNotFound, FlowledgerError, NotReady
from domain.events import Recorded, Requested
from domain.execution import ExecutionState, evolve, fold
from domain.workflow import NAMESPACE

TRIES: Final = 3
COMMAND_TRIES: Final = 8
"""Of a caller's command against an execution whose steps end every few milliseconds elsewhere."""
PAUSE_SECONDS: Final = 0.005
_PAGE: Final = 2_000
_STATE_BYTES: Final = 2_000
_STEP_BYTES: Final = 700


class Entry(NamedTuple):
    """A state and the log position of its last event."""

    state: ExecutionState
    position: int


def execution_uuid(workspace_id: str, reference: str) -> UUID:
    """The execution that a caller means: a UUID, `run-{uuid}`, or any other text, which then names
    uuid5(workspace, text).
    """
    try:
        return UUID(reference.removeprefix("run-"))
    except ValueError:
        return uuid5(NAMESPACE, f"execution\n{workspace_id}\n{reference}")


class AppendLost(VersionConflict):
    """There was no answer, and the append was not seen in the log. It may still come: a statement
    that lost its caller runs on for a moment.
    """

    def __init__(self, draft: Draft) -> None:
        super().__init__(f"{draft.state.id}: the append was not seen in the log")
        self.draft = draft


class StateCache:
    """Least recently used states, bounded in bytes (estimated from steps and outputs)."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        # By the number of the id: a UUID computes its hash in Python, at each look.
        self._entries: OrderedDict[int, tuple[Entry, int]] = OrderedDict()

    def get(self, execution_id: UUID) -> Entry | None:
        """The cached state, which may lag behind the log."""
        found = self._entries.get(execution_id.int)
        if found is None:
            return None
        self._entries.move_to_end(execution_id.int)
        return found[0]

    def put(self, entry: Entry) -> None:
        """Remember a state, unless a newer one is known."""
        state = entry.state
        key = state.id.int
        known = self._entries.get(key)
        if known is not None:
            if known[0].state.version > state.version:
                return
            self._bytes -= known[1]
        size = _STATE_BYTES + _STEP_BYTES * len(state.steps) + 2 * state.output_bytes
        self._entries[key] = (entry, size)
        self._entries.move_to_end(key)
        self._bytes += size
        while self._bytes > self._bytes_max and len(self._entries) > 1:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._bytes -= dropped


class Ledger:
    """Loads executions and stores what commands decide."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        new_id: Callable[[], UUID],
        cache: "int | StateCache",
    ) -> None:
        """`cache` is one to share, or the bytes that one of its own may have."""
        self.log = log
        self.clock = clock
        self.new_id = new_id
        self.cache = StateCache(cache) if isinstance(cache, int) else cache

    def reading(self, log: EventLog) -> "Ledger":
        """The same executions, read in another way."""
        return Ledger(log, self.clock, self.new_id, self.cache)

    async def load(self, execution_id: UUID) -> Entry | None:
        """The execution as the log has it now, or None. Raises NotReady when the store does not
        answer.
        """
        entry = self.cache.get(execution_id)
        state, position = (entry.state, entry.position) if entry else (None, 0)
        while True:
            after = 0 if state is None else state.version
            newer = await self.read(execution_id, after, _PAGE)
            if state is None and newer and not isinstance(newer[0].event.data, Requested):
                return None  # the id of a workflow
            for recorded in newer:
                state = evolve(state, recorded.event)
                position = recorded.position
            if len(newer) < _PAGE:
                break
        if state is None:
            return None
        found = Entry(state, position)
        if newer:
            self.cache.put(found)
        return found

    async def read(
        self, stream_id: UUID, after_version: int = 0, limit: int = _PAGE
    ) -> Sequence[Recorded]:
        """A page of a stream's events. Raises NotReady when the store does not answer."""
        try:
            return await self.log.read_stream(stream_id, after_version=after_version, limit=limit)
        except (Overloaded, StoreUnavailable) as error:
            raise not_ready(error) from error

    async def find(self, workspace_id: str, reference: str) -> Entry:
        """The execution a caller means; NotFound when it is unknown or another workspace's."""
        entry = await self.load(execution_uuid(workspace_id, reference))
        if entry is None or entry.state.workspace_id != workspace_id:
            raise ExecutionNotFound(reference)
        return entry

    async def as_of_version(self, execution_id: UUID, version: int) -> Entry | None:
        """The fold of the first `version` events."""
        state, position = None, 0
        while state is None or state.version < version:
            after = 0 if state is None else state.version
            limit = min(_PAGE, version - after)
            page = await self.read(execution_id, after, limit)
            state = fold((each.event for each in page), state)
            position = page[-1].position if page else position
            if len(page) < limit:
                break
        return None if state is None else Entry(state, position)

    async def append(self, draft: Draft, queue: QueueWrite) -> Appended:
        """Store a draft. A lost answer is looked up by command id; found counts as stored.

        Raises VersionConflict (AppendLost), StaleLease, NotReady. The cache holds stored states
        only, so that none of these makes it wrong.
        """
        state = draft.state
        try:
            done = await self.log.append(Append(state.id, draft.events, queue, _wakes(state)))
        except UnknownOutcome as error:
            try:
                recorded = await self.stored(draft)
            except NotReady:  # so nobody knows
                recorded = None
            if recorded is None:
                raise AppendLost(draft) from error
            done = Appended(recorded.position - len(draft.events) + 1, recorded.position, None)
        except (Overloaded, StoreUnavailable) as error:
            raise not_ready(error) from error
        self.cache.put(Entry(state, done.position))
        return done

    async def command(
        self,
        caller: Caller,
        execution_ref: str,
        decide: Callable[[Draft], None],
        queue: Callable[[Draft], QueueWrite],
    ) -> tuple[Answer, Draft | None, Appended | None]:
        """Carry out a caller's command on an existing execution: at most once, with the same
        answer to a repeat. Raises ExecutionNotFound.
        """
        execution_id = execution_uuid(caller.workspace_id, execution_ref)
        command_id = caller.identity(self.new_id())
        lost: list[Draft] = []
        for earlier_tries in range(COMMAND_TRIES):
            if earlier_tries > 1:
                await self.clock.sleep(earlier_tries * PAUSE_SECONDS)
            entry = await self.load(execution_id)
            if entry is None or entry.state.workspace_id != caller.workspace_id:
                raise ExecutionNotFound(execution_ref)
            late = await self._came_late(lost)
            if late is not None:
                return late, None, None
            earlier = caller.repeated(entry.state, command_id)
            if earlier is not None:
                return await self.replay(execution_id, earlier.version), None, None
            caller.check_version(entry.state.version)
            draft = Draft(entry.state, caller.meta(self.clock.now(), command_id))
            _decide(draft, decide, lost)
            if not draft.events:
                return Answer(entry.state, entry.position, replayed=False), None, None
            try:
                done = await self.append(draft, queue(draft))
            except AppendLost as error:
                lost.append(error.draft)
                continue
            except VersionConflict:
                continue
            return Answer(draft.state, done.position, replayed=False), draft, done
        if lost:
            raise outcome_unknown()
        raise ConcurrentUpdate("Others wrote first every time; read the execution and try again.")

    async def _came_late(self, lost: Sequence[Draft]) -> Answer | None:
        """The answer by one of the appends that got none: any of them may have been stored, also
        before a later one, whose refusal was lost like the answer.
        """
        for draft in lost:
            if await self.stored(draft) is not None:
                answer = await self.replay(draft.state.id, draft.state.version)
                return answer._replace(replayed=False)
        return None

    async def replay(self, execution_id: UUID, version: int) -> Answer:
        """The representation as of the version that a repeated command produced."""
        entry = await self.as_of_version(execution_id, version)
        if entry is None:
            raise ExecutionNotFound(str(execution_id))
        return Answer(entry.state, entry.position, replayed=True)

    async def stored(self, draft: Draft) -> Recorded | None:
        """The last event of a draft whose append got no answer, if the log has it.

        The same command may have been decided before, at another time, in an append that came late.
        """
        newer = await self.read(draft.state.id, draft.base_version, len(draft.events))
        same = [each.event for each in newer] == draft.events
        return newer[-1] if same else None


def _decide(draft: Draft, decide: Callable[[Draft], None], lost: Sequence[Draft]) -> None:
    """Decide a command anew. What is against it now (a time that has come, say) is no answer while
    the append of an earlier decision may still be stored.
    """
    on_its_way = any(each.base_version == draft.base_version for each in lost)
    try:
        decide(draft)
    except FlowledgerError as error:
        if on_its_way:
            raise outcome_unknown() from error
        raise
    if on_its_way and not draft.events:
        raise outcome_unknown()


def _wakes(state: ExecutionState) -> UUID | None:
    """The execution that waits for this one, once it has ended."""
    parent = state.parent
    return parent.execution_id if parent is not None and parent.wait and state.terminal else None


def outcome_unknown() -> NotReady:
    """The refusal when the store never says what became of a command: no conflict, as far as is
    known.
    """
    return NotReady(
        "The store took the command and gave no answer, so it may have been carried out; send it "
        "again with the same Idempotency-Key.",
        1,
    )


def not_ready(error: Exception) -> NotReady:
    """The refusal that callers see when the store is away or full."""
    seconds = error.retry_after_seconds if isinstance(error, Overloaded) else 1
    return NotReady(str(error) or "The store does not answer; try again.", seconds)
