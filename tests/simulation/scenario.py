"""One seed: a few executions, processes, callers and faults, until all ends or waits."""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Final
from uuid import UUID

from application.messages import BrokerAway
from application.ports import Changed
from domain.errors import FlowledgerError
from infrastructure.event_store.queue_writes import to_microseconds
from tests.builders import START
from tests.invariants import Answer
from tests.simulation.agents import Agents
from tests.simulation.broker import Broker
from tests.simulation.callers import Callers
from tests.simulation.consumers import Consumers
from tests.simulation.effects import Deeds
from tests.simulation.line import Life, Line, Weather
from tests.simulation.nemesis import BLOWS
from tests.simulation.ports import Feed
from tests.simulation.process import LEASE_SECONDS, Process
from tests.simulation.projector import ProjectedTables, Projector
from tests.simulation.pull_workers import PullWorker
from tests.simulation.resting import unrest
from tests.simulation.store import Checks, SimulatedStore
from tests.simulation.task_leases import TaskLeases
from tests.simulation.themes import AGENT_THEMES, THEMES
from tests.simulation.topic_agents import TopicAgents
from tests.simulation.virtual_loop import Crash, VirtualLoop

STORM_SECONDS: Final = 9.0
CALM_SECONDS: Final = 30.0
CALM_SECONDS_MAX: Final = 600.0
LOOK_SECONDS: Final = 1.0
PULL_WORKERS: Final = 2
OVER_TOPIC_SHARE: Final = 0.3
"""Of seeds with agents: executions start when their requests come back over a topic."""
_EPOCH: Final = to_microseconds(START)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """Bugs of the simulated parts; by default there are none."""

    checks: Checks = field(default_factory=Checks)
    checkpoint_first: bool = False


@dataclass(slots=True)
class Story:
    """What came of a seed. `crashes` are errors that are no answer to anybody; `restless` says what
    still moves, or should, long after the last fault; `seconds` are virtual.
    """

    seed: int
    theme: str
    store: SimulatedStore
    tables: ProjectedTables
    history: list[Answer]
    deeds: Deeds
    leases: TaskLeases
    agents: Agents
    topic: TopicAgents | None
    processes: list[Process]
    faults: dict[str, int]
    restless: list[str]
    reports: list[tuple[str, dict[str, object]]]
    crashes: list[Crash]
    seconds: float

    @property
    def digest(self) -> str:
        """SHA-256 of the whole log."""
        return self.store.digest()


