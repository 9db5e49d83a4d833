"""Kill the real server at random points while executions run, start it again, and look whether all
that was acknowledged is there, all ends, and the invariants hold.

Heavy form by hand: `python -m tests.faults.kill9` prints the counts as JSON for both back ends and
ends with 1 when something is violated.
"""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2

from application.callers import Caller
from domain.events import Recorded
from domain.execution import ExecutionState, evolve
from domain.json_values import JsonObject
from domain.lifecycle import RUNNING, TERMINAL
from infrastructure.database import StoreOptions, open_store
from infrastructure.migrations import migrate
from tests.e2e.programs import COMMAND, environment
from tests.invariants import Answer, Tables, check_all
from tests.postgres_server import running_postgres

STEPS = 30
LEASE_SECONDS = 2
CLIENTS = 16
CANCELLED_SHARE = 0.1
PATIENCE_SECONDS = 120
ACTOR = "tester"
API = "/api/v1"
EFFECTS = Path(__file__).with_name("effects.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is run and how often the server is killed."""

    executions: int
    kills: int
    kills_in_flight: int
    seed: int = 1


@dataclass(slots=True)
class Figures:
    """What happened; `violations` must be empty."""

    back_end: str
    seed: int
    kills: int = 0
    kills_in_flight: int = 0
    tries_in_flight: list[int] = field(default_factory=list)
    executions: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    answers_lost: int = 0
    redelivered: int = 0
    effects: int = 0
    events: int = 0
    violations: list[str] = field(default_factory=list)


def definition() -> JsonObject:
    """A line of steps in the loop and in threads, with failures, re-tries and a wait."""
    steps: JsonObject = {}
    for number in range(1, STEPS + 1):
        following = f"s{number + 1}" if number < STEPS else None
        step: JsonObject = {"action": "block" if number % 3 == 0 else "tick"}
        if number % 10 == 0:
            step = {"action": "shaky", "retry": {"attempts": 3, "base_delay_ms": 20}}
        if number == 5:
            step = {"type": "wait", "duration_ms": 30}
        steps[f"s{number}"] = step | {"next_step": following}
    return {"name": "kill-me", "start_step": "s1", "steps": steps}


class Server:
    """`flowledger serve` on a free port, which can be killed and started again."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.effects = folder / "effects.jsonl"
        self.address = ""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return once it answers."""
        more = {
            "FLOWLEDGER_ACTIONS": str(EFFECTS),
            "FLOWLEDGER_LEASE_SECONDS": str(LEASE_SECONDS),
            "FLOWLEDGER_DATABASE_URL": self.url,
            "EFFECTS_FILE": str(self.effects),
        }
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                COMMAND,
                "serve",
                "--port",
                "0",
                "--json",
                cwd=self.folder,
                env=environment(more),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_SECONDS)
        if not line:
            told = (self.folder / "server.log").read_text()[-4_000:]
            raise RuntimeError(f"the server did not start:\n{told}")
        self.address = str(json.loads(line)["address"])

    async def end(self, how: signal.Signals) -> None:
        """Send a signal and return once the process is gone."""
        process, self._process, self.address = self._process, None, ""
        if process is not None and process.returncode is None:
            process.send_signal(how)
            await process.wait()

    def effects_so_far(self) -> int:
        """Bytes in the file of effects."""
        return self.effects.stat().st_size if self.effects.exists() else 0


