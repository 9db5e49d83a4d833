"""Parallel, loop and fork_join as clients write them: forms, defaults, limits, mistakes."""

from typing import Any

import pytest

from domain.composite_lines import counted_steps
from domain.definition import ForkJoinStep, LoopStep, ParallelStep, compile_definition
from domain.validation import Verdict, validate
from tests.builders import Actions, Run, branch, fork, loop, normalised, parallel, step, workflow


def verdict(raw: Any) -> Verdict:
    return validate(raw, Actions())


def mistakes(raw: Any) -> dict[str, str]:
    return {mistake.pointer: mistake.code for mistake in verdict(raw).mistakes}


def with_loop(**config: Any) -> Any:
    given = {"collection": [1], "loop_body": ["p"], **config}
    return workflow({"l": {"type": "loop", "loop_config": given}, "p": step()})


def with_fork(**config: Any) -> Any:
    given = {"branches": {"a": {"steps": ["p"]}, "b": {"steps": ["q"]}}, **config}
    steps = {"s": {"type": "fork_join", "fork_join_config": given}, "p": step(), "q": step()}
    return workflow(steps)


# --- the fixtures of the older system's clients ---

CONDITIONAL = {
    "id": "c",
    "type": "conditional",
    "condition": {"expression": "${score.output.value} >= 0.8"},
    "if_true_step": "hi",
    "if_false_step": "lo",
    "next_step": "end",
}
LOOP_CONFIG = {
    "collection": "${f.output.items}",
    "loop_body": ["p"],
    "execution_mode": "parallel",
    "max_parallelism": 5,
    "max_iterations": 100,
    "on_error": "collect",
}
LOOP = {"id": "l", "type": "loop", "loop_config": LOOP_CONFIG, "next_step": "end"}
FLAT_LOOP = {"id": "l", "type": "loop", "next_step": "end", **LOOP_CONFIG}
FORK_CONFIG = {
    "branches": {
        "left": {"steps": ["p", "q"]},
        "right": {"steps": ["r"], "timeout_seconds": 5},
    },
    "join_policy": "n_of_m",
    "n_required": 1,
    "branch_timeout_seconds": 60,
}


def looped(written: Any) -> Any:
    return workflow({"f": step("l"), "l": written, "p": step(), "end": step()})


def forked(written: Any) -> Any:
    return workflow({"s": written, "p": step(), "q": step(), "r": step()})


def test_a_conditional_with_either_spelling() -> None:
    steps = {"score": step("c"), "hi": step(), "lo": step(), "end": step()}
    other = {"then_step" if name == "if_true_step" else name: v for name, v in CONDITIONAL.items()}
    forms = [normalised(workflow({**steps, "c": each})) for each in (CONDITIONAL, other)]
    assert forms[0] == forms[1]
    run = Run(forms[0])
    run.go()
    run.succeed("score", {"value": 0.9})
    run.succeed("c/hi", 1)
    assert run.succeed("end", 2)[-1] == "completed"


@pytest.mark.parametrize("written", [LOOP, FLAT_LOOP])
def test_a_loop_in_both_forms(written: Any) -> None:
    form = normalised(looped(written))
    assert form["steps"]["l"]["loop_config"] == LOOP_CONFIG  # type: ignore[index, call-overload]  # an object
    compiled = compile_definition(form).steps["l"]
    assert isinstance(compiled, LoopStep)
    assert (compiled.parallelism, compiled.iterations_max, compiled.on_error) == (5, 100, "collect")
    assert compiled.critical
    assert normalised(form) == form


@pytest.mark.parametrize(
    "written",
    [
        {"type": "fork_join", "fork_join_config": FORK_CONFIG},
        {"type": "fork-join", **FORK_CONFIG},
        {"type": "fork_join", **FORK_CONFIG},
    ],
)
def test_a_fork_in_all_forms(written: Any) -> None:
    form = normalised(forked(written))
    compiled = compile_definition(form).steps["s"]
    assert isinstance(compiled, ForkJoinStep)
    assert [(each.name, each.steps, each.timeout_seconds) for each in compiled.branches] == [
        ("left", ("p", "q"), 60.0),
        ("right", ("r",), 5.0),
    ]
    assert compiled.needed == 1
    assert normalised(form) == form


def test_what_is_left_out_gets_its_default() -> None:
    raw = workflow({"fan": parallel(["a", "l"]), "a": step(), "l": loop([], ["p"]), "p": step()})
    definition = compile_definition(normalised(raw))
    fan, each = definition.steps["fan"], definition.steps["l"]
    assert isinstance(fan, ParallelStep)
    assert isinstance(each, LoopStep)
    assert (fan.parallelism, fan.timeout_seconds) == (2, None)
    assert (each.parallelism, each.iterations_max, each.on_error) == (1, None, "stop")
    side_by_side = compile_definition(normalised(with_loop(execution_mode="parallel"))).steps["l"]
    assert isinstance(side_by_side, LoopStep)
    assert side_by_side.parallelism == 10


