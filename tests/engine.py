"""The engine as one process runs it, for tests: a real store, a real worker, actions that tell what
they did. No projections and no HTTP.

Several processes on one database are several `process(...)` blocks. With `queue.cut` set and no
grace, leaving the block is a crash: handlers end in the middle and no lease is given back.
"""

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from uuid_utils.compat import uuid7

from application.agent_directory import unknown_agent
from application.agent_results import AgentResults
from application.callers import Caller
from application.control import Control
from application.history import History
from application.ledger import Ledger
from application.ports import Append, Appended, Overloaded
from application.requests import ExecuteOptions, Requests
from application.steps import (
    ErrorClass,
    Failed,
    StepContext,
    StepFailure,
    StepHandler,
    StepOutcome,
    Succeeded,
)
from application.views import ExecutionView
from application.worker import Worker, WorkerOptions
from application.workflows import Workflows
from domain.agent_policy import AgentPolicy
from domain.events import Payload, Recorded
from domain.json_values import Json, JsonObject
from domain.mistakes import Mistake
from infrastructure.database import Store, StoreOptions, open_store
from infrastructure.effects.blocking_calls import BlockingCalls
from infrastructure.effects.custom_actions import CustomAction
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.effects.validation import Validate
from infrastructure.input_schema import JsonSchemas
from tests.breakable_queue import BreakableQueue

PATIENCE_SECONDS = 20.0
"""How long a test waits for what must come; only a failing test waits that long."""
CALLER = Caller(actor="tester")


class Deed(NamedTuple):
    """One call of a handler."""

    action: str
    execution_id: str
    path: str
    attempt: int
    try_no: int
    delivery: int
    epoch: int
    key: str


class Deeds:
    """What handlers did, in order, and the gates that hold them. Shared by all processes of a
    test. `interrupted` are the calls that a cancellation reached, `to_report` is what `report`
    reports, storable or not; without `fails` nothing fails any more.
    """

    def __init__(self) -> None:
        self.done: list[Deed] = []
        self.interrupted: list[Deed] = []
        self.finished: list[Deed] = []
        self.to_report: list[Any] = []
        self.fails = True
        self._gates: dict[str, threading.Event] = defaultdict(threading.Event)

    def begin(self, action: str, context: StepContext) -> Deed:
        """Note a call."""
        deed = Deed(
            action,
            context.execution_id,
            context.path,
            context.attempt,
            context.try_no,
            context.delivery,
            context.epoch,
            context.idempotency_key,
        )
        self.done.append(deed)
        return deed

    def calls(self, path: str, execution_id: str | None = None) -> list[Deed]:
        """The calls for a step, of one execution or of all."""
        return [
            each
            for each in self.done
            if each.path == path and execution_id in (None, each.execution_id)
        ]

    def paths(self) -> list[str]:
        """The steps in the order of their calls."""
        return [each.path for each in self.done]

    def per_step(self) -> Counter[tuple[str, str]]:
        """How often each step of each execution was called."""
        return Counter((each.execution_id, each.path) for each in self.done)

    async def count(self, enough: int) -> None:
        """Return once `enough` calls were made."""
        await until(lambda: len(self.done) >= enough)

    def open(self, gate: str) -> None:
        """Let the handlers that are held at `gate` go on, now and later."""
        self._gates[gate].set()

    def gate(self, name: str) -> threading.Event:
        """The gate, closed at first."""
        return self._gates[name]


class _Noop:
    """Returns its configuration."""

    name = "noop"
    touches_outside = True

    def __init__(self, deeds: Deeds) -> None:
        self.deeds = deeds

    def check(self, config: JsonObject, pointer: str) -> Iterator[Mistake]:
        return iter(())

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        self.deeds.begin(self.name, context)
        return {"ok": True, **config}


class _Hold(_Noop):
    """Waits until the gate `config.gate` opens; can be interrupted."""

    name = "hold"

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        deed = self.deeds.begin(self.name, context)
        gate = self.deeds.gate(str(config.get("gate", "")))
        try:
            await opened(gate)
        except asyncio.CancelledError:
            self.deeds.interrupted.append(deed)
            raise
        self.deeds.finished.append(deed)
        return {"held": True}


class _Deaf(_Noop):
    """As `hold`, but goes on when it is cancelled, which no handler should."""

    name = "deaf"

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        deed = self.deeds.begin(self.name, context)
        gate = self.deeds.gate(str(config.get("gate", "")))
        while not gate.is_set():
            try:
                await opened(gate)
            except asyncio.CancelledError:
                self.deeds.interrupted.append(deed)
        self.deeds.finished.append(deed)
        return {"late": True}