class Clients:
    """Callers who repeat a request with its key until they hear something."""

    def __init__(self, server: Server, figures: Figures, chance: random.Random) -> None:
        self.history: list[Answer] = []
        self.executions: list[str] = []
        self._server = server
        self._figures = figures
        self._chance = chance
        self._http = httpx2.AsyncClient(timeout=10)

    async def close(self) -> None:
        await self._http.aclose()

    async def post(self, path: str, key: str, body: JsonObject) -> "httpx2.Response":
        """The first answer that is not about the server being away."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if self._server.address:
                    with suppress(httpx2.TransportError):
                        answer = await self._http.post(
                            f"{self._server.address}{API}{path}",
                            json=body,
                            headers={"Idempotency-Key": key, "X-Actor": ACTOR},
                        )
                        if answer.status_code != 503:
                            return answer
                    self._figures.answers_lost += 1
                await asyncio.sleep(0.05)

    async def get(self, path: str) -> JsonObject:
        """A resource, asked for until the server is there."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if self._server.address:
                    with suppress(httpx2.TransportError):
                        answer = await self._http.get(f"{self._server.address}{API}{path}")
                        if answer.status_code != 503:
                            assert answer.status_code == 200, answer.text
                            return _object(answer.json())
                await asyncio.sleep(0.05)

    async def execute(self, number: int) -> str:
        """Request execution `number`; the same execution however often it is asked for."""
        key = f"execute-{number}"
        answer = await self.post("/workflows/kill-me/execute", key, {"input_data": {"n": number}})
        assert answer.status_code == 202, answer.text
        view = _object(answer.json())
        identifier = str(view["id"])
        version = view["version"]
        assert isinstance(version, int)
        self.history.append(Answer(identifier, UUID(identifier), "done", "execute", version))
        self._figures.acknowledged += 1
        return identifier

    async def cancel(self, identifier: str) -> None:
        """Cancel an execution, if it has not ended."""
        key = f"cancel-{identifier}"
        caller = Caller(actor=ACTOR, route=f"cancel_execution:{identifier}", idempotency_key=key)
        answer = await self.post(f"/executions/{identifier}/cancel", key, {"reason": "by lot"})
        assert answer.status_code in (200, 409), answer.text
        done = answer.status_code == 200
        version = _object(answer.json()).get("version") if done else None
        self.history.append(
            Answer(
                str(caller.identity(uuid4())),
                UUID(identifier),
                "done" if done else "refused",
                "cancel",
                version if isinstance(version, int) else None,
            )
        )
        self._figures.acknowledged += done

    async def run(self, numbers: "asyncio.Queue[int]") -> None:
        """Work through `numbers` for ever; some executions are cancelled a little later."""
        while True:
            number = await numbers.get()
            identifier = await self.execute(number)
            self.executions.append(identifier)
            if self._chance.random() < CANCELLED_SHARE:
                await asyncio.sleep(self._chance.random())
                await self.cancel(identifier)
            numbers.task_done()


class LogReader:
    """The log as the database has it, whether or not a server runs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._states: dict[UUID, ExecutionState] = {}
        self._position = 0

    async def tries_in_flight(self) -> int:
        """How many tries of actions have begun and not ended, by what is stored."""
        store = await asyncio.to_thread(open_store, self._url, StoreOptions(environment={}))
        try:
            while page := await store.log.read_all(after=self._position, limit=2_000):
                for recorded in page:
                    event = recorded.event
                    if event.data.TOPIC.startswith("execution."):
                        known = self._states.get(event.execution_id)
                        self._states[event.execution_id] = evolve(known, event)
                self._position = page[-1].position
        finally:
            await store.close()
        return sum(
            1
            for state in self._states.values()
            for path in state.live
            if (step := state.steps.get(path)) is not None
            and step.state == RUNNING
            and step.due_at is None
        )


async def campaign(url: str, folder: Path, plan: Plan) -> Figures:
    """Run the plan on an empty database; the figures tell what was seen."""
    chance = random.Random(plan.seed)
    figures = Figures(url.partition(":")[0], plan.seed)
    await asyncio.to_thread(migrate.upgrade, url)
    server = Server(url, folder)
    await server.start()
    clients = Clients(server, figures, chance)
    numbers: asyncio.Queue[int] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []
    try:
        published = await clients.post("/workflows", "publish", definition())
        assert published.status_code == 201, published.text
        for number in range(plan.executions):
            numbers.put_nowait(number)
        tasks = [asyncio.create_task(clients.run(numbers)) for _ in range(CLIENTS)]
        await _kill_often(server, clients, numbers, plan, figures, chance)
        await asyncio.wait_for(_unless_failed(numbers.join(), tasks), PATIENCE_SECONDS)
        await _all_ended(clients, figures)
        await _ask_again(clients)
        await _projected(clients)
    finally:
        for task in tasks:
            task.cancel()
        await clients.close()
        await server.end(signal.SIGTERM)
    await _judge(url, server, clients, figures)
    return figures


async def _kill_often(
    server: Server,
    clients: Clients,
    numbers: "asyncio.Queue[int]",
    plan: Plan,
    figures: Figures,
    chance: random.Random,
) -> None:
    reader = LogReader(server.url)
    following = plan.executions
    while figures.kills < plan.kills or figures.kills_in_flight < plan.kills_in_flight:
        assert figures.kills < 3 * plan.kills, "too few kills hit a try"
        await _work_seen(server, chance)
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await server.end(signal.SIGKILL)
        figures.kills += 1
        in_flight = await reader.tries_in_flight()
        figures.tries_in_flight.append(in_flight)
        figures.kills_in_flight += in_flight > 0
        if in_flight < plan.executions // 20:  # nearly done: there must be something to hit
            for _ in range(plan.executions // 10):
                numbers.put_nowait(following)
                following += 1
        await server.start()


async def _work_seen(server: Server, chance: random.Random) -> None:
    """Mostly return once an action has run since the start, sometimes at once."""
    before = server.effects_so_far()
    if chance.random() < 0.1:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(2 * LEASE_SECONDS + 5):
            while server.effects_so_far() == before:  # noqa: ASYNC110 - another process's file
                await asyncio.sleep(0.005)


async def _unless_failed(work: Any, tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Await `work`, or raise what ended one of the tasks that never end by themselves."""
    waiting = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for task in done:
        task.result()


