"""What each verb would do to an execution now, or why it is not possible: in plain English.

Rules are not repeated here: what a retry would undo is asked of the retry decision itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from application.diagram_lanes import states_by_step
from application.diagram_style import printable
from application.plain_words import NAMES_MAX, clean, names, step_words
from application.views import WaitView, waiting_on
from domain.compensation import UNDOING
from domain.decisions import retry
from domain.definition import Definition, ForkJoinStep, is_aside, step_id_of
from domain.draft import Draft
from domain.events import Meta, Retried
from domain.execution import ExecutionState, StepState
from domain.forking import fork_points
from domain.lifecycle import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    PENDING,
    SKIPPED,
    STEP_ENDED,
)
from domain.reopening import was_reached
from domain.verbs import COMPLETE, FORK, SIGNAL, SKIP, allowed_actions, settled_by

_STAYS: Final = frozenset({COMPLETED, SKIPPED})
"""How something has ended that a retry does not begin anew."""


@dataclass(frozen=True, slots=True)
class VerbEffect:
    """What a verb would do, or why it is not possible now."""

    verb: str
    allowed: bool
    effect: str


def verb_effects(state: ExecutionState, definition: Definition) -> list[VerbEffect]:
    """Of every verb, allowed now or not; then of each signal that a step waits for."""
    allowed = allowed_actions(state)
    return [
        *(
            VerbEffect(verb, verb in allowed, tell(state, definition, verb in allowed))
            for verb, tell in _TELL.items()
        ),
        *(_signalling(each) for each in waiting_on(state) if each.kind == SIGNAL),
    ]


def _signalling(wait: WaitView) -> VerbEffect:
    effect = f"{step_words(wait.path)} takes the signal {clean(wait.detail)!r} and goes on."
    return VerbEffect(SIGNAL, True, effect)


def _cancelling(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    if state.state in (CANCELLED, CANCELLING):
        already = "cancelled" if state.state == CANCELLED else "being cancelled"
        return f"It is {already} already; asking again changes nothing."
    if not allowed:
        return f"It is {state.status}; only what has not ended can be cancelled."
    live = _in_order(definition, (path for path in state.live if _is_open(state, path)))
    parts = []
    if live:
        parts.append(f"Interrupts {names(live)}; a result that still comes is ignored.")
    never = _never_reached(state, definition)
    if never:
        parts.append(f"Never runs {names(never)}.")
    undone = list(reversed(state.to_undo))
    parts.append(
        f"First undoes {names(undone)}, in this order. A retry can reopen it."
        if undone
        else "Finished steps are not undone. A retry can reopen it."
    )
    return " ".join(parts)


def _is_open(state: ExecutionState, path: str) -> bool:
    step = state.steps.get(path)
    return step is not None and step.state not in STEP_ENDED and not step.is_around


def _retrying(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    if not allowed:
        return f"It is {state.status}; only FAILED and CANCELLED executions can be retried."
    reset = _reset_by_retry(state, definition)
    again = [path for path in reset if state.steps[path].state in (COMPLETED, FAILED, CANCELLED)]
    anew = [path for path in reset if state.steps[path].state == SKIPPED]
    kept = _in_order(
        definition,
        (p for p, step in state.steps.items() if p not in reset and step.state == COMPLETED),
    )
    return " ".join(
        (f"Starts attempt {state.attempt + 1}.", *_retry_sentences(state, definition, again, anew))
        + ((f"Keeps the results of {names(kept)}.",) if kept else ())
    )


def _retry_sentences(
    state: ExecutionState, definition: Definition, again: list[str], anew: list[str]
) -> Iterator[str]:
    if again:
        yield f"Runs {names(again)} again."
    if anew:
        yield f"Decides anew about {names(anew)}."
    never = _never_reached(state, definition, retried=True)
    if never:
        yield f"Then comes, for the first time, {names(never)}."


def _reset_by_retry(state: ExecutionState, definition: Definition) -> list[str]:
    """The paths that a plain retry would undo."""
    draft = Draft(state, Meta(state.updated_at, "explain", "explain"))
    retry(draft, definition, None, None)
    (event,) = draft.events
    return _in_order(definition, event.data.reset if isinstance(event.data, Retried) else ())


def _in_order(definition: Definition, paths: Iterable[str]) -> list[str]:
    """Paths in the order in which the definition lists their steps."""
    place = {step_id: number for number, step_id in enumerate(definition.steps)}
    own = (path for path in paths if not is_aside(path))
    return sorted(own, key=lambda path: place[step_id_of(path)])


def _never_reached(
    state: ExecutionState, definition: Definition, *, retried: bool = False
) -> list[str]:
    """Steps without a record that still could run, or could after a retry."""
    undoing = {declared.compensate_with for declared in definition.steps.values()}
    shown = {step_id: step for step_id, (_, step) in states_by_step(state).items()}
    return [
        step_id
        for step_id in definition.steps
        if step_id not in shown
        and step_id not in undoing
        and not _is_closed(definition, shown, step_id, _STAYS if retried else STEP_ENDED)
        and not was_reached(definition, state, step_id)
    ]


def _is_closed(
    definition: Definition,
    shown: Mapping[str, StepState],
    step_id: str,
    ended: AbstractSet[str],
) -> bool:
    """Whether something around a step has ended, or the branch that it lies in."""
    while parent := definition.steps[step_id].parent:
        around, declared = shown.get(parent), definition.steps[parent]
        if around is not None and around.state in ended:
            return True
        if around is not None and around.fan is not None and isinstance(declared, ForkJoinStep):
            branch = next(each.name for each in declared.branches if step_id in each.steps)
            end = around.fan.ends.get(branch)
            if end is not None and end.state in ended:
                return True
        step_id = parent
    return False


def _pausing(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    if state.pause is not None:
        return "It is paused already; asking again changes nothing."
    if not allowed:
        return f"It is {state.status}; only what has not ended, and is not undone, can be paused."
    if state.state == PENDING:
        return "Keeps it from starting until it is resumed."
    live = _in_order(definition, (path for path in state.live if _is_open(state, path)))
    going = f"Lets {names(live)} go on and records the end. " if live else ""
    return f"{going}Begins nothing until it is resumed."


def _resuming(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    if not allowed:
        return "It is not paused."
    if not state.has_begun:
        return "Lets it start, not before its time if it has one."
    return "Goes on with all that has become due; what the pause held back keeps its time."


def _forking(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    if not allowed:
        return (
            "It is being undone; wait for its end."
            if state.state in UNDOING
            else "No step was reached, so there is nothing to begin from."
        )
    points = fork_points(definition, state)
    which = ", whichever is named" if len(points) > 1 else ""
    return f"Begins a new execution at {names(points)}{which}; this one stays as it is."


def _skipping(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    return _settling(state, SKIP, "Ends {} as SKIPPED, without an output")


def _completing(state: ExecutionState, definition: Definition, allowed: bool) -> str:
    return _settling(state, COMPLETE, "Ends {} as COMPLETED, with the output that is given")


def _settling(state: ExecutionState, verb: str, sentence: str) -> str:
    live = [path for path in sorted(state.live) if settled_by(state, path, verb) is not None]
    if not live:
        return "No step is live that could be settled."
    shown = " or ".join(repr(printable(path)) for path in live[:NAMES_MAX])
    more = f" (and {len(live) - NAMES_MAX} more)" if len(live) > NAMES_MAX else ""
    return sentence.format(shown + more) + "; what runs there is interrupted. A reason is due."


_TELL: Final[dict[str, Callable[[ExecutionState, Definition, bool], str]]] = {
    "cancel": _cancelling,
    "pause": _pausing,
    "resume": _resuming,
    "retry": _retrying,
    FORK: _forking,
    SKIP: _skipping,
    COMPLETE: _completing,
}
