"""F17: the same scenarios in every mode end in the same state.

SQLite and PostgreSQL, one worker and four, states remembered and folded anew for every step.
What counts is the state that the log folds to: status, outputs, tries and errors of every step, not
times, epochs or the order among steps side by side. The control folds one event less.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import product
from uuid import UUID

from application.callers import Caller
from application.ledger import Entry, StateCache
from application.requests import ExecuteOptions
from domain.events import Event, Recorded
from domain.execution import ExecutionState, fold
from domain.json_values import Json, JsonObject, sha256_of
from tests.engine import Deeds, Process, chain, definition, process, step
from tests.faults.judging import keep, prepared, whole_log
from tests.faults.report import Options, Report, main, tell
from tests.invariants import check_all, streams_of
from tests.postgres_server import PostgresServer, running_postgres

WORKERS = (1, 4)
MEMORIES = ("remembering", "folding every time")
REPEATS_FULL, REPEATS_QUICK = 50, 2
SLOW_RETRY: JsonObject = {"attempts": 3, "base_delay_ms": 20}


class Forgetful(StateCache):
    """Remembers nothing: every look at an execution folds its events from the first."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = 0

    def get(self, execution_id: UUID) -> None:
        """Nothing."""
        self.asked += 1

    def put(self, entry: Entry) -> None:
        """Forget it."""


async def run(options: Options, report: Report) -> None:
    """All modes, one hash."""
    repeats = REPEATS_QUICK if options.quick else REPEATS_FULL
    hashes: dict[str, str] = {}
    with running_postgres() as server:
        for number, mode in enumerate(product(("sqlite", "postgresql"), WORKERS, MEMORIES)):
            back_end, workers, memory = mode
            name = f"{back_end}, {workers} workers, {memory}"
            url = await asyncio.to_thread(_fresh, back_end, server, options, number)
            log = await _live(url, workers, memory, repeats, report)
            broken = check_all(log)
            report.violations += [f"{name}: {each.invariant} {each.what}" for each in broken]
            hashes[name] = sha256_of(_final(log))
            tell(f"{name}: {len(log)} events, {hashes[name][:12]}")
            keep(options, f"F17-{number}", log, [])
    report.figures |= {"hashes": hashes, "executions_per_mode": repeats * len(_scenarios())}
    first = next(iter(hashes.values()))
    report.violations += [f"another state: {each}" for each in hashes if hashes[each] != first]
    less = sha256_of(_final(log, less=1))
    report.control("one event less", ["another state"] if less != first else [])


def _scenarios() -> dict[str, JsonObject]:
    """Definitions whose end depends on nothing but themselves."""
    loop: JsonObject = {
        "collection": [1, 2, 3, 4, 5],
        "loop_body": ["p"],
        "execution_mode": "parallel",
        "max_parallelism": 2,
    }
    fan = definition(
        fan={"type": "parallel", "parallel_steps": ["a", "b"]},
        each={"type": "loop", "loop_config": loop},
        end=step(config={"total": "${each.output.total_count}"}),
    )
    inner: dict[str, Json] = {"a": step(), "b": step(), "p": step(config={"item": "${loop.item}"})}
    undone = definition(a=step(compensate_with="free"), b=step("fail", config={"permanent": True}))
    steps, kept = fan["steps"], undone["steps"]
    assert isinstance(steps, dict)
    assert isinstance(kept, dict)
    return {
        "line": chain(6),
        "fan": {**fan, "steps": steps | inner},
        "again": definition(a=step("fail", config={"times": 2}, retry=SLOW_RETRY), b=step()),
        "wait": definition(a=step(), w={"type": "wait", "duration_ms": 30}, b=step()),
        "fails": definition(a=step(), b=step("fail", config={"permanent": True}), c=step()),
        "undone": {**undone, "steps": kept | {"free": step(config={"undo": True})}},
    }


def _fresh(back_end: str, server: PostgresServer, options: Options, number: int) -> str:
    if back_end == "postgresql":
        return server.create_database(prepared)
    url = f"sqlite:///{options.folder / f'mode{number}.db'}"
    prepared(url)
    return url


async def _live(
    url: str, workers: int, memory: str, repeats: int, report: Report
) -> list[Recorded]:
    """Run every scenario `repeats` times, spread over the workers; the whole log."""
    deeds = Deeds()
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(process(url, deeds, answer_seconds=30.0))
            for _ in range(workers)
        ]
        if memory != "remembering":
            for engine in engines:
                engine.ledger.cache = Forgetful()
        wanted = list(_requests(engines, repeats))
        await asyncio.gather(*(_one(*each) for each in wanted))
        log = await whole_log(engines[0].store)
        worked = sum(engine.store.counters.appends > 0 for engine in engines)
        folded = sum(
            each.asked for engine in engines if isinstance(each := engine.ledger.cache, Forgetful)
        )
    report.bit("worker beside others", max(0, worked - 1))
    report.bit("state folded anew", folded)
    return log


def _requests(
    engines: list[Process], repeats: int
) -> Iterator[tuple[Process, str, int, JsonObject]]:
    count = 0
    for number in range(repeats):
        for name, scenario in _scenarios().items():
            yield engines[count % len(engines)], name, number, scenario
            count += 1


async def _one(engine: Process, name: str, number: int, scenario: JsonObject) -> None:
    """The same execution in every mode: its id is computed from its key."""
    key = f"{name}-{number}"
    caller = Caller(actor="tester", route="execute", idempotency_key=key, fingerprint=key)
    answer = await engine.requests.execute_inline(caller, scenario, ExecuteOptions())
    await engine.ended(answer.view)


def _final(log: list[Recorded], less: int = 0) -> JsonObject:
    """What every execution came to, without what may differ from run to run."""
    return {
        str(stream): _state(events[: len(events) - less])
        for stream, events in sorted(streams_of(log).items())
    }


def _state(events: list[Event]) -> JsonObject:
    state = fold(events)
    assert isinstance(state, ExecutionState)
    steps: JsonObject = {
        path: [
            each.state,
            each.attempt,
            each.try_no,
            each.input,
            each.output,
            each.error.code if each.error else None,
            each.why,
        ]
        for path, each in sorted(state.steps.items())
    }
    error = state.error.code if state.error else None
    return {"state": state.state, "output": state.output, "error": error, "steps": steps}


if __name__ == "__main__":
    main("F17", run)
