"""Start executions: of a published workflow, of a definition in the request, of another's step."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID, uuid5

from msgspec import structs

from application.callers import Answer, Caller
from application.ledger import TRIES, Entry, Ledger, not_ready, outcome_unknown
from application.ports import (
    Append,
    Appended,
    Enqueue,
    Overloaded,
    StoreUnavailable,
    UnknownOutcome,
    VersionConflict,
)
from application.workflows import Workflows
from domain import decisions
from domain.agent_names import KAFKA
from domain.decisions import Request
from domain.definition import count_steps
from domain.definition_reader import Mistake
from domain.dispatching import fail_dispatch
from domain.draft import Draft
from domain.errors import (
    ConcurrentUpdate,
    FlowledgerError,
    Invalid,
    InvalidInput,
    WorkflowInactive,
)
from domain.events import Event, Requested
from domain.execution import ExecutionState
from domain.forking import fork
from domain.json_values import Json, JsonObject, sha256_of
from domain.planner import next_due
from domain.recovery_config import completed
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules
from domain.workflow import NAMESPACE, WorkflowState, version_id

ATOMIC_MODES: Final = ("strict", "lenient", "conditional")
_YEAR: Final = timedelta(days=366)


class Runner(Protocol):
    """This process's worker, if it has one: new executions are handed to it without a claim."""

    def reserve(self, execution_id: UUID) -> bool:
        """Keep a slot; False when there is no room."""

    def cancel_reservation(self, execution_id: UUID) -> None:
        """Give the slot back."""

    async def first_steps(self, state: ExecutionState) -> Draft | None:
        """How an execution that was reserved, and is about to be stored, begins: to be stored with
        it. None when its first step is nothing that this worker performs.
        """

    def accept(self, entry: Entry, epoch: int) -> None:
        """Run what was reserved, unless the reservation is gone: then the queue has it."""

    def paused(self, execution_id: UUID) -> AbstractAsyncContextManager[None]:
        """Nothing is recorded of this execution meanwhile, if it runs in this process."""


class NoRunner:
    """The Runner of a process without a worker: others claim what it enqueues."""

    def reserve(self, execution_id: UUID) -> bool:
        """See Runner."""
        del execution_id
        return False

    def cancel_reservation(self, execution_id: UUID) -> None:
        """See Runner."""

    async def first_steps(self, state: ExecutionState) -> Draft | None:
        """See Runner; nothing was reserved."""
        del state
        return None

    def accept(self, entry: Entry, epoch: int) -> None:
        """See Runner; nothing was reserved."""
        raise RuntimeError(f"{entry.state.id} was leased (epoch {epoch}) without a worker")

    def paused(self, execution_id: UUID) -> AbstractAsyncContextManager[None]:
        """See Runner."""
        del execution_id
        return nullcontext()