class _Fail(_Noop):
    """Fails the first `config.times` calls of a step in each attempt, then works."""

    name = "fail"

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        deed = self.deeds.begin(self.name, context)
        calls = [each for each in self.deeds.done if each.key == deed.key]
        if not self.deeds.fails:
            return {"calls": len(calls)}
        times = config.get("times", 1_000_000)
        if isinstance(times, int) and len(calls) <= times:
            error_class: ErrorClass = "permanent" if config.get("permanent") else "transient"
            raise StepFailure("made_to_fail", f"call {len(calls)} fails", error_class=error_class)
        return {"calls": len(calls)}


class _Exit(_Noop):
    """Calls `sys.exit` as a careless library does."""

    name = "exit"

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        self.deeds.begin(self.name, context)
        raise SystemExit(3)


class _Report(_Noop):
    """Reports what the test wants as progress, then waits at its gate."""

    name = "report"

    async def __call__(self, config: JsonObject, context: StepContext) -> Json:
        self.deeds.begin(self.name, context)
        for value in self.deeds.to_report:
            context.progress(value)
        gate = self.deeds.gate(str(config.get("gate", "")))
        await opened(gate)
        return {"reported": True}


def handlers(deeds: Deeds) -> Sequence[StepHandler]:
    """The actions of a test: noop, hold, deaf, fail, exit, report, validate, in a thread block."""

    def block(config: JsonObject, context: StepContext) -> Json:
        deed = deeds.begin("block", context)
        deeds.gate(str(config.get("gate", ""))).wait(PATIENCE_SECONDS)
        deeds.finished.append(deed)
        return {"blocked": True}

    own: list[StepHandler] = [kind(deeds) for kind in (_Noop, _Hold, _Deaf, _Fail, _Exit, _Report)]
    validate = Validate(JsonSchemas())
    return [*own, validate, CustomAction("block", block, "tests", BlockingCalls(8))]


