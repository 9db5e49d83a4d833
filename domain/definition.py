"""A workflow definition as frozen values: what an execution runs.

`compile_definition` turns the normalised JSON form (see `domain/definition_reader.py`) into these
values. They are made once per definition and shared by all its executions.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final, TypedDict

from msgspec import Struct

from domain.agent_names import AGENT, agent_action, agents_in
from domain.composite_lines import as_list as _list
from domain.composite_lines import as_object as _object
from domain.composite_lines import children_of, counted_steps, lines_of
from domain.conditions import Condition, operator_condition, parse_condition
from domain.json_values import Json, JsonObject
from domain.recovery_stages import Alternative, Stage, compile_alternative, compile_stage
from domain.references import Template, compile_template

STEPS_MAX: Final = 1_000
TIMEOUT_SECONDS_DEFAULT: Final = 300
"""Of a try that performs an action."""
NESTING_MAX: Final = 8
LANES_MAX: Final = 100
"""Children of a parallel, branches of a fork_join; also what one composite runs at a time."""
ITEMS_MAX: Final = 10_000
"""Iterations of a loop."""
SUB_WORKFLOW: Final = "sub_workflow"
WAIT_FOR_EVENT: Final = "wait_for_event"
PRIORITIES: Final = ("LOW", "MEDIUM", "HIGH", "CRITICAL")
"""Of a human task."""


class Gate(Struct, frozen=True):
    """A condition with the JSON it was written as."""

    condition: Condition
    source: JsonObject


class StepBase(Struct, frozen=True, kw_only=True):
    """What every step has. `parent` is the composite it belongs to, "" on the main line.

    `recovery` lists in order what is tried when it fails, `recovery_config` what it says otherwise
    than its execution, `compensate_with` is the step that undoes it.
    """

    ACTION: ClassVar[str] = ""
    """What its tries are recorded as; a step of kind action has its own."""
    id: str
    next_step: str | None
    critical: bool
    timeout_seconds: float | None
    recovery: tuple[Stage, ...]
    recovery_config: JsonObject | None
    compensate_with: str | None
    conditions: tuple[Gate, ...]
    parent: str = ""


class ActionStep(StepBase, frozen=True, kw_only=True):
    """Work done by a handler of this process, or by an agent (`action` is `agent:NAME` then).

    `input` is `config` with `input_mapping` laid over it; an agent has the latter only.
    """

    action: str
    input: Template
    key_per_try: bool


class HumanTaskStep(StepBase, frozen=True, kw_only=True):
    """`create_task`: a person is asked; with `wait` the step ends when the person is done."""

    ACTION: ClassVar[str] = "create_task"
    input: Template


class WaitStep(StepBase, frozen=True, kw_only=True):
    """A pause of `duration_ms` (a number, or one reference to a number)."""

    ACTION: ClassVar[str] = "wait"
    duration_ms: Template


class ConditionalStep(StepBase, frozen=True, kw_only=True):
    """Runs one of two children, or none, and then goes on with `next_step`."""

    ACTION: ClassVar[str] = "conditional"
    gate: Gate
    then_step: str | None
    else_step: str | None


class ValidateStep(StepBase, frozen=True, kw_only=True):
    """Checks data by a JSON Schema and by conditions; a worker does it, as it does an action.

    `mode` strict fails the step when something is wrong, warn only tells.
    """

    ACTION: ClassVar[str] = "validate"
    data: Template
    schema: Json
    assertions: tuple[Gate, ...]
    mode: str


class SubWorkflowStep(StepBase, frozen=True, kw_only=True):
    """Another workflow runs as an execution of its own, with `input` as its input.

    `workflow` is a name, an id or `wf-{name}-{n}`; `version` None is the newest when it starts.
    With `wait` the step ends when that execution does, with its output.
    """

    ACTION: ClassVar[str] = SUB_WORKFLOW
    workflow: str
    version: int | None
    input: Template
    wait: bool


class WaitForEventStep(StepBase, frozen=True, kw_only=True):
    """Waits for a signal called `signal` whose payload has the members of `filter`.

    `on_timeout`: fail, continue (with null as output) or skip.
    """

    ACTION: ClassVar[str] = WAIT_FOR_EVENT
    signal: str
    filter: Template
    on_timeout: str


class ParallelStep(StepBase, frozen=True, kw_only=True):
    """Runs its children, at most `parallelism` at a time, and waits for all."""

    ACTION: ClassVar[str] = "parallel"
    children: tuple[str, ...]
    parallelism: int


class LoopStep(StepBase, frozen=True, kw_only=True):
    """Runs `body` in order for each item of `collection`, `parallelism` iterations at a time.

    `iterations_max` takes the first items only. `on_error`: stop begins no further iteration after
    one failed and then fails, collect runs all and then fails, continue runs all and completes.
    """

    ACTION: ClassVar[str] = "loop"
    collection: Template
    body: tuple[str, ...]
    parallelism: int
    iterations_max: int | None
    on_error: str


class Branch(Struct, frozen=True):
    """One way of a fork_join: steps in order, and the time they have together."""

    name: str
    steps: tuple[str, ...]
    timeout_seconds: float | None


class ForkJoinStep(StepBase, frozen=True, kw_only=True):
    """Runs its branches side by side until `needed` of them have completed."""

    ACTION: ClassVar[str] = "fork_join"
    branches: tuple[Branch, ...]
    policy: str
    needed: int


Step = (
    ActionStep
    | HumanTaskStep
    | WaitStep
    | ConditionalStep
    | ValidateStep
    | SubWorkflowStep
    | WaitForEventStep
    | ParallelStep
    | LoopStep
    | ForkJoinStep
)
FAN_OUTS: Final = (ParallelStep, LoopStep, ForkJoinStep)
"""Kinds that judge the failures inside them: such a failure alone does not end the execution."""
COMPOSITES: Final = (ConditionalStep, *FAN_OUTS)


class Definition(Struct, frozen=True):
    """One version of a workflow, ready to be planned."""

    name: str
    start_step: str
    steps: Mapping[str, Step]
    timeout_seconds: float | None
    output: Template | None
    input_schema: Json
    alternatives: tuple[Alternative, ...] = ()
    """The named rules for failures of any step, in order."""
    agents: frozenset[str] = frozenset()
    """Those that do a step or an alternative."""

    def main_line(self) -> Iterator[str]:
        """Ids along `next_step` from the start."""
        seen: set[str] = set()
        current: str | None = self.start_step
        while current is not None and current not in seen and current in self.steps:
            seen.add(current)
            yield current
            current = self.steps[current].next_step


def step_id_of(path: str) -> str:
    """The step's id: the last name of its path, up to a `~`."""
    return path.rpartition("/")[2].partition("~")[0]