class InputSchemas(Protocol):
    """JSON Schema of a definition's input."""

    def mistakes(self, schema: Json, value: Json) -> list[Mistake]:
        """What does not fit, with pointers inside the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteOptions:
    """How to run it. `priority` 0-9, lower first; `start_at` or `delay_seconds` put the start off;
    `simulate` touches nothing outside. `recovery` holds the given members of a RecoveryConfig
    (`domain/recovery_config.py` reads them), None when there is none.
    """

    input_data: JsonObject = field(default_factory=dict)
    atomic_mode: str = "strict"
    priority: int = 5
    labels: dict[str, str] = field(default_factory=dict)
    start_at: datetime | None = None
    delay_seconds: float | None = None
    simulate: bool = False
    recovery: JsonObject | None = None


class Requests:
    """The use cases that create executions."""

    def __init__(
        self,
        ledger: Ledger,
        workflows: Workflows,
        runner: Runner,
        schemas: InputSchemas,
        rules: RecoveryRules = DEFAULT_RULES,
        over_kafka: Callable[[], str | None] | None = None,
    ) -> None:
        """`over_kafka`: executions start when their request comes back from Kafka; it says why
        none can be sent now, as far as is known. None: the next worker starts them.
        """
        self._ledger = ledger
        self._workflows = workflows
        self._runner = runner
        self._schemas = schemas
        self._rules = rules
        self._over_kafka = over_kafka

    async def execute(
        self,
        caller: Caller,
        workflow_ref: str,
        options: ExecuteOptions,
        *,
        version: int | None = None,
        execution_id: UUID | None = None,
    ) -> Answer:
        """Request an execution of a published workflow; PENDING and durable when this returns.

        `execution_id` is given by who computes it; asked again with it or with the same
        Idempotency-Key, this answers the same, whatever has become of the workflow since.
        """
        wanted = self._of_published(caller, workflow_ref, options, version)
        return await self._request(caller, wanted, options, execution_id)

    async def _of_published(
        self, caller: Caller, workflow_ref: str, options: ExecuteOptions, version: int | None
    ) -> Request:
        state, number = await self._workflows.find(caller.workspace_id, workflow_ref)
        if state.status != "active" or (version or 1) > len(state.versions):
            state, number = await self._workflows.find(
                caller.workspace_id, workflow_ref, trusted=False
            )
        if state.status != "active":
            raise WorkflowInactive(
                f"Workflow {state.name!r} is {state.status}; PUT status active to allow it again."
            )
        wanted = _of_workflow(state, version or number)
        self._check_input(state.numbered(wanted.workflow_version).definition, options)
        return wanted

    async def execute_inline(
        self,
        caller: Caller,
        definition: Json,
        options: ExecuteOptions,
        *,
        workflow_id: str | None = None,
        execution_id: UUID | None = None,
    ) -> Answer:
        """Request an execution of a definition that is stored with it and nowhere else.

        `workflow_id` is shown for it. `execution_id` as in `execute`.
        """
        wanted = self._of_given(caller, definition, options, workflow_id)
        return await self._request(caller, wanted, options, execution_id)

    async def _of_given(
        self, caller: Caller, definition: Json, options: ExecuteOptions, workflow_id: str | None
    ) -> Request:
        normalised, _ = await self._workflows.accepted(caller.workspace_id, definition)
        digest = sha256_of(normalised)
        wanted = Request(
            workflow_id=workflow_id or f"inline-{digest[:12]}",
            workflow_name=str(normalised["name"]),
            workflow_version=0,
            definition_id=uuid5(NAMESPACE, f"inline\n{digest}"),
            sha256=digest,
            steps_total=count_steps(normalised),
            input={},
            definition=normalised,
        )
        self._check_input(normalised, options)
        return wanted

    def _check_input(self, normalised: JsonObject, options: ExecuteOptions) -> None:
        self._check_schema(normalised["input_schema"], options.input_data)

    def _check_schema(self, schema: Json, input_data: JsonObject) -> None:
        if schema is None:
            return
        mistakes = self._schemas.mistakes(schema, input_data)
        if mistakes:
            raise InvalidInput("The input does not fit the definition's input_schema.", mistakes)

    async def _request(
        self,
        caller: Caller,
        wanting: Awaitable[Request],
        options: ExecuteOptions,
        execution_id: UUID | None,
    ) -> Answer:
        try:
            wanted = await wanting
        except FlowledgerError:  # which may not have been so when the same was asked for first
            answered = await self._answered(caller, execution_id)
            if answered is None:
                raise
            return answered
        now = self._ledger.clock.now()
        command_id = execution_id or caller.identity(self._ledger.new_id())
        wanted = _with_options(wanted, options, self._rules, now)
        over_kafka = None if (wanted.start_at or now) > now else self._over_kafka
        if over_kafka is not None:
            wanted = structs.replace(wanted, starts_by=KAFKA)
        meta = caller.meta(now, command_id)
        state, event = decisions.request(command_id, wanted, meta)
        problem = None if over_kafka is None else over_kafka()
        if problem is None:
            return await self._store(caller, state, (event,))
        draft = Draft(state, meta)
        fail_dispatch(draft, problem)
        return await self._store(caller, draft.state, (event, *draft.events))

    async def fork(
        self,
        caller: Caller,
        execution_ref: str,
        from_step: str,
        input_data: JsonObject | None,
        reason: str | None = None,
    ) -> Answer:
        """Request an execution that does another one anew from a step on; that one stays as it is.

        The repeat of a request with an Idempotency-Key is answered whatever has become of the
        other one meanwhile.
        """
        now = self._ledger.clock.now()
        command_id = caller.identity(self._ledger.new_id())
        origin = await self._ledger.find(caller.workspace_id, execution_ref)
        answered = await self._answered(caller, None)
        if answered is not None:
            return answered
        caller.check_version(origin.state.version)
        definition = await self._workflows.definition(origin.state)
        if input_data is not None:
            self._check_schema(definition.input_schema, input_data)
        state, events = fork(
            origin.state,
            definition,
            from_step,
            input_data,
            reason,
            command_id,
            caller.meta(now, command_id),
        )
        return await self._store(caller, state, events)

    async def _answered(self, caller: Caller, execution_id: UUID | None) -> Answer | None:
        """The answer to the same request before, if there was one. Raises KeyReused."""
        if caller.idempotency_key is None and execution_id is None:
            return None
        command_id = execution_id or caller.identity(self._ledger.new_id())
        if await self._ledger.load(command_id) is None:
            return None
        return await self._repeated(caller, command_id, None)

    async def _store(
        self, caller: Caller, state: ExecutionState, events: Sequence[Event]
    ) -> Answer:
        entry = await start(self._ledger, self._runner, state, events)
        if entry is None:
            return await self._repeated(caller, state.id, events[-1])
        return Answer(entry.state, entry.position, replayed=False)

    async def _repeated(self, caller: Caller, execution_id: UUID, mine: Event | None) -> Answer:
        """The id is taken: by an earlier request with the same key, or by this one, whose answer
        was lost; `mine` is the last event that it would have stored.
        """
        entry = await self._ledger.load(execution_id)
        if entry is None:
            raise ConcurrentUpdate(f"{execution_id} names something else; use a new key.")
        earlier = caller.repeated(entry.state, execution_id)
        version = earlier.version if earlier is not None else 1 if mine is None else mine.version
        answer = await self._ledger.replay(execution_id, version)
        first = await self._ledger.read(execution_id, limit=1)
        same = mine is not None and bool(first) and first[0].event.meta == mine.meta
        return answer._replace(replayed=not same)


async def start(
    ledger: Ledger, runner: Runner, state: ExecutionState, events: Sequence[Event]
) -> Entry | None:
    """Store the first events of an execution and hand it to this process's worker if that has room,
    with the beginning of its first step in the same append.

    The entry is that of `state`; None when the id is taken. Raises NotReady, also when no answer
    came.
    """
    ready_at: datetime | None = state.start_at or state.created_at
    requested = events[0].data
    if isinstance(requested, Requested) and requested.starts_by == KAFKA:
        ready_at = None
    lease = ready_at is not None and ready_at <= state.created_at and runner.reserve(state.id)
    done: Appended | None = None
    begun: Draft | None = None
    try:
        if lease:
            ledger.log.require_room()  # before the work of planning
            begun = await runner.first_steps(state)
        if begun is not None:
            ready_at = next_due(begun.state)
        following = () if begun is None else begun.events
        enqueue = Enqueue(state.workspace_id, state.priority, ready_at, lease)
        done = await _append(ledger, Append(state.id, (*events, *following), enqueue))
    except VersionConflict:
        return None
    except (Overloaded, StoreUnavailable) as error:
        raise not_ready(error) from error
    finally:
        if lease and (done is None or done.epoch is None):
            runner.cancel_reservation(state.id)
    entry = Entry(state if begun is None else begun.state, done.position)
    ledger.cache.put(entry)
    if lease and done.epoch is not None:
        runner.accept(entry, done.epoch)
    return Entry(state, done.first + len(events) - 1)


async def never_begun(
    ledger: Ledger, state: ExecutionState, requested: Event, reason: str
) -> Entry | None:
    """Store an execution that is cancelled before it could begin, in one append, so that nobody
    begins it; None when the id is taken. Raises NotReady.
    """
    draft = Draft(state, requested.meta)
    decisions.cancel(draft, reason)
    try:
        done = await _append(ledger, Append(state.id, (requested, *draft.events), None))
    except VersionConflict:
        return None
    except (Overloaded, StoreUnavailable) as error:
        raise not_ready(error) from error
    entry = Entry(draft.state, done.position)
    ledger.cache.put(entry)
    return entry


async def _append(ledger: Ledger, append: Append) -> Appended:
    """A lost answer is no reason not to try again: what is stored already conflicts."""
    for _ in range(TRIES):
        try:
            return await ledger.log.append(append)
        except UnknownOutcome as lost:
            error = lost
    raise outcome_unknown() from error


def _of_workflow(state: WorkflowState, number: int) -> Request:
    version = state.numbered(number)
    return Request(
        workflow_id=version_id(state.name, number),
        workflow_name=state.name,
        workflow_version=number,
        definition_id=state.id,
        sha256=version.sha256,
        steps_total=count_steps(version.definition),
        input={},
    )


def _with_options(
    wanted: Request, options: ExecuteOptions, rules: RecoveryRules, now: datetime
) -> Request:
    if options.atomic_mode not in ATOMIC_MODES:
        raise Invalid(
            "atomic_mode is strict, lenient or conditional.",
            [
                Mistake(
                    "/atomic_mode", "bad_value", "atomic_mode is strict, lenient or conditional."
                )
            ],
        )
    start_at = options.start_at
    if options.delay_seconds is not None:
        if start_at is not None:
            raise Invalid(
                "Give start_at or delay_seconds, not both.",
                [Mistake("/delay_seconds", "contradiction", "Give start_at or delay_seconds.")],
            )
        start_at = now + timedelta(seconds=options.delay_seconds)
    if start_at is not None and start_at > now + _YEAR:
        raise Invalid(
            "An execution starts within a year.",
            [Mistake("/start_at", "out_of_range", "An execution starts within a year.")],
        )
    return Request(
        workflow_id=wanted.workflow_id,
        workflow_name=wanted.workflow_name,
        workflow_version=wanted.workflow_version,
        definition_id=wanted.definition_id,
        sha256=wanted.sha256,
        steps_total=wanted.steps_total,
        definition=wanted.definition,
        input=options.input_data,
        atomic_mode=options.atomic_mode,
        priority=options.priority,
        labels=options.labels,
        start_at=start_at,
        simulate=options.simulate,
        recovery=rules.config
        if options.recovery is None
        else completed(options.recovery, rules.config),
    )
