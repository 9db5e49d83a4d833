"""The executions that an execution runs: begun, looked at, cancelled where nobody waits any more.

All of it may be done twice: ids are computed, and what is owed stands in the parent's events until
the child's end is recorded there.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from application.ledger import Entry, Ledger
from application.ports import Discard, QueueWrite, Touch, VersionConflict
from application.requests import InputSchemas, Runner, never_begun, start
from application.steps import Failed
from application.workflows import Workflows
from domain import decisions
from domain.children import (
    DEPTH_MAX,
    ChildEnd,
    Pinned,
    depth_of,
    detached,
    end_of,
    is_wanted,
    request_of,
)
from domain.compensation import UNDOING
from domain.definition import count_steps
from domain.draft import Draft
from domain.errors import ConcurrentUpdate, NotFound, NotReady
from domain.events import Event, Meta
from domain.execution_state import Child, ExecutionState
from domain.json_values import Json, JsonObject
from domain.workflow import version_id

NOT_WANTED: Final = "The execution that ran it does not wait for it any more."
Attended = set[tuple[UUID, bool]]
"""Children that were seen to exist (while wanted: True), or to know that nobody waits (False)."""


def cancel_write(draft: Draft) -> QueueWrite:
    """What a cancel by somebody without the lease does to the queue row.

    It stays while something is owed: steps to undo, children to tell.
    """
    done = draft.state.terminal and not draft.state.children
    return Discard() if done else Touch(draft.meta.at)


class Children:
    """What a worker does about the children of the executions that it has."""

    def __init__(
        self,
        ledger: Ledger,
        workflows: Workflows,
        runner: Runner,
        schemas: InputSchemas | None,
    ) -> None:
        """`schemas` None: the input of a child is not held to its input_schema."""
        self._ledger = ledger
        self._workflows = workflows
        self._runner = runner
        self._schemas = schemas

    async def pin(self, state: ExecutionState, path: str) -> Pinned | Failed:
        """Which version the present try of `path` runs, or why none can. Raises NotReady."""
        step = state.steps[path]
        call = step.input if isinstance(step.input, dict) else {}
        if depth_of(state) >= DEPTH_MAX:
            message = (
                f"Executions run one another at most {DEPTH_MAX} deep, and this one is the last. "
                "Look for a workflow that runs itself by way of others."
            )
            return Failed("too_deep", message, "permanent", retryable=False)
        ref, version = str(call.get("workflow_id")), call.get("version")
        try:
            workflow, newest = await self._workflows.find(state.workspace_id, ref)
            number = version if isinstance(version, int) else newest
            if number > len(workflow.versions):
                workflow, _ = await self._workflows.find(state.workspace_id, ref, trusted=False)
            chosen = workflow.numbered(number)
        except NotFound as error:
            return Failed("workflow_not_found", error.message, "permanent", retryable=False)
        if workflow.status != "active":
            message = f"Workflow {workflow.name!r} is {workflow.status}; activate it, then retry."
            return Failed("workflow_inactive", message, "permanent", retryable=False)
        problem = self._input_problem(chosen.definition, call.get("input"))
        if problem is not None:
            return Failed("invalid_child_input", problem, "permanent", retryable=False)
        return Pinned(
            path=path,
            attempt=step.attempt,
            try_no=step.try_no,
            workflow_id=version_id(workflow.name, number),
            workflow_name=workflow.name,
            workflow_version=number,
            definition_id=workflow.id,
            sha256=chosen.sha256,
            steps_total=count_steps(chosen.definition),
            wait=call.get("wait") is not False,
        )

    def _input_problem(self, definition: JsonObject, given: Json) -> str | None:
        if not isinstance(given, dict):
            return "The input of another workflow is a JSON object."
        schema = definition["input_schema"]
        if schema is None or self._schemas is None:
            return None
        mistakes = self._schemas.mistakes(schema, given)
        if not mistakes:
            return None
        first = f"{mistakes[0].pointer or 'the input'}: {mistakes[0].message}"
        return f"The input does not fit the input_schema of the workflow; {first}"

    async def look(
        self, state: ExecutionState, epoch: int, attended: Attended, *, every: bool
    ) -> Sequence[ChildEnd]:
        """Begin children that do not exist yet, cancel those nobody waits for, and tell which of
        them the execution can be done with.

        Without `every` only those that are not in `attended`, to which it adds those that go on.
        Raises NotReady.
        """
        ends: list[ChildEnd] = []
        for child in state.children.values():
            wanted = is_wanted(state, child)
            if not every and (child.id, wanted) in attended:
                continue
            present = await self._present(state, child)
            if not child.wait:  # whatever became of parent and child since
                ends.append(detached(child, epoch))
                continue
            if not wanted and not present.terminal:
                present = await self._cancelled(child)
            if present.terminal:
                ends.append(end_of(child, present, epoch))
            else:
                attended.add((child.id, wanted))
        return ends

    async def _present(self, parent: ExecutionState, child: Child) -> ExecutionState:
        """The child as it is now; begun where it does not exist.

        Where nobody waits for it any more it is stored as cancelled, and does nothing: a worker
        that lost its lease may be about to begin it, and finds the id taken then.
        """
        cached = self._ledger.cache.get(child.id)
        if cached is not None and cached.state.terminal:
            return cached.state
        entry = await self._ledger.load(child.id)
        if entry is None:
            meta = Meta(
                at=self._ledger.clock.now(),
                cmd=str(child.id),
                actor=parent.triggered_by,
                ws=parent.workspace_id,
                cause=str(parent.id),
            )
            state, event = decisions.request(child.id, request_of(parent, child), meta)
            if child.wait and not is_wanted(parent, child):
                entry = await never_begun(self._ledger, state, event, NOT_WANTED)
            else:
                entry = await self._begun(state, event)
        return (entry or await self._existing(child)).state

    async def _begun(self, state: ExecutionState, event: Event) -> Entry | None:
        try:
            return await start(self._ledger, self._runner, state, (event,))
        except ConcurrentUpdate as error:
            raise NotReady(error.message) from error

    async def _existing(self, child: Child) -> Entry:
        entry = await self._ledger.load(child.id)
        if entry is None:
            raise NotReady(f"{child.id} was not to be read; it is looked for again.")
        return entry

    async def _cancelled(self, child: Child) -> ExecutionState:
        """The child after it was asked to stop, which it may have done before."""
        entry = await self._existing(child)
        state = entry.state
        draft = Draft(
            state,
            Meta(
                at=self._ledger.clock.now(),
                cmd=f"parent:{state.version}",
                actor="worker",
                ws=state.workspace_id,
            ),
        )
        if state.terminal or state.state in UNDOING:  # that comes to an end by itself
            return state
        decisions.cancel(draft, NOT_WANTED)
        if not draft.events:
            return state
        try:
            await self._ledger.append(draft, cancel_write(draft))
        except VersionConflict as error:
            raise NotReady(f"{child.id} goes on meanwhile; it is asked again.") from error
        return draft.state