def is_aside(path: str) -> bool:
    """Whether the path is an alternative (`pay~alt.cheap`) or a compensation (`pay~undo`).

    What is done there belongs to the step before the `~` and is no step of the definition itself.
    """
    return "~" in path


def owner_of(path: str) -> str:
    """The step's own path: that before the `~`."""
    return path.partition("~")[0]


def alternative_path(path: str, alternative_id: str) -> str:
    """Where an alternative of the step at `path` runs."""
    return f"{path}~alt.{alternative_id}"


def undo_path(path: str) -> str:
    """Where the compensation of the step at `path` runs."""
    return f"{path}~undo"


def declared_at(definition: "Definition", path: str, action: str = "") -> Step:
    """The declared step at `path`: KeyError when there is none.

    An alternative is its owner with another action and no recovery of its own; which `action` it is
    stands in the event that began it, for the server's rules are no part of a definition. In place
    of a step without a time-out, such as another workflow, an action has that of actions.
    """
    declared = definition.steps[step_id_of(path)]
    aside = path.partition("~")[2]
    if not aside:
        return declared
    if aside == "undo":
        return definition.steps[declared.compensate_with or ""]
    input_template = None
    if isinstance(declared, ActionStep | HumanTaskStep | SubWorkflowStep):
        input_template = declared.input
    seconds = declared.timeout_seconds
    if seconds is None and action not in ("", SUB_WORKFLOW):
        seconds = TIMEOUT_SECONDS_DEFAULT
    return ActionStep(
        id=declared.id,
        next_step=None,
        critical=False,
        timeout_seconds=seconds,
        recovery=(),
        recovery_config=None,
        compensate_with=None,
        conditions=(),
        parent=declared.parent,
        action=action,
        input=input_template or compile_template({}),
        key_per_try=isinstance(declared, ActionStep) and declared.key_per_try,
    )