async def _all_ended(clients: Clients, figures: Figures) -> None:
    figures.executions = len(clients.executions)
    statuses: defaultdict[str, int] = defaultdict(int)
    failures: defaultdict[str, int] = defaultdict(int)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for identifier in clients.executions:
            while True:
                view = await clients.get(f"/executions/{identifier}")
                if view["status"] in TERMINAL:
                    break
                await asyncio.sleep(0.05)
            statuses[str(view["status"])] += 1
            if view["status"] == "FAILED":
                failures[str(_object(view["error"])["code"])] += 1
    figures.statuses, figures.failures = dict(statuses), dict(failures)


async def _ask_again(clients: Clients) -> None:
    """Repeat every request: the same execution and the same answer must come."""
    known = list(clients.executions)
    for number in range(len(known)):
        identifier = await clients.execute(number)
        assert identifier in known


async def _projected(clients: Clients) -> None:
    """Return once the tables have seen the whole log."""
    last = await clients.get(f"/executions/{clients.executions[-1]}")
    await clients.get(f"/executions?page_size=1&min_position={last['position']}")


async def _judge(url: str, server: Server, clients: Clients, figures: Figures) -> None:
    store = await asyncio.to_thread(open_store, url, StoreOptions(environment={}))
    try:
        log: list[Recorded] = []
        while page := await store.log.read_all(after=log[-1].position if log else 0, limit=2_000):
            log += page
        tables = await asyncio.to_thread(_tables, store.engine)
    finally:
        await store.close()
    figures.events = len(log)
    figures.redelivered = sum(
        1 for each in log if each.event.data.TOPIC == "execution.step_redelivered.v1"
    )
    found = check_all(log, clients.history, tables)
    figures.violations += [f"{each.invariant} {each.where}: {each.what}" for each in found[:20]]
    effects = [json.loads(line) for line in server.effects.read_bytes().splitlines()]
    figures.effects = len(effects)
    figures.violations += _bad_keys(effects)
    verified = await asyncio.create_subprocess_exec(
        COMMAND,
        *("projections", "verify", "--database", url),
        cwd=server.folder,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await verified.communicate()
    if verified.returncode != 0:
        figures.violations.append(f"I9 projections verify: {told.decode()[-1_000:]}")


def _tables(engine: Any) -> Tables:
    with engine.connect() as connection:
        rows = [
            [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()]
            for name in ("workflow_runs", "step_executions")
        ]
    return Tables(*rows)


def _bad_keys(effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """I7: one key for all calls of a step in an attempt."""
    keys: defaultdict[tuple[str, int, str], set[str]] = defaultdict(set)
    for each in effects:
        keys[each["execution"], each["attempt"], each["path"]].add(each["key"])
    wrong = []
    for (execution, attempt, path), seen in keys.items():
        if seen != {f"{execution}:{attempt}:{path}"}:
            wrong.append(f"I7 {execution} {path}: keys {sorted(seen)}")
    return wrong[:20]


def _object(value: Any) -> JsonObject:
    assert isinstance(value, dict), value
    return value


def main() -> None:
    """Both back ends, the heavy form; prints one JSON object for each."""
    seed = int(os.environ.get("FAULTS_SEED", str(random.randrange(1_000_000))))
    plan = Plan(executions=200, kills=20, kills_in_flight=15, seed=seed)
    good = True
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        for url in (f"sqlite:///{folder}/ledger.db", postgres.create_database()):
            place = Path(tempfile.mkdtemp(dir=folder))
            figures = asyncio.run(campaign(url, place, plan))
            sys.stdout.write(json.dumps(asdict(figures)) + "\n")
            good = good and not figures.violations
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
