"""What can happen to an agent's record. No event holds a credential."""

from typing import ClassVar

from domain.event_envelope import Payload
from domain.json_values import JsonObject


class AgentRegistered(Payload, frozen=True):
    """An agent exists, active; one that was deleted under this name is replaced.

    `settings` has every member of an agent's settings, with the defaults of that day. Of a
    credential it has the number of the secret (`secret_id`) or the reference (`secret_reference`).
    """

    TOPIC: ClassVar[str] = "agent.registered.v1"
    name: str
    settings: JsonObject


class AgentChanged(Payload, frozen=True):
    """`settings` has the members that are different now. `status` is active or inactive, and null
    when that did not change.
    """

    TOPIC: ClassVar[str] = "agent.changed.v1"
    settings: JsonObject
    status: str | None


class AgentDeleted(Payload, frozen=True):
    """No new step may name it; the name may be registered anew."""

    TOPIC: ClassVar[str] = "agent.deleted.v1"


AGENT_PAYLOADS: tuple[type[Payload], ...] = (AgentRegistered, AgentChanged, AgentDeleted)
