"""An append whose answer is lost may still be on its way, and be stored when nobody expects it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from application.ledger import Ledger
from application.ports import (
    Append,
    Appended,
    EventLog,
    StoreUnavailable,
    UnknownOutcome,
    VersionConflict,
)
from domain import decisions
from domain.draft import Draft
from domain.errors import NotReady, StateConflict
from domain.events import Meta, Recorded
from infrastructure.clock import DatabaseClock
from infrastructure.event_store.queue_writes import to_microseconds
from tests.builders import EXECUTION_ID, START, Run, call, linear
from tests.engine import CALLER, definition, process, step, until
from tests.simulation.line import Life, Line, Weather
from tests.simulation.ports import Feed, Log, ProcessClock
from tests.simulation.store import SimulatedStore


class LateLog(Log):
    """Loses the answer of every append; each is stored when the next one is sent."""

    def __init__(self, store: SimulatedStore, life: Life, weather: Weather) -> None:
        super().__init__("w1", store, Line(life, weather), Feed(life, weather, list), weather)
        self._on_its_way: Append | None = None
        self._database = store

    async def append(self, append: Append) -> Appended:
        earlier, self._on_its_way = self._on_its_way, append
        if earlier is not None:
            self._database.append("w1", earlier)
        raise UnknownOutcome("the line was lost")


def draft_of(run: Run, seconds: float) -> Draft:
    """What a worker decides at a time; its command id is that of its lease and the version."""
    at = START + timedelta(seconds=seconds)
    draft = Draft(run.state, Meta(at, "w1:1", "worker"))
    decisions.resume(draft, run.definition, (), 1, at)
    return draft


def test_what_came_late_is_not_taken_for_what_was_decided_since(fair: Weather) -> None:
    run = Run(linear(1))
    store = SimulatedStore(lambda: to_microseconds(START), 15.0)
    store.append("w1", Append(EXECUTION_ID, run.events))
    life = Life()
    clock = ProcessClock(DatabaseClock(to_microseconds(START)), life)
    ledger = Ledger(LateLog(store, life, fair), clock, lambda: EXECUTION_ID, 1_000_000)

    async def both() -> None:
        for seconds in (1.0, 2.0):
            with pytest.raises(VersionConflict):
                await ledger.append(draft_of(run, seconds), None)
        entry = await ledger.load(EXECUTION_ID)
        assert entry is not None
        assert entry.state.started_at == START + timedelta(seconds=1)

    asyncio.run(both())


def test_a_command_that_may_still_come_is_not_refused(fair: Weather) -> None:
    """Its second decision, some seconds later, is against it; the first is on its way."""
    run = Run(linear(1))
    store = SimulatedStore(lambda: to_microseconds(START), 15.0)
    store.append("w1", Append(EXECUTION_ID, run.events))
    life = Life()
    clock = ProcessClock(DatabaseClock(to_microseconds(START)), life)
    ledger = Ledger(LateLog(store, life, fair), clock, lambda: EXECUTION_ID, 1_000_000)
    decided: list[Draft] = []

    def decide(draft: Draft) -> None:
        decided.append(draft)
        if len(decided) > 1:
            raise StateConflict("It is too late for that.", current_status=draft.state.state)
        decisions.cancel(draft, None)

    with pytest.raises(NotReady, match="may have been carried out"):
        asyncio.run(ledger.command(CALLER, str(EXECUTION_ID), decide, lambda _: None))
    assert len(decided) == 2


@pytest.fixture
def fair() -> Weather:
    """Nothing is lost but what the test loses."""
    weather = Weather(Random(1))
    weather.stormy = False
    return weather


class LateWorker:
    """The real log, where each append of a worker gets no answer and is stored when it tries again.

    With `silent` the look at what became of it gets no answer either. `then` follows at once upon
    the first that comes late.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        silent: bool = False,
        then: Callable[[UUID], Awaitable[object]] | None = None,
    ) -> None:
        self._log = log
        self._silent = silent
        self._then = then
        self._lost: dict[UUID, set[int]] = {}
        self._on_its_way: dict[UUID, Append] = {}
        self._unanswered: set[UUID] = set()

    async def append(self, append: Append) -> Appended:
        stream_id, first = append.stream_id, append.events[0]
        earlier = self._on_its_way.pop(stream_id, None)
        if earlier is not None:
            await self._log.append(earlier)
            then, self._then = self._then, None
            if then is not None:
                await then(stream_id)
        lost = self._lost.setdefault(stream_id, set())
        if first.meta.actor != "worker" or first.version in lost:
            return await self._log.append(append)
        lost.add(first.version)
        self._on_its_way[stream_id] = append
        if self._silent:
            self._unanswered.add(stream_id)
        raise UnknownOutcome("the line was lost")

    async def read_stream(self, stream_id: UUID, **where: Any) -> Sequence[Recorded]:
        if stream_id in self._unanswered:
            self._unanswered.discard(stream_id)
            raise StoreUnavailable("the line is cut")
        return await self._log.read_stream(stream_id, **where)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.anyio
@pytest.mark.parametrize("silent", [False, True])
async def test_a_worker_knows_its_own_append_that_came_late(
    ledger_url: str, *, silent: bool
) -> None:
    flow = definition(a=step(), sub=call(), last=step())
    async with process(ledger_url) as engine:
        await engine.workflows.publish(CALLER, definition("inner", a=step()))
        calm = await engine.ended(await engine.run(flow))
        engine.ledger.log = LateWorker(engine.store.log, silent=silent)
        late = await engine.ended(await engine.run(flow))

        assert (calm.status, calm.error_message) == ("COMPLETED", None)
        assert (late.status, late.error_message) == ("COMPLETED", None)
        assert await engine.topics(late) == await engine.topics(calm)
        assert {deed.delivery for deed in engine.deeds.done} == {1}
        assert set(engine.deeds.per_step().values()) == {1}


@pytest.mark.anyio
async def test_what_was_cancelled_after_it_came_late_does_not_begin(ledger_url: str) -> None:
    async with process(ledger_url) as engine:

        async def cancel(stream_id: UUID) -> None:
            await engine.control.cancel(CALLER, str(stream_id), None)

        engine.ledger.log = LateWorker(engine.store.log, then=cancel)
        view = await engine.ended(await engine.run(definition(a=step(), b=step())))
        await until(lambda: engine.worker.holds() == 0)
        assert view.status == "CANCELLED"
        assert {deed.path for deed in engine.deeds.done} == {"a"}  # begun with the request
        assert (await engine.store.queue.statistics()).depth == 0
