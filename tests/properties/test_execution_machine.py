"""An execution under random commands keeps its invariants, after every single step."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from application.views import step_view, summarise
from domain.agent_names import agent_of
from domain.compensation import UNDOING
from domain.decisions import Outcome, report_progress
from domain.dispatching import (
    TaskResult,
    awaits_result,
    dispatched_at,
    ignore_result,
    settle_result,
)
from domain.errors import Invalid, NotFound, StateConflict, StepNotReached
from domain.events import LateResultIgnored, Recorded, TaskDispatched
from domain.execution import ExecutionState, fold
from domain.lane_paths import counts, under
from domain.lifecycle import CANCELLING, COMPENSATING, PAUSED, RUNNING
from domain.planner import next_due, plan, running_actions
from domain.reopening import was_reached
from domain.verbs import allowed_actions, settled_by
from tests.builders import Run, linear, replay
from tests.invariants import check_all
from tests.properties.finished_work import run_again
from tests.properties.random_definitions import (
    AGENTS,
    WITH_AGENTS,
    definitions,
    inputs,
    modes,
    recoveries,
)

outputs = st.sampled_from([None, {"ok": True}, {"ok": False}, [1, 2]])


def is_out(state: ExecutionState, path: str) -> bool:
    """Whether an agent elsewhere has the try at `path`."""
    step = state.steps.get(path)
    return step is not None and step.state == RUNNING and step.dispatched is not None


class ExecutionMachine(RuleBasedStateMachine):
    """Clients, workers and time do what they like."""

    results = Bundle("results")
    answers = Bundle("answers")

    def __init__(self) -> None:
        super().__init__()
        self.run = Run(linear(1))

    @initialize(
        raw=definitions(taste=WITH_AGENTS),
        given=inputs,
        mode=modes,
        simulate=st.sampled_from([False, False, False, True]),
        recovery=recoveries,
    )
    def request(self, raw: Any, given: Any, mode: str, simulate: bool, recovery: Any) -> None:
        self.run = Run(
            raw, given, mode=mode, simulate=simulate, recovery=recovery, transports=AGENTS
        )

    # --- workers ---

    @rule()
    def go(self) -> None:
        self.run.go()

    @rule()
    def lose_worker(self) -> None:
        self.run.lose_worker()

    @rule(target=results, output=outputs, works=st.booleans(), last=st.booleans())
    def perform(self, output: Any, works: bool, last: bool) -> Any:
        """A handler ends; its result may be delivered at any time later, or twice."""
        running = running_actions(self.run.definition, self.run.state)
        if not running:
            return multiple()
        path = running[-1 if last else 0]
        if works:
            return self.run.outcome(path, output=output)
        return self.run.outcome(path, error_class="transient", code="boom", message="it broke")

    @rule(result=results)
    def deliver(self, result: Outcome) -> None:
        self.run.settle(result)

    @rule(output=outputs)
    def succeed(self, output: Any) -> None:
        for path in running_actions(self.run.definition, self.run.state):
            self.run.succeed(path, output)

    @rule(error_class=st.sampled_from(["transient", "permanent", "timeout", "unknown"]))
    def fail(self, error_class: str) -> None:
        for path in running_actions(self.run.definition, self.run.state):
            self.run.fail(path, error_class)

    @rule()
    def progress(self) -> None:
        for path, step in self.run.state.steps.items():
            draft = self.run.draft()
            report_progress(draft, path, step.attempt, step.try_no, {"at": 1})
            self.run.store(draft)

    # --- agents ---

    @rule(target=answers, output=outputs, works=st.booleans(), last=st.booleans())
    def do_task(self, output: Any, works: bool, last: bool) -> Any:
        """An agent is done; its answer may come at any time later, in any order, or twice."""
        state = self.run.state
        out = [path for path in sorted(state.live) if is_out(state, path)]
        if not out:
            return multiple()
        path = out[-1 if last else 0]
        sent = next(
            event.data
            for event in reversed(self.run.events)
            if isinstance(event.data, TaskDispatched) and event.data.path == path
        )
        if works:
            return sent, TaskResult(correlation_id=sent.correlation_id, output=output)
        failed = {"error_class": "transient", "code": "boom", "message": "it broke"}
        return sent, TaskResult(correlation_id=sent.correlation_id, **failed)

    @rule(answer=answers)
    def send_back(self, answer: tuple[TaskDispatched, TaskResult]) -> None:
        sent, result = answer
        if sent.correlation_id not in {
            event.data.correlation_id
            for event in self.run.events
            if isinstance(event.data, TaskDispatched)
        }:
            return  # it was a task of the execution that this one was forked from
        draft = self.run.draft()
        path = dispatched_at(draft.state, sent.correlation_id)
        if path is None or not awaits_result(draft.state, path):
            ignore_result(draft, sent, result)
        else:
            settle_result(draft, self.run.definition, path, result, self.run.now)
            assert not isinstance(draft.events[0].data, LateResultIgnored)
        self.run.store(draft)

    # --- time ---

    @rule(seconds=st.sampled_from([0, 0.1, 1, 5, 700]))
    def pass_time(self, seconds: float) -> None:
        self.run.pass_time(seconds)

    @rule(seconds=st.sampled_from([-3_600, 3_600]))
    def clock_jumps_unseen(self, seconds: float) -> None:
        """Nobody looks, or the database was restored to a machine whose clock is behind."""
        self.run.pass_time(seconds)

    @precondition(lambda self: next_due(self.run.state) is not None)
    @rule()
    def pass_to_due(self) -> None:
        self.run.pass_to_due()

    # --- clients ---

    @rule()
    def cancel(self) -> None:
        if self.run.state.state in ("COMPLETED", "FAILED", COMPENSATING):
            with pytest.raises(StateConflict):
                self.run.cancel()
            return
        self.run.cancel("because")
        wanted = CANCELLING if self.run.state.to_undo else "CANCELLED"
        assert self.run.state.state == wanted
        self.run.go()  # the worker takes over what is to be undone

    @rule(seconds=st.none() | st.sampled_from([1, 600]))
    def pause(self, seconds: float | None) -> None:
        before = self.run.state
        if "pause" not in allowed_actions(before) and before.state != PAUSED:
            with pytest.raises(StateConflict):
                self.run.pause(seconds)
            return
        self.run.pause(seconds)
        assert self.run.state.state == PAUSED
        assert running_actions(self.run.definition, self.run.state) == running_actions(
            self.run.definition, before
        )

    @rule()
    def go_on(self) -> None:
        if self.run.state.state in ("COMPLETED", "FAILED", "CANCELLED", *UNDOING):
            with pytest.raises(StateConflict):
                self.run.go_on()
            return
        self.run.go_on()
        assert self.run.state.state != PAUSED

    @rule(verb=st.sampled_from(["skip", "complete"]), place=st.integers(0, 20), output=outputs)
    def settle_by_hand(self, verb: str, place: int, output: Any) -> None:
        state = self.run.state
        paths = sorted({*state.steps, "nowhere"})
        path = paths[place % len(paths)]
        if settled_by(state, path, verb) is None:
            with pytest.raises((NotFound, StateConflict)):
                self.run.settle_by_hand(verb, path, output)
            return
        self.run.settle_by_hand(verb, path, output if verb == "complete" else None)
        assert self.run.state.steps[path].state in ("SKIPPED", "COMPLETED")
        assert not [each for each in self.run.state.live if each.startswith(under(path))]
        self.run.go()

    @rule(place=st.integers(0, 20))
    def fork(self, place: int) -> None:
        """The machine goes on with the fork; what it was forked from stays as it is."""
        names = sorted(self.run.definition.steps)
        name = names[place % len(names)]
        origin = self.run
        try:
            fork = origin.fork(name)
        except (StepNotReached, StateConflict):
            assert not was_reached(origin.definition, origin.state, name) or any(
                path.endswith("~undo") for path in origin.state.steps
            )
            return
        for path, step in fork.state.steps.items():
            assert step.output == origin.state.steps[path].output
        fork.go()
        self.run = fork

    @rule(place=st.none() | st.integers(0, 20))
    def retry(self, place: int | None) -> None:
        names = sorted(self.run.definition.steps)
        name = None if place is None else names[place % len(names)]
        state = self.run.state
        if state.status not in ("FAILED", "CANCELLED"):
            with pytest.raises(StateConflict):
                self.run.retry(name)
            return
        if name is not None and not was_reached(self.run.definition, state, name):
            with pytest.raises(StepNotReached):
                self.run.retry(name)
            return
        finished = {path for path, step in state.steps.items() if step.state == "COMPLETED"}
        if state.error is not None and state.error.code == "no_success":
            finished = set()  # it is all around failures
        self.run.retry(name)
        assert self.run.state.status == "PENDING"
        if name is None and not any(path.endswith("~undo") for path in state.steps):
            assert finished <= set(self.run.state.steps)

    @rule()
    def complete_tasks(self) -> None:
        for task_id, task in sorted(self.run.state.tasks.items()):
            try:
                self.run.complete_task(task_id, {"ok": True})
            except StateConflict:
                assert task.status == "DONE" or task.wait
        self.run.go()

    @rule(text=st.sampled_from(["retry", "skip", "abort", "alternative:half", "no idea"]))
    def answer(self, text: str) -> None:
        for question in sorted(self.run.state.questions.values(), key=lambda each: each.id):
            before = self.run.state
            try:
                self.run.answer(text, question.id)
            except (StateConflict, Invalid):
                assert self.run.state is before
            else:
                assert question.kind is not None or self.run.state.questions[question.id].kind
        self.run.go()

    # --- what must hold ---

    @invariant()
    def no_invariant_is_broken(self) -> None:
        log = [Recorded(place, event) for place, event in enumerate(self.run.events, start=1)]
        assert check_all(log) == []

    @invariant()
    def replay_is_what_was_lived(self) -> None:
        assert fold(self.run.events) == self.run.state

    @invariant()
    def it_rests_and_waits_for_a_named_thing(self) -> None:
        state = self.run.state
        view = summarise(state, 0)
        if state.terminal:
            assert not state.live
            assert not view.waiting_on
        else:
            assert view.waiting_on
            assert state.status == "PENDING" or plan(self.run.definition, state, self.run.now) == ()

    @invariant()
    def views_and_counters_agree_with_the_steps(self) -> None:
        state = self.run.state
        states = [step.state for path, step in state.steps.items() if counts(path)]
        assert state.steps_done == states.count("COMPLETED")
        assert state.steps_failed == states.count("FAILED")
        assert state.steps_skipped == states.count("SKIPPED")
        assert state.output_bytes == sum(step.size for step in state.steps.values())
        assert summarise(state, 0).allowed_actions == allowed_actions(state)
        for path, step in state.steps.items():
            step_view("e", path, step)

    @invariant()
    def only_what_is_open_has_a_lane(self) -> None:
        state = self.run.state
        opened = sum(step.fan.open for step in state.steps.values() if step.fan is not None)
        assert opened == len(state.lanes)
        assert not state.terminal or not state.lanes

    @invariant()
    def an_agents_try_is_out_or_a_workers(self) -> None:
        run = self.run
        performed = set(running_actions(run.definition, run.state))
        for path in run.state.live:
            step = run.state.steps.get(path)
            name = None if step is None else agent_of(step.action)
            if step is None or name is None or step.state != RUNNING:
                continue
            is_sent = AGENTS[name] != "http" and not run.state.simulate
            assert is_out(run.state, path) == is_sent
            assert (path in performed) != is_sent

    @invariant()
    def no_finished_work_is_done_again(self) -> None:
        assert run_again(self.run.events) == []

    def teardown(self) -> None:
        for version, state in enumerate(replay(self.run.events), start=1):
            assert state.version == version
            assert self.run.as_of(version) == state


TestExecution = ExecutionMachine.TestCase