def parent_path(path: str) -> str:
    """Path of the composite around this one, "" on the main line."""
    return path.rpartition("/")[0]


def child_path(parent: str, step_id: str) -> str:
    """Path of a child of `parent` ("" is the main line)."""
    return f"{parent}/{step_id}" if parent else step_id


def is_contained(definition: Definition, step: StepBase) -> bool:
    """Whether a parallel, loop or fork_join is around a step, at any level."""
    while step.parent:
        step = definition.steps[step.parent]
        if isinstance(step, FAN_OUTS):
            return True
    return False


def compensations_of(normalised: JsonObject) -> frozenset[str]:
    """Ids of the steps that only undo others: no part of the walk."""
    steps = normalised.get("steps")
    undone = (
        step.get("compensate_with")
        for step in (steps.values() if isinstance(steps, dict) else ())
        if isinstance(step, dict)
    )
    return frozenset(each for each in undone if isinstance(each, str))


def count_steps(normalised: JsonObject) -> int:
    """Steps that progress counts: all but those in loops, and those that undo others."""
    return counted_steps(normalised) - len(compensations_of(normalised))


def main_line_of(normalised: JsonObject) -> tuple[str, ...]:
    """Ids along `next_step` from the start, up to the end, a hole, or a repetition."""
    steps = _object(normalised["steps"])
    order: dict[str, None] = {}
    current = normalised["start_step"]
    while isinstance(current, str) and current in steps and current not in order:
        order[current] = None
        current = _object(steps[current])["next_step"]
    return tuple(order)


def compile_definition(normalised: JsonObject) -> Definition:
    """Frozen values of a normalised definition without mistakes.

    Raises KeyError, TypeError, BadReferences or BadCondition on anything else.
    """
    steps = _object(normalised["steps"])
    order = main_line_of(normalised)
    parents = {
        child: parent for parent, step in steps.items() for _, child in children_of(_object(step))
    }
    output = normalised["output"]
    compiled = {
        step_id: _step(_object(step), parents.get(step_id, ""), order)
        for step_id, step in steps.items()
    }
    alternatives = tuple(
        compile_alternative(_object(each)) for each in _list(normalised.get("alternatives", []))
    )
    return Definition(
        name=str(normalised["name"]),
        start_step=str(normalised["start_step"]),
        steps=compiled,
        timeout_seconds=_number(normalised["timeout_seconds"]),
        output=None if output is None else compile_template(output),
        input_schema=normalised["input_schema"],
        alternatives=alternatives,
        agents=agents_in(_actions_of(compiled.values(), alternatives)),
    )


def _actions_of(steps: Iterable[Step], named: Iterable[Alternative]) -> Iterator[str | None]:
    for step in steps:
        if isinstance(step, ActionStep):
            yield step.action
        yield from (each.action for each in step.recovery if isinstance(each, Alternative))
    yield from (each.action for each in named)


def compile_gate(source: JsonObject, order: tuple[str, ...]) -> Gate:
    """A condition from `{"expression"}` or W's `{"field", "operator", "value"}`.

    `order`, the main line, resolves `step.N`. Raises BadCondition.
    """
    if "expression" in source:
        return Gate(parse_condition(str(source["expression"]), order), source)
    condition = operator_condition(
        str(source["field"]), str(source["operator"]), source.get("value"), order
    )
    return Gate(condition, source)


