"""The workflows that a definition runs: those its steps call, and those its alternatives do."""

from collections.abc import Iterator
from typing import NamedTuple

from domain.json_values import Json, JsonObject, pointer_join


class Call(NamedTuple):
    """One place that names a workflow. `version` None: the newest, or the one in the name."""

    pointer: str
    workflow: str
    version: int | None


def calls_of(normalised: JsonObject) -> Iterator[Call]:
    """Every place, with its pointer in the normalised form."""
    steps = normalised.get("steps")
    for step_id, step in (steps if isinstance(steps, dict) else {}).items():
        if not isinstance(step, dict):
            continue
        pointer = pointer_join("/steps", step_id)
        workflow, version = step.get("workflow_id"), step.get("version")
        if step.get("type") == "sub_workflow" and isinstance(workflow, str):
            number = version if isinstance(version, int) else None
            yield Call(f"{pointer}/workflow_id", workflow, number)
        for place, name in named_by_alternatives(
            "workflow", step.get("recovery"), f"{pointer}/recovery"
        ):
            yield Call(place, name, None)
    for place, name in named_by_alternatives(
        "workflow", normalised.get("alternatives"), "/alternatives"
    ):
        yield Call(place, name, None)


def named_by_alternatives(what: str, stages: Json, pointer: str) -> Iterator[tuple[str, str]]:
    """(pointer, name) of each `workflow` or `agent` that alternatives in a list of stages do."""
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        work = stage.get("do") if isinstance(stage, dict) else None
        name = work.get(what) if isinstance(work, dict) else None
        if isinstance(name, str):
            yield pointer_join(pointer, index, "do", what), name
