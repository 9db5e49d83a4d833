"""Executions that other executions run: how one is pinned, what it is made of, what its end means.

The parent records the pinned version before the child exists, and is not done with a child before
it has recorded the child's end: what is owed to a child stands in the parent's events. Source:
docs/explanation/composites.md.
"""

from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct

from domain import events as ev
from domain.decisions import Outcome, Request, late, settle
from domain.definition import Definition
from domain.draft import Draft
from domain.execution_state import Child, ExecutionState, Parent
from domain.json_values import JsonObject
from domain.lifecycle import CANCELLED, COMPLETED, RUNNING
from domain.planner import advance
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules
from domain.workflow import NAMESPACE

DEPTH_MAX: Final = 8
"""Executions above one another, the first one counted."""
DETACHED: Final = "DETACHED"


class Pinned(Struct, frozen=True):
    """The workflow version that the try of a sub_workflow step runs."""

    path: str
    attempt: int
    try_no: int
    workflow_id: str
    workflow_name: str
    workflow_version: int
    definition_id: UUID
    sha256: str
    steps_total: int
    wait: bool


class ChildEnd(Struct, frozen=True):
    """What the parent learns of a child at last; `state` as in `execution.child_ended.v1`."""

    child_id: UUID
    state: str
    outcome: Outcome


def child_uuid(parent_id: UUID, path: str, attempt: int, try_no: int) -> UUID:
    """The id of the execution that a try runs: each try has one of its own."""
    return uuid5(NAMESPACE, f"child\n{parent_id}\n{path}\n{attempt}\n{try_no}")


def depth_of(state: ExecutionState) -> int:
    """How many executions stand above one another up to this one."""
    return 1 if state.parent is None else state.parent.depth + 1


def is_wanted(state: ExecutionState, child: Child) -> bool:
    """Whether the step that began the child still runs that very try."""
    step = state.steps.get(child.path)
    return step is not None and step.state == RUNNING and step.child_id == child.id


def request_of(state: ExecutionState, child: Child) -> Request:
    """What a child is made of: its step's input, the settings of its parent."""
    step = state.steps.get(child.path)
    call = None if step is None else step.input
    given = call.get("input") if isinstance(call, dict) else None
    return Request(
        workflow_id=child.workflow_id,
        workflow_name=child.workflow_name,
        workflow_version=child.workflow_version,
        definition_id=child.definition_id,
        sha256=child.sha256,
        steps_total=child.steps_total,
        input=given if isinstance(given, dict) else {},
        atomic_mode=state.atomic_mode,
        priority=state.priority,
        labels=state.labels,
        recovery=state.recovery,
        parent=Parent(
            execution_id=state.id,
            path=child.path,
            attempt=child.attempt,
            try_no=child.try_no,
            depth=depth_of(state),
            wait=child.wait,
        ),
    )


def pin(
    draft: Draft,
    definition: Definition,
    pinned: Pinned,
    epoch: int,
    now: datetime,
    *,
    go_on: bool = True,
    rules: RecoveryRules = DEFAULT_RULES,
) -> None:
    """The try has its version, and its execution is about to begin; unless it has ended.

    Without `go_on` nothing new begins, as in `decisions.settle`.
    """
    state, path = draft.state, pinned.path
    step = state.steps.get(path)
    outcome = Outcome(path, pinned.attempt, pinned.try_no, epoch, code="interrupted")
    if (
        step is None
        or step.state != RUNNING
        or step.child_id is not None
        or (step.attempt, step.try_no) != (pinned.attempt, pinned.try_no)
    ):
        draft.record(late(outcome))
        if go_on:  # with what made it late, which this worker may see now for the first time
            advance(definition, draft, now, rules)
        return
    draft.record(
        ev.ChildStarted(
            path=path,
            attempt=pinned.attempt,
            try_no=pinned.try_no,
            child_id=child_uuid(state.id, path, pinned.attempt, pinned.try_no),
            workflow_id=pinned.workflow_id,
            workflow_name=pinned.workflow_name,
            workflow_version=pinned.workflow_version,
            definition_id=pinned.definition_id,
            sha256=pinned.sha256,
            steps_total=pinned.steps_total,
            wait=pinned.wait,
        )
    )


def end_of(child: Child, present: ExecutionState, epoch: int) -> ChildEnd:
    """What came of a child that has ended, as the outcome of the try that ran it."""
    place = (child.path, child.attempt, child.try_no, epoch)
    if present.state == COMPLETED:
        return ChildEnd(child.id, COMPLETED, Outcome(*place, output=present.output))
    if present.state == CANCELLED:
        message = f"The execution {child.id} that this step ran was cancelled."
        ended = Outcome(*place, None, "permanent", "child_cancelled", message, retryable=False)
        return ChildEnd(child.id, CANCELLED, ended)
    error = present.error
    code, error_class, text = (
        (error.code, error.error_class, error.message)
        if error is not None
        else ("child_failed", "unknown", "")
    )
    message = f"The execution {child.id} of {child.workflow_name!r} failed: {text}"
    return ChildEnd(child.id, present.state, Outcome(*place, None, error_class, code, message))


def detached(child: Child, epoch: int) -> ChildEnd:
    """The child exists and nobody waits for it: the step is done."""
    output: JsonObject = {
        "execution_id": str(child.id),
        "workflow_id": child.workflow_id,
        "workflow_version": child.workflow_version,
    }
    done = Outcome(child.path, child.attempt, child.try_no, epoch, output)
    return ChildEnd(child.id, DETACHED, done)


def settle_child(
    draft: Draft,
    definition: Definition,
    end: ChildEnd,
    now: datetime,
    rules: RecoveryRules = DEFAULT_RULES,
) -> None:
    """Record a child's end and what it means for its step; ignored where nobody waits for it."""
    if end.child_id not in draft.state.children:
        return
    outcome = end.outcome
    draft.record(
        ev.ChildEnded(outcome.path, outcome.attempt, outcome.try_no, end.child_id, end.state)
    )
    settle(draft, definition, outcome, now, go_on=False, rules=rules)
