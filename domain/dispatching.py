"""Tasks of agents that are done elsewhere: how one goes out, and what its result makes of the step.

A try that is dispatched belongs to no worker. It ends by its result, by its time-out, or by what
ends the step around it; whatever comes after that is late.

Source: docs/explanation/dispatched-work.md.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct

from domain import events as ev
from domain.agent_names import DISPATCHED, agent_of
from domain.decisions import Outcome, late, settle
from domain.definition import ActionStep, Definition, declared_at, step_id_of
from domain.draft import Draft
from domain.execution_state import ExecutionState
from domain.json_values import Json
from domain.lifecycle import PENDING, RUNNING
from domain.recovery_rules import DEFAULT_RULES, RecoveryRules
from domain.workflow import NAMESPACE

_DIGITS: Final = 16
"""Of a task: a loop has many tries of one step, and an installation many more; 8 would collide."""
REASON_CHARACTERS_MAX: Final = 2_000


class TaskResult(Struct, frozen=True, kw_only=True):
    """How a task ended, as who did it says. `error_class` "" means success, as in Outcome.

    Whether the sender still held the task is for its transport to say: no lease of tasks is known
    here.
    """

    correlation_id: str
    output: Json = None
    error_class: str = ""
    code: str = ""
    message: str = ""
    retryable: bool = True


def task_ids(execution_id: UUID, path: str, attempt: int, try_no: int) -> tuple[str, str]:
    """`task-{step}-{16hex}` and `corr-run-{execution}-{step}-{16hex}` of a try: the same at each
    look, and another for each try.
    """
    seed = f"task\n{execution_id}\n{path}\n{attempt}\n{try_no}"
    digits, step_id = uuid5(NAMESPACE, seed).hex[:_DIGITS], step_id_of(path)
    return f"task-{step_id}-{digits}", f"corr-run-{execution_id}-{step_id}-{digits}"


def idempotency_key(
    execution_id: UUID, path: str, attempt: int, try_no: int, *, per_try: bool
) -> str:
    """What tells a repetition of the work of a step from new work: the same for all tries, unless
    the step asks for one per try.
    """
    key = f"{execution_id}:{attempt}:{path}"
    return f"{key}:{try_no}" if per_try else key


def record_dispatches(draft: Draft, definition: Definition, transports: Mapping[str, str]) -> None:
    """Note the tries that begin in this draft and that an agent does elsewhere.

    `transports` is by agent; one that is not in it is called by the worker, as one of http is. A
    try that is delivered again counts: the worker that was to call the agent is gone.
    """
    if draft.state.simulate or not transports:
        return
    for event in list(draft.events):
        fact = event.data
        if not isinstance(fact, ev.StepStarted | ev.StepRedelivered):
            continue
        step = draft.state.steps.get(fact.path)
        if (
            step is None
            or step.state != RUNNING
            or step.dispatched is not None
            or (step.attempt, step.try_no) != (fact.attempt, fact.try_no)
        ):
            continue
        agent = agent_of(step.action)
        transport = transports.get(agent or "")
        if agent is None or transport not in DISPATCHED:
            continue
        ids = task_ids(draft.state.id, fact.path, fact.attempt, fact.try_no)
        declared = declared_at(definition, fact.path)
        per_try = isinstance(declared, ActionStep) and declared.key_per_try
        draft.record(
            ev.TaskDispatched(fact.path, fact.attempt, fact.try_no, *ids, agent, transport, per_try)
        )


def dispatched_at(state: ExecutionState, correlation_id: str) -> str | None:
    """The path whose newest try has this correlation id, ended or not; None when none has."""
    for path, step in state.steps.items():
        if step.dispatched is not None and step.dispatched.correlation_id == correlation_id:
            return path
    return None


def awaits_result(state: ExecutionState, path: str) -> bool:
    """Whether the dispatched try at `path` still runs."""
    return path in state.live and state.steps[path].state == RUNNING


def settle_result(
    draft: Draft,
    definition: Definition,
    path: str,
    result: TaskResult,
    now: datetime,
    *,
    go_on: bool = True,
    rules: RecoveryRules = DEFAULT_RULES,
) -> bool:
    """Record what came of the dispatched try at `path`, and what follows; False when it is late."""
    step = draft.state.steps[path]
    outcome = _outcome(result, path, step.attempt, step.try_no)
    return settle(draft, definition, outcome, now, go_on=go_on, rules=rules)


def ignore_result(draft: Draft, sent: ev.TaskDispatched, result: TaskResult) -> None:
    """Note that the result of an earlier task came when nobody waited for it any more."""
    draft.record(late(_outcome(result, sent.path, sent.attempt, sent.try_no)))


def fail_dispatch(draft: Draft, reason: str) -> None:
    """Note why the request to start a PENDING execution was not sent; the same again is no news."""
    reason = reason[:REASON_CHARACTERS_MAX]
    if draft.state.state == PENDING and draft.state.dispatch_problem != reason:
        draft.record(ev.DispatchFailed(reason))


def _outcome(result: TaskResult, path: str, attempt: int, try_no: int) -> Outcome:
    return Outcome(
        path,
        attempt,
        try_no,
        0,
        result.output,
        result.error_class,
        result.code,
        result.message,
        result.retryable,
    )
