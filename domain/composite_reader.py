"""From a composite step (parallel, loop, fork_join) or a `validate` step as it was sent to its
normalised settings.

L's flat form, where the members of `loop_config` or `fork_join_config` stand in the step itself, is
written into that object here.
"""

import re
from collections.abc import Callable
from typing import Final

from domain.definition import ITEMS_MAX, LANES_MAX, STEPS_MAX
from domain.json_values import Json, JsonObject, pointer_join
from domain.mistakes import Fields, Mistake, Places, is_number

PARALLELISM_DEFAULT: Final = 10
"""Iterations of a parallel loop that run at a time."""
LOOP_FIELDS: Final = frozenset(
    ["collection", "loop_body", "execution_mode", "max_parallelism", "max_iterations", "on_error"]
)
FORK_FIELDS: Final = frozenset(["branches", "join_policy", "n_required", "branch_timeout_seconds"])
_BRANCH_FIELDS: Final = frozenset({"steps", "timeout_seconds"})
_BRANCH_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_POLICIES: Final = ("all", "any", "majority", "n_of_m")
_LOOP_ON_ERROR: Final = ("stop", "continue", "collect")
GateReader = Callable[[Json, str, int], JsonObject]
"""Reads the condition in a list: the value, the list's field, the place in it."""


def unfold(step: Fields, holder: str, members: frozenset[str], places: Places) -> Fields:
    """The step with L's flat members moved into the object `holder`."""
    flat = {name: value for name, value in step.raw.items() if name in members}
    if holder in step.raw:
        return step  # a flat member beside it is an unknown field, or the step's own on_error
    for name in flat:
        places.note(f"{step.pointer}/{holder}/{name}", f"{step.pointer}/{name}")
    if not flat:
        return step
    places.note(f"{step.pointer}/{holder}", step.pointer)
    kept = {name: value for name, value in step.raw.items() if name not in members}
    return Fields(kept | {holder: flat}, step.pointer, step.mistakes)


def read_parallel(step: Fields) -> JsonObject:
    """`{"parallel_steps": [id], "max_parallelism": number}`."""
    children = _ids(step, "parallel_steps", least=2, most=LANES_MAX)
    return {
        "parallel_steps": children,
        "max_parallelism": _whole(step, "max_parallelism", LANES_MAX) or max(1, len(children)),
    }


def read_loop(step: Fields) -> JsonObject:
    """`{"loop_config": {...}}` with every member of `LOOP_FIELDS`."""
    loop = _inner(step, "loop_config")
    loop.refuse_others(LOOP_FIELDS)
    mode = _choice(loop, "execution_mode", ("sequential", "parallel"))
    at_once = _whole(loop, "max_parallelism", LANES_MAX)
    if mode == "sequential" and at_once is not None and at_once > 1:
        message = "A sequential loop runs one iteration at a time; leave max_parallelism out."
        loop.refuse("contradiction", message, "max_parallelism")
    default = 1 if mode == "sequential" else PARALLELISM_DEFAULT
    return {
        "loop_config": {
            "collection": _collection(loop),
            "loop_body": _ids(loop, "loop_body", least=1, most=STEPS_MAX),
            "execution_mode": mode,
            "max_parallelism": at_once or default,
            "max_iterations": _whole(loop, "max_iterations", ITEMS_MAX),
            "on_error": _choice(loop, "on_error", _LOOP_ON_ERROR),
        }
    }


def read_fork(step: Fields) -> JsonObject:
    """`{"fork_join_config": {...}}` with every member of `FORK_FIELDS`."""
    fork = _inner(step, "fork_join_config")
    fork.refuse_others(FORK_FIELDS)
    seconds = fork.seconds("branch_timeout_seconds", None)
    branches = _branches(fork, seconds)
    policy = _choice(fork, "join_policy", _POLICIES)
    return {
        "fork_join_config": {
            "branches": branches,
            "join_policy": policy,
            "n_required": _needed(fork, policy, len(branches)),
            "branch_timeout_seconds": seconds,
        }
    }


def read_validation(step: Fields, gate: GateReader) -> JsonObject:
    """`{"data_source", "validation_schema", "assertions", "validation_mode"}`."""
    schema, assertions = step.raw.get("validation_schema"), step.raw.get("assertions")
    if schema is None and not assertions:
        message = "A validate step needs validation_schema or assertions."
        step.refuse("missing_field", message, "validation_schema")
    if schema is not None and not isinstance(schema, dict | bool):
        message = "validation_schema is a JSON Schema object."
        step.refuse("bad_value", message, "validation_schema")
    if schema is not None and "data_source" not in step.raw:
        message = "data_source says what the schema is for; give a value or a reference."
        step.refuse("missing_field", message, "data_source")
    if assertions is not None and (not isinstance(assertions, list) or len(assertions) > LANES_MAX):
        message = f"assertions is a list of at most {LANES_MAX} conditions."
        step.refuse("bad_value", message, "assertions")
    listed = assertions if isinstance(assertions, list) else []
    return {
        "data_source": step.raw.get("data_source"),
        "validation_schema": schema,
        "assertions": [gate(each, "assertions", index) for index, each in enumerate(listed)],
        "validation_mode": _choice(step, "validation_mode", ("strict", "warn")),
    }


