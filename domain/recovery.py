"""What happens after a step failed, and while it recovers.

A pure decision from the step's strategies, what was tried already, the error, the time that is
left. Source: docs/explanation/recovery.md.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from domain import events as ev
from domain.definition import SUB_WORKFLOW, Definition, owner_of, step_id_of
from domain.draft import Draft
from domain.error_classes import Failure, status_of_failure
from domain.execution_state import Episode, ExecutionState, StepState
from domain.lane_paths import around
from domain.questions import (
    ALTERNATIVE,
    OPTIONS,
    Understood,
    question_id,
    question_texts,
)
from domain.recovery_config import DEFAULT_CONFIG
from domain.recovery_rules import (
    AnyStage,
    NamedRules,
    RecoveryRules,
    Strategies,
    strategies_of,
)
from domain.recovery_stages import Alternative, AskPolicy, NamedAlternative, RetryPolicy

Plan = tuple[ev.Payload, ...]
USER_ABORT: Final = "user_abort"
SKIPPED: Final = "skipped"
ANSWER_TIMEOUT: Final = "answer_timeout"
NOTHING_LEFT: Final = "nothing_left"
BUDGET: Final = "budget"
TOTAL_BUDGET: Final = "total_budget"
_MILLISECOND: Final = timedelta(milliseconds=1)


# --- after a failure ---


def with_recovery(
    definition: Definition,
    state: ExecutionState,
    failed: ev.StepFailed,
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    """A failure and what follows from it at once: the next strategy, or nothing."""
    failure = Failure(
        failed.code,
        failed.error_class,
        failed.message,
        failed.retryable,
        status_of_failure(failed.message, failed.output),
    )
    return (failed, *_next(definition, state, failed.path, failure, now, rules))


def go_on_recovering(
    definition: Definition, state: ExecutionState, path: str, now: datetime, rules: RecoveryRules
) -> Plan:
    """What comes after a strategy that did not help: the next one, or the verdict."""
    step = state.steps[path]
    failure = _failure_of(step)
    return _next(definition, state, path, failure, now, rules)


def _next(
    definition: Definition,
    state: ExecutionState,
    path: str,
    failure: Failure,
    now: datetime,
    rules: RecoveryRules,
) -> Plan:
    strategies = strategies_of(definition, state, path, rules)
    step = state.steps[path]
    begun = step.recovery
    if begun is None and not strategies.stages:
        return ()
    episode = begun or Episode(now, _budget_ms(state, path, strategies, now))
    left = episode.left(now)
    if left is not None and left <= timedelta():
        move, reason = None, BUDGET if begun is not None else TOTAL_BUDGET
    else:
        move = _Choice(definition, state, path, failure, episode, strategies, now, rules).move()
        reason = NOTHING_LEFT
        if move is None and begun is None:
            return ()
    facts: Plan = (move,) if move is not None else (exhausted(step, path, episode, reason, now),)
    if begun is not None:
        return facts
    started = ev.RecoveryStarted(
        path,
        step.attempt,
        episode.budget_ms,
        failure.error_class,
        failure.code,
        strategies.names(),
    )
    return (started, *facts)


class _Choice:
    """The first strategy that applies to a failure and was not used up."""

    def __init__(
        self,
        definition: Definition,
        state: ExecutionState,
        path: str,
        failure: Failure,
        episode: Episode,
        strategies: Strategies,
        now: datetime,
        rules: RecoveryRules,
    ) -> None:
        self.definition = definition
        self.state = state
        self.path = path
        self.step = state.steps[path]
        self.failure = failure
        self.episode = episode
        self.strategies = strategies
        self.now = now
        self.rules = rules

    def move(self) -> ev.Payload | None:
        for stage in self.strategies.stages:
            found = self._of(stage)
            if found is not None:
                return found
        return None

    def _of(self, stage: AnyStage) -> ev.Payload | None:
        match stage:
            case RetryPolicy():
                return self._retry(stage)
            case Alternative():
                return self._alternative(stage if stage.fits(self.failure) else None)
            case NamedAlternative():
                known = self.strategies.alternatives(self.rules)
                return self._alternative(known.get(stage.id))
            case NamedRules():
                if any(each.id in self.episode.alternatives for each in stage.alternatives):
                    return None
                fitting = (each for each in stage.alternatives if each.fits(self.failure))
                return self._alternative(next(fitting, None))
            case AskPolicy():
                return None if self.episode.asked else self._question(stage)

    def _retry(self, policy: RetryPolicy) -> ev.RetryScheduled | None:
        retry_no = self.episode.retries + 1
        if retry_no > policy.attempts or not may_retry(policy, self.failure):
            return None
        delay_ms = retry_delay_ms(policy, retry_no)
        if policy.jitter:
            delay_ms = with_jitter(delay_ms, f"{self.state.id}:{self.path}", self.step, retry_no)
        left = self.episode.left(self.now)
        if left is not None and delay_ms * _MILLISECOND >= left:
            # Cut short, so that the try after it has the other half of what is left.
            delay_ms = left // 2 // _MILLISECOND
        return _retry_after(self.step, self.path, delay_ms, self.now)

    def _alternative(self, chosen: Alternative | None) -> ev.AlternativeSelected | None:
        if chosen is None or chosen.id in self.episode.alternatives:
            return None
        return _selected(self.step, self.path, chosen)

    def _question(self, policy: AskPolicy) -> ev.QuestionAsked:
        config = self.strategies.config or DEFAULT_CONFIG
        timeout_ms = policy.answer_timeout_ms or config.answer_timeout_ms
        known = self.strategies.alternatives(self.rules)
        return ev.QuestionAsked(
            question_id=question_id(self.state.id, len(self.state.questions) + 1),
            path=self.path,
            attempt=self.step.attempt,
            options=(*OPTIONS, *(f"{ALTERNATIVE}:{each}" for each in known)),
            due_at=self.now + timeout_ms * _MILLISECOND,
            on_timeout=policy.on_timeout,
            texts=question_texts(step_id_of(self.path), self.failure, policy.questions),
        )


def may_retry(policy: RetryPolicy, failure: Failure) -> bool:
    """Whether the same call is worth another try."""
    if policy.on_errors or policy.on_status_codes:
        return failure.status in policy.on_status_codes or failure.says(policy.on_errors)
    return failure.passes


def retry_delay_ms(policy: RetryPolicy, retry_no: int) -> int:
    """Wait before re-try `retry_no` (from 1), in milliseconds."""
    if policy.first_retry_at_once:
        retry_no -= 1
    if retry_no == 0 or policy.strategy == "immediate":
        return 0
    delay: float = policy.base_delay_ms
    if policy.strategy == "linear":
        delay *= retry_no
    elif policy.strategy == "exponential":
        for _ in range(retry_no - 1):
            delay *= policy.multiplier
            if delay >= policy.max_delay_ms:
                break
    return int(min(delay, policy.max_delay_ms))


def with_jitter(delay_ms: int, place: str, step: StepState, retry_no: int) -> int:
    """From half to the whole of the wait: spread over executions, the same at every look."""
    seed = f"{place}:{step.attempt}:{step.try_no}:{retry_no}".encode()
    drawn = int.from_bytes(hashlib.sha256(seed).digest()[:4], "big")
    return delay_ms - (delay_ms * drawn >> 33)


def _failure_of(step: StepState) -> Failure:
    error = step.error
    if error is None:
        return Failure("step_failed", "unknown", "")
    status = status_of_failure(error.message, step.output)
    return Failure(error.code, error.error_class, error.message, error.retryable, status)


# --- budgets ---


def _budget_ms(
    state: ExecutionState, path: str, strategies: Strategies, now: datetime
) -> int | None:
    """What a recovery that begins now may take.

    The step's own time; of it what the execution's recoveries have left together, or what is left
    of the recovery around this one.
    """
    own = None if strategies.config is None else strategies.config.max_recovery_time_ms
    limits = [
        left // _MILLISECOND
        for each in around(path)
        if (step := state.steps.get(each)) is not None
        and step.recovery is not None
        and (left := step.recovery.left(now)) is not None
    ]
    total = None if state.recovery is None else state.recovery.total_budget_ms
    if total is not None and not limits:
        promised = sum(
            step.recovery.budget_ms or 0
            for each in state.live
            if (step := state.steps.get(each)) is not None and step.recovery is not None
        )
        limits = [total - state.recovery_spent_ms - promised]
    if own is not None:
        limits.append(own)
    return max(0, min(limits)) if limits else None


def time_left(state: ExecutionState, path: str, now: datetime) -> timedelta | None:
    """What the recovery that `path` belongs to may still take; None without one, or no budget."""
    step = state.steps.get(path if path.endswith("~undo") else owner_of(path))
    return None if step is None or step.recovery is None else step.recovery.left(now)


# --- the verdict ---


def exhausted(
    step: StepState, path: str, episode: Episode, reason: str, now: datetime
) -> ev.RecoveryExhausted:
    """The failure stands."""
    used = _milliseconds(episode.used(now))
    return ev.RecoveryExhausted(path, step.attempt, reason, episode.dispatches, used)


def succeeded(step: StepState, path: str, now: datetime) -> ev.RecoverySucceeded:
    """The step, which is recovering, has worked."""
    episode = step.recovery or Episode(now, None)
    return ev.RecoverySucceeded(
        path, step.attempt, episode.strategy, episode.dispatches, _milliseconds(episode.used(now))
    )


def record_all(draft: Draft, facts: Iterable[ev.Payload], now: datetime) -> None:
    """Record facts; a step that completes while it recovers has recovered."""
    for fact in facts:
        draft.record(fact)
        if type(fact) is ev.StepCompleted:
            step = draft.state.steps[fact.path]
            if step.recovery is not None:
                draft.record(succeeded(step, fact.path, now))


def _milliseconds(time: timedelta) -> int:
    """Whole milliseconds, rounded up, so that sums never seem less than they are."""
    return -(-time // _MILLISECOND)


# --- answers ---


def after_answer(
    definition: Definition,
    state: ExecutionState,
    path: str,
    understood: Understood,
    now: datetime,
    rules: RecoveryRules,
) -> ev.Payload:
    """What an answer leads to; `state` knows the answer already."""
    step = state.steps[path]
    episode = step.recovery or Episode(now, None)
    match understood.kind:
        case "retry":
            return _retry_after(step, path, 0, now)
        case "alternative":
            known = strategies_of(definition, state, path, rules).alternatives(rules)
            return _selected(step, path, known[understood.alternative or ""])
        case "abort":
            return exhausted(step, path, episode, USER_ABORT, now)
    reason = ANSWER_TIMEOUT if understood.read_as == "timeout" else SKIPPED
    return exhausted(step, path, episode, reason, now)


def answer_by_timeout(state: ExecutionState, path: str) -> ev.QuestionAnswered:
    """The answer of nobody, when the time for one is over."""
    question = state.questions[state.steps[path].question_id or ""]
    return ev.QuestionAnswered(
        question.id, path, question.attempt, question.on_timeout, None, "timeout", ""
    )


def _retry_after(step: StepState, path: str, delay_ms: int, now: datetime) -> ev.RetryScheduled:
    return ev.RetryScheduled(
        path=path,
        attempt=step.attempt,
        try_no=step.try_no + 1,
        delay_ms=delay_ms,
        due_at=now + delay_ms * _MILLISECOND,
    )


def _selected(step: StepState, path: str, chosen: Alternative) -> ev.AlternativeSelected:
    return ev.AlternativeSelected(path, step.attempt, chosen.id, other_action(step, chosen))


def other_action(step: StepState, chosen: Alternative) -> str:
    """What an alternative does: its own action, another workflow, or what the step does."""
    return SUB_WORKFLOW if chosen.workflow is not None else chosen.action or step.action
