"""The page of events: every topic with its fields."""

from collections.abc import Iterator
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints
from uuid import UUID

from domain.events import AGENT_PAYLOADS, EXECUTION_PAYLOADS, WORKFLOW_PAYLOADS, Meta, Payload
from tools.markdown import table, told

_INTRODUCTION: Final = """# Events

Everything that ever happened is an event in the log; everything else is computed from it. An event
has a topic that ends in its version and never changes once it was released. What is stored is one
JSON text, `{"meta": {...}, "data": {...}, "private": {...}}`; the stream's id, the version and the
topic are columns beside it. Private fields may hold personal or secret data and are stored apart,
so that they can be erased without touching the rest; answers and the view
[`execution_events`](tables.md#execution_events) show both together.

[Events and the log](../explanation/events-and-log.md) says how they are appended and read.

"""
_META: Final = {
    "at": "When: UTC with microseconds, never before the event before it.",
    "cmd": "The command that caused it. The same for all events of one command; a worker's is "
    "`w{epoch}:{version}`.",
    "actor": "Who: the caller's name, `anonymous` without one, or `worker`.",
    "ws": "Workspace; `default` is left out.",
    "corr": "`X-Correlation-ID` of the command.",
    "cause": "What caused the command.",
    "fingerprint": "SHA-256 of route, query and body of a command that came with an "
    "`Idempotency-Key`; tells a repeat from a misuse.",
}
_NAMES: Final[dict[Any, str]] = {  # keys are types
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    datetime: "time",
    UUID: "UUID",
    Any: "JSON",
    NoneType: "null",
    dict[str, str]: "object of texts",
    dict[str, Any]: "object",
    tuple[str, ...]: "list of texts",
}


def events_page() -> str:
    """The page."""
    meta = [
        (f"`{name}`", type_name(kind), _META[name]) for name, kind in get_type_hints(Meta).items()
    ]
    parts = [
        _INTRODUCTION,
        "## The envelope\n\n`meta` of every event:\n\n",
        table(("field", "type", "meaning"), meta),
        "\n## Executions\n",
        *(_section(payload) for payload in EXECUTION_PAYLOADS),
        "\n## Workflows\n",
        *(_section(payload) for payload in WORKFLOW_PAYLOADS),
        "\n## Agents\n",
        *(_section(payload) for payload in AGENT_PAYLOADS),
    ]
    return "".join(parts)


def _section(payload: type[Payload]) -> str:
    section = f"\n### {payload.TOPIC}\n\n{told(payload)}\n"
    rows = list(_fields(payload))
    return f"{section}\n{table(('field', 'type', ''), rows)}" if rows else section


def _fields(payload: type[Payload]) -> Iterator[tuple[str, str, str]]:
    hints = get_type_hints(payload)
    for name in payload.__struct_fields__:
        yield f"`{name}`", type_name(hints[name]), "private" if name in payload.PRIVATE else ""


def type_name(kind: Any) -> str:  # any annotation
    """An annotation in plain words."""
    if kind in _NAMES:
        return _NAMES[kind]
    if get_origin(kind) is UnionType or NoneType in get_args(kind):
        return " or ".join(type_name(each) for each in get_args(kind))
    raise TypeError(f"no words for the type {kind!r}; add them in tools/reference_events.py")
