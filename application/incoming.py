"""What other systems ask for and send back in messages: to execute, to cancel, results of tasks.

Each message is taken once however often it comes: executions by their run id, results by their
correlation id, cancellations by their contents. What can never be taken is Poison with the cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from application.agent_results import AgentResults
from application.callers import DEFAULT_WORKSPACE, Caller
from application.control import Control
from application.ledger import Ledger, execution_uuid
from application.messages import (
    NOT_NOW,
    AgentResult,
    CancellationRequest,
    ExecutionRequest,
    Poison,
)
from application.outside_runs import OutsideRows, OutsideRun, outside_definition, outside_run
from application.pending_starts import PendingStarts
from application.requests import ExecuteOptions, Requests
from domain.dispatching import TaskResult
from domain.errors import FlowledgerError, Invalid, NotFound, StateConflict
from domain.events import Requested
from domain.json_values import JsonObject, NotStorable, check_storable
from domain.lifecycle import PENDING

ACTOR: Final = "kafka"
"""Who asked, when a message does not say."""
MISTAKES_TOLD_MAX: Final = 10
ARRIVES_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Between looks for a run that is to be cancelled and that nobody has requested yet."""


class Incoming:
    """The use cases of those who receive messages."""

    def __init__(
        self,
        ledger: Ledger,
        requests: Requests,
        control: Control,
        results: AgentResults,
        rows: OutsideRows,
        starts: PendingStarts,
        *,
        workspace_id: str = DEFAULT_WORKSPACE,
    ) -> None:
        """`requests` hands new executions to this process's worker; messages name no workspace,
        all are of `workspace_id`.
        """
        self._ledger = ledger
        self._requests = requests
        self._control = control
        self._results = results
        self._rows = rows
        self._starts = starts
        self._workspace = workspace_id

    async def execute(self, wanted: ExecutionRequest) -> None:
        """Start the execution of this run id here; it is requested first when there is none.

        Raises Poison, and one of NOT_NOW.
        """
        with _poison():
            execution_id = execution_uuid(self._workspace, wanted.run_id)
            entry = await self._ledger.load(execution_id)
            if entry is None:
                await self._request(wanted, execution_id)
            elif entry.state.workspace_id != self._workspace:
                raise Poison(f"/run_id: {wanted.run_id!r} is a run of another workspace")
            elif entry.state.state == PENDING:
                await self._starts.start(execution_id)

    async def cancel(self, wanted: CancellationRequest, message_id: str) -> bool:
        """Cancel a run; False when it had ended otherwise before. The same `message_id` again does
        nothing, also when the run was retried meanwhile; but one that found the run cancelled
        already had nothing to record, and again it means the attempt of then. One that comes
        before the request of its run, from another topic, waits for that a little.

        Raises Poison, and one of NOT_NOW.
        """
        caller = Caller(
            workspace_id=self._workspace,
            actor=wanted.cancelled_by or ACTOR,
            route="cancel over kafka",
            idempotency_key=message_id,
            fingerprint=message_id,
        )
        with _poison():
            await self._arrival(wanted.run_id)
            try:
                await self._control.cancel(caller, wanted.run_id, wanted.reason)
            except StateConflict:
                return False
            return True

    async def _arrival(self, run_id: str) -> None:
        """Return when there is such a run. Raises NotFound when none has come."""
        for seconds in ARRIVES_SECONDS:
            with suppress(NotFound):
                await self._ledger.find(self._workspace, run_id)
                return
            await self._ledger.clock.sleep(seconds)
        await self._ledger.find(self._workspace, run_id)

    async def record(self, result: AgentResult) -> None:
        """Record what came of a task. An output that cannot be kept fails its step.

        Raises Poison, and one of NOT_NOW.
        """
        told = TaskResult(
            correlation_id=result.correlation_id,
            output=result.output,
            error_class="" if result.succeeded else result.error_class,
            code="" if result.succeeded else result.error_code,
            message="" if result.succeeded else result.error_message or "The agent told no reason.",
            retryable=result.retryable,
        )
        with _poison():
            try:
                await self._record(result, told)
            except Invalid as error:
                refused = TaskResult(
                    correlation_id=result.correlation_id,
                    error_class="permanent",
                    code="output_not_storable",
                    message=error.message,
                    retryable=False,
                )
                await self._record(result, refused)

    async def _record(self, result: AgentResult, told: TaskResult) -> None:
        await self._results.record(self._workspace, result.run_id, result.task_id, told)

    async def _request(self, wanted: ExecutionRequest, execution_id: UUID) -> None:
        first = await self._ledger.read(execution_id, limit=1)
        if first and isinstance(first[0].event.data, Requested):
            await self.execute(wanted)  # a copy of this message was faster by a moment
            return
        if first:
            raise Poison(f"/run_id: {wanted.run_id!r} is the id of something else")
        _, row = await outside_run(self._rows, self._workspace, wanted.run_id)
        given = wanted.input
        if given is None:
            given = {} if row is None else row.input_data
            _check_row(given, "/input_data")
        caller = Caller(
            workspace_id=self._workspace, actor=ACTOR if row is None else row.triggered_by
        )
        options = ExecuteOptions(input_data=given)
        plan = await self._plan(wanted, row)
        if plan is not None:
            shown = plan.get("workflow_id", wanted.workflow_id)
            await self._requests.execute_inline(
                caller,
                plan,
                options,
                workflow_id=shown if isinstance(shown, str) and shown.isprintable() else None,
                execution_id=execution_id,
            )
            return
        named = wanted.workflow_id or (
            row and (row.workflow_definition_id or row.workflow_id or row.workflow_name)
        )
        if not named:
            raise Poison(
                "/workflow_plan: it is missing, and neither workflow_id nor a row of workflow_runs "
                "says what to run"
            )
        await self._requests.execute(caller, named, options, execution_id=execution_id)

    async def _plan(self, wanted: ExecutionRequest, row: OutsideRun | None) -> JsonObject | None:
        """What to run, when it comes along or stands in a row; None for a published workflow."""
        if wanted.plan is not None or wanted.workflow_id is not None or row is None:
            return wanted.plan
        found = await outside_definition(self._rows, self._workspace, row)
        if found is None:
            return None
        _check_row(found.workflow_data, "/workflow_data")
        return {"name": found.name, **found.workflow_data}


@contextmanager
def _poison() -> Iterator[None]:
    """Refusals are for ever, but for those that say that it may be tried again."""
    try:
        yield
    except NOT_NOW:
        raise
    except Invalid as error:
        raise Poison(_with_mistakes(error)) from error
    except FlowledgerError as error:
        raise Poison(error.message) from error


def _check_row(value: JsonObject, pointer: str) -> None:
    """What another program wrote into a row is held to the same limits as what comes in a message.

    Raises Poison.
    """
    try:
        check_storable(value, pointer=pointer)
    except NotStorable as error:
        raise Poison(
            f"{error.pointer} of its row cannot be taken: {error.message}; remove the row from "
            "where it is kept and insert it anew, or send what is to be taken with the request"
        ) from error


def _with_mistakes(error: Invalid) -> str:
    told = [f"{each.pointer or '/'}: {each.message}" for each in error.mistakes]
    more = len(told) - MISTAKES_TOLD_MAX
    shown = " ".join(told[:MISTAKES_TOLD_MAX])
    return f"{error.message} {shown}{f' And {more} more.' if more > 0 else ''}".strip()
