"""A new execution that begins in the middle of another one, with what that one has finished.

Its own log says all it needs: the outcomes that it keeps are events of its own. What it keeps it
never undoes, for that is the work of the execution that did it.
"""

from collections.abc import Iterator
from uuid import UUID

from domain import events as ev
from domain.compensation import undone_paths
from domain.decisions import Request, request
from domain.definition import Definition, is_aside
from domain.draft import Draft
from domain.errors import StateConflict
from domain.execution_state import ExecutionState, StepState
from domain.json_values import JsonObject
from domain.lane_paths import iteration_around, top_of
from domain.lanes import is_finished
from domain.reopening import main_line_step, require_reached, was_reached
from domain.verbs import allowed_actions, may_fork, refusal


def fork(
    origin: ExecutionState,
    definition: Definition,
    from_step: str,
    input_data: JsonObject | None,
    reason: str | None,
    execution_id: UUID,
    meta: ev.Meta,
) -> tuple[ExecutionState, tuple[ev.Event, ...]]:
    """The first events of an execution that does `from_step` of `origin`, and all after it, anew.

    What is before it on the main line is kept as a retry would keep it: finished steps with their
    outputs; what failed or has not ended runs again. `origin` may be in any state but being undone.
    A step inside a composite stands for the whole composite. `input_data` None is the input of
    `origin`.

    Raises StepNotReached, and StateConflict when a step that would be kept was undone.
    """
    require_reached(definition, origin, from_step, "from_step")
    if not may_fork(origin):
        raise refusal(origin, "and is being undone cannot be forked; wait for its end")
    tops = tuple(_tops_before(definition, from_step))
    _require_not_undone(definition, origin, tops)
    state, requested = request(
        execution_id,
        Request(
            workflow_id=origin.workflow_id,
            workflow_name=origin.workflow_name,
            workflow_version=origin.workflow_version,
            definition_id=origin.definition_id,
            sha256=origin.sha256,
            steps_total=origin.steps_total,
            definition=origin.definition,
            input=origin.input if input_data is None else input_data,
            atomic_mode=origin.atomic_mode,
            priority=origin.priority,
            labels=origin.labels,
            simulate=origin.simulate,
            recovery=origin.recovery,
        ),
        meta,
    )
    draft = Draft(state, meta)
    draft.record(ev.ForkedFrom(origin.id, origin.version, origin.attempt, from_step, reason))
    for path in _kept(origin, tops):
        draft.record(_as_kept(path, origin.steps[path]))
    return draft.state, (requested, *draft.events)


def fork_points(definition: Definition, origin: ExecutionState) -> list[str]:
    """Steps of the main line at which a fork may begin: those reached, up to what was undone."""
    line = [each for each in definition.main_line() if was_reached(definition, origin, each)]
    undone = _first_undone(definition, origin)
    return line if undone is None else line[: line.index(top_of(undone)) + 1]


def _first_undone(definition: Definition, origin: ExecutionState) -> str | None:
    """Of what was undone, the path that comes first on the main line; None when nothing was."""
    place = {step_id: number for number, step_id in enumerate(definition.main_line())}
    return min(undone_paths(origin), key=lambda path: (place[top_of(path)], path), default=None)


def _tops_before(definition: Definition, from_step: str) -> Iterator[str]:
    first = main_line_step(definition, from_step)
    for step_id in definition.main_line():
        if step_id == first:
            return
        yield step_id


def _require_not_undone(
    definition: Definition, origin: ExecutionState, tops: tuple[str, ...]
) -> None:
    undone = _first_undone(definition, origin)
    if undone is None or top_of(undone) not in tops:
        return
    before = "" if top_of(undone) == tops[0] else " or from a step before it"
    raise StateConflict(
        f"Step {undone!r} of that execution was undone, so there is nothing to keep of it; "
        f"fork from {top_of(undone)!r}{before}.",
        current_status=origin.status,
        allowed_actions=allowed_actions(origin),
    )


def _kept(origin: ExecutionState, tops: tuple[str, ...]) -> Iterator[str]:
    """Paths of the finished steps, and of those inside them that have not left with a loop."""
    place = {step_id: number for number, step_id in enumerate(tops)}
    found = (
        path
        for path in origin.steps
        if not is_aside(path)
        and not iteration_around(path)
        and (top := top_of(path)) in place
        and top in origin.steps
        and is_finished(origin.steps[top])
    )
    return iter(sorted(found, key=lambda path: (place[top_of(path)], path)))


def _as_kept(path: str, step: StepState) -> ev.StepKept:
    fan, error = step.fan, step.error
    return ev.StepKept(
        path=path,
        state=step.state,
        action=step.action,
        after=step.after,
        try_no=step.try_no,
        started_at=step.started_at,
        ended_at=step.ended_at,
        size=step.size,
        branch=step.branch,
        child=step.child,
        lanes_done=None if fan is None else fan.done,
        lanes_failed=0 if fan is None else fan.failed,
        lanes_flawed=0 if fan is None else fan.flawed,
        error_class=None if error is None else error.error_class,
        code=None if error is None else error.code,
        why=step.why,
        message=None if error is None else error.message,
        output=step.output,
    )