def test_progress_counts_the_steps_outside_of_loops() -> None:
    steps = {"l": loop([], ["c"], "end"), "c": branch("true", "x"), "x": step(), "end": step()}
    assert counted_steps(normalised(workflow(steps))) == 2


# --- limits, at the limit and one beyond ---


@pytest.mark.parametrize(("count", "found"), [(1, 1), (2, 0), (100, 0), (101, 1)])
def test_children_of_a_parallel(count: int, found: int) -> None:
    names = [f"c{number}" for number in range(count)]
    raw = workflow({"fan": parallel(names), **{name: step() for name in names}})
    assert ("/steps/fan/parallel_steps" in mistakes(raw)) is bool(found)


@pytest.mark.parametrize(("count", "found"), [(1, 1), (2, 0), (100, 0), (101, 1)])
def test_branches_of_a_fork(count: int, found: int) -> None:
    names = [f"c{number}" for number in range(count)]
    raw = workflow({"s": fork({n: [n] for n in names}), **{name: step() for name in names}})
    assert ("/steps/s/fork_join_config/branches" in mistakes(raw)) is bool(found)


@pytest.mark.parametrize(
    ("config", "place", "code"),
    [
        ({"collection": "text"}, "collection", "bad_value"),
        ({"collection": 5}, "collection", "bad_value"),
        ({"collection": {"a": 1}}, "collection", "bad_value"),
        ({"collection": None}, "collection", "bad_value"),
        ({"collection": [0] * 10_001}, "collection", "too_many"),
        ({"collection": "${nowhere.output}"}, "collection", "bad_reference"),
        ({"collection": "${p.output}"}, "collection", "bad_reference"),
        ({"collection": "${loop.item}"}, "collection", "bad_reference"),
        ({"loop_body": []}, "loop_body", "bad_value"),
        ({"loop_body": ["p", 5]}, "loop_body/1", "bad_value"),
        ({"loop_body": ["p", "nowhere"]}, "loop_body/1", "dangling_next"),
        ({"loop_body": ["p", "p"]}, "loop_body/1", "two_parents"),
        ({"execution_mode": "both"}, "execution_mode", "bad_value"),
        ({"max_parallelism": 2}, "max_parallelism", "contradiction"),
        ({"max_parallelism": 101}, "max_parallelism", "out_of_range"),
        ({"max_parallelism": 0}, "max_parallelism", "out_of_range"),
        ({"max_parallelism": True}, "max_parallelism", "out_of_range"),
        ({"max_iterations": -1}, "max_iterations", "out_of_range"),
        ({"max_iterations": 10_001}, "max_iterations", "out_of_range"),
        ({"max_iterations": 1e300}, "max_iterations", "out_of_range"),
        ({"on_error": "retry"}, "on_error", "bad_value"),
        ({"colour": 1}, "colour", "unknown_field"),
    ],
)
def test_mistakes_in_a_loop(config: Any, place: str, code: str) -> None:
    assert mistakes(with_loop(**config)) == {f"/steps/l/loop_config/{place}": code} | (
        {"/steps/p": "unreachable"} if config.get("loop_body") == [] else {}
    )


@pytest.mark.parametrize(
    ("config", "place", "code"),
    [
        ({"join_policy": "most"}, "join_policy", "bad_value"),
        ({"join_policy": "n_of_m"}, "n_required", "missing_field"),
        ({"join_policy": "n_of_m", "n_required": 3}, "n_required", "out_of_range"),
        ({"join_policy": "n_of_m", "n_required": 0}, "n_required", "out_of_range"),
        ({"join_policy": "any", "n_required": 2}, "n_required", "contradiction"),
        ({"branch_timeout_seconds": 0}, "branch_timeout_seconds", "out_of_range"),
        ({"branches": []}, "branches", "bad_value"),
    ],
)
def test_mistakes_in_a_fork(config: Any, place: str, code: str) -> None:
    assert mistakes(with_fork(**config))[f"/steps/s/fork_join_config/{place}"] == code


@pytest.mark.parametrize(
    ("branch_of", "place", "code"),
    [
        ({"steps": []}, "b/steps", "bad_value"),
        ({"steps": ["q", "nowhere"]}, "b/steps/1", "dangling_next"),
        ({"steps": ["q", "p"]}, "b/steps/1", "two_parents"),
        ({"steps": ["q"], "timeout_seconds": -1}, "b/timeout_seconds", "out_of_range"),
        ({"steps": ["q"], "colour": 1}, "b/colour", "unknown_field"),
        (5, "b", "bad_value"),
    ],
)
def test_mistakes_in_a_branch(branch_of: Any, place: str, code: str) -> None:
    found = mistakes(with_fork(branches={"a": {"steps": ["p"]}, "b": branch_of}))
    assert found[f"/steps/s/fork_join_config/branches/{place}"] == code


