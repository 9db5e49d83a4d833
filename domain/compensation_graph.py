"""What may be wrong with `compensate_with`: it names a step that is reached in no other way."""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Protocol

from domain.json_values import JsonObject
from domain.mistakes import Mistake


class Graph(Protocol):
    """What is looked at of the definition's graph."""

    @property
    def steps(self) -> Mapping[str, JsonObject]:
        """Normalised steps by id."""

    @property
    def start(self) -> str:
        """Id of the first step."""

    @property
    def order(self) -> Container[str]:
        """Ids on the main line."""

    @property
    def parents(self) -> Container[str]:
        """Ids inside a composite."""

    @property
    def undone_by(self) -> Mapping[str, Sequence[str]]:
        """Ids of the steps that each compensation undoes."""

    def is_in_loop(self, step_id: str) -> bool:
        """Whether a step is part of a loop's body, at any depth."""

    def pointer(self, step_id: str, *parts: str | int) -> str:
        """Where a step, or a part of it, stands."""


def undone_steps(steps: Mapping[str, JsonObject]) -> dict[str, list[str]]:
    """Ids of the steps that each compensation undoes, by the compensation's id."""
    found: dict[str, list[str]] = {}
    for step_id, step in steps.items():
        undo = step.get("compensate_with")
        if isinstance(undo, str):
            found.setdefault(undo, []).append(step_id)
    return found


def compensation_mistakes(graph: Graph) -> Iterator[Mistake]:
    """All of them, with pointers of the normalised form."""
    for undo, owners in graph.undone_by.items():
        for owner in owners:
            problem = _problem(graph, undo, owner)
            if problem is not None:
                code, message = problem
                yield Mistake(graph.pointer(owner, "compensate_with"), code, message)
        if undo in graph.steps and undo not in owners:
            yield from _of_compensation(graph, undo)


def _problem(graph: Graph, undo: str, owner: str) -> tuple[str, str] | None:
    if undo not in graph.steps:
        return "dangling_next", f"compensate_with names {undo!r}, which is not a step."
    if undo == owner:
        return "cycle", f"{undo!r} cannot undo itself; write a step of its own that does."
    if graph.is_in_loop(owner):
        message = (
            f"{owner!r} is in a loop, whose finished iterations keep their output only; let the "
            "loop itself be undone, by one step that sees them all."
        )
        return "contradiction", message
    if undo == graph.start or undo in graph.order or undo in graph.parents:
        message = f"{undo!r} undoes {owner!r} and runs otherwise too; write a step for each."
        return "two_parents", message
    return None


def _of_compensation(graph: Graph, undo: str) -> Iterator[Mistake]:
    step = graph.steps[undo]
    if step["type"] not in ("action", "wait", "sub_workflow"):
        message = "A step that undoes another one performs one action, or runs one workflow."
        yield Mistake(graph.pointer(undo, "type"), "contradiction", message)
    for field in ("next_step", "compensate_with"):
        if step.get(field) is not None:
            message = f"A step that undoes another one has no {field}."
            yield Mistake(graph.pointer(undo, field), "contradiction", message)
    stages = step["recovery"]
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(stage, dict) and stage["kind"] != "retry":
            message = "A step that undoes another one may be re-tried, and nothing else."
            yield Mistake(graph.pointer(undo, "recovery", index), "contradiction", message)
