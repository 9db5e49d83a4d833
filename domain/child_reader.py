"""From a `sub_workflow` or a `wait_for_event` step as it was sent to its normalised settings."""

import re
from typing import Final

from domain.json_values import JsonObject, pointer_join
from domain.mistakes import Fields, Places
from domain.stage_reader import read_workflow_id

VERSION_MAX: Final = 1_000_000_000
SUB_WORKFLOW_FIELDS: Final = frozenset(
    ["workflow_id", "version", "workflow_version", "input_mapping", "wait"]
)
EVENT_FIELDS: Final = frozenset(["event_source", "event_filter", "on_timeout"])
SOURCES_LATER: Final = ("kafka", "http_poll", "webhook", "schedule", "file", "database")
"""Kinds of event source that are known by name and not built."""
SIGNAL_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_VERSIONED: Final = re.compile(r"wf-.+-[0-9]{1,9}\Z")


def read_sub_workflow(step: Fields, places: Places) -> JsonObject:
    """`{"workflow_id", "version", "input_mapping", "wait"}`."""
    workflow = read_workflow_id(step, "workflow_id")
    if step.raw.get("workflow_id") is None:
        message = "workflow_id says which workflow runs: its name, its id or wf-name-version."
        step.refuse("missing_field", message, "workflow_id")
    field = "workflow_version" if step.raw.get("workflow_version") is not None else "version"
    if field == "workflow_version":
        if step.raw.get("version") is not None:
            message = "Give version or workflow_version, not both."
            step.refuse("contradiction", message, "workflow_version")
        places.note(f"{step.pointer}/version", f"{step.pointer}/workflow_version")
    version = None
    if step.raw.get(field) is not None:
        version = step.whole(field, 1, VERSION_MAX, 1)
        if workflow is not None and _VERSIONED.match(workflow):
            message = f"{workflow!r} names a version already; leave {field} out."
            step.refuse("contradiction", message, field)
    return {
        "workflow_id": workflow or "invalid",
        "version": version,
        "input_mapping": step.object("input_mapping"),
        "wait": step.flag("wait", True),
    }


def read_wait_for_event(step: Fields) -> JsonObject:
    """`{"event_source": {"type": "signal", "name"}, "event_filter", "on_timeout"}`.

    A text as event_source is the name of a signal.
    """
    on_timeout = step.choice("on_timeout", ("fail", "continue", "skip"), "fail")
    if on_timeout != "fail" and step.raw.get("timeout_seconds") is None:
        message = (
            f"on_timeout {on_timeout!r} needs timeout_seconds; without it the wait is endless."
        )
        step.refuse("contradiction", message, "on_timeout")
    return {
        "event_source": {"type": "signal", "name": _signal(step)},
        "event_filter": step.object("event_filter"),
        "on_timeout": on_timeout,
    }


def _signal(step: Fields) -> str:
    raw = step.raw.get("event_source")
    place: tuple[str, ...] = ("event_source",)
    name = raw
    if isinstance(raw, dict):
        source = Fields(raw, pointer_join(step.pointer, *place), step.mistakes)
        source.refuse_others(frozenset({"type", "name"}))
        kind = raw.get("type", "signal")
        if kind in SOURCES_LATER:
            message = f"Events from {kind} are not available yet; use a signal."
            source.refuse("not_available_yet", message, "type")
        elif kind != "signal":
            source.refuse("bad_value", "The type of an event source is signal.", "type")
        name, place = raw.get("name"), (*place, "name")
    if isinstance(name, str) and SIGNAL_NAME.match(name):
        return name
    message = (
        "event_source names the signal to wait for: 1 to 128 characters of A-Z a-z 0-9 . _ - ."
    )
    step.refuse("missing_field" if name is None else "bad_identifier", message, *place)
    return "invalid"
