"""How a diagram reads: the words on a box and its look.

Colour is never alone: each box says its state too.
"""

import unicodedata
from datetime import datetime
from typing import Final, NamedTuple

from application.diagram_graph import ENDED, NOT_NEEDED, NOT_TAKEN, Graph, Node
from domain.control_evolution import BY_HAND

TEXT_MAX: Final = 60


class Look(NamedTuple):
    """Colours as #rrggbb, stroke width in px. Text on fill has a contrast of at least 7:1."""

    fill: str
    stroke: str
    text: str
    width: int
    dashed: bool


LOOKS: Final = {
    "plain": Look("#ffffff", "#37474f", "#1b1b1b", 1, False),
    "pending": Look("#ffffff", "#9e9e9e", "#4a4a4a", 1, False),
    "not_reached": Look("#ffffff", "#9e9e9e", "#4a4a4a", 1, True),
    "around": Look("#f0f6fe", "#1565c0", "#1b1b1b", 1, False),
    "running": Look("#dcebfd", "#1565c0", "#1b1b1b", 3, False),
    "waiting": Look("#ece4fa", "#6a3fb5", "#1b1b1b", 3, False),
    "recovering": Look("#fff1cf", "#b26a00", "#1b1b1b", 3, False),
    ENDED.lower(): Look("#f4faf4", "#6b8f6d", "#1b1b1b", 1, False),
    "completed": Look("#e3f4e4", "#2e7d32", "#1b1b1b", 1, False),
    "failed": Look("#fde3e1", "#c62828", "#1b1b1b", 2, False),
    "skipped": Look("#f5f5f5", "#9e9e9e", "#4a4a4a", 1, True),
    "cancelled": Look("#e4e8ea", "#455a64", "#1b1b1b", 2, False),
}

_WORDS: Final = {
    "waiting_for_time": "waiting",
    "waiting_for_person": "waiting for a person",
    "waiting_for_agent": "waiting for an agent",
    "waiting_for_child": "waiting for its execution",
    "waiting_for_signal": "waiting for a signal",
    "awaiting_answer": "awaiting an answer",
    ENDED.lower(): "ended with its iterations",
}
_DUE: Final = {"retrying": "next try at", "awaiting_answer": "answer until"}
_VIA: Final = {"RECOVERING": "to alternative", "COMPLETED": "by alternative"}
_REASONS: Final = {
    NOT_TAKEN: "branch not taken",
    NOT_NEEDED: "not needed any more",
    BY_HAND: "by hand",
}


def look_name(node: Node) -> str:
    """Key of LOOKS."""
    if not node.status:
        return "plain"
    if node.status == "RUNNING" and not node.current:
        return "around"
    if node.sub_status == "awaiting_answer" or (node.status == "RUNNING" and node.sub_status):
        return "waiting"
    return node.status.lower()


def title_of(graph: Graph) -> str:
    """Name, version, status and, from the second on, the attempt."""
    parts = [printable(graph.name)]
    if graph.workflow_version is not None:
        parts[0] += f" v{graph.workflow_version}"
    if graph.status is not None:
        parts.append(f"{graph.status} with failures" if graph.partial else graph.status)
    if graph.sub_status is not None:
        parts.append(graph.sub_status)
    if graph.attempt is not None and graph.attempt > 1:
        parts.append(f"attempt {graph.attempt}")
    return " · ".join(parts)


def heading(node: Node) -> str:
    """First line of a box."""
    return printable(node.name)


def details(node: Node) -> tuple[str, ...]:
    """The lines under the heading: what it tests; what it does and its state; times and errors;
    what is tried when it fails.
    """
    first = [] if node.action in ("", node.name) else [printable(node.action)]
    if node.status:
        first.append(_state_words(node))
    condition = printable(node.condition) if node.condition else ""
    lines = [condition, " · ".join(first), " · ".join(_facts(node))]
    if node.on_failure:
        lines.append("on failure: " + ", ".join(printable(each) for each in node.on_failure))
    return tuple(line for line in lines if line)


def stop_text(node: Node) -> str:
    """Text of an end that is not the good one."""
    cause = f" · {printable(node.error_code)}" if node.error_code else ""
    return f"{node.status}{cause}"


def printable(text: str, limit: int = TEXT_MAX) -> str:
    """One line of at most `limit` characters, without controls, bidi overrides and surrogates."""
    spaced = (" " if char.isspace() else char for char in text[: limit * 4])
    kept = "".join(char for char in spaced if not unicodedata.category(char).startswith("C"))
    line = " ".join(kept.split())
    return line if len(line) <= limit and len(text) <= limit * 4 else f"{line[: limit - 1]}…"


def duration_text(milliseconds: int) -> str:
    """`350 ms`, `1.2 s`, `3 min`, `3 min 4 s`, `2 h 5 min`."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def time_text(at: datetime) -> str:
    """`2026-01-31 12:00:05 UTC`: to the second, as people write it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _state_words(node: Node) -> str:
    word = node.sub_status or node.status.lower()
    word = _WORDS.get(word, word).replace("_", " ")
    return f"try {node.try_no} · {word}" if node.try_no > 1 else word


def _facts(node: Node) -> list[str]:
    facts = [] if node.iteration is None else [f"in {node.iteration}"]
    if node.lanes is not None:
        facts.append(node.lanes)
    if node.status in ("SKIPPED", "CANCELLED") and node.why:
        facts.append(_REASONS.get(node.why) or printable(node.why))
    if node.via is not None and node.status in ("RECOVERING", "COMPLETED"):
        facts.append(f"{_VIA[node.status]} {printable(node.via)}")
    if node.answer is not None:
        facts.append(f"answer: {printable(node.answer)}")
    if node.undone:
        facts.append("undone")
    if node.due_at is not None:
        word = _DUE.get(node.sub_status or "", "until")
        facts.append(f"{word} {time_text(node.due_at)}")
    if node.duration_ms is not None and node.kind != "conditional":
        facts.append(duration_text(node.duration_ms))
    if node.error_code:
        facts.append(f"{printable(node.error_code)} ({printable(node.error_class or 'unknown')})")
    if node.tries > node.try_no:
        facts.append(f"{node.tries} tries in all")
    return facts
