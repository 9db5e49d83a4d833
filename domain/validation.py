"""Everything that is wrong with a definition, found at registration: each mistake with its pointer, a code and a sentence.

`validate` reads the definition into its normalised form (`domain/definition_reader.py`) and then looks at what only the whole can
show: the graph, the references, the conditions, the actions' settings, literal credentials, the size.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from domain.conditions import BadCondition
from domain.definition import NESTING_MAX, children_of, compile_gate
from domain.definition_reader import ActionCatalog, DefinitionReader, Mistake
from domain.json_values import Json, JsonObject, NotStorable, check_storable, pointer_join
from domain.references import BadReferences, Reference, compile_template

_CREDENTIAL_KEYS: Final = re.compile(
    r"(authorization|proxy-authorization|x-api-key|api[_-]?key|apikey|password|passwd|secret|client[_-]?secret"
    r"|access[_-]?token|auth[_-]?token|token|private[_-]?key|cookie)\Z",
    re.IGNORECASE,
)
_CREDENTIAL_VALUES: Final = re.compile(
    r"(?i:bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}|whsec_[A-Za-z0-9+/=]{8,}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{16,}"
    r"|ghp_[A-Za-z0-9]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|[a-z][a-z0-9+.-]*://[^/\s:@${]+:[^/\s@${]+@"
)
_HUMAN_TASK_FIELDS: Final = frozenset(
    {"title", "description", "priority", "assignedTo", "assigned_to", "orchestratorId", "wait"}
)
_PRIORITIES: Final = ("LOW", "MEDIUM", "HIGH", "CRITICAL")


class Verdict(NamedTuple):
    """`normalised` is the form to store when `mistakes` is empty; `warnings` are stored-anyway remarks."""

    normalised: JsonObject | None
    mistakes: tuple[Mistake, ...]
    warnings: tuple[Mistake, ...]


def validate(
    raw: Json,
    actions: ActionCatalog,
    check_schema: Callable[[Json], str | None] = lambda schema: None,
) -> Verdict:
    """All mistakes of a definition; `check_schema` says what is wrong with a JSON Schema, or None."""
    reader = DefinitionReader()
    normalised = reader.read(raw)
    found = list(reader.mistakes)
    if normalised is None:
        return Verdict(None, tuple(found), ())
    graph = _Graph(normalised, reader.pointers)
    warnings = list(reader.warnings)
    if graph.steps:
        found += graph.mistakes()
        warnings += graph.ignored_next_steps()
        found += _expressions(graph, normalised)
        found += _actions(graph, actions)
        found += _credentials(raw)
    problem = check_schema(normalised["input_schema"]) if normalised["input_schema"] is not None else None
    if problem is not None:
        found.append(Mistake("/input_schema", "bad_schema", problem))
    try:
        check_storable(normalised)
    except NotStorable as error:
        found.append(Mistake(error.pointer, error.code, str(error)))
    return Verdict(normalised, tuple(dict.fromkeys(found)), tuple(warnings))


class _Graph:
    """Steps by id, their order and nesting."""

    def __init__(self, normalised: JsonObject, pointers: dict[str, str]) -> None:
        steps = normalised["steps"]
        self.steps = {k: v for k, v in steps.items() if isinstance(v, dict)} if isinstance(steps, dict) else {}
        self.start = str(normalised["start_step"])
        self.pointers = pointers
        self.parents: dict[str, list[tuple[str, str]]] = {}
        for step_id, step in self.steps.items():
            for field, child in children_of(step):
                self.parents.setdefault(child, []).append((step_id, field))
        self.order: dict[str, int] = {}
        self.cycle_at: str | None = None
        current: object = self.start
        last = ""
        while isinstance(current, str) and current in self.steps:
            if current in self.order:
                self.cycle_at = last
                break
            self.order[current] = len(self.order)
            last, current = current, self.steps[current]["next_step"]

    def mistakes(self) -> Iterator[Mistake]:
        if self.start and self.start not in self.steps:
            yield Mistake("/start_step", "missing_start", f"start_step names {self.start!r}, which is not a step.")
        yield from self._dangling()
        if self.cycle_at is not None:
            target = self.steps[self.cycle_at]["next_step"]
            yield Mistake(
                f"{self.pointers[self.cycle_at]}/next_step", "cycle", f"next_step leads back to {target!r}; a definition has no cycles."
            )
        yield from self._parentage()
        yield from self._unreachable()

    def _dangling(self) -> Iterator[Mistake]:
        for step_id, step in self.steps.items():
            following = step["next_step"]
            if isinstance(following, str) and following not in self.steps:
                yield Mistake(
                    f"{self.pointers[step_id]}/next_step", "dangling_next", f"next_step names {following!r}, which is not a step."
                )
            for field, child in children_of(step):
                if child not in self.steps:
                    yield Mistake(
                        f"{self.pointers[step_id]}/{field}", "dangling_next", f"{field} names {child!r}, which is not a step."
                    )
            if step["type"] == "conditional" and not children_of(step) and _needs_branch(step):
                yield Mistake(
                    self.pointers[step_id], "missing_branch", "A conditional step needs if_true_step or if_false_step."
                )

    def _parentage(self) -> Iterator[Mistake]:
        for child, places in self.parents.items():
            if child not in self.steps:
                continue
            parent, field = places[-1]
            where = f"{self.pointers[parent]}/{field}"
            if len(places) > 1:
                yield Mistake(where, "two_parents", f"{child!r} is already a branch of {places[0][0]!r}; give each branch its own step.")
            elif child in self.order:
                yield Mistake(where, "two_parents", f"{child!r} is on the main line too; a step is either a branch or on the main line.")
            elif self._nesting(child) is None:
                yield Mistake(where, "cycle", f"{child!r} contains itself.")
            elif (self._nesting(child) or 0) > NESTING_MAX:
                yield Mistake(where, "too_deep", f"Steps nest at most {NESTING_MAX} levels.")

    def _unreachable(self) -> Iterator[Mistake]:
        for step_id in self.steps:
            top = self._top(step_id)
            if top is not None and top not in self.order and self.order:
                yield Mistake(
                    self.pointers[step_id],
                    "unreachable",
                    f"No step leads to {step_id!r}. A branch of a conditional is one step; the walk goes on with the conditional's own next_step.",
                )

    def ignored_next_steps(self) -> Iterator[Mistake]:
        for child in self.parents:
            if child in self.steps and self.steps[child]["next_step"] is not None:
                yield Mistake(
                    f"{self.pointers[child]}/next_step",
                    "ignored_next_step",
                    "The next_step of a branch is ignored; the walk goes on with the conditional's.",
                )

    def _top(self, step_id: str) -> str | None:
        """The main-line step that holds this one; None inside a cycle of parents, which has its own mistake."""
        seen: set[str] = set()
        while step_id in self.parents and step_id not in seen:
            seen.add(step_id)
            step_id = self.parents[step_id][0][0]
        return None if step_id in seen else step_id

    def _nesting(self, step_id: str) -> int | None:
        depth, seen = 0, {step_id}
        while step_id in self.parents:
            step_id = self.parents[step_id][0][0]
            if step_id in seen:
                return None
            seen.add(step_id)
            depth += 1
        return depth

    def has_run_before(self, used: str, at: str) -> bool:
        """Whether `used` is settled for certain when `at` starts: it stands before it, or before one of its parents."""
        seen: set[str] = set()
        while at not in seen:
            seen.add(at)
            if used in self.order and at in self.order:
                return self.order[used] < self.order[at]
            if at not in self.parents:
                return False
            at = self.parents[at][0][0]
        return False


def _needs_branch(step: JsonObject) -> bool:
    condition = step["condition"]
    return isinstance(condition, dict) and "expression" in condition


def _expressions(graph: _Graph, normalised: JsonObject) -> Iterator[Mistake]:
    order = tuple(graph.order)
    for step_id, step in graph.steps.items():
        pointer = graph.pointers[step_id]
        for field in ("config", "input_mapping", "duration_ms"):
            if field in step:
                yield from _template(step[field], f"{pointer}/{field}", graph, step_id)
        gates = step["conditions"]
        for index, gate in enumerate(gates if isinstance(gates, list) else []):
            yield from _gate(gate, pointer_join(pointer, "conditions", index), graph, step_id, order)
        if "condition" in step:
            yield from _gate(step["condition"], f"{pointer}/condition", graph, step_id, order)
    if normalised["output"] is not None:
        yield from _template(normalised["output"], "/output", graph, None)


def _template(value: Json, pointer: str, graph: _Graph, at: str | None) -> Iterator[Mistake]:
    try:
        template = compile_template(value)
    except BadReferences as error:
        for where, message in error.mistakes:
            yield Mistake(pointer + where, "bad_reference", message)
        return
    for where, reference in template.references:
        yield from _reference(reference, pointer + where, graph, at)


def _gate(gate: Json, pointer: str, graph: _Graph, at: str, order: tuple[str, ...]) -> Iterator[Mistake]:
    if not isinstance(gate, dict):
        return
    field = "expression" if "expression" in gate else "field"
    try:
        compiled = compile_gate(gate, order)
    except BadCondition as error:
        where = f"{pointer}/operator" if "operator" in str(error) and field == "field" else f"{pointer}/{field}"
        yield Mistake(where, "bad_condition", str(error))
        return
    for reference in compiled.condition.references:
        yield from _reference(reference, f"{pointer}/{field}", graph, at)


def _reference(reference: Reference, pointer: str, graph: _Graph, at: str | None) -> Iterator[Mistake]:
    if reference.root == "loop":
        yield Mistake(pointer, "bad_reference", f"{reference.text} is used outside of a loop.")
    if reference.root == "secret" and at is None:
        yield Mistake(pointer, "bad_reference", "Secrets are resolved inside an action only, never in an output.")
    if reference.root != "step" or reference.step_id is None:
        return
    used = reference.step_id
    if used not in graph.steps:
        yield Mistake(pointer, "bad_reference", f"{reference.text} names {used!r}, which is not a step.")
    elif used in graph.parents:
        parent = graph.parents[used][0][0]
        yield Mistake(
            pointer, "bad_reference", f"{used!r} is a branch of {parent!r}; use ${{{parent}.output.branch_output}} instead."
        )
    elif at is not None and not graph.has_run_before(used, at):
        yield Mistake(pointer, "bad_reference", f"{used!r} cannot have run before {at!r}.")


def _actions(graph: _Graph, actions: ActionCatalog) -> Iterator[Mistake]:
    names = actions.names() | {"create_task"}
    for step_id, step in graph.steps.items():
        if step["type"] != "action" or not step.get("action"):
            continue
        action, pointer = str(step["action"]), graph.pointers[step_id]
        if action not in names:
            where = f"{pointer}/action" if pointer.startswith("/steps") else f"{pointer}/type"
            known = ", ".join(sorted(names | {"wait", "condition"}))
            yield Mistake(where, "unknown_action", f"{action!r} is not a registered action; known are {known}.")
            continue
        config, mapped = step["config"], step["input_mapping"]
        if not isinstance(config, dict) or not isinstance(mapped, dict):
            continue
        merged = {**config, **mapped}
        if action == "create_task":
            yield from _human_task(merged, f"{pointer}/config")
        else:
            yield from actions.check(action, merged, f"{pointer}/config")


def _human_task(config: JsonObject, pointer: str) -> Iterator[Mistake]:
    for field in config:
        if field not in _HUMAN_TASK_FIELDS:
            yield Mistake(pointer_join(pointer, field), "unknown_field", f"{field!r} is not a setting of create_task.")
    if not config.get("title") or not isinstance(config["title"], str):
        yield Mistake(f"{pointer}/title", "missing_field", "create_task needs a title.")
    priority = config.get("priority", "MEDIUM")
    if not isinstance(priority, str) or (priority not in _PRIORITIES and "{" not in priority):
        yield Mistake(f"{pointer}/priority", "bad_value", f"priority is one of {', '.join(_PRIORITIES)}.")
    if not isinstance(config.get("wait", False), bool):
        yield Mistake(f"{pointer}/wait", "bad_value", "wait is true or false.")


def _credentials(raw: Json) -> Iterable[Mistake]:
    """Literal secrets: they would be stored in events for ever."""
    if not isinstance(raw, dict):
        return
    places = raw.get("steps"), raw.get("actions")
    for name, steps in zip(("steps", "actions"), places, strict=True):
        items: Iterable[tuple[str | int, Json]] = ()
        if isinstance(steps, dict):
            items = steps.items()
        elif isinstance(steps, list):
            items = enumerate(steps)
        for key, step in items:
            if isinstance(step, dict):
                for field in ("config", "input_mapping"):
                    yield from _literal_secrets(step.get(field), pointer_join(f"/{name}", key, field), "")


def _literal_secrets(value: Json, pointer: str, key: str) -> Iterator[Mistake]:
    stack: list[tuple[Json, str, str]] = [(value, pointer, key)]
    while stack:
        value, pointer, key = stack.pop()
        if isinstance(value, dict):
            stack += [(inner, pointer_join(pointer, name), name) for name, inner in value.items()]
        elif isinstance(value, list):
            stack += [(inner, pointer_join(pointer, index), key) for index, inner in enumerate(value)]
        elif isinstance(value, str) and "${" not in value and "{{" not in value:
            if (value and _CREDENTIAL_KEYS.match(key)) or _CREDENTIAL_VALUES.search(value):
                yield Mistake(
                    pointer,
                    "literal_credential",
                    "This looks like a credential; store it as a secret and write ${secret.NAME} here.",
                )
