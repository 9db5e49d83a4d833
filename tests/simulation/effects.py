"""What simulated steps do: work, take long, fail in every way, take no notice of an interruption,
or take their process with them.
"""

import asyncio
from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple

from application.steps import ErrorClass, Failed, StepContext, StepOutcome, Succeeded
from domain.json_values import Json, JsonObject
from domain.mistakes import Mistake
from tests.builders import Actions
from tests.simulation.line import Life, Weather
from tests.simulation.themes import Mood

LONG_SECONDS: Final = 5.0
HANG_SECONDS: Final = 12.0
STOPPED_SECONDS: Final = 6.0
"""Twice the time of a lease."""
_CATALOGUE: Final = Actions()
_FAILURES: Final[tuple[tuple[str, ErrorClass, str, bool], ...]] = (
    ("http_status", "transient", "The service answered with HTTP 503.", True),
    ("http_status", "permanent", "The service answered with HTTP 404.", False),
    ("connection", "transient", "Connection refused.", True),
    ("too_slow", "timeout", "The call timed out.", True),
    ("odd", "unknown", "Something happened.", True),
    ("odd", "unknown", "Something happened, and will again.", False),
    ("bad_input", "permanent", "The input is invalid.", True),
)
_OUTPUTS: Final[tuple[Json, ...]] = (None, {"ok": True}, {"ok": True}, {"ok": False}, [1, 2])


class Deed(NamedTuple):
    """One call of an action."""

    execution_id: str
    path: str
    attempt: int
    try_no: int
    epoch: int
    key: str
    delivery: int


class Deeds:
    """What was done in the whole simulation; `running` is what is being done."""

    def __init__(self, weather: Weather, mood: Mood, chance: Random) -> None:
        self.weather = weather
        self.mood = mood
        self.chance = chance
        self.done: list[Deed] = []
        self.running: set[Deed] = set()
        self._sick: dict[str, bool] = {}

    def failing_share(self, key: str) -> float:
        """How many of its calls fail: some steps nearly always fail while there are faults."""
        if not self.weather.stormy:
            return 0.1
        sick = self._sick.setdefault(key, self.chance.random() < self.mood.sick)
        return 0.85 if sick else self.mood.fails


class SimulatedActions:
    """The Actions of one process."""

    def __init__(self, deeds: Deeds, life: Life) -> None:
        self._deeds = deeds
        self._life = life

    def names(self) -> frozenset[str]:
        return _CATALOGUE.names()

    def check(self, action: str, config: JsonObject, pointer: str) -> tuple[Mistake, ...]:
        return tuple(_CATALOGUE.check(action, config, pointer))

    def touches_outside(self, action: str) -> bool:
        del action
        return True

    async def perform(self, action: str, config: JsonObject, context: StepContext) -> StepOutcome:
        await self._life.reached()
        deed = Deed(
            context.execution_id,
            context.path,
            context.attempt,
            context.try_no,
            context.epoch,
            context.idempotency_key,
            context.delivery,
        )
        self._deeds.done.append(deed)
        self._deeds.running.add(deed)
        try:
            await self._work(context)
        finally:
            self._deeds.running.discard(deed)
        return self._outcome(deed.key)

    async def _work(self, context: StepContext) -> None:
        weather, mood, chance = self._deeds.weather, self._deeds.mood, self._deeds.chance
        if weather.strikes("effect kills its process", 0.02):
            await asyncio.sleep(chance.random())
            self._life.die()
        elif weather.strikes("effect stops its process", mood.stops_its_process):
            self._life.pause()
            seconds = chance.random() * STOPPED_SECONDS
            asyncio.get_running_loop().call_later(seconds, self._life.resume)
        if chance.random() < 0.2:
            context.progress({"at": chance.randrange(3)})
        await self._take(chance.random() * 0.02)
        if weather.strikes("effect hangs", mood.hangs):
            await self._take(HANG_SECONDS)
        elif weather.strikes("effect is slow", mood.slow):
            await self._take(chance.random() * LONG_SECONDS)

    async def _take(self, seconds: float) -> None:
        deaf = self._deeds.weather.strikes("effect is deaf", 0.02)
        ends = asyncio.get_running_loop().time() + seconds
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if not deaf:
                raise
            left = ends - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, left))
        await self._life.reached()

    def _outcome(self, key: str) -> StepOutcome:
        chance = self._deeds.chance
        if chance.random() < self._deeds.failing_share(key):
            self._deeds.weather.faults["effect fails"] += 1
            code, error_class, message, retryable = _FAILURES[chance.randrange(len(_FAILURES))]
            return Failed(code, message, error_class, retryable)
        return Succeeded(_OUTPUTS[chance.randrange(len(_OUTPUTS))])


def keys_of(deeds: Iterable[Deed]) -> dict[tuple[str, int, str], set[str]]:
    """The idempotency keys each step was called with, in each attempt."""
    keys: dict[tuple[str, int, str], set[str]] = {}
    for deed in deeds:
        keys.setdefault((deed.execution_id, deed.attempt, deed.path), set()).add(deed.key)
    return keys
