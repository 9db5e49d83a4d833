"""I12 and I18: after the last fault everything ends, or waits for a named thing."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from application.views import summarise
from domain.definition import Definition, compile_definition
from domain.dispatching import awaits_result
from domain.events import Requested, WorkflowPublished
from domain.execution import ExecutionState, fold
from domain.planner import next_due, plan, running_actions
from infrastructure.event_store.queue_writes import from_microseconds
from tests.simulation.broker import Broker
from tests.simulation.effects import Deeds
from tests.simulation.process import LEASE_SECONDS
from tests.simulation.projector import ProjectedTables
from tests.simulation.store import SimulatedStore

GRACE = timedelta(seconds=LEASE_SECONDS + 2)


class Outcome(Protocol):
    """What is looked at."""

    store: SimulatedStore
    tables: ProjectedTables
    deeds: Deeds
    broker: Broker | None


def unrest(world: Outcome) -> Iterator[str]:
    """What is to be done and not done yet, one text each."""
    store = world.store
    now = from_microseconds(store.now())
    if world.tables.checkpoint < store.head():
        yield "the tables are behind the log"
    if world.broker is not None and world.broker.position < store.head():
        yield "not all is sent that the log tells"
    states = states_of(store)
    for stream_id, state in states.items():
        row = store.rows.get(stream_id)
        yield from (f"{stream_id} {what}" for what in _kinship(states, state))
        if state.terminal:
            if row is not None:
                yield f"{stream_id} has ended and is still in the queue"
        elif row is None:
            yield f"{stream_id} is {state.state} and not in the queue"
        else:
            yield from (f"{stream_id} {what}" for what in _moving(world, state, now))


def states_of(store: SimulatedStore) -> dict[UUID, ExecutionState]:
    """Every execution as the log has it."""
    states = {}
    for stream_id, recorded in store.streams.items():
        if isinstance(recorded[0].event.data, Requested):
            state = fold(each.event for each in recorded)
            if state is not None:
                states[stream_id] = state
    return states


def _kinship(states: Mapping[UUID, ExecutionState], state: ExecutionState) -> Iterator[str]:
    """What a parent and a child think of one another; a child that was retried is on its own."""
    for child_id, child in state.children.items():
        if child_id not in states or states[child_id].terminal or not child.wait:
            yield f"goes on owing something to its child {child_id}"
    parent = state.parent
    if parent is None or state.terminal or state.attempt > 1 or not parent.wait:
        return
    if state.id not in states[parent.execution_id].children:
        yield "goes on, and its parent knows nothing of it"


def _definition(store: SimulatedStore, state: ExecutionState) -> Definition:
    """What the execution brought with it, or what was published."""
    if state.definition is not None:
        return compile_definition(state.definition)
    published = (each.event.data for each in store.streams[state.definition_id])
    return next(
        compile_definition(data.definition)
        for data in published
        if isinstance(data, WorkflowPublished) and data.number == state.workflow_version
    )


def _moving(world: Outcome, state: ExecutionState, now: datetime) -> Iterator[str]:
    if not summarise(state, 0).waiting_on:
        yield "waits for nothing that has a name"
    for path in sorted(state.steps):
        if state.steps[path].dispatched is not None and awaits_result(state, path):
            yield f"{path} is an agent's, who has not answered"
    definition = _definition(world.store, state)
    if state.pause is not None:  # waits for a person, whatever became of what was in flight
        if not _soon(state, now) and _due(definition, state, now):
            yield "could go on, and nobody moves it"
        return
    being_done = {
        (deed.path, deed.attempt, deed.try_no)
        for deed in world.deeds.running
        if deed.execution_id == str(state.id)
    }
    actions = running_actions(definition, state)
    for path in actions:
        step = state.steps[path]
        if (path, step.attempt, step.try_no) not in being_done:
            yield f"{path} runs, and nobody does it"
    if actions or _soon(state, now):
        yield "goes on by itself"
    elif _due(definition, state, now):
        yield "could go on, and nobody moves it"


def _soon(state: ExecutionState, now: datetime) -> bool:
    due = next_due(state)
    return due is not None and now - GRACE < due <= now + timedelta(seconds=2)


def _due(definition: Definition, state: ExecutionState, now: datetime) -> bool:
    return bool(plan(definition, state, now))
