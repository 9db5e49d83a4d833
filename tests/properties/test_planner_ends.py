"""On every definition the planner ends, in bounded steps, whatever the outcomes are."""

from collections.abc import Iterator
from itertools import chain, repeat
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.definition import SUB_WORKFLOW
from domain.errors import StateConflict
from domain.events import Recorded
from domain.lane_paths import iteration_around, lane_owner
from domain.planner import next_due, running_actions
from domain.signals import awaited_signal
from tests.builders import Run
from tests.invariants import check_all
from tests.properties.finished_work import run_again
from tests.properties.random_definitions import (
    ITEMS_MAX,
    NESTING_MAX,
    definitions,
    inputs,
    modes,
    recoveries,
)

TRIES_MAX = 7  # the first, two re-tries, two alternatives, one after a question and its answer
NESTED_TRIES_MAX = TRIES_MAX**4  # a retried composite may run its parts anew, four levels
ITERATIONS_MAX = ITEMS_MAX**NESTING_MAX


def step_by_step(run: Run, verdicts: Iterator[bool]) -> bool:
    """Move it once by the first thing that can; False when nothing can."""
    running = running_actions(run.definition, run.state)
    if running:
        path = running[0]
        if not next(verdicts):
            run.fail(path)
        elif run.state.steps[path].action == SUB_WORKFLOW:
            run.pin(path)
        else:
            run.succeed(path, {"ok": True})
        return True
    if run.state.children:
        end_a_child(run, worked=next(verdicts))
        return True
    steps = (run.state.steps.get(path) for path in sorted(run.state.live))
    awaited = [name for step in steps if step is not None and (name := awaited_signal(step))]
    if awaited and (next_due(run.state) is None or next(verdicts)):
        run.signal(awaited[0], {"ok": True})
        return True
    for task_id in sorted(run.state.tasks):
        try:
            run.complete_task(task_id)
        except StateConflict:
            continue
        run.go()
        return True
    if next_due(run.state) is None:
        return False
    run.pass_to_due()
    return True


def end_a_child(run: Run, *, worked: bool) -> None:
    """The child with the least id ends; it may be one that nobody waits for any more."""
    child = min(run.state.children, key=str)
    if worked:
        run.end_child(child, output={"ok": True})
    else:
        run.end_child(child, error_class="transient", code="boom", message="it broke")


def assert_loops_kept_nothing(run: Run) -> None:
    """No step is left of a loop that is gone, and none of its bytes."""
    steps = run.state.steps
    lanes = {iteration_around(path) for path in steps} - {""}
    assert [lane for lane in lanes if lane_owner(lane) not in steps] == []
    assert run.state.output_bytes == sum(step.size for step in steps.values())


@given(
    raw=definitions(),
    given_input=inputs,
    mode=modes,
    verdicts=st.lists(st.booleans(), max_size=20),
    last=st.booleans(),
    recovery=recoveries,
)
def test_an_execution_ends(
    raw: Any, given_input: Any, mode: str, verdicts: list[bool], last: bool, recovery: Any
) -> None:
    run = Run(raw, given_input, mode=mode, recovery=recovery)
    run.go()
    outcomes = chain(verdicts, repeat(last))
    bound = len(run.definition.steps) * NESTED_TRIES_MAX * 2 * ITERATIONS_MAX
    moves = 0
    while not run.state.terminal:
        assert step_by_step(run, outcomes), "it waits for nothing that could come"
        moves += 1
        assert moves <= bound
    assert_loops_kept_nothing(run)
    log = [Recorded(place, event) for place, event in enumerate(run.events, start=1)]
    assert check_all(log) == []
    assert run_again(run.events) == []


@given(raw=definitions(in_any_order=True), given_input=inputs, seed=st.randoms())
def test_what_it_comes_to_does_not_depend_on_the_order_of_results(
    raw: Any, given_input: Any, seed: Random
) -> None:
    runs = [Run(raw, given_input) for _ in range(2)]
    for run, shuffled in zip(runs, (False, True), strict=True):
        run.go()
        while not run.state.terminal:
            running = running_actions(run.definition, run.state)
            if shuffled:
                seed.shuffle(running)
            if running:
                run.succeed(running[0], {"ok": True, "by": running[0]})
            else:
                assert step_by_step(run, repeat(True))
    first, second = (run.state for run in runs)
    assert (first.status, first.output, first.partial) == (
        second.status,
        second.output,
        second.partial,
    )
    assert first.output_bytes == second.output_bytes


@given(
    raw=definitions(),
    given_input=inputs,
    verdicts=st.lists(st.booleans(), max_size=30),
    retries=st.integers(1, 3),
)
def test_a_retry_never_runs_again_what_is_finished(
    raw: Any, given_input: Any, verdicts: list[bool], retries: int
) -> None:
    run = Run(raw, given_input)
    outcomes = chain(verdicts, repeat(True))
    for _ in range(retries):
        run.go()
        while not run.state.terminal:
            assert step_by_step(run, outcomes)
        assert_loops_kept_nothing(run)
        if run.state.status == "COMPLETED":
            break
        run.retry()
    assert run_again(run.events) == []
    log = [Recorded(place, event) for place, event in enumerate(run.events, start=1)]
    assert check_all(log) == []


@given(raw=definitions(), given_input=inputs)
def test_a_run_in_which_all_works_is_the_same_every_time(raw: Any, given_input: Any) -> None:
    first, second = (Run(raw, given_input).succeed_all() for _ in range(2))
    assert first.events == second.events


@given(raw=definitions(), given_input=inputs)
def test_a_simulation_waits_for_no_time_and_no_person(raw: Any, given_input: Any) -> None:
    run = Run(raw, given_input, simulate=True)
    run.go()
    while not run.state.terminal:
        running = running_actions(run.definition, run.state)
        if running:
            run.succeed(running[0], {"simulated": True})
        else:  # a time-out of nothing, re-tried after its delay
            run.pass_to_due()
    assert not run.state.tasks
