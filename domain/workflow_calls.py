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
        yield from _alternatives(step.get("recovery"), f"{pointer}/recovery")
    yield from _alternatives(normalised.get("alternatives"), "/alternatives")


def _alternatives(stages: Json, pointer: str) -> Iterator[Call]:
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        work = stage.get("do") if isinstance(stage, dict) else None
        workflow = work.get("workflow") if isinstance(work, dict) else None
        if isinstance(workflow, str):
            yield Call(pointer_join(pointer, index, "do", "workflow"), workflow, None)
