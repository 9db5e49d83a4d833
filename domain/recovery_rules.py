"""What a server says about recovery, and what of it applies to one failed step."""

from typing import Final, NamedTuple

from msgspec import Struct

from domain.agent_names import agents_in
from domain.definition import (
    COMPOSITES,
    ActionStep,
    Definition,
    HumanTaskStep,
    Step,
    SubWorkflowStep,
    declared_at,
    is_aside,
)
from domain.error_classes import DEFAULT_LISTS, ErrorLists
from domain.execution_state import ExecutionState
from domain.recovery_config import RecoveryConfig, completed
from domain.recovery_stages import (
    ALTERNATIVE,
    ASK,
    RETRY,
    Alternative,
    AskPolicy,
    NamedAlternative,
    RetryPolicy,
    Stage,
)


class RecoveryRules(Struct, frozen=True):
    """The server's part: texts that tell the class of an error, named alternatives, settings.

    `config` None: executions that ask for nothing recover only as their steps say.
    """

    errors: ErrorLists = DEFAULT_LISTS
    alternatives: tuple[Alternative, ...] = ()
    config: RecoveryConfig | None = None

    @property
    def agents(self) -> frozenset[str]:
        """Those that do an alternative."""
        return agents_in(each.action for each in self.alternatives)


DEFAULT_RULES: Final = RecoveryRules()


class NamedRules(Struct, frozen=True):
    """The rules of the definition and then of the server: the first that fits is used, once."""

    alternatives: tuple[Alternative, ...]


AnyStage = Stage | NamedRules


class Strategies(NamedTuple):
    """What may be tried for one step, in order. `config` None: it has no budget."""

    config: RecoveryConfig | None
    stages: tuple[AnyStage, ...]

    def names(self) -> tuple[str, ...]:
        """The strategies as events name them."""
        return tuple(dict.fromkeys(_name(stage) for stage in self.stages))

    def alternatives(self, rules: "RecoveryRules") -> dict[str, Alternative]:
        """Every alternative that may be chosen by id."""
        found: dict[str, Alternative] = {}
        for stage in self.stages:
            match stage:
                case Alternative():
                    found.setdefault(stage.id, stage)
                case NamedRules():
                    for each in stage.alternatives:
                        found.setdefault(each.id, each)
        named = {each.id: each for each in reversed(rules.alternatives)}
        for stage in self.stages:
            if isinstance(stage, NamedAlternative) and stage.id in named:
                found.setdefault(stage.id, named[stage.id])
        return found


def strategies_of(
    definition: Definition, state: ExecutionState, path: str, rules: RecoveryRules
) -> Strategies:
    """The step's own stages; its settings add the kinds that it does not have itself.

    A re-try goes first, named rules after the step's own alternatives, a question last. Without
    settings of the step, the execution or the server there are the step's stages and the
    definition's rules, and no budget.
    """
    declared = declared_at(definition, path)
    if is_aside(path):
        # An alternative has its owner's recovery; a compensation is re-tried and nothing else.
        only = tuple(stage for stage in declared.recovery if isinstance(stage, RetryPolicy))
        return Strategies(None, only)
    config = _config(declared, state)
    stages: list[AnyStage] = list(declared.recovery)
    if config is not None and not any(isinstance(each, RetryPolicy) for each in stages):
        stages.insert(0, _retry_of(config))
    _place_rules(stages, definition, declared, config, rules)
    stages = [each for each in stages if _is_enabled(each, declared, config)]
    if config is not None and config.enable_user_fulfillment:
        stages += [] if any(isinstance(each, AskPolicy) for each in stages) else [AskPolicy()]
    return Strategies(config, tuple(stages))


def _config(declared: Step, state: ExecutionState) -> RecoveryConfig | None:
    """What is in a composite has recovered by itself: only its own settings are for it."""
    if declared.recovery_config is None:
        return None if isinstance(declared, COMPOSITES) else state.recovery
    return completed(declared.recovery_config, state.recovery)


def _retry_of(config: RecoveryConfig) -> RetryPolicy:
    return RetryPolicy(
        attempts=config.retry_attempts,
        base_delay_ms=config.base_retry_delay_ms,
        multiplier=config.backoff_multiplier,
        max_delay_ms=config.max_retry_delay_ms,
        first_retry_at_once=True,
        jitter=config.jitter,
    )


def _place_rules(
    stages: list[AnyStage],
    definition: Definition,
    declared: Step,
    config: RecoveryConfig | None,
    rules: RecoveryRules,
) -> None:
    named = definition.alternatives + (() if config is None else rules.alternatives)
    if isinstance(declared, HumanTaskStep):  # the same again is a retry, which asks the person anew
        named = tuple(each for each in named if each.action or each.workflow)
    if not named or not isinstance(declared, ActionStep | HumanTaskStep | SubWorkflowStep):
        return
    own = [n for n, each in enumerate(stages) if isinstance(each, Alternative | NamedAlternative)]
    asks = [n for n, each in enumerate(stages) if isinstance(each, AskPolicy)]
    place = own[-1] + 1 if own else min(asks, default=len(stages))
    stages.insert(place, NamedRules(named))


def _is_enabled(stage: AnyStage, declared: Step, config: RecoveryConfig | None) -> bool:
    """Alternatives unless they are switched off; a declared question unless its step says no."""
    if isinstance(stage, RetryPolicy):
        return stage.attempts > 0
    if isinstance(stage, AskPolicy):
        own = declared.recovery_config or {}
        return own.get("enable_user_fulfillment") is not False
    return config is None or config.enable_alternative_flows


def _name(stage: AnyStage) -> str:
    if isinstance(stage, RetryPolicy):
        return RETRY
    return ASK if isinstance(stage, AskPolicy) else ALTERNATIVE
