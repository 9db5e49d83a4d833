"""From events to what projections write.

The states of live executions, workflows and agents, and what a batch changed in them.

Everything here is a function of the log alone: a state that is not in memory is folded again from
its stream, and the same batches give the same changes in a live server, a rebuild and a
verification.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from msgspec import Struct, structs

from application.recovery_history import (
    AttemptMove,
    Recoveries,
    RecoveryAttempt,
    attempt_moves,
)
from application.step_history import TryKey, step_moves, tries_of
from domain import agents, execution, workflow
from domain.agents import AgentState
from domain.events import (
    AGENT_PAYLOADS,
    EXECUTION_PAYLOADS,
    PAYLOADS,
    Event,
    Recorded,
    RecoveryStarted,
)
from domain.execution import ExecutionState, StepState
from domain.lifecycle import STEP_ENDED
from domain.workflow import WorkflowState
from infrastructure.projections.tables import ProjectedTable

EXECUTIONS: Final = "execution."
WORKFLOWS: Final = "workflow."
AGENTS: Final = "agent."
STATES_KEPT_MAX: Final = 20_000
STATES_BYTES_MAX: Final = 64 * 2**20
_STATE_BYTES: Final = 3_000
_EXECUTION_PAYLOADS: Final = frozenset(EXECUTION_PAYLOADS)
_AGENT_PAYLOADS: Final = frozenset(AGENT_PAYLOADS)

Record = TypeVar("Record", WorkflowState, AgentState)


class Undecodable(NamedTuple):
    """A row of the log that this release cannot read."""

    position: int
    topic: str
    stream: UUID
    version: int
    error: Exception


class Stay(Struct, frozen=True, gc=False):
    """Time spent in one leaf state, by an execution (`path` "") or a step.

    `left_at` None while it lasts.
    """

    path: str
    attempt: int
    state: str
    entered_version: int
    entered_at: datetime
    left_at: datetime | None
    position: int


class AttemptChange(NamedTuple):
    """A recovery attempt before the batch (None when it is new), after it, and where it changed."""

    before: RecoveryAttempt | None
    after: RecoveryAttempt
    position: int


@dataclass(slots=True)
class ExecutionChange:
    """What a batch did to one execution.

    The state before (None when it is new) and after it, and the details between.

    Positions are those of the last event that changed the thing.
    """

    before: ExecutionState | None
    after: ExecutionState
    position: int
    tries: dict[TryKey, tuple[StepState, int]] = field(default_factory=dict)
    stays: dict[tuple[str, int], Stay] = field(default_factory=dict)
    recoveries: dict[int, AttemptChange] = field(default_factory=dict)

    def recovers(self, move: AttemptMove, position: int) -> None:
        """Note what happened to a recovery attempt."""
        key = move.after.started_version
        known = self.recoveries.get(key)
        first = move.before if known is None else known.before
        self.recoveries[key] = AttemptChange(first, move.after, position)


@dataclass(slots=True)
class RecordChange(Generic[Record]):
    """The same for a workflow or an agent."""

    before: Record | None
    after: Record
    position: int


WorkflowChange = RecordChange[WorkflowState]
AgentChange = RecordChange[AgentState]


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that changed between two positions."""

    executions: Sequence[ExecutionChange]
    workflows: Sequence[WorkflowChange]
    agents: Sequence[AgentChange] = ()


class Projection(Protocol):
    """A table and the pure fold that fills it.

    `streams` is the topic prefix of the events it looks at: `EXECUTIONS`, `WORKFLOWS`, `AGENTS`.
    `details` says whether it looks at the tries, stays and recoveries of a batch, too, which need
    not be found out for one that only looks at the states before and after.
    """

    @property
    def table(self) -> ProjectedTable:
        """The table; its name and version are the projection's."""

    @property
    def streams(self) -> str:
        """Topic prefix."""

    @property
    def details(self) -> bool:
        """Whether it looks at more than the states before and after."""

    def rows(self, batch: Batch) -> Sequence[Struct]:
        """The rows to write for a batch, one for each key."""


