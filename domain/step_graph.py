"""How the steps of a definition hang together: the main line, what composites hold, and what is
wrong there.

Pointers are those of the normalised form.
"""

from collections.abc import Iterator
from typing import NamedTuple

from domain.composite_lines import children_of, lines_of
from domain.definition import NESTING_MAX, main_line_of
from domain.json_values import JsonObject, pointer_join
from domain.mistakes import Mistake


class Spot(NamedTuple):
    """Where a step stands: in which composite ("" for none), on which line, as which (from 0)."""

    parent: str
    line: int
    number: int


class Named(NamedTuple):
    """One place that names a child: the composite, where in it, which line and number that is."""

    parent: str
    place: tuple[str | int, ...]
    line: int
    number: int


class StepGraph:
    """Steps by id, their order on the main line (from 0), and which composite holds them."""

    def __init__(self, normalised: JsonObject) -> None:
        steps = normalised["steps"]
        self.steps: dict[str, JsonObject] = (
            {step_id: step for step_id, step in steps.items() if isinstance(step, dict)}
            if isinstance(steps, dict)
            else {}
        )
        self.start = str(normalised["start_step"])
        self.order = {step_id: n for n, step_id in enumerate(main_line_of(normalised))}
        self.parents: dict[str, list[Named]] = {}
        """Every place in a composite that names a step as its child."""
        for step_id, step in self.steps.items():
            for line, steps_of_line in enumerate(lines_of(step)):
                for number, child in enumerate(steps_of_line.ids):
                    place = steps_of_line.places[number]
                    self.parents.setdefault(child, []).append(Named(step_id, place, line, number))
        self._tops: dict[str, tuple[str, int] | None] = {}
        for step_id in self.steps:
            self._place(step_id)

    def pointer(self, step_id: str, *parts: str | int) -> str:
        """Where a step, or a part of it, stands."""
        return pointer_join("/steps", step_id, *parts)

    def has_run_before(self, used: str, at: str) -> bool:
        """Whether `used` has ended for certain when `at` starts, on a line that `at` can see."""
        spot = self._spot(used)
        for each in (at, *self.around(at)):
            mine = self._spot(each)
            if spot is not None and mine is not None and spot[:2] == mine[:2]:
                return spot.number < mine.number
        return False

    def sees_line_of(self, used: str, at: str) -> bool:
        """Whether `at` stands on the line of `used`, or inside something that does."""
        spot = self._spot(used)
        if spot is None:
            return False
        places = map(self._spot, (at, *self.around(at)))
        return any(each is not None and each[:2] == spot[:2] for each in places)

    def around(self, step_id: str) -> Iterator[str]:
        """The composites that a step lies in, the innermost first; ends where they form a ring."""
        seen = {step_id}
        while step_id in self.parents:
            step_id = self.parents[step_id][0].parent
            if step_id in seen:
                return
            seen.add(step_id)
            yield step_id

    def is_in_loop(self, step_id: str) -> bool:
        """Whether a step is part of a loop's body, at any depth."""
        return any(self.steps[each]["type"] == "loop" for each in self.around(step_id))

    def _spot(self, step_id: str) -> Spot | None:
        if step_id in self.parents:
            named = self.parents[step_id][0]
            return Spot(named.parent, named.line, named.number)
        if step_id in self.order:
            return Spot("", 0, self.order[step_id])
        return None

    def mistakes(self, *, complete: bool) -> Iterator[Mistake]:
        """All of them; a definition that is not `complete` (kinds not available) may seem cut."""
        if self.start and self.start not in self.steps:
            message = f"start_step names {self.start!r}, which is not a step."
            yield Mistake("/start_step", "missing_start", message)
        yield from self._dangling()
        yield from self._cycle()
        yield from self._parentage()
        if complete:
            yield from self._unreachable()

    def ignored_next_steps(self) -> Iterator[Mistake]:
        """Warnings: a child does not choose where the walk goes on, a list may say the same."""
        for child, places in self.parents.items():
            if child not in self.steps or self.steps[child]["next_step"] is None:
                continue
            named = places[0]
            line = lines_of(self.steps[named.parent])[named.line].ids
            if self.steps[child]["next_step"] in line[named.number + 1 : named.number + 2]:
                continue
            message = (
                "A branch's next_step is ignored; the conditional's own one is followed."
                if self.steps[named.parent]["type"] == "conditional"
                else f"next_step is ignored here; {named.parent!r} says what follows."
            )
            yield Mistake(self.pointer(child, "next_step"), "ignored_next_step", message)

    def _place(self, step_id: str) -> None:
        """Note the main-line step above this one and the depth; None in a ring of parents."""
        chain: list[str] = []
        current = step_id
        while current in self.parents and current not in self._tops and current not in chain:
            chain.append(current)
            current = self.parents[current][0].parent
        top = None if current in chain else self._tops.setdefault(current, (current, 0))
        for depth, each in enumerate(reversed(chain), start=1):
            self._tops[each] = None if top is None else (top[0], top[1] + depth)

    def _dangling(self) -> Iterator[Mistake]:
        for step_id, step in self.steps.items():
            named = [(("next_step",), step["next_step"]), *children_of(step)]
            for place, target in named:
                if isinstance(target, str) and target not in self.steps:
                    field = next(str(part) for part in reversed(place) if isinstance(part, str))
                    message = f"{field} names {target!r}, which is not a step."
                    yield Mistake(self.pointer(step_id, *place), "dangling_next", message)
            if step["type"] == "conditional" and len(named) == 1 and _needs_branch(step):
                message = "A conditional step needs if_true_step or if_false_step."
                yield Mistake(self.pointer(step_id), "missing_branch", message)

    def _cycle(self) -> Iterator[Mistake]:
        if not self.order:
            return
        last = next(reversed(self.order))
        following = self.steps[last]["next_step"]
        if following in self.order:
            message = f"next_step leads back to {following!r}; a definition has no cycles."
            yield Mistake(self.pointer(last, "next_step"), "cycle", message)

    def _parentage(self) -> Iterator[Mistake]:
        for child, places in self.parents.items():
            if child not in self.steps:
                continue
            last, top = places[-1], self._tops[child]
            where = self.pointer(last.parent, *last.place)
            if len(places) > 1:
                message = (
                    f"{child!r} is a branch of {places[0].parent!r} too; write a step for each."
                    if self.steps[places[0].parent]["type"] == "conditional"
                    else f"{places[0].parent!r} holds {child!r} too; write a step for each."
                )
                yield Mistake(where, "two_parents", message)
            elif child in self.order:
                message = f"{child!r} is on the main line too; a step has one place."
                yield Mistake(where, "two_parents", message)
            elif top is None:
                yield Mistake(where, "cycle", f"{child!r} contains itself.")
            elif top[1] > NESTING_MAX:
                yield Mistake(where, "too_deep", f"Steps nest at most {NESTING_MAX} levels.")

    def _unreachable(self) -> Iterator[Mistake]:
        for step_id in self.steps:
            top = self._tops[step_id]
            if self.order and top is not None and top[0] not in self.order:
                message = (
                    f"No step leads to {step_id!r}. A branch of a conditional is one step; "
                    "the walk goes on with the conditional's own next_step."
                )
                yield Mistake(self.pointer(step_id), "unreachable", message)


def _needs_branch(step: JsonObject) -> bool:
    """W's form may do without: its result is its output."""
    condition = step["condition"]
    return isinstance(condition, dict) and "expression" in condition