def test_a_branch_name_is_an_identifier() -> None:
    found = mistakes(with_fork(branches={"a/b": {"steps": ["p"]}, "b": ["q"]}))
    assert found == {"/steps/s/fork_join_config/branches/a~1b": "bad_identifier"}


def test_mistakes_in_a_flat_form_point_into_it() -> None:
    raw = workflow({"l": {"type": "loop", "collection": 5, "loop_body": ["x"]}, "p": step("l")})
    assert mistakes({**raw, "start_step": "p"}) == {
        "/steps/l/collection": "bad_value",
        "/steps/l/loop_body/0": "dangling_next",
    }


# --- the graph ---


def test_a_step_has_one_parent() -> None:
    steps = {
        "fan": parallel(["a", "b"], "each"),
        "a": step(),
        "b": step(),
        "each": loop([1], ["b"], "last"),
        "last": step(),
    }
    assert mistakes(workflow(steps)) == {"/steps/each/loop_config/loop_body/0": "two_parents"}
    steps["each"] = loop([1], ["last"], "last")
    assert mistakes(workflow(steps)) == {"/steps/each/loop_config/loop_body/0": "two_parents"}


def test_nothing_contains_itself() -> None:
    ring = {"a": step(), "l": loop([1], ["m"]), "m": loop([1], ["l"])}
    assert set(mistakes(workflow(ring)).values()) == {"cycle"}
    steps = {"l": loop([1], ["fan"]), "fan": parallel(["l", "x"]), "x": step()}
    assert mistakes(workflow(steps))["/steps/fan/parallel_steps/0"] == "two_parents"


@pytest.mark.parametrize(("levels", "found"), [(8, set()), (9, {"too_deep"})])
def test_composites_nest_eight_levels(levels: int, found: set[str]) -> None:
    steps: dict[str, Any] = {}
    for level in range(levels):
        inner = [f"n{level + 1}"]
        match level % 4:
            case 0:
                steps[f"n{level}"] = loop([1], inner)
            case 1:
                steps[f"n{level}"] = parallel([*inner, f"p{level}"])
            case 2:
                steps[f"n{level}"] = fork({"a": inner, "b": [f"p{level}"]})
            case _:
                steps[f"n{level}"] = branch("true", inner[0], f"p{level}")
        if level % 4:
            steps[f"p{level}"] = step()
    steps[f"n{levels}"] = step()
    raw = workflow(steps)
    assert set(mistakes(raw).values()) == found
    if not found:
        assert Run(raw).succeed_all().state.status == "COMPLETED"


def test_a_list_gives_the_order_and_next_step_may_say_the_same() -> None:
    steps = {
        "l": loop([1], ["p", "q"], "fan"),
        "p": step("q"),
        "q": step("p"),
        "fan": parallel(["a", "b"]),
        "a": step("b"),
        "b": step(),
    }
    found = verdict(workflow(steps))
    assert found.mistakes == ()
    assert [(each.pointer, each.code) for each in found.warnings] == [
        ("/steps/q/next_step", "ignored_next_step"),
        ("/steps/a/next_step", "ignored_next_step"),
    ]


@pytest.mark.parametrize(
    ("at", "reference", "good"),
    [
        ("q", "${p.output}", True),
        ("q", "${first.output}", True),
        ("q", "${loop.item}", True),
        ("p", "${q.output}", False),
        ("q", "${each.output}", False),
        ("q", "${end.output}", False),
        ("x", "${p.output}", True),
        ("x", "${loop.index}", True),
        ("x", "${y.output}", False),
        ("end", "${each.output.iterations}", True),
        ("end", "${p.output}", False),
        ("end", "${loop.item}", False),
        ("end", "${fan.output.r}", True),
        ("end", "${r.output}", False),
        ("s", "${r.output}", False),
        ("s", "${each.output}", True),
    ],
)
def test_what_a_reference_may_see(at: str, reference: str, good: bool) -> None:
    steps: dict[str, Any] = {
        "first": step("each"),
        "each": loop("${first.output.items}", ["p", "c", "q"], "fan"),
        "p": step(),
        "c": branch("true", "x", "y"),
        "x": step(),
        "y": step(),
        "q": step(),
        "fan": parallel(["r", "s"], "end"),
        "r": step(),
        "s": step(),
        "end": step(),
    }
    steps[at]["config"] = {"v": reference}
    found = mistakes(workflow(steps))
    assert found == ({} if good else {f"/steps/{at}/config/v": "bad_reference"})


def test_a_hidden_step_says_what_to_write_instead() -> None:
    steps = {
        "each": loop([1], ["p"], "s"),
        "p": step(),
        "s": fork({"l": ["x"], "r": ["y"]}, "end"),
        "x": step(),
        "y": step(),
        "end": step(config={"a": "${p.output}", "b": "${y.output}"}),
    }
    told = [mistake.message for mistake in verdict(workflow(steps)).mistakes]
    assert "use ${each.output.iterations} instead" in told[0]
    assert "use ${s.output['r']} instead" in told[1]
