"""Definitions that would not end, not fit, or not mean anything."""
# ruff: noqa: E501 - an input stays on one line

from typing import Any

from tests.interfaces.http.corpus.case import Case, published

_SET = {"type": "action", "action": "set_variables", "config": {"variables": {"x": 1}}}


def _flow(**steps: Any) -> dict[str, Any]:
    return {"name": "evil", "start_step": next(iter(steps), "a"), "steps": steps}


def _step(**changes: Any) -> dict[str, Any]:
    return _flow(a={**_SET, **changes})


def _chain(count: int) -> dict[str, Any]:
    return {
        f"s{n}": {**_SET, "next_step": f"s{n + 1}" if n + 1 < count else None} for n in range(count)
    }


def _nested(levels: int) -> dict[str, Any]:
    condition = {"type": "conditional", "condition": {"expression": "1 == 1"}}
    steps = {f"c{n}": {**condition, "if_true_step": f"c{n + 1}"} for n in range(levels)}
    return steps | {f"c{levels}": _SET}


_BROKEN: dict[str, Any] = {
    "an empty object": {},
    "no steps": {"name": "evil", "start_step": "a"},
    "empty steps": {"name": "evil", "start_step": "a", "steps": {}},
    "steps is a list": {"name": "evil", "start_step": "a", "steps": [_SET]},
    "steps is a text": {"name": "evil", "start_step": "a", "steps": "a"},
    "no name": {"start_step": "a", "steps": {"a": _SET}},
    "name is null": {"name": None, "start_step": "a", "steps": {"a": _SET}},
    "name is empty": {"name": "", "start_step": "a", "steps": {"a": _SET}},
    "name of 129": {"name": "x" * 129, "start_step": "a", "steps": {"a": _SET}},
    "name is a path": {"name": "../../x", "start_step": "a", "steps": {"a": _SET}},
    "name looks like a version": {"name": "wf-x-1", "start_step": "a", "steps": {"a": _SET}},
    "name looks like a UUID": {
        "name": "00000000-0000-0000-0000-000000000000", "start_step": "a", "steps": {"a": _SET}
    },
    "start is missing": {"name": "evil", "start_step": "z", "steps": {"a": _SET}},
    "start is a number": {"name": "evil", "start_step": 1, "steps": {"a": _SET}},
    "a workflow that is a reference": _flow(
        a={"type": "sub_workflow", "workflow_id": "${workflow.input.w}"}
    ),
    "a workflow that is a path": _flow(a={"type": "sub_workflow", "workflow_id": "../../x"}),
    "a workflow that is a list": _flow(a={"type": "sub_workflow", "workflow_id": ["x"]}),
    "version minus one": _flow(a={"type": "sub_workflow", "workflow_id": "x", "version": -1}),
    "version 1e99": _flow(a={"type": "sub_workflow", "workflow_id": "x", "version": 1e99}),
    "no workflow": _flow(a={"type": "sub_workflow"}),
    "an event of no name": _flow(a={"type": "wait_for_event"}),
    "an event from Kafka": _flow(
        a={"type": "wait_for_event", "event_source": {"type": "kafka", "name": "x"}}
    ),
    "an event with a path as name": _flow(a={"type": "wait_for_event", "event_source": "../x"}),
    "an endless wait that skips": _flow(
        a={"type": "wait_for_event", "event_source": "x", "on_timeout": "skip"}
    ),
    "an event's time-out of minus one": _flow(
        a={"type": "wait_for_event", "event_source": "x", "timeout_seconds": -1}
    ),
    "a cycle of one": _step(next_step="a"),
    "a cycle of two": _flow(a={**_SET, "next_step": "b"}, b={**_SET, "next_step": "a"}),
    "a cycle through a branch": _flow(
        a={"type": "conditional", "condition": {"expression": "1 == 1"}, "if_true_step": "a"}
    ),
    "next leads nowhere": _step(next_step="z"),
    "next is a number": _step(next_step=1),
    "unreachable": _flow(a=_SET, b=_SET),
    "the id is another": _step(id="b"),
    "an id with a slash": _flow(**{"a/b": _SET}),
    "an id with brackets": _flow(**{"a[0]": _SET}),
    "an id with a tilde": _flow(**{"a~undo": _SET}),
    "an id of 129": _flow(**{"x" * 129: _SET}),
    "an id of 10 KB": _flow(**{"x" * 10_240: _SET}),
    "an empty id": _flow(**{"": _SET}),
    "1,001 steps": _flow(**_chain(1_001)),
    "9 levels of nesting": _flow(**_nested(9)),
    "a step is null": _flow(a=None),
    "a step is a text": _flow(a="run"),
    "an unknown kind": _step(type="dance"),
    "an unknown action": _step(action="rm -rf"),
    "no action": _flow(a={"type": "action"}),
    "an unknown field": _step(colour="red"),
    "a loop over nothing that is known": _flow(
        a={"type": "loop", "loop_config": {"collection": "${x}", "loop_body": ["b"]}}, b=_SET
    ),
    "a loop over a text": _flow(
        a={"type": "loop", "loop_config": {"collection": "x", "loop_body": ["b"]}}, b=_SET
    ),
    "a loop in itself": _flow(
        a={"type": "loop", "loop_config": {"collection": [1], "loop_body": ["a"]}}
    ),
    "children that are not there": _flow(a={"type": "parallel", "parallel_steps": ["b", "c"]}),
    "101 children": _flow(
        a={"type": "parallel", "parallel_steps": [f"s{n}" for n in range(101)]},
        **{f"s{n}": _SET for n in range(101)},
    ),
    "more branches needed than there are": _flow(
        a={
            "type": "fork_join",
            "fork_join_config": {
                "branches": {"l": ["b"], "r": ["c"]},
                "join_policy": "n_of_m",
                "n_required": 3,
            },
        },
        b=_SET,
        c=_SET,
    ),
    "a validation by a schema from elsewhere": _flow(
        a={
            "type": "validate",
            "data_source": 1,
            "validation_schema": {"$ref": "http://169.254.169.254/latest"},
        }
    ),
    "a sub-workflow of itself": _flow(a={"type": "sub_workflow", "sub_workflow": {"name": "evil"}}),
    "attempts 2^31": _step(on_error="retry", retry={"attempts": 2**31}),
    "attempts 101": _step(on_error="retry", retry={"attempts": 101}),
    "attempts -1": _step(on_error="retry", retry={"attempts": -1}),
    "a delay of -1": _step(on_error="retry", retry={"base_delay_ms": -1}),
    "a multiplier of 10^300": _step(on_error="retry", retry={"multiplier": 1e300}),
    "a negative time-out": _step(timeout_seconds=-1),
    "a time-out of 0": _step(timeout_seconds=0),
    "a time-out of 10^300": _step(timeout_seconds=1e300),
    "a time-out that is true": _step(timeout_seconds=True),
    "on_error explode": _step(on_error="explode"),
    "critical is a text": _step(critical="yes"),
    "a wait of -1": _flow(a={"type": "wait", "duration_ms": -1}),
    "a wait of 10^18": _flow(a={"type": "wait", "duration_ms": 10**15}),
    "a condition without branches": _flow(
        a={"type": "conditional", "condition": {"expression": "1 == 1"}}
    ),
    "a branch of two parents": _flow(
        a={"type": "conditional", "condition": {"expression": "1 == 1"}, "if_true_step": "x", "next_step": "b"},
        b={"type": "conditional", "condition": {"expression": "1 == 1"}, "if_true_step": "x"},
        x=_SET,
    ),
    "a schema that is no schema": _flow(a=_SET) | {"input_schema": {"type": "banana"}},
    "a schema from elsewhere": _flow(a=_SET) | {"input_schema": {"$ref": "http://127.0.0.1:1/x"}},
    "a schema from a file": _flow(a=_SET) | {"input_schema": {"$ref": "file:///etc/passwd"}},
    "a password": _step(action="call_api", config={"url": "https://x.test", "headers": {"Authorization": "Bearer abcdefgh123"}}),
    "a password in a URL": _step(action="call_api", config={"url": "https://u:p4ssw0rd@x.test/"}),
    "steps and actions": _flow(a=_SET) | {"actions": []},
}  # fmt: skip

# Without a name of its own an inline definition runs the published workflow of that name instead.
_BROKEN_BY_NAME = {
    "a workflow that runs itself": _flow(a={"type": "sub_workflow", "workflow_id": "evil"}),
    "an alternative that runs itself": _step(alternatives=[{"id": "x", "do": {"workflow": "evil"}}]),
}  # fmt: skip

CASES: tuple[Case, ...] = (
    *(case for label, definition in _BROKEN.items() for case in published(label, definition)),
    *(next(published(label, definition)) for label, definition in _BROKEN_BY_NAME.items()),
)
