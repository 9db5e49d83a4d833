"""Commands on an existing execution: cancel, pause, retry, settle a step, answer, signal, and a
human task's end.
"""

from collections.abc import Callable
from uuid import UUID

from application.callers import Answer, Caller
from application.children import cancel_write
from application.ledger import Entry, Ledger, execution_uuid
from application.ports import Enqueue, QueueWrite, Touch
from application.requests import Runner
from application.workflows import Workflows
from domain import decisions, interventions
from domain.draft import Draft
from domain.errors import ConcurrentUpdate, ExecutionNotFound, NotFound
from domain.json_values import Json
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules


class Control:
    """The verbs."""

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

    async def cancel(self, caller: Caller, execution_ref: str, reason: str | None) -> Answer:
        """CANCELLED when this returns; running handlers are interrupted. Cancelling twice is no
        error.

        In strict mode with finished steps to undo it is cancelling, until a worker has undone them.
        """
        return await self._commanded(
            caller,
            execution_ref,
            lambda draft: decisions.cancel(draft, reason),
            cancel_write,
        )

    async def pause(
        self,
        caller: Caller,
        execution_ref: str,
        max_seconds: float | None = None,
        reason: str | None = None,
    ) -> Answer:
        """Nothing new begins when this returns; what is in flight goes on and is recorded.

        `max_seconds` from now it fails if nobody has resumed it. Pausing twice is no error.
        """
        return await self._commanded(
            caller,
            execution_ref,
            lambda draft: interventions.pause(draft, max_seconds, reason),
            _touch,
        )

    async def resume(self, caller: Caller, execution_ref: str, reason: str | None = None) -> Answer:
        """A worker goes on with a paused execution. Resuming what is not paused is no error."""
        return await self._commanded(
            caller,
            execution_ref,
            lambda draft: interventions.resume(draft, reason),
            _touch,
        )

    async def settle_step(
        self,
        caller: Caller,
        execution_ref: str,
        path: str,
        verb: str,
        reason: str,
        output: Json = None,
    ) -> Answer:
        """A person ends a stuck step (`skip` or `complete`); its handler is interrupted."""
        entry = await self._ledger.find(caller.workspace_id, execution_ref)
        definition = await self._workflows.definition(entry.state)
        return await self._commanded(
            caller,
            execution_ref,
            lambda draft: interventions.settle_step(draft, definition, path, verb, reason, output),
            _touch,
        )

    async def answer(
        self,
        caller: Caller,
        execution_ref: str,
        question_id: str | None,
        answer: str,
        reason: str | None = None,
    ) -> Answer:
        """A person answers a question about a failed step; a worker carries the answer out."""
        entry = await self._ledger.find(caller.workspace_id, execution_ref)
        definition = await self._workflows.definition(entry.state)
        answered, _, _ = await self._ledger.command(
            caller,
            execution_ref,
            lambda draft: decisions.answer(
                draft,
                definition,
                question_id,
                answer,
                draft.meta.at,
                self._rules,
                reason=reason,
            ),
            _touch,
        )
        return answered

    async def retry(
        self, caller: Caller, execution_ref: str, resume_from_step: str | None, reason: str | None
    ) -> Answer:
        """The next attempt of a FAILED or CANCELLED execution; what is finished stays finished."""
        entry = await self._ledger.find(caller.workspace_id, execution_ref)
        definition = await self._workflows.definition(entry.state)
        execution_id = entry.state.id
        leased = self._runner.reserve(execution_id)

        def enqueue(draft: Draft) -> QueueWrite:
            state = draft.state
            return Enqueue(state.workspace_id, state.priority, draft.meta.at, leased)

        epoch: int | None = None
        try:
            answer, draft, done = await self._ledger.command(
                caller,
                execution_ref,
                lambda draft: decisions.retry(draft, definition, resume_from_step, reason),
                enqueue,
            )
            if draft is not None and done is not None and leased and done.epoch is not None:
                epoch = done.epoch
                self._runner.accept(Entry(draft.state, done.position), epoch)
        finally:
            if leased and epoch is None:
                self._runner.cancel_reservation(execution_id)
        return answer

    async def signal(self, caller: Caller, execution_ref: str, name: str, payload: Json) -> Answer:
        """Send a signal; a step that waits for it, now or later, goes on with the payload."""
        return await self._commanded(
            caller,
            execution_ref,
            lambda draft: decisions.signal(draft, name, payload),
            lambda draft: Touch(draft.meta.at),
        )

    async def complete_human_task(self, caller: Caller, task_id: str, result: Json) -> Answer:
        """A person did a task; an execution that waits for it goes on."""
        try:
            return await self._commanded(
                caller,
                _execution_of(task_id),
                lambda draft: decisions.complete_human_task(draft, task_id, result),
                _touch,
            )
        except ExecutionNotFound as error:
            raise _no_task(task_id) from error

    async def _commanded(
        self,
        caller: Caller,
        execution_ref: str,
        decide: Callable[[Draft], None],
        queue: Callable[[Draft], QueueWrite],
    ) -> Answer:
        """A command against a worker that writes too: steps that take no time follow one another
        faster than a state can be read, so the worker of this process then waits for once.
        """
        try:
            answer, _, _ = await self._ledger.command(caller, execution_ref, decide, queue)
        except ConcurrentUpdate:
            execution_id = execution_uuid(caller.workspace_id, execution_ref)
            async with self._runner.paused(execution_id):
                answer, _, _ = await self._ledger.command(caller, execution_ref, decide, queue)
        return answer


def _touch(draft: Draft) -> QueueWrite:
    return Touch(draft.meta.at)


def _execution_of(task_id: str) -> str:
    """A task's id names its execution: `ht-{execution}-{n}`."""
    prefix, _, rest = task_id.partition("-")
    text, _, number = rest.partition("-")
    if prefix != "ht" or len(text) != 32 or not number.isascii() or not number.isdigit():
        raise _no_task(task_id)
    try:
        return str(UUID(text))
    except ValueError as error:
        raise _no_task(task_id) from error


def _no_task(task_id: str) -> NotFound:
    return NotFound(f"There is no human task {task_id[:200]!r}.")