def _inner(step: Fields, holder: str) -> Fields:
    pointer = f"{step.pointer}/{holder}"
    return Fields(step.object(holder), pointer, step.mistakes)


def _ids(fields: Fields, name: str, least: int, most: int) -> list[Json]:
    given = fields.raw.get(name)
    if not isinstance(given, list) or not least <= len(given) <= most:
        message = f"{name} is a list of {least} to {most} step ids."
        fields.refuse("bad_value", message, name)
        return []
    for index, step_id in enumerate(given):
        if not isinstance(step_id, str) or not step_id:
            fields.refuse("bad_value", "The id of a step belongs here.", name, index)
    return [each for each in given if isinstance(each, str)]


def _whole(fields: Fields, name: str, most: int) -> int | None:
    value = fields.raw.get(name)
    if value is None:
        return None
    if is_number(value) and isinstance(value, int) and 1 <= value <= most:
        return value
    fields.refuse("out_of_range", f"{name} is a whole number from 1 to {most}.", name)
    return None


def _choice(fields: Fields, name: str, choices: tuple[str, ...]) -> str:
    """One of `choices`, the first when it is left out."""
    value = fields.raw.get(name)
    if value is None:
        return choices[0]
    if isinstance(value, str) and value in choices:
        return value
    fields.refuse("bad_value", f"{name} is one of {', '.join(choices)}.", name)
    return choices[0]


def _collection(loop: Fields) -> Json:
    value = loop.raw.get("collection")
    # Whether a text is a reference at all is said with the other references.
    if isinstance(value, str) and value.lstrip().startswith(("$", "{{")):
        return value
    if isinstance(value, list):
        if len(value) > ITEMS_MAX:
            message = f"A loop has at most {ITEMS_MAX} items, not {len(value)}."
            loop.refuse("too_many", message, "collection")
        return value
    message = "collection is a list, or one reference to a list."
    loop.refuse("bad_value", message, "collection")
    return []


def _branches(fork: Fields, seconds: Json) -> JsonObject:
    given = fork.raw.get("branches")
    if not isinstance(given, dict) or not 2 <= len(given) <= LANES_MAX:
        message = f"branches is an object with 2 to {LANES_MAX} branches by name."
        fork.refuse("bad_value", message, "branches")
        return {}
    read: JsonObject = {}
    for name, branch in given.items():
        if not _BRANCH_NAME.match(name):
            message = "A branch's name is 1 to 128 characters of A-Z a-z 0-9 . _ - ."
            fork.refuse("bad_identifier", message, "branches", name)
        read[name] = _branch(fork, name, branch, seconds)
    return read


def _branch(fork: Fields, name: str, raw: Json, seconds: Json) -> JsonObject:
    found: list[Mistake] = []
    branch = Fields(raw if isinstance(raw, dict) else {"steps": raw}, "", found)
    branch.refuse_others(_BRANCH_FIELDS)
    limit = branch.seconds("timeout_seconds", None)
    read: JsonObject = {
        "steps": _ids(branch, "steps", least=1, most=STEPS_MAX),
        "timeout_seconds": seconds if limit is None else limit,
    }
    for mistake in found:
        inside = mistake.pointer if isinstance(raw, dict) else ""
        place = pointer_join(fork.pointer, "branches", name) + inside
        fork.mistakes.append(mistake._replace(pointer=place))
    return read


def _needed(fork: Fields, policy: str, count: int) -> int:
    """How many branches must complete."""
    asked = _whole(fork, "n_required", LANES_MAX)
    by_policy = {"all": count, "any": 1, "majority": count // 2 + 1}
    if policy != "n_of_m":
        if asked is not None and asked != by_policy[policy]:
            message = f"join_policy {policy} says how many; leave n_required out, or write n_of_m."
            fork.refuse("contradiction", message, "n_required")
        return by_policy[policy]
    if asked is None:
        if "n_required" not in fork.raw:
            message = "join_policy n_of_m needs n_required, how many branches must complete."
            fork.refuse("missing_field", message, "n_required")
        return 1
    if asked > count:
        message = f"n_required is {asked}, but there are {count} branches."
        fork.refuse("out_of_range", message, "n_required")
    return asked