@dataclass(slots=True)
class _Execution:
    state: ExecutionState
    entered: dict[str, Stay]
    recoveries: Recoveries
    change: ExecutionChange | None = None
    size: int = 0


class _Records(Generic[Record]):
    """The states of workflows, or of agents."""

    def __init__(self, evolve: Callable[[Record | None, Event], Record]) -> None:
        self._evolve: Callable[[Record | None, Event], Record] = evolve
        self.states: OrderedDict[int, Record] = OrderedDict()

    def apply(self, recorded: Recorded, changes: dict[int, RecordChange[Record]]) -> None:
        event = recorded.event
        stream = event.execution_id.int
        before = self.states.get(stream)
        after = self._evolve(before, event)
        self.states[stream] = after
        change = changes.get(stream)
        if change is None:
            changes[stream] = RecordChange(before, after, recorded.position)
        else:
            change.after, change.position = after, recorded.position

    def evict(self, kept_max: int) -> None:
        while len(self.states) > kept_max:
            self.states.popitem(last=False)


class States:
    """The states of executions, workflows and agents at one position of the log.

    `history` gives the events of the named streams up to the present position, in order of version;
    `filling` are the projections that the batches are for.
    Executions that have ended leave the memory with the batch in which they end, unless
    `keep_ended`.
    """

    def __init__(
        self,
        history: Callable[[Sequence[UUID]], Iterable[Recorded]],
        *,
        filling: Iterable[Projection],
        kept_max: int = STATES_KEPT_MAX,
        keep_ended: bool = False,
    ) -> None:
        wanted = tuple(filling)
        self._history = history
        self._streams = frozenset(each.streams for each in wanted)
        self._details = any(each.details for each in wanted)
        self._payloads = frozenset(
            each for each in PAYLOADS if each.TOPIC.startswith(tuple(self._streams))
        )
        self._kept_max = kept_max
        self._keep_ended = keep_ended
        # By the integers of the ids: hashing those takes a third of the time.
        self._executions: OrderedDict[int, _Execution] = OrderedDict()
        self._workflows = _Records(workflow.evolve)
        self._agents = _Records(agents.evolve)
        self._bytes = 0

    def forget(self) -> None:
        """Drop everything, as after a batch that was not stored."""
        self._executions.clear()
        self._workflows.states.clear()
        self._agents.states.clear()
        self._bytes = 0

    def apply(self, events: Sequence[Recorded | Undecodable]) -> Batch:
        """Fold a batch. After any exception `forget` must be called before the next one."""
        executions: list[_Execution] = []
        workflows: dict[int, WorkflowChange] = {}
        registered: dict[int, AgentChange] = {}
        for recorded in self._wanted(events):
            payload = type(recorded.event.data)
            if payload in _EXECUTION_PAYLOADS:
                entry = self._apply_execution(recorded)
                if entry is not None:
                    executions.append(entry)
            elif payload in _AGENT_PAYLOADS:
                self._agents.apply(recorded, registered)
            else:
                self._workflows.apply(recorded, workflows)
        return Batch(
            list(self._taken(executions)), list(workflows.values()), list(registered.values())
        )

    def _wanted(self, events: Sequence[Recorded | Undecodable]) -> list[Recorded]:
        """The events of the streams that count; what they continue is in memory afterwards."""
        wanted: list[Recorded] = []
        begun: set[int] = set()
        missing: dict[int, UUID] = {}
        for recorded in events:
            if isinstance(recorded, Undecodable):
                if recorded.topic.startswith(tuple(self._streams)):
                    raise recorded.error
                continue
            event = recorded.event
            if type(event.data) not in self._payloads:
                continue
            wanted.append(recorded)
            stream = event.execution_id.int
            if event.version == 1:
                begun.add(stream)
            elif not (stream in begun or self._knows(stream)):
                missing[stream] = event.execution_id
        if missing:
            self._load(list(missing.values()))
        return wanted

    def _knows(self, stream: int) -> bool:
        known = (self._executions, self._workflows.states, self._agents.states)
        return any(stream in each for each in known)

    def _apply_execution(self, recorded: Recorded) -> _Execution | None:
        """The execution, when this is its first event of the batch."""
        position, event = recorded.position, recorded.event
        stream = event.execution_id.int
        entry = self._executions.get(stream)
        before = entry.state if entry is not None else None
        after = execution.evolve(before, event)
        first = None
        if entry is None:
            entry = self._executions[stream] = _Execution(after, {}, {})
        if entry.change is None:
            entry.change = ExecutionChange(before, after, position)
            first = entry
        change = entry.change
        change.after = entry.state = after
        change.position = position
        if self._details:
            _note_details(entry, change, before, recorded)
        return first

    def _load(self, missing: Sequence[UUID]) -> None:
        """Fold streams from the log."""
        for recorded in self._history(missing):
            payload = type(recorded.event.data)
            if payload in _EXECUTION_PAYLOADS:
                self._apply_execution(recorded)
            elif payload in _AGENT_PAYLOADS:
                self._agents.apply(recorded, {})
            else:
                self._workflows.apply(recorded, {})
        for stream in missing:
            entry = self._executions.get(stream.int)
            if entry is not None:
                entry.change = None

    def _taken(self, entries: Sequence[_Execution]) -> Iterator[ExecutionChange]:
        for entry in entries:
            change, entry.change = entry.change, None
            if change is None:
                continue
            yield change
            stream = change.after.id.int
            self._bytes -= entry.size
            if change.after.terminal and not self._keep_ended:
                del self._executions[stream]
                continue
            entry.size = _STATE_BYTES + 2 * change.after.output_bytes
            self._bytes += entry.size
            self._executions.move_to_end(stream)
        self._evict()

    def _evict(self) -> None:
        while len(self._executions) > self._kept_max or self._bytes > STATES_BYTES_MAX:
            _, dropped = self._executions.popitem(last=False)
            self._bytes -= dropped.size
        self._workflows.evict(self._kept_max)
        self._agents.evict(self._kept_max)


