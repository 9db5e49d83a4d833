"""A log full of stories, and projections driven over it step by step."""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid5

import sqlalchemy as sa
from msgspec import structs

from application.ports import Append
from domain.agents import AgentSettings, agent_uuid
from domain.events import Event, Meta, Requested, WorkflowDeactivated, WorkflowPublished
from domain.json_values import Json
from domain.registry_events import AgentChanged, AgentDeleted, AgentRegistered
from domain.workflow import NAMESPACE, workflow_uuid
from infrastructure.addresses import PostgresAddress, SQLiteAddress, parse_address
from infrastructure.database import Store
from infrastructure.event_store.codec import Codec
from infrastructure.projections import checkpoints
from infrastructure.projections.catalogue import PROJECTIONS
from infrastructure.projections.folding import Projection
from infrastructure.projections.lanes import Lane
from infrastructure.projections.postgres_store import PostgresProjectionStore
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.sessions import ProjectionStore, Session
from infrastructure.projections.sqlite_store import SQLiteProjectionStore
from tests import recoveries
from tests.builders import (
    START,
    Run,
    agent,
    linear,
    normalised,
    task,
    with_condition,
    with_wait,
    workflow,
)

Story = Sequence[Event]
Reading = Callable[[ProjectionStore], ProjectionReads]
"""Opens the Reads port over some tables."""


def projection_store(store: Store, url: str) -> ProjectionStore:
    """What projections use of an open store."""
    if isinstance(store.writes, PostgresAddress):
        return PostgresProjectionStore(store.writes.dsn)
    address = parse_address(url)
    assert isinstance(address, SQLiteAddress)
    return SQLiteProjectionStore(address.path, store.writes)


def runs() -> Iterator[Run]:
    """One execution for each way that a row can look."""
    yield Run(linear(3), {"a": 1})
    yield Run(linear(3), {"text": "ü\n\"'\\", "number": 1.5, "none": None}).succeed_all()
    yield Run(with_condition(), {"big": True}).succeed_all()
    yield Run(with_wait()).succeed_all()
    failed = Run(linear(2))
    failed.go()
    failed.fail("s1", "permanent", retryable=False)
    yield failed
    again = Run(linear(2))
    again.go()
    again.fail("s1", "permanent", retryable=False)
    again.pass_time(3)
    again.retry()
    yield again.succeed_all()
    flaky = Run(linear(2, on_error="retry"))
    flaky.go()
    flaky.fail("s1")
    flaky.pass_to_due()
    flaky.pass_time(0.25)
    flaky.succeed("s1", [1, {"deep": None}])
    yield flaky
    recovering = Run(linear(2, on_error="retry"))
    recovering.go()
    recovering.fail("s1")
    yield recovering
    cancelled = Run(linear(2, on_error="retry"))
    cancelled.go()
    cancelled.fail("s1")
    cancelled.cancel("no longer wanted")
    yield cancelled
    partial = Run(linear(2, on_error="continue", critical=False), mode="lenient")
    partial.go()
    partial.fail("s1", "permanent", retryable=False)
    yield partial.succeed_all()
    lost = Run(linear(1))
    lost.go()
    lost.lose_worker()
    yield lost
    yield from _with_tasks()


def _with_tasks() -> Iterator[Run]:
    for ending in ("open", "done", "cancelled"):
        asked = Run(workflow({"sign": task("after"), "after": task(waits=False)}))
        asked.go()
        if ending == "done":
            asked.complete_task(next(iter(asked.state.tasks)), {"signed": True})
            asked.go()
        if ending == "cancelled":
            asked.cancel()
        yield asked


def agent_runs() -> Iterator[Run]:
    """An agent's task for each way that it can end."""
    for name, ending in (("far", "open"), ("far", "done"), ("away", "failed"), ("far", "late")):
        steps = {"ask": agent("then", name, timeout_seconds=60), "then": agent(name=name)}
        sent = Run(workflow(steps), {"n": 1}, transports={"far": "pull", "away": "kafka"})
        sent.go()
        if ending == "done":
            sent.send_back("ask", output={"n": 2})
            sent.cancel()
        if ending == "failed":
            sent.send_back("ask", error_class="permanent", code="no", retryable=False)
        if ending == "late":
            sent.pass_to_due()
        yield sent
    again = Run(
        workflow({"ask": agent(retry={"attempts": 2, "base_delay_ms": 5_000})}),
        transports={"far": "pull"},
    )
    again.go()
    again.send_back("ask", error_class="transient", code="busy")
    yield again


def agent_stories() -> list[list[Event]]:
    """The events of executions whose steps agents do elsewhere."""
    told = enumerate(agent_runs(), start=900)
    return [as_another(run.events, number, workflow_name="asking") for number, run in told]


