"""What agents send back: the result of a task, recorded once, and how far a task is.

Whatever carries a result (a pull worker's request, a message, an answer on a topic) comes here.
The same result again has the same answer; one that nobody waits for is noted once and changes
nothing; one that belongs to no task is refused, and its sender keeps it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from uuid import UUID, uuid5

import msgspec

from application.children import cancel_write
from application.ledger import (
    COMMAND_TRIES,
    PAUSE_SECONDS,
    Ledger,
    execution_uuid,
)
from application.ports import QueueWrite, Touch, VersionConflict
from application.requests import Runner
from application.steps import PROGRESS_BYTES_MAX
from application.workflows import Workflows
from domain import decisions
from domain.agent_names import agent_action
from domain.definition import Definition
from domain.dispatching import (
    TaskResult,
    awaits_result,
    dispatched_at,
    ignore_result,
    record_dispatches,
    settle_result,
)
from domain.draft import Draft
from domain.errors import ConcurrentUpdate, Invalid, NotFound
from domain.events import Meta, TaskDispatched
from domain.execution_state import ExecutionState
from domain.json_values import Json, NotStorable, check_storable
from domain.mistakes import Mistake
from domain.planner import next_due, running_actions
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules
from domain.workflow import NAMESPACE

_PAGE: Final = 2_000


class TaskAnswer(NamedTuple):
    """What became of a result. Without `accepted` it came too late and changed nothing; `repeated`
    says that this was recorded before.
    """

    execution_id: UUID
    path: str
    attempt: int
    try_no: int
    accepted: bool
    repeated: bool


class _Known(NamedTuple):
    """What the log says of a correlation id: its task, and the commands that came of results."""

    sent: TaskDispatched
    commands: frozenset[str]


class AgentResults:
    """The use cases of those who do dispatched tasks."""

    def __init__(
        self,
        ledger: Ledger,
        workflows: Workflows,
        runner: Runner,
        rules: RecoveryRules = DEFAULT_RULES,
    ) -> None:
        self._ledger = ledger
        self._workflows = workflows
        self._runner = runner
        self._rules = rules
        self._turns: dict[UUID, tuple[asyncio.Lock, int]] = {}

    async def record(
        self, workspace_id: str, execution_ref: str, task_id: str, result: TaskResult
    ) -> TaskAnswer:
        """Record a result, and in the same append what follows from it.

        Raises NotFound for an execution or a task that does not exist there, Invalid for an output
        that cannot be kept, NotReady and ConcurrentUpdate when it may be sent again.
        """
        _check(result)
        execution_id = execution_uuid(workspace_id, execution_ref)
        async with self._turn(execution_id):
            try:
                return await self._record(workspace_id, execution_ref, task_id, result)
            except ConcurrentUpdate:
                async with self._runner.paused(execution_id):
                    return await self._record(workspace_id, execution_ref, task_id, result)

    async def progress(
        self,
        workspace_id: str,
        execution_ref: str,
        correlation_id: str,
        value: Json,
    ) -> bool:
        """Note how far a task is; False when nobody waits for it any more.

        Raises NotFound, Invalid, NotReady and ConcurrentUpdate.
        """
        try:
            check_storable(value, bytes_max=PROGRESS_BYTES_MAX)
        except NotStorable as error:
            raise _not_storable("progress", error) from error
        execution_id = execution_uuid(workspace_id, execution_ref)
        async with self._turn(execution_id):
            for earlier_tries in range(COMMAND_TRIES):
                await self._pause(earlier_tries)
                state = (await self._ledger.find(workspace_id, execution_ref)).state
                path = dispatched_at(state, correlation_id)
                if path is None:
                    await self._known(state, correlation_id)
                    return False
                step = state.steps[path]
                if not awaits_result(state, path):
                    return False
                if step.progress == value:
                    return True
                draft = self._draft(state, str(self._ledger.new_id()), step.action)
                decisions.report_progress(draft, path, step.attempt, step.try_no, value)
                try:
                    await self._ledger.append(draft, Touch(next_due(state) or draft.meta.at))
                except VersionConflict:
                    continue
                return True
        raise _busy()

    # --- one result ---

    async def _record(
        self, workspace_id: str, execution_ref: str, task_id: str, result: TaskResult
    ) -> TaskAnswer:
        execution_id = execution_uuid(workspace_id, execution_ref)
        command = _command(execution_id, result)
        for earlier_tries in range(COMMAND_TRIES):
            await self._pause(earlier_tries)
            state = None
            if not earlier_tries:
                state = self._at_hand(workspace_id, execution_id, result.correlation_id)
            if state is None:
                state = (await self._ledger.find(workspace_id, execution_ref)).state
            path = dispatched_at(state, result.correlation_id)
            try:
                if path is not None and awaits_result(state, path):
                    return await self._settle(state, path, task_id, result, command)
                return await self._late(state, task_id, result, command)
            except VersionConflict:
                continue
        raise _busy()

    async def _settle(
        self, state: ExecutionState, path: str, task_id: str, result: TaskResult, command: str
    ) -> TaskAnswer:
        step = state.steps[path]
        _check_task(task_id, "" if step.dispatched is None else step.dispatched.task_id)
        definition = await self._workflows.definition(state)
        transports = await self._workflows.transports(state, definition, self._rules)

        def decided(*, go_on: bool) -> Draft:
            draft = self._draft(state, command, step.action)
            now = draft.meta.at
            settle_result(draft, definition, path, result, now, go_on=go_on, rules=self._rules)
            record_dispatches(draft, definition, transports)
            return draft

        draft = decided(go_on=True)
        if _begun(definition, draft.state) - _begun(definition, state):
            draft = decided(go_on=False)  # what a worker performs, a worker begins
            queue: QueueWrite = Touch(draft.meta.at)
        else:
            queue = _queue_write(definition, draft)
        await self._ledger.append(draft, queue)
        return TaskAnswer(state.id, path, step.attempt, step.try_no, accepted=True, repeated=False)

    async def _late(
        self, state: ExecutionState, task_id: str, result: TaskResult, command: str
    ) -> TaskAnswer:
        """The try has ended: by this very result, or by something else."""
        known = await self._known(state, result.correlation_id)
        sent, late = known.sent, _late_command(state.id, result.correlation_id)
        _check_task(task_id, sent.task_id)
        answer = TaskAnswer(
            state.id, sent.path, sent.attempt, sent.try_no, accepted=False, repeated=True
        )
        if command in known.commands:
            return answer._replace(accepted=True)
        if late in known.commands:
            return answer
        draft = self._draft(state, late, agent_action(sent.agent))
        ignore_result(draft, sent, result)
        queue = None if state.terminal else Touch(next_due(state) or draft.meta.at)
        await self._ledger.append(draft, queue)
        return answer._replace(repeated=False)

    async def _known(self, state: ExecutionState, correlation_id: str) -> _Known:
        """Look the task up in the whole history: steps of loops and earlier tries leave the state.

        Raises NotFound.
        """
        sent: TaskDispatched | None = None
        commands: set[str] = set()
        after = 0
        while True:
            page = await self._ledger.read(state.id, after, _PAGE)
            for recorded in page:
                fact = recorded.event.data
                if isinstance(fact, TaskDispatched) and fact.correlation_id == correlation_id:
                    sent = fact
                elif sent is not None:
                    commands.add(recorded.event.meta.cmd)
            if len(page) < _PAGE:
                break
            after += len(page)
        if sent is None:
            raise NotFound(
                f"Execution {state.id} has no task with the correlation id "
                f"{correlation_id[:200]!r}; send back the one that came with the task."
            )
        return _Known(sent, frozenset(commands))

    def _at_hand(
        self, workspace_id: str, execution_id: UUID, correlation_id: str
    ) -> ExecutionState | None:
        """The execution as this process knows it, when that waits for the result. The log is not
        asked first: if others have written since, the append is a conflict.
        """
        entry = self._ledger.cache.get(execution_id)
        if entry is None or entry.state.workspace_id != workspace_id:
            return None
        path = dispatched_at(entry.state, correlation_id)
        waits = path is not None and awaits_result(entry.state, path)
        return entry.state if waits else None

    def _draft(self, state: ExecutionState, command: str, actor: str) -> Draft:
        return Draft(state, Meta(self._ledger.clock.now(), command, actor, state.workspace_id))

    async def _pause(self, earlier_tries: int) -> None:
        if earlier_tries > 1:
            await self._ledger.clock.sleep(earlier_tries * PAUSE_SECONDS)

    @asynccontextmanager
    async def _turn(self, execution_id: UUID) -> AsyncIterator[None]:
        """One at a time for each execution: results of its lanes come together, and each append
        makes those that were decided beside it stale.
        """
        lock, users = self._turns.get(execution_id, (asyncio.Lock(), 0))
        self._turns[execution_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._turns.pop(execution_id)
            if users > 1:
                self._turns[execution_id] = (lock, users - 1)


def _begun(definition: Definition, state: ExecutionState) -> frozenset[tuple[str, int, int]]:
    """The tries that a worker performs."""
    if state.terminal:
        return frozenset()
    return frozenset(
        (path, state.steps[path].attempt, state.steps[path].try_no)
        for path in running_actions(definition, state)
    )


def _queue_write(definition: Definition, draft: Draft) -> QueueWrite:
    """Ready now where a worker has something to do, else when something is due by itself."""
    state = draft.state
    if state.terminal or state.children or running_actions(definition, state):
        return cancel_write(draft)
    return Touch(next_due(state) or draft.meta.at)


def _command(execution_id: UUID, result: TaskResult) -> str:
    """The identity of this result: the same contents for the same task, the same command."""
    contents = msgspec.json.encode(result).decode()
    return str(uuid5(NAMESPACE, f"result\n{execution_id}\n{contents}"))


def _late_command(execution_id: UUID, correlation_id: str) -> str:
    return str(uuid5(NAMESPACE, f"late result\n{execution_id}\n{correlation_id}"))


def _check(result: TaskResult) -> None:
    try:
        check_storable(result.output)
        check_storable([result.code, result.message])
    except NotStorable as error:
        raise _not_storable("output", error) from error


def _check_task(given: str, known: str) -> None:
    if given != known:
        raise NotFound(
            f"The correlation id belongs to task {known!r}, not to {given[:200]!r}; send both back "
            "as they came with the task."
        )


def _not_storable(field: str, error: NotStorable) -> Invalid:
    place = f"/{field}{error.pointer}"
    message = f"The {field} cannot be kept, at {place}: {error.message}"
    return Invalid(message, [Mistake(place, error.code, error.message)])


def _busy() -> ConcurrentUpdate:
    return ConcurrentUpdate("Others wrote first every time; send it again.")
