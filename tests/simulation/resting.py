"""I12 and I18: after the last fault everything ends, or waits for a named thing."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Protocol

from application.views import summarise
from domain.definition import Definition, compile_definition
from domain.execution import ExecutionState, fold
from domain.planner import next_due, plan, running_actions
from infrastructure.event_store.queue_writes import from_microseconds
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


def unrest(world: Outcome) -> Iterator[str]:
    """What is to be done and not done yet, one text each."""
    store = world.store
    now = from_microseconds(store.now())
    if world.tables.checkpoint < store.head():
        yield "the tables are behind the log"
    for stream_id, recorded in store.streams.items():
        state = fold(each.event for each in recorded)
        if state is None:
            continue
        row = store.rows.get(stream_id)
        if state.terminal:
            if row is not None:
                yield f"{stream_id} has ended and is still in the queue"
        elif row is None:
            yield f"{stream_id} is {state.state} and not in the queue"
        else:
            yield from (f"{stream_id} {what}" for what in _moving(world, state, now))


def _moving(world: Outcome, state: ExecutionState, now: datetime) -> Iterator[str]:
    if not summarise(state, 0).waiting_on:
        yield "waits for nothing that has a name"
    definition = compile_definition(state.definition or {})
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