def story_id(number: int) -> UUID:
    """Which execution the story of this number is about."""
    return uuid5(NAMESPACE, f"story {number}")


def as_another(events: Story, number: int, **requested: Json) -> list[Event]:
    """The same story of another execution; `requested` changes fields of its first event."""
    stream = story_id(number)
    told = [structs.replace(event, execution_id=stream) for event in events]
    first = told[0].data
    assert isinstance(first, Requested)
    told[0] = structs.replace(told[0], data=structs.replace(first, **requested))
    return told


def stories(copies: int = 1) -> list[list[Event]]:
    """The events of all of `runs`, `copies` times, in different workflows and with labels."""
    told = [run.events for run in runs()]
    return [
        as_another(
            events,
            copy * 100 + number,
            workflow_name=f"flow-{number % 3}",
            labels={"copy": str(copy), 'odd "key"': "x'y"} if number % 2 else {},
            priority=number % 10,
        )
        for copy in range(copies)
        for number, events in enumerate(told)
    ]


def recovery_stories() -> list[list[Event]]:
    """The events of executions whose steps recover, or do not."""
    told = enumerate(recoveries.all_of_them())
    return [as_another(run.events, number, workflow_name="shaky") for number, run in told]


def published(name: str, versions: int, *, deactivated: bool = False) -> list[Event]:
    """The events of a workflow."""
    stream = workflow_uuid("default", name)
    form = normalised(linear(2, name=name) | {"name": name, "description": f"about {name}"})
    payloads = [
        WorkflowPublished(name, number, f"{number:064}", form, {"name": name, "description": "d"})
        for number in range(1, versions + 1)
    ]
    events = [
        Event(stream, number, Meta(START, f"p{number}", "ann"), payload)
        for number, payload in enumerate(payloads, start=1)
    ]
    if deactivated:
        meta = Meta(datetime(2026, 2, 1, tzinfo=UTC), "d", "bob")
        events.append(Event(stream, versions + 1, meta, WorkflowDeactivated()))
    return events


def registered(name: str) -> list[Event]:
    """The events of an agent that was changed, deleted and registered anew."""
    stream = agent_uuid("default", name)
    settings = AgentSettings(url="https://agent.example", auth_type="bearer", secret_id="s-1")
    payloads = [
        AgentRegistered(name, settings.as_json()),
        AgentChanged({"timeout_ms": 5_000}, "inactive"),
        AgentDeleted(),
        AgentRegistered(name, AgentSettings(transport="pull").as_json()),
    ]
    return [
        Event(stream, number, Meta(START, f"a{number}", "ann"), payload)
        for number, payload in enumerate(payloads, start=1)
    ]


async def append_mixed(store: Store, told: Sequence[Story], seed: int = 7) -> int:
    """Append the streams in pieces, interleaved; returns the position of the last event."""
    chance = random.Random(seed)
    waiting = [list(story) for story in told]
    position = 0
    while waiting:
        story = chance.choice(waiting)
        count = chance.randint(1, 3)
        piece, rest = story[:count], story[count:]
        done = await store.log.append(Append(piece[0].execution_id, piece))
        position = done.position
        waiting.remove(story)
        if rest:
            waiting.append(rest)
    return position


def catch_up(
    projected: ProjectionStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    batch: int = 1_000,
) -> int:
    """Bring projections that stand alike to the head of the log, on this thread."""

    def create(session: Session) -> None:
        checkpoints.create_missing(session, projections)

    projected.write(create)
    with projected.reading() as session:
        position = checkpoints.read_checkpoint(session, projections[0]).position
    moving = lane(projected, position, projections, batch=batch)
    while moving.advance():
        pass
    return moving.position


def lane(
    projected: ProjectionStore,
    position: int,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    batch: int = 1_000,
) -> Lane:
    """All projections where they stand."""
    return Lane(projected, Codec(), projections, position, batch)


def dump(projected: ProjectionStore, projection: Projection) -> list[tuple[object, ...]]:
    """Every row of a table, as stored."""
    table = projection.table
    with projected.reading() as session:
        return session.execute(
            f"SELECT {table.comparison_columns(session.dialect)} FROM {table.stored}"
            f" ORDER BY {', '.join(table.key)}"
        )


def indexes(store: Store) -> dict[str, list[tuple[str, list[str | None]]]]:
    """The indexes of every table: names without the generation, and columns."""
    found = sa.inspect(store.engine)
    return {
        each.table.stored: sorted(
            (str(index["name"]).rpartition("_g")[0], index["column_names"])
            for index in found.get_indexes(each.table.stored)
        )
        for each in PROJECTIONS
    }


def execution_ids(told: Sequence[Story]) -> list[UUID]:
    return [story[0].execution_id for story in told]
