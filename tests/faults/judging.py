"""What a fault ends with: the invariants over log, callers, tables and effects."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domain.events import Recorded
from infrastructure.database import Store, StoreOptions, open_store
from infrastructure.migrations import migrate
from infrastructure.settings import Settings
from interfaces.bootstrap import verify_projections
from tests.builders import told
from tests.faults.report import SHOWN_MAX, Options
from tests.invariants import Answer, Tables, check_all

PAGE = 2_000


@asynccontextmanager
async def opened(url: str, **changes: Any) -> AsyncIterator[Store]:
    """The store at `url`, not started: for reading, and for appends of the fault's own."""
    options = StoreOptions(environment={}, answer_seconds=30.0, **changes)
    store = await asyncio.to_thread(open_store, url, options)
    try:
        yield store
    finally:
        await store.close()


async def whole_log(store: Store, after: int = 0) -> list[Recorded]:
    """Every event behind a position."""
    log: list[Recorded] = []
    while page := await store.log.read_all(after=log[-1].position if log else after, limit=PAGE):
        log += page
    return log


def tables_of(store: Store) -> Tables:
    """The rows of the tables which are compared with the log."""
    with store.engine.connect() as connection:
        rows = [
            [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()]
            for name in ("workflow_runs", "step_executions")
        ]
    return Tables(*rows)


async def judge(
    url: str,
    history: Sequence[Answer],
    *,
    effects: Path | None = None,
    all_ended: bool = True,
) -> tuple[list[Recorded], list[str]]:
    """The log, and every invariant that is broken in it, in the tables, and in what was done.

    `all_ended`: everything was given time to end, and must have (I18).
    """
    async with opened(url) as store:
        log = await whole_log(store)
        tables = await asyncio.to_thread(tables_of, store)
    broken = [
        f"{each.invariant} {each.where}: {each.what}" for each in check_all(log, history, tables)
    ]
    broken += await verified(url)
    if effects is not None:
        broken += bad_keys(effects_in(effects))
    if all_ended:
        broken += _not_ended(tables)
    return log, broken[:SHOWN_MAX]


async def verified(url: str) -> list[str]:
    """I9: the tables are the fold of the log up to where they stand."""
    verdicts = await verify_projections(Settings(database_url=url), "all", lambda done, total: None)
    return [f"I9 {each.difference}" for each in verdicts if each.difference is not None]


def effects_in(file: Path) -> list[dict[str, Any]]:
    """What actions told; see effects.py."""
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def bad_keys(effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """I7: one key for all calls of a step in an attempt."""
    keys: defaultdict[tuple[str, int, str], set[str]] = defaultdict(set)
    for each in effects:
        keys[each["execution"], each["attempt"], each["path"]].add(each["key"])
    return [
        f"I7 {execution} {path}: keys {sorted(seen)}"
        for (execution, attempt, path), seen in keys.items()
        if seen != {f"{execution}:{attempt}:{path}"}
    ]


def _not_ended(tables: Tables) -> Iterator[str]:
    for row in tables.runs:
        if row["status"] not in ("COMPLETED", "FAILED", "CANCELLED"):
            yield f"I18 {row['run_id']}: {row['status']} long after the last fault"


def keep(options: Options, name: str, log: Sequence[Recorded], history: Sequence[Answer]) -> None:
    """Write the log and what callers heard into the folder for histories, if there is one."""
    if options.keep is None:
        return
    options.keep.mkdir(parents=True, exist_ok=True)
    with (options.keep / f"{name}.log.jsonl").open("w") as file:
        for each in log:
            event = each.event
            entry = {
                "position": each.position,
                "execution": str(event.execution_id),
                "version": event.version,
                "at": event.meta.at.isoformat(),
                "command": event.meta.cmd,
                "event": told(event.data),
            }
            file.write(json.dumps(entry, default=str) + "\n")
    with (options.keep / f"{name}.history.jsonl").open("w") as file:
        for answer in history:
            file.write(json.dumps(asdict(answer), default=str) + "\n")


def prepared(url: str) -> None:
    """Bring an empty database to the schema of this release."""
    migrate.upgrade(url)
