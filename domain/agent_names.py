"""How agents are called, and how the tries they do are: `agent:NAME`; no action has such a name."""

import re
from collections.abc import Iterable
from typing import Final

AGENT_NAME: Final = re.compile(r"[A-Za-z0-9_.-](?:[A-Za-z0-9_. -]{0,126}[A-Za-z0-9_.-])?\Z")
"""A name within a workspace, which may stand in a URL, a message's key and a log line."""
AGENT_NAME_RULE: Final = "1 to 128 characters of A-Z a-z 0-9 . _ - , with spaces inside"
HTTP: Final = "http"
PULL: Final = "pull"
KAFKA: Final = "kafka"
TRANSPORTS: Final = (HTTP, PULL, KAFKA)
"""How work reaches an agent: the engine calls it, its workers ask for tasks, a topic has them."""
DISPATCHED: Final = frozenset({PULL, KAFKA})
"""Transports by which a task goes out and its result comes from outside, whenever that is."""
AGENT: Final = "agent"
_PREFIX: Final = f"{AGENT}:"


def agent_action(name: str) -> str:
    """What a try that an agent does is recorded as."""
    return _PREFIX + name


def agent_of(action: str | None) -> str | None:
    """The agent that a recorded action names; None for the engine's own actions."""
    if action is None or not action.startswith(_PREFIX):
        return None
    return action.removeprefix(_PREFIX)


def agents_in(actions: Iterable[str | None]) -> frozenset[str]:
    """The agents among actions."""
    return frozenset(name for action in actions if (name := agent_of(action)) is not None)
