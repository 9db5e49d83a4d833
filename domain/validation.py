"""Everything that is wrong with a definition, found at registration.

`validate` reads the definition into its normalised form (`domain/definition_reader.py`) and then
looks at what only the whole can show: the graph (`domain/step_graph.py`), the references, the
conditions, the actions' settings, literal credentials (`domain/credentials.py`), the size.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from domain.agent_uses import AgentUse, agents_used
from domain.conditions import BadCondition
from domain.credentials import literal_credentials
from domain.definition import PRIORITIES, compile_gate
from domain.definition_reader import ActionCatalog, DefinitionReader, Mistake
from domain.json_values import (
    BODY_BYTES_MAX,
    Json,
    JsonObject,
    NotStorable,
    check_storable,
    pointer_join,
)
from domain.references import BadReferences, Reference, compile_template
from domain.stage_reader import unknown_actions
from domain.step_graph import StepGraph
from domain.workflow_calls import Call, calls_of

_HUMAN_TASK_FIELDS: Final = frozenset(
    {"title", "description", "priority", "assignedTo", "assigned_to", "orchestratorId", "wait"}
)


class Verdict(NamedTuple):
    """`normalised` is what to store when `mistakes` is empty; `warnings` do not prevent that."""

    normalised: JsonObject | None
    mistakes: tuple[Mistake, ...]
    warnings: tuple[Mistake, ...]
    calls: tuple[Call, ...] = ()
    """The workflows that it runs; whether that is possible, only who knows the others can say."""
    agents: tuple[AgentUse, ...] = ()
    """The agents that it names; whether they exist, only who knows the registry can say."""
    silent: Mapping[str, str] = MappingProxyType({})
    """The agents, by id, of steps that leave it to them what is done about failure."""


def validate(
    raw: Json,
    actions: ActionCatalog,
    check_schema: Callable[[Json], str | None] = lambda schema: None,
) -> Verdict:
    """All mistakes of a definition; `check_schema` says what is wrong with a JSON Schema, or None.

    Never raises on JSON values. Pointers lead into `raw`.
    """
    reader = DefinitionReader()
    normalised = reader.read(raw)
    found = list(reader.mistakes)
    warnings: list[Mistake] = []
    if normalised is not None:
        graph = StepGraph(normalised)
        if graph.steps:
            complete = all(mistake.code != "not_available_yet" for mistake in found)
            found += graph.mistakes(complete=complete)
            warnings += graph.ignored_next_steps()
            found += _expressions(graph, normalised)
            found += _actions(graph, actions)
            found += _alternatives(graph, normalised, actions.names())
            found += literal_credentials(dict(graph.steps))
            found += _validations(graph, check_schema)
        found += _schema(normalised["input_schema"], check_schema)
    written = _as_written(found, reader) + tuple(_storable(raw))
    calls = () if normalised is None else tuple(calls_of(normalised))
    agents = () if normalised is None else tuple(agents_used(normalised))
    return Verdict(
        normalised,
        tuple(dict.fromkeys(written)),
        _as_written(warnings, reader),
        tuple(each._replace(pointer=reader.places.written(each.pointer)) for each in calls),
        tuple(each._replace(pointer=reader.places.written(each.pointer)) for each in agents),
        reader.silent,
    )


def _as_written(found: list[Mistake], reader: DefinitionReader) -> tuple[Mistake, ...]:
    return tuple(each._replace(pointer=reader.places.written(each.pointer)) for each in found)


def _schema(schema: Json, check_schema: Callable[[Json], str | None]) -> Iterator[Mistake]:
    problem = None if schema is None else check_schema(schema)
    if problem is not None:
        yield Mistake("/input_schema", "bad_schema", problem)


def _validations(graph: StepGraph, check_schema: Callable[[Json], str | None]) -> Iterator[Mistake]:
    for step_id, step in graph.steps.items():
        schema = step.get("validation_schema")
        problem = None if not isinstance(schema, dict) else check_schema(schema)
        if problem is not None:
            yield Mistake(graph.pointer(step_id, "validation_schema"), "bad_schema", problem)


def _storable(raw: Json) -> Iterator[Mistake]:
    """The normalised form adds defaults only, so what was sent decides."""
    try:
        check_storable(raw, bytes_max=BODY_BYTES_MAX)
    except NotStorable as error:
        yield Mistake(error.pointer, error.code, error.message)


def _expressions(graph: StepGraph, normalised: JsonObject) -> Iterator[Mistake]:
    order = tuple(graph.order)
    for step_id, step in graph.steps.items():
        for field in ("config", "input_mapping", "data_source", "event_filter"):
            if field in step:
                yield from _template(step[field], graph.pointer(step_id, field), graph, step_id)
        if "duration_ms" in step:
            pointer = graph.pointer(step_id, "duration_ms")
            yield from _no_text(step["duration_ms"], pointer, graph, step_id)
        loop = step.get("loop_config")
        if isinstance(loop, dict):
            pointer = graph.pointer(step_id, "loop_config", "collection")
            yield from _no_text(loop["collection"], pointer, graph, step_id)
        for field in ("conditions", "assertions"):
            gates = step.get(field)
            for index, gate in enumerate(gates if isinstance(gates, list) else []):
                pointer = graph.pointer(step_id, field, index)
                yield from _gate(gate, pointer, graph, step_id, order)
        if "condition" in step:
            pointer = graph.pointer(step_id, "condition")
            yield from _gate(step["condition"], pointer, graph, step_id, order)
    if normalised["output"] is not None:
        yield from _template(normalised["output"], "/output", graph, None)


def _template(value: Json, pointer: str, graph: StepGraph, at: str | None) -> Iterator[Mistake]:
    try:
        template = compile_template(value)
    except BadReferences as error:
        for where, message in error.mistakes:
            yield Mistake(pointer + where, "bad_reference", message)
        return
    for where, reference in template.references:
        yield from _reference(reference, pointer + where, graph, at)


def _no_text(value: Json, pointer: str, graph: StepGraph, at: str) -> Iterator[Mistake]:
    """A value that is a number or a list: a text is one reference to that, or never becomes it."""
    found = tuple(_template(value, pointer, graph, at))
    yield from found
    if not found and isinstance(value, str) and not compile_template(value).is_reference:
        message = f"{value[:100]!a} is a text; write the value itself, or one reference to it."
        yield Mistake(pointer, "bad_reference", message)


def _gate(
    gate: Json, pointer: str, graph: StepGraph, at: str, order: tuple[str, ...]
) -> Iterator[Mistake]:
    if not isinstance(gate, dict):
        return
    field = "expression" if "expression" in gate else "field"
    try:
        compiled = compile_gate(gate, order)
    except BadCondition as error:
        if str(error).find("unknown operator") >= 0 and field == "field":
            field = "operator"
        yield Mistake(f"{pointer}/{field}", "bad_condition", str(error))
        return
    for reference in compiled.condition.references:
        yield from _reference(reference, f"{pointer}/{field}", graph, at)


def _reference(
    reference: Reference, pointer: str, graph: StepGraph, at: str | None
) -> Iterator[Mistake]:
    """What is wrong with a reference in the step `at` (None: in the definition's output)."""
    used, text = reference.step_id, reference.text
    message = None
    if at is not None and at in graph.undone_by:
        message = _in_compensation(reference, graph, graph.undone_by[at])
    elif reference.root == "undo":
        message = f"{text} is used outside of a step that undoes another one."
    elif reference.root == "loop" and (at is None or not graph.is_in_loop(at)):
        message = f"{text} is used outside of a loop."
    elif reference.root == "secret" and at is not None and graph.steps[at]["type"] != "action":
        message = f"{text}: secrets are resolved inside an action only."
    elif reference.root == "secret" and at is None:
        message = "Secrets are resolved inside an action only, never in an output."
    elif reference.root == "step" and used is not None:
        message = _out_of_sight(graph, text, used, at)
    if message is not None:
        yield Mistake(pointer, "bad_reference", message)


def _out_of_sight(graph: StepGraph, text: str, used: str, at: str | None) -> str | None:
    if used not in graph.steps:
        return f"{text} names {used!r}, which is not a step."
    if used in graph.undone_by:
        return f"{text}: {used!r} only undoes another step, when all is over; nothing sees it."
    if used in graph.parents and (at is None or not graph.sees_line_of(used, at)):
        return _hidden(graph, used)
    if at is not None and not graph.has_run_before(used, at):
        return f"{used!r} cannot have run before {at!r}."
    return None


def _hidden(graph: StepGraph, used: str) -> str:
    """What to write instead of a step that lies in a composite."""
    named = graph.parents[used][0]
    parent, place = named.parent, named.place
    match graph.steps[parent]["type"]:
        case "conditional":
            instead = f"${{{parent}.output.branch_output}}"
            return f"{used!r} is a branch of {parent!r}; use {instead} instead."
        case "parallel":
            instead = f"${{{parent}.output['{used}']}}"
        case "fork_join":
            instead = f"${{{parent}.output['{place[2]}']}}"
        case _:
            instead = f"${{{parent}.output.iterations}}"
    return f"{used!r} lies in {parent!r}; use {instead} instead, from outside of it."


def _in_compensation(reference: Reference, graph: StepGraph, undone: list[str]) -> str | None:
    """It runs when the execution is aborted: what it undoes has run, and what came before that."""
    used, text = reference.step_id, reference.text
    if reference.root == "loop":
        return f"{text} is used outside of a loop."
    if reference.root != "step" or used is None:
        return None
    if all(graph.has_run_before(used, each) for each in undone):
        return None
    return f"{text}: {used!r} need not have run; write ${{undo.input}} or ${{undo.output}}."


def _alternatives(
    graph: StepGraph, normalised: JsonObject, known: frozenset[str]
) -> Iterator[Mistake]:
    """Alternatives whose action nobody has registered."""
    lists = [("/alternatives", normalised["alternatives"])]
    lists += [
        (graph.pointer(each, "recovery"), graph.steps[each]["recovery"]) for each in graph.steps
    ]
    for pointer, stages in lists:
        yield from unknown_actions(stages if isinstance(stages, list) else [], pointer, known)


def _actions(graph: StepGraph, actions: ActionCatalog) -> Iterator[Mistake]:
    names = actions.names() | {"create_task"}
    for step_id, step in graph.steps.items():
        action = step.get("action")
        if not isinstance(action, str) or not action:
            continue
        if action not in names:
            known = ", ".join(sorted(names | {"wait", "condition"}))
            message = f"{action!r} is not a registered action; known are {known}."
            yield Mistake(graph.pointer(step_id, "action"), "unknown_action", message)
            continue
        config, mapped = step["config"], step["input_mapping"]
        if not isinstance(config, dict) or not isinstance(mapped, dict):
            continue
        place = graph.pointer(step_id, "config")
        check = _human_task if action == "create_task" else actions.check
        for mistake in check(action, {**config, **mapped}, place):
            field = mistake.pointer.removeprefix(place).split("/")[1:2]
            if field and any(field[0] == pointer_join("", name)[1:] for name in mapped):
                inside = graph.pointer(step_id, "input_mapping")
                mistake = mistake._replace(pointer=inside + mistake.pointer.removeprefix(place))
            yield mistake


def _human_task(action: str, config: JsonObject, pointer: str) -> Iterator[Mistake]:
    for field in config:
        if field not in _HUMAN_TASK_FIELDS:
            message = f"{field!r} is not a setting of {action}."
            yield Mistake(pointer_join(pointer, field), "unknown_field", message)
    if not config.get("title") or not isinstance(config["title"], str):
        yield Mistake(f"{pointer}/title", "missing_field", f"{action} needs a title.")
    priority = config.get("priority", "MEDIUM")
    if not isinstance(priority, str) or (priority not in PRIORITIES and "{" not in priority):
        message = f"priority is one of {', '.join(PRIORITIES)}."
        yield Mistake(f"{pointer}/priority", "bad_value", message)
    if not isinstance(config.get("wait", False), bool):
        yield Mistake(f"{pointer}/wait", "bad_value", "wait is true or false.")
