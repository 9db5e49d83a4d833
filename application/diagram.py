"""The flow of a definition, or of an execution with its live states, as nodes and edges.

One graph serves every rendering: `diagram_mermaid.py`, `diagram_dot.py` (and from it SVG), and
`graph_json` here. Node ids are made up (`start`, `s1`, `s2` ..., `end`, `stop`; `s2u` undoes s2,
`s2a1` is its first alternative), never taken from a user. There is no "now": the graph of a version
never changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import msgspec

from application.diagram_asides import ALTERNATIVE, Aside, asides_in, asides_of, strategies_text
from application.diagram_graph import (
    END,
    ENDED,
    NOT_NEEDED,
    NOT_TAKEN,
    START,
    STOP,
    Edge,
    Graph,
    Node,
    Travel,
)
from application.diagram_lanes import (
    has_let_go,
    is_flawless,
    lanes_text,
    lines_in,
    path_of,
    states_by_step,
)
from application.question_views import last_questions
from application.views import milliseconds_between
from domain.agent_names import AGENT, agent_of
from domain.definition import (
    STEPS_MAX,
    ActionStep,
    ConditionalStep,
    Definition,
    HumanTaskStep,
    LoopStep,
    ParallelStep,
    Step,
    SubWorkflowStep,
    WaitForEventStep,
    is_contained,
    undo_path,
)
from domain.errors import FlowledgerError
from domain.execution import ExecutionState, StepState
from domain.json_values import JsonObject
from domain.lane_paths import iteration_around
from domain.lifecycle import (
    CANCELLED,
    COMPLETED,
    EXECUTING,
    FAILED,
    RUNNING,
    SKIPPED,
    STEP_ENDED,
    status_of,
)
from domain.signals import awaited_signal


class DiagramTooLarge(FlowledgerError):
    """The flow has more steps than anybody can read in one picture."""

    code = "diagram_too_large"


class DiagramNotRendered(FlowledgerError):
    """The picture could not be drawn in the time and size allowed; the text forms still work."""

    code = "diagram_not_rendered"


class SvgRenderer(Protocol):
    """Draws DOT text as SVG. It blocks: call it in a thread."""

    def __call__(self, dot: str) -> str:
        """The `<svg>` element; raises DiagramNotRendered."""


def graph_of(
    definition: Definition,
    state: ExecutionState | None = None,
    tries: Mapping[str, int] | None = None,
) -> Graph:
    """The flow of `definition`; with `state` as that execution went through it.

    `tries` maps a step's path to how many tries it had in all attempts, where the caller knows it.
    Raises DiagramTooLarge.
    """
    if len(definition.steps) > STEPS_MAX:
        raise DiagramTooLarge(
            f"The flow has {len(definition.steps)} steps; a diagram shows at most {STEPS_MAX}. "
            "Read the steps as a list."
        )
    flow = _Flow(definition, state, tries or {})
    return Graph(
        name=definition.name,
        workflow_version=None if state is None else state.workflow_version,
        execution_id=None if state is None else str(state.id),
        status=None if state is None else state.status,
        attempt=None if state is None else state.attempt,
        sub_status=None if state is None else _own_sub_status(state),
        partial=state is not None and state.partial,
        nodes=tuple(flow.nodes()),
        edges=tuple(flow.edges()),
    )


def graph_json(graph: Graph) -> JsonObject:
    """The graph as JSON values; times as RFC 3339 text."""
    built: JsonObject = msgspec.json.decode(msgspec.json.encode(graph))
    return built


class _Flow:
    """A definition and perhaps an execution, walked in the order in which people read steps."""

    def __init__(
        self, definition: Definition, state: ExecutionState | None, tries: Mapping[str, int]
    ) -> None:
        self.definition = definition
        self.state = state
        self.tries = tries
        undoing = {step.compensate_with for step in definition.steps.values()}
        self.order = [
            each for each in dict.fromkeys(_reading_order(definition)) if each not in undoing
        ]
        self.ids = {step_id: f"s{number}" for number, step_id in enumerate(self.order, start=1)}
        self.paths = {step_id: path_of(definition, step_id) for step_id in self.order}
        self.states = {} if state is None else states_by_step(state)
        self.questions = {} if state is None else last_questions(state)
        gates = (gate for step in definition.steps.values() for gate in step.conditions)
        self.conditions = {gate.condition.text for gate in gates}
        places = {step_id: where for step_id, (where, _) in self.states.items()}
        self.asides = (
            asides_of(definition, self.paths)
            if state is None
            else asides_in(definition, state, places)
        )

    def nodes(self) -> Iterator[Node]:
        yield Node(id=START, kind="start", path="", name="start", action="")
        for step_id in self.order:
            yield self._step_node(step_id)
            for aside_id, aside in self._asides(step_id):
                yield self._aside_node(aside_id, aside)
        completed = self.state is not None and self.state.state == COMPLETED
        status = "" if self.state is None else COMPLETED if completed else "PENDING"
        yield Node(id=END, kind="end", path="", name="end", action="", status=status)
        if self.state is not None and self.state.state in (FAILED, CANCELLED):
            error = self.state.error
            yield Node(
                id=STOP,
                kind="end",
                path="",
                name="end",
                action="",
                status=self.state.state,
                error_class=error.error_class if error else None,
                error_code=error.code if error else None,
            )

    def edges(self) -> Iterator[Edge]:
        first = self.definition.start_step
        yield Edge(START, self.ids[first], "", self._travel(True, first))
        for step_id in self.order:
            yield from self._aside_edges(step_id)
            step = self.definition.steps[step_id]
            following = self._following(step)
            if isinstance(step, ConditionalStep):
                for label, child in (("then", step.then_step), ("else", step.else_step)):
                    yield self._branch(step_id, label, child or following)
                continue
            for label, ids in lines_in(step):
                yield self._edge(step_id, ids[0], label, self._found(step_id) is not None)
            if isinstance(step, LoopStep) or not lines_in(step):
                label = _label_after(step, following)
                yield self._edge(step_id, following, label, self._went_on(step))
        yield from self._stops()

    def _edge(self, source: str, target: str | None, label: str, left: bool) -> Edge:
        found = self._found(source)
        if self._passed_by(source) or (found is not None and found.why == NOT_NEEDED):
            travel: Travel = "skipped"
        elif self._is_gone(source):
            travel = "plain"
        else:
            travel = self._travel(left, target)
        return Edge(self.ids[source], self._id(target), label, travel)

    def _step_node(self, step_id: str) -> Node:
        declared, path, state = self.definition.steps[step_id], self.paths[step_id], self.state
        kind, action = _kind_and_action(declared)
        node = Node(
            id=self.ids[step_id],
            kind=kind,
            path=path,
            name=step_id,
            action=action,
            condition=declared.gate.condition.text
            if isinstance(declared, ConditionalStep)
            else None,
        )
        if state is None:
            return replace(node, on_failure=strategies_text(declared.recovery))
        where, step = self.states.get(step_id, (path, None))
        if step is None and self._passed_by(step_id):
            return replace(node, status=SKIPPED, why=NOT_TAKEN)
        if step is None:
            return replace(node, status=self._status_without(step_id, state))
        return self._with_state(node, where, step, state)

    def _with_state(self, node: Node, where: str, step: StepState, state: ExecutionState) -> Node:
        undoing = state.steps.get(undo_path(where))
        return replace(
            node,
            status=status_of(step.state),
            sub_status=_sub_status(step),
            current=where in state.live and step.state not in STEP_ENDED and not step.is_around,
            attempt=step.attempt,
            try_no=step.try_no,
            tries=max(self.tries.get(node.path, 0), step.try_no),
            due_at=step.due_at,
            duration_ms=milliseconds_between(step.started_at, step.ended_at),
            error_class=step.error.error_class if step.error else None,
            error_code=step.error.code if step.error else None,
            why=self._why(step),
            lanes=lanes_text(step),
            iteration=iteration_around(where) or None,
            via=step.via,
            undone=undoing is not None and undoing.state == COMPLETED,
            answer=self._answer(where, step),
        )

    def _why(self, step: StepState) -> str | None:
        """The cause, without what follows it unless the definition itself says that: a person's
        reason and the message of a condition that failed are not for everybody who gets a picture.
        """
        cause, _, text = (step.why or "").partition(": ")
        return (step.why if text in self.conditions else cause) or None

    def _answer(self, where: str, step: StepState) -> str | None:
        question = self.questions.get(where)
        if question is None or question.attempt != step.attempt or question.kind is None:
            return None
        words = [question.kind, question.alternative or ""]
        words.append("(nobody in time)" if question.read_as == "timeout" else "")
        return " ".join(word for word in words if word)

    def _asides(self, step_id: str) -> Iterator[tuple[str, Aside]]:
        """What stands aside of a step, each with the id of its box."""
        owner, alternatives = self.ids[step_id], 0
        for aside in self.asides.get(step_id, ()):
            alternatives += aside.kind == ALTERNATIVE
            yield f"{owner}a{alternatives}" if aside.kind == ALTERNATIVE else f"{owner}u", aside

    def _aside_node(self, aside_id: str, aside: Aside) -> Node:
        node = Node(
            id=aside_id, kind=aside.kind, path=aside.path, name=aside.name, action=aside.action
        )
        if self.state is None:
            return node
        if aside.step is None:
            return replace(node, status="NOT_REACHED" if self.state.terminal else "PENDING")
        return self._with_state(node, aside.path, aside.step, self.state)

    def _aside_edges(self, step_id: str) -> Iterator[Edge]:
        for aside_id, aside in self._asides(step_id):
            travel: Travel = "pending" if aside.step is None else "taken"
            if self.state is None:
                travel = "plain"
            yield Edge(self.ids[step_id], aside_id, aside.label, travel, aside=True)

    def _status_without(self, step_id: str, state: ExecutionState) -> str:
        """Of a step that has no state: gone with its iterations, to come, or never reached."""
        step, is_sure = self.definition.steps[step_id], True
        while step.parent:
            around = self.definition.steps[step.parent]
            found = self._found(around.id)
            is_sure = is_sure and not step.conditions
            if found is not None and isinstance(around, LoopStep) and has_let_go(found):
                return COMPLETED if is_sure and is_flawless(found) else ENDED
            if found is not None and found.state in STEP_ENDED:
                return "NOT_REACHED"
            is_sure = is_sure and isinstance(around, ParallelStep)
            step = around
        return "NOT_REACHED" if state.terminal else "PENDING"

    def _is_gone(self, step_id: str) -> bool:
        """Whether the step has no state because the iterations that had one have ended."""
        if self.state is None or self._found(step_id) is not None:
            return False
        return self._status_without(step_id, self.state) in (COMPLETED, ENDED)

    def _went_on(self, step: Step) -> bool:
        """Whether the walk left a step on its way to the next."""
        found = self._found(step.id)
        if found is None or found.state not in STEP_ENDED or found.state == CANCELLED:
            return False
        breaks = found.state == FAILED and step.critical
        return not breaks or not is_contained(self.definition, step)

    def _branch(self, step_id: str, label: str, target: str | None) -> Edge:
        found = self._found(step_id)
        branch = None if found is None else found.branch
        if self._passed_by(step_id) or (branch is not None and branch != label):
            travel: Travel = "skipped"
        elif self._is_gone(step_id):
            travel = "plain"
        else:
            travel = self._travel(branch == label, target)
        return Edge(self.ids[step_id], self._id(target), label, travel)

    def _stops(self) -> Iterator[Edge]:
        """From where the execution failed or was cancelled to the end it came to."""
        if self.state is None or self.state.state not in (FAILED, CANCELLED):
            return
        label = "failed" if self.state.state == FAILED else "cancelled"
        for source in self._stopped_at():
            yield Edge(source, STOP, label, "taken")

    def _stopped_at(self) -> list[str]:
        state = self.state
        if state is None:
            return []
        if state.state == FAILED:
            where = "" if state.error is None else state.error.path
            failed = [self.ids[each] for each, (path, _) in self.states.items() if path == where]
            aside = [
                aside_id
                for step_id in self.asides
                for aside_id, aside in self._asides(step_id)
                if aside.path == where
            ]
            return failed or aside or [self._last_ended()]
        cancelled = {
            each
            for each, (_, step) in self.states.items()
            if step.state == CANCELLED and step.why != NOT_NEEDED
        }
        around = {self.definition.steps[each].parent for each in cancelled}
        inner = [self.ids[each] for each in self.order if each in cancelled - around]
        return inner or [self._last_ended()]

    def _last_ended(self) -> str:
        ended = [
            (found.ended_at, number)
            for number, step_id in enumerate(self.order)
            if (found := self._found(step_id)) is not None
            and found.ended_at is not None
            and not self._passed_by(step_id)
        ]
        return self.ids[self.order[max(ended)[1]]] if ended else START

    def _travel(self, left: bool, target: str | None) -> Travel:
        """Whether the execution came to `target` (None: the end), if it `left` the source."""
        if self.state is None:
            return "plain"
        if target is None:
            return "taken" if left and self.state.state == COMPLETED else "pending"
        seen = self._found(target) is not None or self._is_gone(target)
        return "taken" if left and seen else "pending"

    def _passed_by(self, step_id: str) -> bool:
        """Whether the step lies on a branch that was not taken."""
        while step_id:
            found = self._found(step_id)
            if found is not None and found.state == SKIPPED and found.why == NOT_TAKEN:
                return True
            step_id = self.definition.steps[step_id].parent
        return False

    def _found(self, step_id: str) -> StepState | None:
        return self.states[step_id][1] if step_id in self.states else None

    def _following(self, step: Step) -> str | None:
        """Where the walk goes on after `step`: the next of its line, then where what is around it
        does; the end of a loop's body leads back to the loop.
        """
        while step.parent:
            around = self.definition.steps[step.parent]
            line = next((ids for _, ids in lines_in(around) if step.id in ids), (step.id,))
            number = line.index(step.id) + 1
            if number < len(line):
                return line[number]
            if isinstance(around, LoopStep):
                return around.id
            step = around
        return step.next_step

    def _id(self, step_id: str | None) -> str:
        return END if step_id is None else self.ids[step_id]


def _reading_order(definition: Definition) -> Iterator[str]:
    for step_id in definition.main_line():
        yield from _with_children(definition, step_id)
    yield from definition.steps


def _with_children(definition: Definition, step_id: str) -> Iterator[str]:
    yield step_id
    step = definition.steps[step_id]
    if isinstance(step, ConditionalStep):
        for child in (step.then_step, step.else_step):
            if child is not None:
                yield from _with_children(definition, child)
    for _, ids in lines_in(step):
        for child in ids:
            yield from _with_children(definition, child)


def _label_after(step: Step, following: str | None) -> str:
    """`next item` where the end of a body leads back to its loop."""
    if isinstance(step, LoopStep):
        return "done"
    return "next item" if following is not None and following == step.parent else ""


def _kind_and_action(declared: Step) -> tuple[str, str]:
    if isinstance(declared, ActionStep):
        agent = agent_of(declared.action)
        return ("action", declared.action) if agent is None else (AGENT, agent)
    if isinstance(declared, SubWorkflowStep):
        return declared.ACTION, declared.workflow
    if isinstance(declared, WaitForEventStep):
        return declared.ACTION, declared.signal
    kind = "human_task" if isinstance(declared, HumanTaskStep) else declared.ACTION
    return kind, declared.ACTION


def _own_sub_status(state: ExecutionState) -> str | None:
    return None if state.state == EXECUTING else state.state.partition(".")[2] or None


def _sub_status(step: StepState) -> str | None:
    """The recovery sub-state; of a running step what it waits for."""
    if step.state != RUNNING:
        return step.state.partition(".")[2] or None
    if step.child_id is not None:
        return "waiting_for_child"
    if awaited_signal(step) is not None:
        return "waiting_for_signal"
    if step.dispatched is not None:
        return "waiting_for_agent"
    if step.due_at is not None:
        return "waiting_for_time"
    return "waiting_for_person" if step.task_id is not None else None
