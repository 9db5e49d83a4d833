"""What the composites of a normalised definition hold: lines of steps that run in order."""

from collections.abc import Iterator
from typing import NamedTuple

from domain.json_values import Json, JsonObject


class Line(NamedTuple):
    """Steps that run one after the other inside a normalised composite, and where each is named."""

    ids: tuple[str, ...]
    places: tuple[tuple[str | int, ...], ...]


def lines_of(step: JsonObject) -> tuple[Line, ...]:
    """What a normalised composite holds: lines that run apart from one another."""
    match step["type"]:
        case "conditional":
            return tuple(
                Line((str(step[field]),), ((field,),))
                for field in ("if_true_step", "if_false_step")
                if step[field] is not None
            )
        case "parallel":
            return tuple(
                Line((str(child),), (("parallel_steps", index),))
                for index, child in enumerate(as_list(step["parallel_steps"]))
            )
        case "loop":
            body = as_list(as_object(step["loop_config"])["loop_body"])
            return (_line(body, "loop_config", "loop_body"),)
        case "fork_join":
            branches = as_object(as_object(step["fork_join_config"])["branches"])
            place = ("fork_join_config", "branches")
            return tuple(
                _line(as_list(as_object(branch)["steps"]), *place, name, "steps")
                for name, branch in branches.items()
            )
    return ()


def _line(ids: list[Json], *place: str | int) -> Line:
    return Line(
        tuple(str(each) for each in ids), tuple((*place, index) for index in range(len(ids)))
    )


def children_of(step: JsonObject) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(where it is named, child id) of everything a normalised composite holds."""
    for line in lines_of(step):
        yield from zip(line.places, line.ids, strict=True)


def counted_steps(normalised: JsonObject) -> int:
    """Steps outside of loops: those that progress counts."""
    steps = normalised.get("steps")
    if not isinstance(steps, dict):
        return 0
    loops = [step for step in steps.values() if as_object(step)["type"] == "loop"]
    inside = [child for loop in loops for _, child in children_of(as_object(loop))]
    repeated: set[str] = set()
    while inside:
        step_id = inside.pop()
        if step_id not in repeated:
            repeated.add(step_id)
            inside += [child for _, child in children_of(as_object(steps[step_id]))]
    return len(steps) - len(repeated)


def as_object(value: Json) -> JsonObject:
    """A part of a normalised definition that is an object; raises TypeError."""
    if not isinstance(value, dict):
        raise TypeError(
            f"an object is expected here, not {value!r}; normalise the definition first"
        )
    return value


def as_list(value: Json) -> list[Json]:
    """A part of a normalised definition that is a list; raises TypeError."""
    if not isinstance(value, list):
        raise TypeError(f"a list is expected here, not {value!r}; normalise the definition first")
    return value
