"""Random definitions without mistakes: chains, composites of every kind nested in one another,
waits, tasks, gates, policies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies

from domain.json_values import JsonObject
from tests.builders import (
    agent,
    branch,
    call,
    event,
    fork,
    loop,
    parallel,
    step,
    task,
    wait,
    workflow,
)
from tests.properties import choices as st  # Hypothesis or a seed: either may make them

Draw = Callable[[st.Choice], Any]
NESTING_MAX = 3

INPUTS = st.fixed_dictionaries(
    {
        "n": st.integers(0, 3),
        "yes": st.booleans(),
        "ms": st.sampled_from([0, 250, 5_000, "soon"]),
        "text": st.just("word"),
    }
)
RECOVERIES = st.one_of(
    st.just(None),
    st.fixed_dictionaries(
        {},
        optional={
            "base_retry_delay_ms": st.sampled_from([0, 700]),
            "max_recovery_time_ms": st.sampled_from([0, 900, 30_000]),
            "enable_alternative_flows": st.booleans(),
            "enable_user_fulfillment": st.booleans(),
            "retry_attempts": st.integers(0, 2),
            "jitter": st.booleans(),
            "answer_timeout_ms": st.sampled_from([1_000, 60_000]),
            "total_budget_ms": st.sampled_from([0, 1_500, 60_000]),
        },
    ),
)
MODES = st.sampled_from(["strict", "strict", "conditional", "lenient"])
inputs: strategies.SearchStrategy[JsonObject] = INPUTS.strategy()
recoveries: strategies.SearchStrategy[JsonObject | None] = RECOVERIES.strategy()
modes: strategies.SearchStrategy[str] = MODES.strategy()

ITEMS_MAX = 3
"""Of a random loop."""


_ALONE = ("action", "action", "action", "wait", "validate", "call", "task", "event")
_EITHER = st.booleans()
_SELDOM = st.sampled_from([True, False, False, False])
_OFTEN = st.sampled_from([False, True, True, True])
_TWICE_AT_MOST = st.integers(0, 2)
_DELAYS_MS = st.sampled_from([0, 500])


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """What definitions are made of: each kind of step as often as it is named; the rest are choices
    of what a step has. `called` names the workflows that it runs.
    """

    alone: Sequence[str] = (
        "action",
        "action",
        "action",
        "wait",
        "validate",
        "call",
        "task",
        "event",
    )
    around: Sequence[str] = ("conditional", "conditional", "parallel", "loop", "loop", "fork")
    critical: st.Choice = _EITHER
    gated: st.Choice = _SELDOM
    timed: st.Choice = _EITHER
    timeouts: Sequence[float] = (0.0000001, 1, 4)
    whole_timed: st.Choice = _EITHER
    retried: st.Choice = _EITHER
    retries: st.Choice = _TWICE_AT_MOST
    retry_delays_ms: st.Choice = _DELAYS_MS
    undone: st.Choice = _OFTEN
    other_ways: st.Choice = _EITHER
    called: Sequence[str] = ("inner",)


ANYTHING = Taste()
AGENTS = {"far": "pull", "away": "kafka", "near": "http"}
"""Transports of the agents that random definitions name."""
WITH_AGENTS = Taste(alone=(*ANYTHING.alone, "agent", "agent", "agent"))


@strategies.composite
def definitions(
    draw: strategies.DrawFn,
    steps_max: int = 4,
    *,
    in_any_order: bool = False,
    taste: Taste = ANYTHING,
) -> JsonObject:
    """A definition that `validate` accepts.

    With `in_any_order` what it comes to does not depend on who is first: no time-outs, and forks
    wait for all.
    """
    return _definition(
        lambda choice: draw(choice.strategy()), (1, steps_max), taste, in_any_order=in_any_order
    )


def seeded_definition(
    chance: Random, steps: tuple[int, int] = (1, 4), taste: Taste = ANYTHING, name: str = "orders"
) -> JsonObject:
    """The same, chosen by a generator, with the fewest and the most `steps` on the main line."""
    return _definition(lambda choice: choice.made(chance), steps, taste, in_any_order=False) | {
        "name": name
    }


def _definition(
    draw: Draw, steps: tuple[int, int], taste: Taste, *, in_any_order: bool
) -> JsonObject:
    builder = _Builder(draw, taste, in_any_order=in_any_order)
    names = [f"m{number}" for number in range(draw(st.integers(*steps)))]
    for place, name in enumerate(names):
        following = names[place + 1] if place + 1 < len(names) else None
        builder.add(name, following, names[:place], 0)
    fields: dict[str, Any] = {}
    if draw(taste.whole_timed) and not in_any_order:
        fields["timeout_seconds"] = draw(st.sampled_from([1, 10, 600]))
    if draw(st.booleans()):
        fields["output"] = {"last": f"${{{names[-1]}.output}}", "n": "${workflow.input.n}"}
    made = {name: builder.steps[name] for name in names} | builder.steps
    return workflow(made, **fields)


class _Builder:
    def __init__(self, draw: Draw, taste: Taste, *, in_any_order: bool) -> None:
        self.draw = draw
        self.taste = taste
        self.in_any_order = in_any_order
        self.steps: dict[str, Any] = {}

    def add(
        self,
        name: str,
        following: str | None,
        earlier: list[str],
        depth: int,
        in_loop: bool = False,
    ) -> None:
        kinds = list(self.taste.alone)
        if self.in_any_order:  # the id of a task counts the tasks before it
            kinds = [kind for kind in kinds if kind not in ("task", "event")]
        if depth < NESTING_MAX:
            kinds += self.taste.around
        fields = self.policy(earlier)
        match self.draw(st.sampled_from(kinds)):
            case "wait":
                length = self.draw(st.sampled_from([0, 100, 3_000, "${workflow.input.ms}"]))
                self.steps[name] = wait(following, length, **fields)
            case "task":
                self.steps[name] = task(following, waits=self.draw(st.booleans()), **fields)
            case "validate":
                checks = {"data_source": self.reference(earlier, in_loop), "assertions": ["true"]}
                self.steps[name] = {"type": "validate", "next_step": following, **checks, **fields}
            case "agent" | "call" | "event" as kind:
                self.steps[name] = self.of_others(kind, following, earlier, in_loop) | fields
            case "conditional":
                self.conditional(name, following, earlier, depth, fields, in_loop)
            case "parallel" | "loop" | "fork" as kind:
                self.fan_out(kind, name, following, earlier, depth, fields, in_loop)
            case _:
                config = {"x": self.reference(earlier, in_loop), "n": 8}
                if not in_loop:
                    self.undone(name, fields)
                fields |= self.other_ways()
                self.steps[name] = step(following, config=config, **fields)

    def fan_out(
        self,
        kind: str,
        name: str,
        following: str | None,
        earlier: list[str],
        depth: int,
        fields: dict[str, Any],
        in_loop: bool,
    ) -> None:
        in_loop = in_loop or kind == "loop"
        lines: list[list[str]] = []
        for line in range(1 if kind == "loop" else 2):
            count = 1 if kind == "parallel" else self.draw(st.integers(1, 2))
            names = [f"{name}-{line}{number}" for number in range(count)]
            for number, child in enumerate(names):
                self.add(child, None, earlier + names[:number], depth + 1, in_loop)
            lines.append(names)
        if kind == "parallel":
            at_once = self.draw(st.sampled_from([1, 2]))
            children = [child for line in lines for child in line]
            self.steps[name] = parallel(children, following, max_parallelism=at_once, **fields)
        elif kind == "loop":
            items = self.draw(st.integers(0, ITEMS_MAX))
            mode = self.draw(st.sampled_from(["sequential", "parallel"]))
            errors = self.draw(st.sampled_from(["stop", "continue", "collect"]))
            self.steps[name] = loop(
                list(range(items)),
                lines[0],
                following,
                execution_mode=mode,
                errors=errors,
                **fields,
            )
        else:
            policy = self.draw(st.sampled_from(["all", "any", "majority"]))
            if not self.in_any_order and self.draw(st.booleans()):
                fields["branch_timeout_seconds"] = self.draw(st.sampled_from([1, 4]))
            self.steps[name] = fork(
                {"a": lines[0], "b": lines[1]},
                following,
                "all" if self.in_any_order else policy,
                **fields,
            )

    def conditional(
        self,
        name: str,
        following: str | None,
        earlier: list[str],
        depth: int,
        fields: dict[str, Any],
        in_loop: bool,
    ) -> None:
        branches = self.draw(st.sampled_from([("t", None), (None, "e"), ("t", "e")]))
        then, other = (None if each is None else f"{name}-{each}" for each in branches)
        for child in (then, other):
            if child is not None:
                self.add(child, None, earlier, depth + 1, in_loop)
        self.steps[name] = branch(self.condition(earlier), then, other, following, **fields)

    def policy(self, earlier: list[str]) -> dict[str, Any]:
        fields: dict[str, Any] = {"critical": self.draw(self.taste.critical)}
        if self.draw(self.taste.retried):
            fields["retry"] = {
                "attempts": self.draw(self.taste.retries),
                "base_delay_ms": self.draw(self.taste.retry_delays_ms),
            }
        if self.draw(self.taste.timed) and not self.in_any_order:
            fields["timeout_seconds"] = self.draw(st.sampled_from(self.taste.timeouts))
        if self.draw(self.taste.gated):
            fields["conditions"] = [self.condition(earlier)]
        return fields

    def of_others(
        self, kind: str, following: str | None, earlier: list[str], in_loop: bool
    ) -> JsonObject:
        """Steps whose end comes from outside: an agent, another execution, a signal."""
        if kind == "agent":
            given = {"x": self.reference(earlier, in_loop), "n": 8}
            name = self.draw(st.sampled_from(sorted(AGENTS)))
            return agent(following, name, input_mapping=given) | self.other_ways()
        if kind == "call":
            given = {"x": self.reference(earlier, in_loop)}
            callee = self.draw(st.sampled_from(self.taste.called))
            waits = self.draw(st.booleans())
            return call(following, callee, input_mapping=given, wait=waits)
        name = self.draw(st.sampled_from(["paid", "sent"]))
        wanted = {"ok": True} if self.draw(st.booleans()) else {}
        return event(following, name, event_filter=wanted)

    def undone(self, name: str, fields: dict[str, Any]) -> None:
        if self.draw(self.taste.undone):
            fields["compensate_with"] = f"{name}-undo"
            config = {"was": "${undo.output}", "from": "${undo.input.x}"}
            again = {"retry": {"attempts": 1, "base_delay_ms": 100}}
            self.steps[f"{name}-undo"] = step(config=config, **again)

    def other_ways(self) -> dict[str, Any]:
        """Alternatives, a question, settings of the step's own."""
        found: dict[str, Any] = {}
        if self.draw(self.taste.other_ways):
            changes = [{"path": self.draw(st.sampled_from(["n", "x", "y"])), "multiply": 0.5}]
            found["alternatives"] = [
                {"id": "half", "when": {"class": "transient"}, "input": changes},
                {"id": "other", "do": {"action": "call_api"}},
            ][: self.draw(st.integers(1, 2))]
        if self.draw(self.taste.other_ways):
            on_timeout = self.draw(st.sampled_from(["skip", "abort", "retry"]))
            found["ask"] = {"answer_timeout_ms": 2_000, "on_timeout": on_timeout}
        if self.draw(st.integers(0, 3)) == 0:
            found["recovery_config"] = {"max_recovery_time_ms": 2_500, "retry_attempts": 1}
        return found

    def condition(self, earlier: list[str]) -> str:
        choices = ["true", "false", "${workflow.input.n} > 1", "${workflow.input.text} > 1"]
        if earlier:
            choices.append(f"${{{earlier[-1]}.output.ok}} == true")
        return str(self.draw(st.sampled_from(choices)))

    def reference(self, earlier: list[str], in_loop: bool) -> str:
        choices = ["${workflow.input.n}", "${workflow.input.n}", "${workflow.input.missing}"]
        if in_loop:
            choices += ["${loop.item}", "${loop.index}"]
        choices += [f"${{{name}.output}}" for name in earlier]
        choices += [f"${{{name}.output.ok}}" for name in earlier]
        return str(self.draw(st.sampled_from(choices)))
