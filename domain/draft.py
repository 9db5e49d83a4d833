"""A decision being made.

The state it started from, the events recorded so far, the state they lead to.
"""

from datetime import datetime

from msgspec import structs

from domain.events import Event, Meta, Payload
from domain.execution import ExecutionState, evolve


class Draft:
    """Collects the events of one command. `recorded_at` never lies before the event before it."""

    __slots__ = ("base_version", "events", "meta", "state")

    def __init__(self, state: ExecutionState, meta: Meta) -> None:
        self.meta = meta if meta.at >= state.updated_at else _at(meta, state.updated_at)
        self.base_version = state.version
        self.state = state
        self.events: list[Event] = []

    def record(self, data: Payload) -> None:
        """One more fact."""
        event = Event(self.state.id, self.state.version + 1, self.meta, data)
        self.state = evolve(self.state, event)
        self.events.append(event)


def _at(meta: Meta, at: datetime) -> Meta:
    return structs.replace(meta, at=at)
