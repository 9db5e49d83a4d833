"""What a step that recovers does next: it waits for its time, for other work, or for a person."""

from datetime import datetime, timedelta

from domain.beginnings import begin_alternative, try_again
from domain.definition import Definition, alternative_path, declared_at
from domain.execution_state import ExecutionState, StepState
from domain.lifecycle import COMPLETED, FAILED, PENDING, REROUTED, RETRYING
from domain.questions import Understood
from domain.recovery import Plan, after_answer, answer_by_timeout, go_on_recovering, succeeded
from domain.recovery_rules import RecoveryRules


def plan_recovering(
    definition: Definition, state: ExecutionState, path: str, now: datetime, rules: RecoveryRules
) -> Plan:
    """The next facts for the step at `path`, which is RECOVERING; () while it waits."""
    step = state.steps[path]
    if step.state == RETRYING:
        return _retry(definition, state, path, now, rules)
    if step.state == REROUTED:
        return _rerouted(definition, state, path, step, now, rules)
    return _asked(definition, state, path, step, now, rules)


def _retry(
    definition: Definition, state: ExecutionState, path: str, now: datetime, rules: RecoveryRules
) -> Plan:
    step = state.steps[path]
    if step.due_at is None or step.due_at > now:
        return ()
    left = None if step.recovery is None else step.recovery.left(now)
    if left is not None and left <= timedelta():  # nobody looked in time
        return go_on_recovering(definition, state, path, now, rules)
    return tuple(try_again(declared_at(definition, path), state, path, step, now))


def _rerouted(
    definition: Definition,
    state: ExecutionState,
    path: str,
    step: StepState,
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    other = state.steps.get(alternative_path(path, step.via or ""))
    if other is None or other.state == PENDING:
        return tuple(begin_alternative(definition, state, path, now, rules))
    if other.state == COMPLETED:
        return (succeeded(step, path, now),)
    if other.state == FAILED:
        return go_on_recovering(definition, state, path, now, rules)
    return ()


def _asked(
    definition: Definition,
    state: ExecutionState,
    path: str,
    step: StepState,
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    question = state.questions[step.question_id or ""]
    if question.kind is not None:
        understood = Understood(question.kind, question.alternative, question.read_as or "")
        return (after_answer(definition, state, path, understood, now, rules),)
    return (answer_by_timeout(state, path),) if question.due_at <= now else ()
