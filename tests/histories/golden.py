"""Stored events of every topic ever released, which must be readable for ever.

`events.json` maps a topic to a stored state and to what it reads as. An entry of a released topic
is never changed. `python -m tests.histories.golden` adds what is missing, in this file and in
`topics.txt`.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin
from uuid import UUID

import msgspec

from domain.events import PAYLOADS, Event, Meta, Payload
from infrastructure.event_store.codec import Codec

FOLDER = Path(__file__).parent
EVENTS = FOLDER / "events.json"
TOPICS = FOLDER / "topics.txt"

EXECUTION_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
META = Meta(
    at=AT,
    cmd="5f0c6f5e-2f0a-5b61-9c39-9f9a1b7f6c11",
    actor="user:1f3a",
    ws="research",
    corr="order-17",
    cause="cmd-16",
    fingerprint="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
)


def sample(kind: Any, name: str) -> Any:
    """A telling value for a field of this type."""
    options = [option for option in get_args(kind) if option is not NoneType]
    if get_origin(kind) is dict:
        return {"key": "value"} if options[1] is str else {"a": [1, 2.5, None, "é"], "b": True}
    if get_origin(kind) is tuple:
        return ("fetch", "fan/a")
    if options:
        return sample(options[0], name)
    by_type = {str: f"the {name}", int: 3, bool: True, datetime: AT, UUID: EXECUTION_ID}
    return by_type.get(kind, {"any": ["json", None, 1.5]})


def sample_payload(payload: type[Payload]) -> Payload:
    """A payload with a telling value in every field."""
    fields = msgspec.structs.fields(payload)
    return payload(**{field.name: sample(field.type, field.name) for field in fields})


def readable(meta: Meta, payload: Payload) -> dict[str, Any]:
    """What was read, in a form that can be kept beside the stored state."""
    return {
        "type": type(payload).__name__,
        "meta": json.loads(msgspec.json.encode(meta)),
        "payload": json.loads(msgspec.json.encode(payload)),
    }


def add_missing() -> None:
    """Write an entry for each topic that has none."""
    codec = Codec()
    golden = json.loads(EVENTS.read_text("utf-8")) if EVENTS.exists() else {}
    for payload in PAYLOADS:
        if payload.TOPIC not in golden:
            event = Event(EXECUTION_ID, 1, META, sample_payload(payload))
            golden[payload.TOPIC] = {
                "state": json.loads(codec.encode([event])[0]),
                "reads_as": readable(META, event.data),
            }
    text = json.dumps(golden, indent=1, ensure_ascii=False, sort_keys=True)
    EVENTS.write_text(text + "\n", "utf-8")
    TOPICS.write_text("".join(f"{topic}\n" for topic in sorted(golden)), "utf-8")


if __name__ == "__main__":
    add_missing()
