"""One simulated process: everything that a real one has of `application/`, on simulated ports."""

from collections.abc import Callable, Sequence
from random import Random
from uuid import UUID

from application.control import Control
from application.ledger import Ledger
from application.requests import Requests
from application.worker import Worker, WorkerOptions
from application.workflows import Workflows
from infrastructure.clock import DatabaseClock
from infrastructure.input_schema import JsonSchemas
from tests.simulation.effects import Deeds, SimulatedActions
from tests.simulation.line import Life, Line, Weather
from tests.simulation.ports import Feed, Log, ProcessClock, Queue
from tests.simulation.store import SimulatedStore
from tests.simulation.virtual_loop import VirtualLoop

LEASE_SECONDS = 3.0
SLOTS = 3
CACHE_BYTES = 40_000
DRIFT_MAX = 0.0005
"""How wrong a monotonic clock may be: half a millisecond in a second."""
_SCHEMAS = JsonSchemas()


class Process:
    """Starts to work when it is made. `works` is False for one that only answers callers."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        store: SimulatedStore,
        weather: Weather,
        deeds: Deeds,
        others: Callable[[], Sequence[Feed]],
        *,
        works: bool,
    ) -> None:
        chance = weather.chance
        self.name = name
        self.works = works
        self.life = Life()
        self.line = Line(self.life, weather)
        self.clock = ProcessClock(_clock(loop, store, chance), self.life)
        self.feed = Feed(self.life, weather, others)
        self.reports: list[tuple[str, dict[str, object]]] = []
        log = Log(name, store, self.line, self.feed, weather)
        queue = Queue(name, store, self.line, self.clock)
        actions = SimulatedActions(deeds, self.life)

        def new_id() -> UUID:
            return UUID(int=chance.getrandbits(128), version=4)

        self.ledger = Ledger(log, self.clock, new_id, CACHE_BYTES)
        self.workflows = Workflows(log, self.clock, new_id, actions, _SCHEMAS.problem)
        self.worker = Worker(
            self.ledger,
            queue,
            self.clock,
            self.feed,
            self.workflows,
            actions,
            WorkerOptions(
                slots=SLOTS,
                renew_seconds=LEASE_SECONDS / 3,
                fence_seconds=LEASE_SECONDS * 2 / 3,
                grace_seconds=1.0,
            ),
            lambda event, facts: self.reports.append((event, facts)),
        )
        self.requests = Requests(self.ledger, self.workflows, self.worker, _SCHEMAS)
        self.control = Control(self.ledger, self.workflows, self.worker)
        self._watching = loop.create_task(self.feed.watch(self.line, store, self.clock))
        if works:
            self.worker.start()

    async def stop(self) -> None:
        """Leave as on SIGTERM."""
        await self.worker.stop()
        self._watching.cancel()
        self.life.die()


def _clock(loop: VirtualLoop, store: SimulatedStore, chance: Random) -> DatabaseClock:
    rate = 1 + chance.uniform(-DRIFT_MAX, DRIFT_MAX)
    return DatabaseClock(store.now(), lambda: round(loop.microseconds() * rate))
