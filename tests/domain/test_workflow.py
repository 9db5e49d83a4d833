"""A workflow: versions that never change, and its status."""

import pytest

from domain import events as ev
from domain.errors import NotFound, StateConflict
from domain.workflow import (
    WorkflowState,
    decide_publish,
    decide_status,
    evolve,
    version_id,
    workflow_uuid,
)
from tests.builders import START, linear, normalised

STREAM = workflow_uuid("default", "orders")


def publish(state: WorkflowState | None, steps: int) -> WorkflowState:
    raw = linear(steps)
    return record(state, *decide_publish(state, "orders", normalised(raw), raw))


def record(state: WorkflowState | None, *facts: ev.Payload) -> WorkflowState:
    for fact in facts:
        version = 1 if state is None else state.version + 1
        meta = ev.Meta(at=START, cmd="c", actor="ann")
        state = evolve(state, ev.Event(STREAM, version, meta, fact))
    assert state is not None
    return state


def test_publish_makes_the_next_version_and_keeps_the_ones_before() -> None:
    first = publish(None, 1)
    second = publish(first, 2)
    assert [version.number for version in second.versions] == [1, 2]
    assert second.numbered(1) == first.newest()
    assert second.newest().sha256 != first.newest().sha256
    assert second.newest().source == linear(2)
    assert (second.status, second.created_by, second.version) == ("active", "ann", 2)


@pytest.mark.parametrize("number", [0, -1, 3])
def test_a_version_that_does_not_exist_is_not_found(number: int) -> None:
    with pytest.raises(NotFound, match="it has 1 to 2"):
        publish(publish(None, 1), 2).numbered(number)


def test_deactivate_and_activate() -> None:
    state = publish(None, 1)
    state = record(state, *decide_status(state, "inactive"))
    assert state.status == "inactive"
    assert decide_status(state, "inactive") == ()
    assert record(state, *decide_status(state, "active")).status == "active"


def test_a_deleted_workflow_comes_back_by_publishing_only() -> None:
    state = publish(None, 1)
    state = record(state, *decide_status(state, "deleted"))
    assert decide_status(state, "deleted") == ()
    with pytest.raises(StateConflict) as refusal:
        decide_status(state, "active")
    assert refusal.value.current_status == "deleted"
    assert publish(state, 2).status == "active"


def test_publish_brings_an_inactive_workflow_back() -> None:
    state = publish(None, 1)
    assert publish(record(state, *decide_status(state, "inactive")), 1).status == "active"


def test_a_stream_begins_with_a_publication() -> None:
    with pytest.raises(TypeError):
        record(None, ev.WorkflowActivated())
    with pytest.raises(TypeError):
        record(publish(None, 1), ev.Started(1, None))


def test_ids_are_computed() -> None:
    assert workflow_uuid("default", "orders") == STREAM
    assert len({workflow_uuid(*pair) for pair in (("a", "b"), ("a", "c"), ("b", "b"))}) == 3
    assert version_id("orders", 3) == "wf-orders-3"
