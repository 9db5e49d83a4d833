"""Names, counts, times and texts of others inside an English sentence."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from application.diagram_style import printable, time_text
from domain.definition import owner_of, step_id_of
from domain.lane_paths import iteration_around

NAMES_MAX: Final = 12
MESSAGE_MAX: Final = 300


def names(paths: Sequence[str]) -> str:
    shown = [repr(name(path)) for path in paths[:NAMES_MAX]]
    if len(paths) > NAMES_MAX:
        return f"{', '.join(shown)} and {len(paths) - NAMES_MAX} more"
    return " and ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else shown[0]


def name(path: str) -> str:
    """The step's id; in a loop its path, for there it is one of many."""
    return printable(path if iteration_around(path) else step_id_of(path))


def step_words(path: str) -> str:
    """The step, or what is done in its place or to undo it."""
    step, aside = name(owner_of(path)), path.partition("~")[2]
    if aside == "undo":
        return f"The compensation of step {step!r}"
    return f"Alternative {aside[4:]!r} of step {step!r}" if aside else f"Step {step!r}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def when(at: datetime | None) -> str:
    return "" if at is None else f" at {time_text(at)}"


def clean(text: str | None) -> str:
    return printable(text or "", MESSAGE_MAX)
