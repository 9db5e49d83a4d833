"""What lies between a process and the database: its life, and a line on which messages get lost."""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TypeVar

from application.ports import StoreUnavailable, UnknownOutcome

T = TypeVar("T")
FAST_SECONDS = 0.003
SLOW_SECONDS = 1.2
ANSWER_SECONDS = 0.5


class Life:
    """Whether a process runs, stands still (and goes on later), or is dead for good.

    A process stands still or dies where it waits for the outside: at its next port.
    """

    def __init__(self) -> None:
        self.dead = False
        self.resumed: asyncio.Event | None = None
        self._waiting: list[Callable[[], None]] = []

    @property
    def works(self) -> bool:
        """Whether it runs now."""
        return not self.dead and self.resumed is None

    async def reached(self) -> None:
        """Return while the process runs; what is dead never returns."""
        while not self.works:
            if self.dead:
                await asyncio.get_running_loop().create_future()
            elif self.resumed is not None:
                await self.resumed.wait()

    def later(self, callback: Callable[[], None]) -> None:
        """Call it, now or when the process goes on."""
        if self.works:
            callback()
        elif not self.dead:
            self._waiting.append(callback)

    def pause(self) -> None:
        """Stand still."""
        if self.resumed is None:
            self.resumed = asyncio.Event()

    def resume(self) -> None:
        """Go on where it stood."""
        resumed, self.resumed = self.resumed, None
        waiting, self._waiting = self._waiting, []
        if resumed is not None:
            resumed.set()
        for callback in waiting:
            self.later(callback)

    def die(self) -> None:
        """Never go on."""
        self.dead = True
        self._waiting.clear()


class Weather:
    """How bad it is: shares of messages that are slow, lost on the way there or back, late."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.stormy = True
        self.outages = 0
        """How many outages of the database go on."""
        self.faults: Counter[str] = Counter()

    def strikes(self, name: str, share: float) -> bool:
        """Whether this fault happens now; counted if so."""
        hit = self.stormy and self.chance.random() < share
        self.faults[name] += hit
        return hit

    def travel(self) -> float:
        """Seconds that one message is on its way."""
        if self.strikes("slow message", 0.06):
            return self.chance.random() * SLOW_SECONDS
        return self.chance.random() * FAST_SECONDS


class Line:
    """Calls of one process to the database; `cuts` are the faults on it now."""

    def __init__(self, life: Life, weather: Weather) -> None:
        self.cuts = 0
        self._life = life
        self._weather = weather

    @property
    def cut(self) -> bool:
        """Whether nothing gets through."""
        return self.cuts > 0 or self._weather.outages > 0

    async def call(self, work: Callable[[], T], lost: type[Exception] = StoreUnavailable) -> T:
        """The answer of the database, or `lost` when nobody knows whether it did the work."""
        await self._life.reached()
        if self.cut:
            await self._silence()
            raise StoreUnavailable("the line is cut")
        weather = self._weather
        await asyncio.sleep(weather.travel())
        if self.cut or weather.strikes("request lost", 0.01):
            await self._silence()
            raise lost("the line was lost")
        if lost is UnknownOutcome and weather.strikes("request late", 0.01):
            asyncio.get_running_loop().call_later(
                weather.chance.random() * 2 * ANSWER_SECONDS, _unheard, work
            )
            await self._silence()
            raise lost("the line was lost")
        try:
            done: T | Exception = work()
        except Exception as error:  # noqa: BLE001 - the answer, whatever it is
            done = error
        await asyncio.sleep(weather.travel())
        await self._life.reached()
        if self.cut or weather.strikes("answer lost", 0.02):
            await self._silence()
            raise lost("the line was lost")
        if isinstance(done, Exception):
            raise done
        return done

    async def _silence(self) -> None:
        await asyncio.sleep(self._weather.chance.random() * ANSWER_SECONDS)
        await self._life.reached()


def _unheard(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:  # noqa: BLE001 - nobody hears the answer
        return
