"""What every event has: who caused it and when, its payload, its place in the log."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from msgspec import Struct


class Meta(Struct, frozen=True, omit_defaults=True):
    """Who caused an event, by which command, and when.

    `at` is UTC with microseconds and never before the previous event.
    """

    at: datetime
    cmd: str
    actor: str
    ws: str = "default"
    corr: str | None = None
    cause: str | None = None
    fingerprint: str | None = None
    """SHA-256 of the request body of a command that came with an Idempotency-Key.

    Tells a repeat from a misuse.
    """


class Payload(Struct, frozen=True):
    """One fact. Subclasses add fields only."""

    TOPIC: ClassVar[str] = ""
    PRIVATE: ClassVar[tuple[str, ...]] = ()


class Event(Struct, frozen=True):
    """A payload in its envelope. `version` counts from 1 within the execution (or the workflow)."""

    execution_id: UUID
    version: int
    meta: Meta
    data: Payload


class Recorded(Struct, frozen=True):
    """An event with its place in the global log.

    `position` grows with commit order and may have gaps.
    """

    position: int
    event: Event
