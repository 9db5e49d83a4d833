"""Commands per second of the ledger core, against the event sourcing library's own style and the
bare database.

A command records two events (a step ended, the next began) of an execution. Three rivals in one
run: the product (decide, evolve, encode, group commit with the queue row, 64 in flight); the
library as its documentation shows it (`repository.get`, `@event`, `save`, JSON transcoder, 8
threads); and raw psycopg calling the product's append statement with arrays made beforehand, of
the batch size that was seen.
"""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict

from application.callers import Caller
from application.ledger import Entry, Ledger
from application.ports import Append, Enqueue, Progress
from benchmarks.harness import Figures, Report, as_served, databases, read_options
from benchmarks.raw_appends import (
    RAW_WORKER,
    RawBatch,
    append_by_libpq,
    append_by_psycopg,
    pending,
    raw_batch,
    raw_writer,
    store,
)
from domain import decisions
from domain.decisions import Outcome, Request
from domain.definition import Definition, compile_definition
from domain.definition_reader import DefinitionReader
from domain.draft import Draft
from domain.events import Meta
from domain.json_values import JsonObject
from infrastructure.database import StoreOptions, open_store
from infrastructure.event_store.codec import Codec
from infrastructure.migrations import migrate
from interfaces.garbage_collection import tune_process

IN_FLIGHT = 64
LIBRARY_THREADS = 8
STEPS = 400
OUTPUT: JsonObject = {"uri": "s3://bucket/out.parquet", "rows": 998, "ok": True}
INPUT: JsonObject = {"source": "s3://bucket/data.csv", "rows": 1000, "flags": ["a", "b"]}


def chain() -> Definition:
    """A long line of steps, so that an execution takes many commands."""
    steps = {
        f"s{n}": {
            "action": "noop",
            "config": {"rows": "${workflow.input.rows}"},
            "next_step": f"s{n + 1}" if n + 1 < STEPS else None,
        }
        for n in range(STEPS)
    }
    normalised = DefinitionReader().read({"name": "bench", "start_step": "s0", "steps": steps})
    if normalised is None:
        raise RuntimeError("the benchmark's definition is not valid")
    return compile_definition(normalised)


def requested(definition: Definition, execution_id: UUID, at: datetime) -> tuple[Any, Any]:
    """A new execution's state and first event."""
    wanted = Request(
        workflow_id="wf-bench-1",
        workflow_name="bench",
        workflow_version=1,
        definition_id=execution_id,
        sha256="ab" * 32,
        steps_total=len(definition.steps),
        input=INPUT,
    )
    return decisions.request(execution_id, wanted, Meta(at, str(uuid4()), "bench"))


