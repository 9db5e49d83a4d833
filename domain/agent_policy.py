"""What an agent's record says about failure, as the recovery of the steps that name it.

It is written into the normal form of a step that says nothing of failure itself, and so holds for a
published version whatever becomes of the agent.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from domain.agent_names import AGENT
from domain.agent_uses import AgentUse
from domain.agents import FAIL, FALLBACK, AgentRecovery, RetryConfig
from domain.failure_policy import read_failure_policy
from domain.json_values import Json, JsonObject, pointer_join
from domain.mistakes import Fields, Mistake, Places
from domain.validation import Verdict

FALLBACK_ID: Final = "fallback-agent"
"""The id of the alternative that an agent's `fallback_agent` becomes."""


class AgentPolicy(NamedTuple):
    """The part of a record that tells what is done about failure."""

    retry_config: RetryConfig
    recovery: AgentRecovery | None = None


def stages_of(policy: AgentPolicy) -> list[Json]:
    """The list `recovery` of a step, as a client would write it.

    No re-tries is a stage too: settings of the execution add theirs where a step has none.
    """
    retry, recovery = policy
    on_failure = None if recovery is None else recovery.on_failure
    stages: list[Json] = [
        {
            "kind": "retry",
            "attempts": 0 if on_failure == FAIL else retry.max_retries,
            "base_delay_ms": retry.initial_delay_ms,
            "multiplier": retry.backoff_multiplier,
            "max_delay_ms": retry.max_delay_ms,
        }
    ]
    if recovery is not None and on_failure == FALLBACK:
        work: JsonObject = {"agent": recovery.fallback_agent}
        stages.append({"kind": "alternative", "id": FALLBACK_ID, "do": work})
    return stages


def with_policies(verdict: Verdict, policies: Mapping[str, AgentPolicy]) -> Verdict:
    """The verdict with the policies of agents, by name, in the steps that are silent.

    Fallback agents are among `agents` then. Mistakes stand where the step names its agent.
    """
    steps = None if verdict.normalised is None else verdict.normalised["steps"]
    if verdict.normalised is None or not isinstance(steps, dict):
        return verdict
    filled, mistakes, fallbacks = dict(steps), list(verdict.mistakes), list(verdict.agents)
    for step_id, agent in verdict.silent.items():
        step, policy = filled[step_id], policies.get(agent)
        if policy is None or not isinstance(step, dict):
            continue
        place = pointer_join("/steps", step_id, "agent_name")
        stages, found = _read(step_id, agent, policy)
        mistakes += (each._replace(pointer=place) for each in found)
        filled[step_id] = {**step, "recovery": stages}
        if policy.recovery is not None and policy.recovery.on_failure == FALLBACK:
            fallbacks.append(AgentUse(place, policy.recovery.fallback_agent or "", agent))
    return verdict._replace(
        normalised={**verdict.normalised, "steps": filled},
        mistakes=tuple(mistakes),
        agents=tuple(fallbacks),
    )


def _read(step_id: str, agent: str, policy: AgentPolicy) -> tuple[Json, list[Mistake]]:
    """The stages in their normal form, as if the step had them written."""
    mistakes: list[Mistake] = []
    written: JsonObject = {"agent_name": agent, "recovery": stages_of(policy)}
    step = Fields(written, pointer_join("/steps", step_id), mistakes)
    return read_failure_policy(step, step_id, AGENT, Places())["recovery"], mistakes