def _step(raw: JsonObject, parent: str, order: tuple[str, ...]) -> Step:
    config = raw.get("recovery_config")
    common = _Common(
        id=str(raw["id"]),
        next_step=None if parent else _text(raw["next_step"]),
        critical=bool(raw["critical"]),
        timeout_seconds=_number(raw["timeout_seconds"]),
        recovery=tuple(compile_stage(_object(stage)) for stage in _list(raw["recovery"])),
        recovery_config=None if config is None else _object(config),
        compensate_with=_text(raw.get("compensate_with")),
        conditions=tuple(compile_gate(_object(gate), order) for gate in _list(raw["conditions"])),
        parent=parent,
    )
    match raw["type"]:
        case "wait":
            return WaitStep(**common, duration_ms=compile_template(raw["duration_ms"]))
        case "conditional":
            return ConditionalStep(
                **common,
                gate=compile_gate(_object(raw["condition"]), order),
                then_step=_text(raw["if_true_step"]),
                else_step=_text(raw["if_false_step"]),
            )
        case "validate":
            return ValidateStep(
                **common,
                data=compile_template(raw["data_source"]),
                schema=raw["validation_schema"],
                assertions=tuple(
                    compile_gate(_object(gate), order) for gate in _list(raw["assertions"])
                ),
                mode=str(raw["validation_mode"]),
            )
        case "sub_workflow":
            return SubWorkflowStep(
                **common,
                workflow=str(raw["workflow_id"]),
                version=_whole(raw["version"]),
                input=compile_template(raw["input_mapping"]),
                wait=bool(raw["wait"]),
            )
        case "wait_for_event":
            return WaitForEventStep(
                **common,
                signal=str(_object(raw["event_source"])["name"]),
                filter=compile_template(raw["event_filter"]),
                on_timeout=str(raw["on_timeout"]),
            )
        case "parallel" | "loop" | "fork_join":
            return _fan_out(raw, common)
    return _work(raw, common)


def _work(raw: JsonObject, common: "_Common") -> Step:
    is_agent = raw["type"] == AGENT
    own = {} if is_agent else _object(raw["config"])
    given = compile_template({**own, **_object(raw["input_mapping"])})
    action = agent_action(str(raw["agent_name"])) if is_agent else str(raw["action"])
    if action == HumanTaskStep.ACTION:
        return HumanTaskStep(**common, input=given)
    key_per_try = raw["idempotency"] == "try"
    return ActionStep(**common, action=action, input=given, key_per_try=key_per_try)


def _fan_out(raw: JsonObject, common: "_Common") -> Step:
    lines = [line.ids for line in lines_of(raw)]
    if raw["type"] == "parallel":
        return ParallelStep(
            **common,
            children=tuple(child for line in lines for child in line),
            parallelism=int(_number(raw["max_parallelism"]) or len(lines)),
        )
    if raw["type"] == "loop":
        loop = _object(raw["loop_config"])
        first_only = _number(loop["max_iterations"])
        return LoopStep(
            **common,
            collection=compile_template(loop["collection"]),
            body=lines[0],
            parallelism=int(_number(loop["max_parallelism"]) or 1),
            iterations_max=None if first_only is None else int(first_only),
            on_error=str(loop["on_error"]),
        )
    fork = _object(raw["fork_join_config"])
    branches = _object(fork["branches"])
    return ForkJoinStep(
        **common,
        branches=tuple(
            Branch(name, ids, _number(_object(branch)["timeout_seconds"]))
            for (name, branch), ids in zip(branches.items(), lines, strict=True)
        ),
        policy=str(fork["join_policy"]),
        needed=int(_number(fork["n_required"]) or len(lines)),
    )


class _Common(TypedDict):
    """The fields of `StepBase`."""

    id: str
    next_step: str | None
    critical: bool
    timeout_seconds: float | None
    recovery: tuple[Stage, ...]
    recovery_config: JsonObject | None
    compensate_with: str | None
    conditions: tuple[Gate, ...]
    parent: str


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