async def product(url: str, commands: int) -> Figures:
    """Commands per second with IN_FLIGHT executions, each with one command at a time."""
    migrate.upgrade(url)
    store = open_store(url, StoreOptions())
    await store.start()
    tune_process()
    ledger = Ledger(store.log, store.clock, uuid4, 64_000_000)
    definition = chain()

    async def client(count: int) -> None:
        state, first = requested(definition, uuid4(), store.clock.now())
        done = await store.log.append(
            Append(state.id, (first,), Enqueue("default", 5, state.created_at, lease=True))
        )
        epoch = done.epoch or 0
        entry = Entry(state, done.position)
        for _ in range(count):
            state = entry.state
            now = store.clock.now()
            draft = Draft(state, Caller().meta(now, uuid4()))
            if state.state == "PENDING":
                decisions.resume(draft, definition, (), epoch, now)
            else:
                (path,) = state.live
                outcome = Outcome(path, 1, 1, epoch, OUTPUT)
                decisions.settle(draft, definition, outcome, now)
            done = await ledger.append(draft, Progress(epoch, None, release=False))
            entry = Entry(draft.state, done.position)

    each = commands // IN_FLIGHT
    rounds = -(-each // (STEPS - 1))
    started = time.perf_counter()
    cpu = time.process_time()
    batches, appends = store.counters.batches, store.counters.appends
    for _ in range(rounds):
        await asyncio.gather(*(client(each // rounds) for _ in range(IN_FLIGHT)))
    took = time.perf_counter() - started
    total = (each // rounds) * rounds * IN_FLIGHT
    seen = (store.counters.appends - appends) / (store.counters.batches - batches)
    figures = {
        "commands_per_second": total / took,
        "cpu_us_per_command": (time.process_time() - cpu) / total * 1e6,
        "appends_per_batch": seen,
    }
    await store.close()
    return figures


class LibraryExecution(Aggregate):
    """The same aggregate in the library's declarative style."""

    @event("Requested")
    def __init__(self, workflow_id: str, input: dict[str, Any], command_id: str) -> None:
        self.workflow_id = workflow_id
        self.steps: dict[str, str] = {}

    @event("StepStarted")
    def step_started(self, step_id: str, attempt: int, input: dict[str, Any]) -> None:
        """The next step begins."""
        self.steps[step_id] = "RUNNING"

    @event("StepCompleted")
    def step_completed(self, step_id: str, output: dict[str, Any]) -> None:
        """A step has ended."""
        self.steps[step_id] = "COMPLETED"


def library(url: str, commands: int) -> Figures:
    """Commands per second of get, two triggered events, save; 8 threads, each on its own
    aggregates.
    """
    app: Application[UUID] = Application(env=_library_environment(url))
    each = commands // LIBRARY_THREADS

    def client() -> None:
        aggregate_id, done = None, 0
        while done < each:
            if aggregate_id is None or done % 30 == 0:
                fresh = LibraryExecution(workflow_id="wf-1", input=INPUT, command_id="c")
                app.save(fresh)
                aggregate_id = fresh.id
            found: LibraryExecution = app.repository.get(aggregate_id)
            found.step_completed(f"s{done}", OUTPUT)
            found.step_started(f"s{done + 1}", 1, INPUT)
            app.save(found)
            done += 1

    threads = [threading.Thread(target=client) for _ in range(LIBRARY_THREADS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    app.close()
    return {"commands_per_second": each * LIBRARY_THREADS / took}


def _library_environment(url: str) -> dict[str, str]:
    if url.startswith("sqlite"):
        file = (
            Path(tempfile.mkdtemp(dir=Path(url.removeprefix("sqlite:///")).parent)) / "library.db"
        )
        return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(file)}
    parts = conninfo_to_dict(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(parts["dbname"]),
        "POSTGRES_HOST": str(parts.get("host", "127.0.0.1")),
        "POSTGRES_PORT": str(parts.get("port", "5432")),
        "POSTGRES_USER": str(parts.get("user", "postgres")),
        "POSTGRES_PASSWORD": str(parts.get("password", "x")),
    }


def raw_psycopg(url: str, commands: int, per_batch: int) -> tuple[Figures, Figures]:
    """The append statement alone, queue rows included: through psycopg with lists made beforehand,
    and through its libpq layer with parameters that are encoded beforehand too."""
    migrate.upgrade(url)
    batches = list(_raw_batches(url, commands, per_batch))
    half = len(batches) // 2
    with psycopg.connect(url, autocommit=True) as connection:
        by_psycopg = half * per_batch / sum(append_by_psycopg(connection, batches[:half]))
        rest = batches[half:]
        by_libpq = len(rest) * per_batch / sum(append_by_libpq(connection, rest))
    return {"commands_per_second": by_psycopg}, {"commands_per_second": by_libpq}


def _raw_batches(url: str, commands: int, per_batch: int) -> Iterator[RawBatch]:
    """Batches of one command for each of `per_batch` executions, one step further each time."""
    definition, codec, now = chain(), Codec(), datetime.now(UTC)
    writer = raw_writer(url)
    drafts = [requested(definition, uuid4(), now) for _ in range(per_batch)]
    drafts.sort(key=lambda pair: pair[0].id)
    lease = Enqueue("default", 5, now, lease=True)
    opened = store(url, [pending(Append(s.id, (first,), lease), codec) for s, first in drafts])
    states, epochs = [state for state, _ in drafts], list(opened.epochs)
    for _ in range(min(STEPS - 2, max(2, commands // per_batch))):
        batch = []
        for index, state in enumerate(states):
            draft = Draft(state, Meta(now, RAW_WORKER, "bench"))
            if state.state == "PENDING":
                decisions.resume(draft, definition, (), epochs[index], now)
            else:
                (path,) = state.live
                decisions.settle(draft, definition, Outcome(path, 1, 1, 1, OUTPUT), now)
            states[index] = draft.state
            queue = Progress(epochs[index], now + timedelta(hours=1), release=False)
            batch.append(pending(Append(state.id, draft.events, queue), codec))
        yield raw_batch(batch, writer)
    writer.close()


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure on the chosen back ends and print the report."""
    options = read_options(__doc__ or "", arguments)
    report = Report("core", options)
    os.environ.pop("POSTGRES_ENABLE_DB_FUNCTIONS", None)
    ours, theirs = (6_400, 400) if options.quick else (51_200, 3_000)
    with databases() as bases:
        for backend in options.backends:
            for _ in range(options.repetitions):
                figures = as_served(product(bases.fresh(backend), ours))
                report.add(f"{backend}: product", figures)
                report.add(f"{backend}: library", library(bases.fresh(backend), theirs))
                if backend == "postgresql":
                    batch = max(1, round(figures["appends_per_batch"]))
                    by_psycopg, by_libpq = raw_psycopg(bases.fresh(backend), ours, batch)
                    report.add(f"{backend}: raw psycopg", by_psycopg)
                    report.add(f"{backend}: raw libpq, encoded beforehand", by_libpq)
            _ratios(report, backend)
    report.show()
    return report


def _ratios(report: Report, backend: str) -> None:
    ours = report.median(f"{backend}: product", "commands_per_second")
    library_rate = report.median(f"{backend}: library", "commands_per_second")
    report.notes[f"{backend}: product / library"] = round(ours / library_rate, 2)
    if backend == "postgresql":
        raw = report.median(f"{backend}: raw psycopg", "commands_per_second")
        report.notes[f"{backend}: product / raw psycopg"] = round(ours / raw, 2)
        libpq = report.median(f"{backend}: raw libpq, encoded beforehand", "commands_per_second")
        report.notes[f"{backend}: product / raw libpq"] = round(ours / libpq, 2)


if __name__ == "__main__":
    main()