def _note_details(
    entry: _Execution, change: ExecutionChange, before: ExecutionState | None, recorded: Recorded
) -> None:
    """What an event that led from `before` to the present state did in between."""
    event, after, position = recorded.event, entry.state, recorded.position
    moves = step_moves(before, event.data, after) if before is not None else ()
    for move in moves:
        for key, step in tries_of(move, event.meta.at):
            change.tries[key] = (step, position)
    if before is None or before.state != after.state:
        _stay(change, entry.entered, recorded, "", after.attempt, after.state)
    for path, earlier, step in moves:
        if earlier is None or earlier.state != step.state or earlier.try_no != step.try_no:
            _stay(change, entry.entered, recorded, path, step.attempt, step.state)
    if before is not None and (entry.recoveries or type(event.data) is RecoveryStarted):
        for attempted in attempt_moves(entry.recoveries, before, event, after):
            change.recovers(attempted, position)


def _stay(
    change: ExecutionChange,
    entered: dict[str, Stay],
    recorded: Recorded,
    path: str,
    attempt: int,
    state: str,
) -> None:
    """Note the stay that ends and the one that begins; an ended step stays nowhere."""
    at, position, version = recorded.event.meta.at, recorded.position, recorded.event.version
    ended = entered.pop(path, None)
    if ended is not None:
        change.stays[(path, ended.entered_version)] = structs.replace(
            ended, left_at=at, position=position
        )
    if path == "" or state not in STEP_ENDED:
        begun = Stay(path, attempt, state, version, at, None, position)
        change.stays[(path, version)] = entered[path] = begun