class AgentsInMemory:
    """A registry of agents in memory: a directory, and a caller of those of http, which answer
    `{"from": NAME, "input": ...}` or fail when they are in `failing`. Records say nothing about
    failure but where `recoveries` has it.
    """

    def __init__(self, deeds: Deeds, transports: Mapping[str, str]) -> None:
        self.deeds = deeds
        self.by_name = dict(transports)
        self.inactive: set[str] = set()
        self.failing: set[str] = set()
        self.recoveries: dict[str, AgentPolicy] = {}

    async def unknown(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        del workspace_id
        found = {name: unknown_agent(name) for name in names if name not in self.by_name}
        off = self.inactive & set(names)
        return found | {name: f"Agent {name!r} is inactive; activate it." for name in off}

    async def transports(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        del workspace_id
        return {name: self.by_name[name] for name in names if name in self.by_name}

    async def out_of_reach(self, workspace_id: str, names: Collection[str]) -> Mapping[str, str]:
        del workspace_id, names
        return {}

    async def policies(
        self, workspace_id: str, names: Collection[str]
    ) -> Mapping[str, AgentPolicy]:
        del workspace_id
        return {name: self.recoveries[name] for name in names if name in self.recoveries}

    async def call(self, name: str, config: JsonObject, context: StepContext) -> StepOutcome:
        self.deeds.begin(f"agent:{name}", context)
        if name in self.failing:
            return Failed("agent_error", f"{name} fails", "transient")
        return Succeeded({"from": name, "input": config})


@dataclass(slots=True)
class Process:
    """Everything one process has; `reports` is what its worker told the operator."""

    store: Store
    queue: BreakableQueue
    ledger: Ledger
    workflows: Workflows
    worker: Worker
    requests: Requests
    control: Control
    history: History
    deeds: Deeds
    agents: AgentsInMemory
    results: AgentResults
    reports: list[tuple[str, dict[str, object]]]

    async def run(
        self, definition: JsonObject, options: ExecuteOptions | None = None, caller: Caller = CALLER
    ) -> ExecutionView:
        """Request an execution of an inline definition; PENDING when this returns."""
        answer = await self.requests.execute_inline(caller, definition, options or ExecuteOptions())
        return answer.view

    async def ended(self, execution: ExecutionView | str) -> ExecutionView:
        """The execution once it is over."""
        reference = execution if isinstance(execution, str) else execution.id
        view = await self.history.wait_ended("default", reference, PATIENCE_SECONDS)
        assert view.completed_at, f"still {view.status} {view.sub_status} on {view.waiting_on}"
        return view

    async def until(
        self, execution: ExecutionView, reached: Callable[[ExecutionView], bool]
    ) -> ExecutionView:
        """The execution as soon as `reached` holds for it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            view = await self.history.view("default", execution.id)
            while not reached(view):
                view = await self.history.wait_changed("default", view.id, view.version, 1.0)
            return view

    async def events(self, execution: ExecutionView) -> list[Recorded]:
        """All events of an execution."""
        return list(await self.history.events("default", execution.id, limit=100_000))

    async def facts(self, execution: ExecutionView) -> list[Payload]:
        """The payloads of all its events."""
        return [each.event.data for each in await self.events(execution)]

    async def topics(self, execution: ExecutionView) -> list[str]:
        """The names of all its events, without `execution.` and version."""
        return [fact.TOPIC.split(".")[1] for fact in await self.facts(execution)]

    async def commands(self, execution: ExecutionView) -> int:
        """How many appends its events came in."""
        return len({each.event.meta.cmd for each in await self.events(execution)})


async def opened(gate: threading.Event) -> None:
    """Return once the gate is open; it belongs to threads too, so it cannot be awaited."""
    while not gate.is_set():  # noqa: ASYNC110 - nobody tells when a thread's event is set
        await asyncio.sleep(0.005)


async def until(condition: Callable[[], object]) -> None:
    """Return once `condition` is true; a TimeoutError after the patience of a test."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - any condition, most tell nobody
            await asyncio.sleep(0.005)


@asynccontextmanager
async def process(
    url: str,
    deeds: Deeds | None = None,
    *,
    slots: int = 100,
    lease_seconds: float = 15.0,
    renew_seconds: float | None = None,
    grace_seconds: float = 5.0,
    appends_max: int = 10_000,
    answer_seconds: float = 10.0,
    working: bool = True,
    agents: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """One process on the database at `url`; `working=False` starts no worker (an API process).

    `agents` are transports by name.
    """
    deeds = deeds or Deeds()
    options = StoreOptions(
        lease_seconds=lease_seconds,
        appends_max=appends_max,
        answer_seconds=answer_seconds,
        environment={},
    )
    store = await asyncio.to_thread(open_store, url, options)
    await store.start()
    queue = BreakableQueue(store.queue)
    schemas = JsonSchemas()
    registry = AgentsInMemory(deeds, agents or {})
    actions = ActionRegistry(handlers(deeds), Secrets({}), registry)
    ledger = Ledger(store.log, store.clock, uuid7, 64_000_000)
    workflows = Workflows(store.log, store.clock, uuid7, actions, schemas.problem, registry)
    reports: list[tuple[str, dict[str, object]]] = []
    worker = Worker(
        ledger,
        queue,
        store.clock,
        store.feed,
        workflows,
        actions,
        WorkerOptions(
            slots=slots,
            renew_seconds=lease_seconds / 3 if renew_seconds is None else renew_seconds,
            fence_seconds=lease_seconds * 2 / 3,
            grace_seconds=grace_seconds,
        ),
        lambda event, facts: reports.append((event, facts)),
        schemas=schemas,
    )
    history = History(ledger, workflows, store.feed)
    if working:
        worker.start()
    try:
        yield Process(
            store,
            queue,
            ledger,
            workflows,
            worker,
            Requests(ledger, workflows, worker, schemas),
            Control(ledger, workflows, worker),
            history,
            deeds,
            registry,
            AgentResults(ledger, workflows, worker),
            reports,
        )
    finally:
        await worker.stop()
        history.close()
        await store.close()


def step(action: str = "noop", following: str | None = None, **fields: Json) -> JsonObject:
    """A step of a definition; `fields` lie over the defaults."""
    return {"type": "action", "action": action, "config": {}, "next_step": following, **fields}


def asked(agent: str, following: str | None = None, **fields: Json) -> JsonObject:
    """A step that an agent does; `fields` lie over the defaults."""
    return {"agent_name": agent, "input_mapping": {}, "next_step": following, **fields}


def definition(name: str = "flow", **steps: JsonObject) -> JsonObject:
    """A definition whose steps follow one another in the order given, unless they say otherwise."""
    names = list(steps)
    line: JsonObject = {
        name: {**steps[name], "next_step": steps[name].get("next_step") or following}
        for name, following in zip(names, [*names[1:], None], strict=True)
    }
    return {"name": name, "start_step": names[0], "steps": line}


def chain(length: int, action: str = "noop") -> JsonObject:
    """`length` steps one after the other: s1, s2, ..."""
    return definition("chain", **{f"s{number}": step(action) for number in range(1, length + 1)})


Doing = Callable[[Append], Awaitable[object]]


def before_append(engine: Process, payload: type[Payload], what: Doing) -> list[Append]:
    """Do something just before the first append that begins with such a fact; that append is in the
    list then.
    """
    append = engine.ledger.log.append
    met: list[Append] = []

    async def once(given: Append) -> Appended:
        if isinstance(given.events[0].data, payload) and not met:
            met.append(given)
            await what(given)
        return await append(given)

    engine.ledger.log.append = once  # type: ignore[method-assign]  # the one moment
    return met


async def store_full(given: Append) -> None:
    """What `before_append` may do: the append is refused."""
    raise Overloaded("the append queue is full")
