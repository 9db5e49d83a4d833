"""An append whose answer is lost may still be on its way, and be stored when nobody expects it."""

import asyncio
from datetime import timedelta
from random import Random

import pytest

from application.ledger import Ledger
from application.ports import Append, Appended, UnknownOutcome, VersionConflict
from domain import decisions
from domain.draft import Draft
from domain.events import Meta
from infrastructure.clock import DatabaseClock
from infrastructure.event_store.queue_writes import to_microseconds
from tests.builders import EXECUTION_ID, START, Run, linear
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


@pytest.fixture
def fair() -> Weather:
    """Nothing is lost but what the test loses."""
    weather = Weather(Random(1))
    weather.stormy = False
    return weather
