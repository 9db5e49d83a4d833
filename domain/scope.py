"""What a reference sees from where it stands: its own iteration or branch first, then outwards."""

from collections.abc import Mapping

from domain.definition import alternative_path, owner_of, parent_path
from domain.execution import ExecutionState
from domain.json_values import Json
from domain.lane_paths import iteration_around, lane_name, lane_owner
from domain.lifecycle import STEP_ENDED
from domain.references import MISSING, Missing


class StepScope:
    """The values that the references of the step at `path` may use.

    `path` "" is the definition's own output.
    """

    __slots__ = ("_path", "_state", "simulates", "workflow_input")

    def __init__(self, state: ExecutionState, path: str) -> None:
        self._state = state
        self._path = path
        self.workflow_input: Json = state.input
        self.simulates = state.simulate

    def output(self, step_id: str) -> Json | Missing:
        """A step's output; null for one that was skipped, or failed without one.

        MISSING for one that has not ended.
        """
        steps = self._state.steps
        inside = parent_path(self._path)
        while True:
            step = steps.get(f"{inside}/{step_id}" if inside else step_id)
            if step is not None:
                return step.output if step.state in STEP_ENDED else MISSING
            if not inside:
                return MISSING
            inside = parent_path(inside)

    def undone(self) -> Mapping[str, Json] | None:
        """What the step that is being undone was given and returned; None outside a compensation.

        Where an alternative did its work, the input is the alternative's.
        """
        if not self._path.endswith("~undo"):
            return None
        owner = owner_of(self._path)
        step = self._state.steps[owner]
        did_it = owner if step.via is None else alternative_path(owner, step.via)
        return {"input": self._state.steps[did_it].input, "output": step.output}

    def loop(self) -> Mapping[str, Json] | None:
        """The innermost iteration that the step lies in."""
        lane = iteration_around(self._path)
        if not lane:
            return None
        given = self._state.steps[lane_owner(lane)].input
        items = given["collection"] if isinstance(given, dict) else None
        if not isinstance(items, list):
            return None
        index, total = int(lane_name(lane)), len(items)
        return {
            "item": items[index],
            "index": index,
            "total": total,
            "is_first": index == 0,
            "is_last": index == total - 1,
        }