class Simulation:
    """Everything of one seed."""

    def __init__(self, seed: int, flaws: Flaws, loop: VirtualLoop) -> None:
        self.chance = Random(seed)
        self.loop = loop
        self.clock_step = 0
        self.weather = Weather(Random(self.chance.getrandbits(64)))
        self.store = SimulatedStore(self._now, LEASE_SECONDS, flaws.checks)
        self.tables = ProjectedTables(checkpoint_first=flaws.checkpoint_first)
        self.leases = TaskLeases(self.tables, self.store.draw_epoch)
        themes = AGENT_THEMES if about_agents(seed) else THEMES
        self.theme = themes[self.chance.randrange(len(themes))]
        self.deeds = Deeds(self.weather, self.theme.mood, Random(self.chance.getrandbits(64)))
        self.callers = Callers(self, self.theme, Random(self.chance.getrandbits(64)))
        self.agents = Agents(self, Random(seed))
        consumers = Consumers(self.agents)
        self.topic = TopicAgents(self.agents, consumers) if self.theme.agents else None
        self.broker = None if self.topic is None else Broker(self.topic.take, consumers.start)
        self.over_topic = self.broker is not None and self.chance.random() < OVER_TOPIC_SHARE
        self.processes: list[Process] = []
        self.gone: list[Process] = []
        self.projector_life = Life()
        self.projector_line = Line(self.projector_life, self.weather)
        self.restless: list[str] = []
        self._seed = seed
        self._made = 0
        self._storm: set[asyncio.Task[None]] = set()

    def _now(self) -> int:
        return _EPOCH + self.loop.microseconds() + self.clock_step

    # --- processes ---

    def process(self) -> Process | None:
        """Any process that runs, for a caller."""
        running = [each for each in self.processes if each.life.works]
        return running[self.chance.randrange(len(running))] if running else None

    def wake(self, execution_id: UUID) -> None:
        """A wake-up for nothing, now and then."""
        if self.weather.strikes("wake-up for nothing", 0.5):
            self.store.wake(execution_id)
            version = len(self.store.streams[execution_id])
            for process in self.processes:
                process.feed.hear(Changed(execution_id, version, 0, 0))

    def replace(self, process: Process) -> None:
        """Start another process in the place of one that is gone, unless there is one already."""
        if process not in self.processes:
            return
        place = self.processes.index(process)
        self.gone.append(process)
        self.processes[place] = self._process(works=process.works)

    def replace_projector(self) -> None:
        """Start another projector, if the one there is dead."""
        if self.projector_life.dead:
            self.projector_life = Life()
            self.projector_line = Line(self.projector_life, self.weather)
            self._start_projector()

    def _process(self, *, works: bool) -> Process:
        self._made += 1
        name = f"p{self._made}"

        def others() -> list[Feed]:
            return [each.feed for each in self.processes if each.name != name]

        return Process(
            name,
            self.loop,
            self.store,
            self.weather,
            self.deeds,
            self.leases,
            others,
            works=works,
            broker=self.broker,
            over_topic=self.over_topic,
        )

    def _start_projector(self) -> None:
        projector = Projector(
            self.tables, self.store, self.projector_line, self.projector_life, self.weather
        )
        self.loop.create_task(projector.run())

    # --- the story ---

    async def run(self) -> None:
        """The storm, then the calm, then silence."""
        chance, theme = self.chance, self.theme
        workers = chance.randint(theme.workers_min, 2)
        self.processes = [self._process(works=True) for _ in range(workers)]
        self.processes.append(self._process(works=chance.random() < 0.5))
        self._start_projector()
        if theme.agents:
            await self._hire()
        self._begin(self.callers.publish())
        for _ in range(chance.randint(*theme.executions)):
            self._begin(self._after(3.0, self.callers.execute()))
        for _ in range(chance.randint(*theme.meddling)):
            self._begin(self._after(STORM_SECONDS, self.callers.meddle()))
        for _ in range(chance.randint(*theme.strikes)):
            self._begin(self._blow())
        while self._storm:
            await asyncio.wait(self._storm)
            self._storm = {each for each in self._storm if not each.done()}
        await self._calm()

    def _begin(self, work: object) -> None:
        if asyncio.iscoroutine(work):
            self._storm.add(self.loop.create_task(work))

    async def _hire(self) -> None:
        """Before anything bad happens: what names an agent that nobody knows is refused."""
        self.weather.stormy = False
        await self.agents.register()
        self.weather.stormy = True
        for number in range(PULL_WORKERS):
            self.loop.create_task(PullWorker(f"puller-{number}", self.agents).run())
        for _ in range(self.chance.choice((0, 0, 1, 2))):
            self._begin(self._after(STORM_SECONDS, self.agents.change()))

    async def _after(self, seconds_max: float, work: object) -> None:
        await asyncio.sleep(self.chance.random() * seconds_max)
        if asyncio.iscoroutine(work):
            await work

    async def _blow(self) -> None:
        weights = [self.theme.blows.get(each.name, each.weight) for each in BLOWS]
        blow = self.chance.choices(BLOWS, weights)[0]
        await asyncio.sleep(self.chance.random() * STORM_SECONDS)
        victims = [each for each in self.processes if each.life.works]
        if victims:
            self.weather.faults[blow.name] += 1
            await blow.strike(self, victims[self.chance.randrange(len(victims))])

    async def _calm(self) -> None:
        """Nothing bad happens any more, so everything comes to rest.

        Half a minute in which nothing happens is too long for that. What does go on may take
        longer: re-tries inside re-tries of a loop add up.
        """
        self.weather.stormy = False
        began = happened = self.loop.time()
        head = self.store.head()
        while self.loop.time() < min(happened + CALM_SECONDS, began + CALM_SECONDS_MAX):
            for process in list(self.processes):
                if process.life.dead:  # by an effect, which may have begun to in the storm
                    self.replace(process)
            self.replace_projector()
            await asyncio.sleep(LOOK_SECONDS)
            self.restless = list(unrest(self))
            if not self.restless:
                return
            if head != self.store.head():
                head, happened = self.store.head(), self.loop.time()

    # --- the end ---

    def story(self) -> Story:
        """What came of it."""
        everybody = [*self.gone, *self.processes]
        return Story(
            self._seed,
            self.theme.name,
            self.store,
            self.tables,
            self.callers.history,
            self.deeds,
            self.leases,
            self.agents,
            self.topic,
            self.processes,
            {name: count for name, count in sorted(self.weather.faults.items()) if count},
            self.restless,
            [report for process in everybody for report in process.reports],
            self.loop.crashes(FlowledgerError, BrokerAway),
            self.loop.time(),
        )


def about_agents(seed: int) -> bool:
    """Half of all seeds. The other half lives as if there were none, so that seeds which once
    found a bug go on to look for it.
    """
    return seed % 4 < 2


def simulate(seed: int, flaws: Flaws | None = None) -> Story:
    """Live through a seed."""
    loop = VirtualLoop()
    try:
        simulation = Simulation(seed, flaws or Flaws(), loop)
        loop.run_until_complete(simulation.run())
        story = simulation.story()
        _clear(loop)
        return story
    finally:
        loop.close()


def _clear(loop: VirtualLoop) -> None:
    """End what waits for ever; some take a second telling."""
    for _ in range(20):
        tasks = [each for each in loop.tasks if not each.done()]
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
