"""One simulated process: everything that a real one has of `application/`, on simulated ports."""

from collections.abc import Callable, Sequence
from random import Random
from uuid import UUID

from application.agent_results import AgentResults
from application.agents import Agents
from application.control import Control
from application.dispatch_notes import DispatchNotes
from application.incoming import Incoming
from application.ledger import Ledger
from application.pending_starts import PendingStarts
from application.relay import Relay
from application.requests import Requests
from application.tasks import Tasks
from application.worker import Worker, WorkerOptions
from application.workflows import Workflows
from domain.errors import NoEncryptionKey
from infrastructure.clock import DatabaseClock
from infrastructure.input_schema import JsonSchemas
from tests.simulation.broker import Broker, Letters, Publisher, RelaySession, spell
from tests.simulation.effects import Deeds, SimulatedActions
from tests.simulation.line import Life, Line, Weather
from tests.simulation.ports import Feed, Log, NoOutsideRows, ProcessClock, Queue
from tests.simulation.store import SimulatedStore
from tests.simulation.task_leases import LeaseQueue, TaskLeases
from tests.simulation.virtual_loop import VirtualLoop

LEASE_SECONDS = 3.0
SLOTS = 3
CACHE_BYTES = 40_000
DRIFT_MAX = 0.0005
"""How wrong a monotonic clock may be: half a millisecond in a second."""
_SCHEMAS = JsonSchemas()


class NoSecrets:
    """The AgentSecrets of an installation without an encryption key."""

    async def put(self, agent_id: UUID, version: int, secret_id: str, credential: str) -> None:
        raise NoEncryptionKey("there is no encryption key")

    async def get(self, agent_id: UUID, secret_id: str) -> str | None:
        return None

    async def keep_only(self, agent_id: UUID, version: int, secret_id: str | None) -> None:
        return


class Process:
    """Starts to work when it is made. `works` is False for one that only answers callers; with a
    `broker` it sends there what the log tells.
    """

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        store: SimulatedStore,
        weather: Weather,
        deeds: Deeds,
        leases: TaskLeases,
        others: Callable[[], Sequence[Feed]],
        *,
        works: bool,
        broker: Broker | None = None,
        over_topic: bool = False,
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
        self._queue = queue = Queue(name, store, self.line, self.clock)
        actions = SimulatedActions(deeds, self.life)

        def new_id() -> UUID:
            return UUID(int=chance.getrandbits(128), version=4)

        self.ledger = Ledger(log, self.clock, new_id, CACHE_BYTES)
        self.agents = Agents(log, self.clock, new_id, NoSecrets(), lambda url: None)
        self.workflows = Workflows(log, self.clock, new_id, actions, _SCHEMAS.problem, self.agents)
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
            self._report,
        )
        publisher = None if broker is None else Publisher(broker, self.life, weather)
        self.requests = self._requests(publisher if over_topic else None)
        self.control = Control(self.ledger, self.workflows, self.worker)
        self.results = AgentResults(self.ledger, self.workflows, self.worker)
        known = LeaseQueue(leases, self.line, self.clock)
        self.tasks = Tasks(
            known, known, self.ledger, self.workflows, self.agents, self.results, self.feed
        )
        self.incoming = self._incoming()
        self._relay: Relay | None = None
        if broker is not None and publisher is not None:
            self._relay = self._relaying(broker, publisher, store)
        self._watching = loop.create_task(self.feed.watch(self.line, store, self.clock))
        if works:
            self.worker.start()

    def _report(self, event: str, facts: dict[str, object]) -> None:
        self.reports.append((event, facts))

    def _requests(self, publisher: Publisher | None) -> Requests:
        """With a publisher executions start when their requests come back."""

        def problem() -> str | None:
            assert publisher is not None
            told = publisher.health()
            return None if told.answers else told.detail

        over_kafka = None if publisher is None else problem
        return Requests(self.ledger, self.workflows, self.worker, _SCHEMAS, over_kafka=over_kafka)

    def _incoming(self) -> Incoming:
        rows = NoOutsideRows()
        starts = PendingStarts(self._queue, self.worker, rows, self.clock, self._report)
        return Incoming(self.ledger, self._requests(None), self.control, self.results, rows, starts)

    def _relaying(self, broker: Broker, publisher: Publisher, store: SimulatedStore) -> Relay:
        relay = Relay(
            RelaySession(broker, store, self.line, self.life),
            publisher,
            spell,
            Letters(broker),
            self.clock,
            self._report,
            DispatchNotes(self.ledger),
        )
        self.feed.subscribe(relay.wake)
        relay.start()
        return relay

    async def stop(self) -> None:
        """Leave as on SIGTERM."""
        self.tasks.close()
        await self.worker.stop()
        if self._relay is not None:
            await self._relay.stop()
        self._watching.cancel()
        self.life.die()


def _clock(loop: VirtualLoop, store: SimulatedStore, chance: Random) -> DatabaseClock:
    rate = 1 + chance.uniform(-DRIFT_MAX, DRIFT_MAX)
    return DatabaseClock(store.now(), lambda: round(loop.microseconds() * rate))
