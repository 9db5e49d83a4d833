"""How near the product comes to what PostgreSQL itself allows.

64 in flight: commands per second through the event store, against raw psycopg doing the same
statement (queue rows included) with arrays made beforehand, of the batch size that was seen. One in
flight: a whole execution of three steps against its four appends, one after the other, by raw
psycopg and by raw libpq. Nothing can be faster than that floor and still be durable step by step.
"""

import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg

from application.ports import Append, Enqueue, Finish, Progress, QueueWrite
from benchmarks.core import OUTPUT, product, raw_psycopg, requested
from benchmarks.executions import ACTIONS, DEFINITION, in_process
from benchmarks.harness import (
    Databases,
    Figures,
    Report,
    as_served,
    databases,
    percentile,
    progress,
    read_options,
)
from benchmarks.raw_appends import (
    RAW_WORKER,
    append_by_libpq,
    append_by_psycopg,
    pending,
    raw_batch,
    raw_writer,
)
from domain import decisions
from domain.decisions import Outcome
from domain.definition import Definition, compile_definition
from domain.definition_reader import DefinitionReader
from domain.draft import Draft
from domain.events import Meta
from infrastructure.event_store.codec import Codec
from infrastructure.migrations import migrate

COMMANDS = "commands_per_second"
APPENDS = 4
SHARE_MIN = 0.6
PRODUCT_64, RAW_64 = "product, 64 in flight", "raw psycopg, batch as seen"
LIBPQ_64 = "raw libpq, batch as seen"
PRODUCT_1, RAW_1 = "product, 1 in flight", "raw psycopg, four appends one after the other"
LIBPQ_1 = "raw libpq, four appends one after the other"


def floor(url: str, executions: int) -> tuple[Figures, Figures]:
    """Latencies of an execution's appends by psycopg and by libpq, half the executions each."""
    migrate.upgrade(url)
    writer = raw_writer(url)
    definition, codec = _definition(), Codec()
    calls = [
        raw_batch([pending(append, codec)], writer)
        for n in range(executions)
        for append in _appends(definition, UUID(int=n + 1), epoch=n + 1)
    ]
    writer.close()
    half = executions // 2 * APPENDS
    with psycopg.connect(url, autocommit=True) as connection:
        by_psycopg = append_by_psycopg(connection, calls[:half])
        by_libpq = append_by_libpq(connection, calls[half:])
    return _floor_figures(by_psycopg), _floor_figures(by_libpq)


def _floor_figures(seconds: Sequence[float]) -> Figures:
    whole = [sum(seconds[n : n + APPENDS]) * 1000 for n in range(0, len(seconds), APPENDS)]
    return {"p50_ms": percentile(whole, 0.5), "p99_ms": percentile(whole, 0.99)}


def _definition() -> Definition:
    normalised = DefinitionReader().read(DEFINITION)
    if normalised is None:
        raise RuntimeError("the benchmark's definition is not valid")
    return compile_definition(normalised)


def _appends(definition: Definition, execution_id: UUID, epoch: int) -> Iterator[Append]:
    """The appends of one execution as the product makes them. A fresh database draws its epochs
    one after the other from 1, so that the epoch is known beforehand."""
    now = datetime.now(UTC)
    state, first = requested(definition, execution_id, now)
    later = now + timedelta(hours=1)
    draft = Draft(state, Meta(now, RAW_WORKER, "bench"))
    decisions.resume(draft, definition, (), epoch, now)
    yield Append(execution_id, (first, *draft.events), Enqueue("default", 5, later, lease=True))
    while not draft.state.terminal:
        state = draft.state
        draft = Draft(state, Meta(now, RAW_WORKER, "bench"))
        (path,) = state.live
        decisions.settle(draft, definition, Outcome(path, 1, 1, epoch, OUTPUT), now)
        queue: QueueWrite = (
            Finish(epoch) if draft.state.terminal else Progress(epoch, later, release=False)
        )
        yield Append(execution_id, draft.events, queue)


def _measure(report: Report, bases: Databases, actions: Path) -> None:
    commands, executions = (6_400, 200) if report.options.quick else (51_200, 500)
    for _ in range(report.options.repetitions):
        figures = as_served(product(bases.fresh("postgresql"), commands))
        report.add(PRODUCT_64, figures)
        batch = max(1, round(figures["appends_per_batch"]))
        raw, libpq = raw_psycopg(bases.fresh("postgresql"), commands, batch)
        report.add(RAW_64, raw)
        report.add(LIBPQ_64, libpq)
        work = in_process(bases.fresh("postgresql"), actions, executions, 1)
        report.add(PRODUCT_1, as_served(work))
        raw, libpq = floor(bases.fresh("postgresql"), executions)
        report.add(RAW_1, raw)
        report.add(LIBPQ_1, libpq)
        progress(f"{figures[COMMANDS]:,.0f} commands/s, floor {raw['p50_ms']:.2f} ms")


def main(arguments: Sequence[str] | None = None) -> Report:
    """Measure and print the report; on PostgreSQL only."""
    report = Report("limits", read_options(__doc__ or "", arguments))
    with databases() as bases, tempfile.TemporaryDirectory() as folder:
        actions = Path(folder) / "bench_actions.py"
        actions.write_text(ACTIONS)
        _measure(report, bases, actions)
    share = report.ratio((PRODUCT_64, COMMANDS), (RAW_64, COMMANDS))
    report.judge("64 in flight, product / raw psycopg", share, least=SHARE_MIN)
    of_libpq = report.ratio((PRODUCT_64, COMMANDS), (LIBPQ_64, COMMANDS))
    report.notes["64 in flight, product / raw libpq"] = round(of_libpq, 2)
    for name, row in (("psycopg", RAW_1), ("libpq", LIBPQ_1)):
        ratio = report.ratio((PRODUCT_1, "p50_ms"), (row, "p50_ms"))
        report.notes[f"1 in flight, product p50 / floor by {name}"] = round(ratio, 2)
    report.show()
    return report


if __name__ == "__main__":
    main()
