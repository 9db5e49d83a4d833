"""What a diagram shows beside the flow: compensations, alternatives, what a failure leads to."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from domain.compensation import UNDOING
from domain.definition import (
    ActionStep,
    Definition,
    is_aside,
    owner_of,
    step_id_of,
    undo_path,
)
from domain.execution import ExecutionState, StepState
from domain.recovery_stages import Alternative, NamedAlternative, RetryPolicy, Stage

ALTERNATIVE: Final = "alternative"
COMPENSATION: Final = "compensation"


class Aside(NamedTuple):
    """Work aside of a step. `kind` is ALTERNATIVE or COMPENSATION; `step` None: not begun."""

    kind: str
    path: str
    name: str
    action: str
    step: StepState | None

    @property
    def label(self) -> str:
        """What the arrow from the step says."""
        return "undone by" if self.kind == COMPENSATION else "alternative"


Asides = Mapping[str, Sequence[Aside]]
"""By the id of the step that they stand aside of."""


def asides_of(definition: Definition, paths: Mapping[str, str]) -> Asides:
    """The compensations that a definition declares; `paths` has the path of each step."""
    return {
        step_id: (_undoing(definition, step_id, path, None),)
        for step_id, path in paths.items()
        if definition.steps[step_id].compensate_with is not None
    }


def asides_in(definition: Definition, state: ExecutionState, places: Mapping[str, str]) -> Asides:
    """What was begun aside of the steps at `places` (by step id), and the compensations still due.

    Alternatives stand before compensations, each in order of their beginning.
    """
    found: dict[str, list[Aside]] = {}
    due = state.to_undo if state.state in UNDOING else ()
    begun = {path: step for path, step in state.steps.items() if is_aside(path)}
    for path in [*begun, *(undo_path(each) for each in due if undo_path(each) not in begun)]:
        owner, step = owner_of(path), begun.get(path)
        step_id = step_id_of(owner)
        if places.get(step_id) != owner:
            continue
        aside = (
            _undoing(definition, step_id, owner, step)
            if path == undo_path(owner)
            else Aside(
                ALTERNATIVE, path, path.partition("~alt.")[2], step.action if step else "", step
            )
        )
        found.setdefault(step_id, []).append(aside)
    return {step_id: sorted(asides, key=_place) for step_id, asides in found.items()}


def _undoing(definition: Definition, step_id: str, owner: str, step: StepState | None) -> Aside:
    name = definition.steps[step_id].compensate_with or ""
    declared = definition.steps[name]
    action = declared.ACTION
    if isinstance(declared, ActionStep):
        action = declared.action
    return Aside(COMPENSATION, undo_path(owner), name, action, step)


def _place(aside: Aside) -> tuple[bool, str, str]:
    at = aside.step.started_at if aside.step is not None else None
    return (aside.kind == COMPENSATION, "" if at is None else at.isoformat(), aside.path)


def strategies_text(stages: Sequence[Stage]) -> tuple[str, ...]:
    """What is tried in order when a step fails: `3 re-tries`, `alternative half`, `a question`."""
    return tuple(_stage_text(stage) for stage in stages)


def _stage_text(stage: Stage) -> str:
    match stage:
        case RetryPolicy():
            return "1 re-try" if stage.attempts == 1 else f"{stage.attempts} re-tries"
        case Alternative() | NamedAlternative():
            return f"alternative {stage.id}"
    return "a question"
