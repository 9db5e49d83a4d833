"""The agents that a definition names: those of its steps, and those of its alternatives."""

from collections.abc import Iterator
from typing import NamedTuple

from domain.agent_names import AGENT
from domain.json_values import JsonObject, pointer_join
from domain.workflow_calls import named_by_alternatives


class AgentUse(NamedTuple):
    """One place that names an agent, or names `fallback_of`, whose record names it."""

    pointer: str
    agent: str
    fallback_of: str | None = None


def agents_used(normalised: JsonObject) -> Iterator[AgentUse]:
    """Every place, with its pointer in the normalised form."""
    steps = normalised.get("steps")
    for step_id, step in (steps if isinstance(steps, dict) else {}).items():
        if not isinstance(step, dict):
            continue
        pointer, name = pointer_join("/steps", step_id), step.get("agent_name")
        if step.get("type") == AGENT and isinstance(name, str):
            yield AgentUse(f"{pointer}/agent_name", name)
        stages = step.get("recovery")
        for place, agent in named_by_alternatives(AGENT, stages, f"{pointer}/recovery"):
            yield AgentUse(place, agent)
    for place, agent in named_by_alternatives(
        AGENT, normalised.get("alternatives"), "/alternatives"
    ):
        yield AgentUse(place, agent)
