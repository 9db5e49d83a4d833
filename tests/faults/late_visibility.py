"""F6: twelve processes append while readers tail the log: none passes an event that shows up later.

Every writer has a store of its own, as a process has; their transactions overlap on the server. The
readers look as fast as they can, for an event that is passed is lost to a projection for ever. The
control appends without the lock in which positions are drawn, and must lose some.
"""

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

from application.ports import StoreUnavailable
from infrastructure.database import Store
from tests.contracts.appends import append
from tests.faults.judging import opened, prepared, whole_log
from tests.faults.report import Options, Report, main, tell
from tests.infrastructure.event_store.tailing import APPEND, tails, variant
from tests.invariants import check_order
from tests.postgres_server import running_postgres

WRITERS = 12
IN_FLIGHT = 4
READERS = 2
FULL_SECONDS = 60.0
QUICK_APPENDS = 40
CONTROL_ROUNDS = 40
CONTROL_APPENDS = 50


async def run(options: Options, report: Report) -> None:
    """The writers and readers with the lock, then without."""
    with running_postgres() as server:
        url = server.create_database(prepared)
        broken: list[str] = []
        began = asyncio.get_running_loop().time()
        while True:
            each = 400 if not options.quick else QUICK_APPENDS
            broken += await _round(url, each, report)
            seconds = asyncio.get_running_loop().time() - began
            tell(f"{report.figures['appended']} events, {len(broken)} missed")
            if options.quick or broken or seconds > FULL_SECONDS:
                break
        report.violations += broken
        report.figures["missed"] = len(broken)
        report.control("without the lock", await _control(server.create_database(prepared)))


async def _control(url: str) -> list[str]:
    variant(url, APPEND, locked=False)
    for _ in range(CONTROL_ROUNDS):
        scratch = Report(fault="F6", seed=0, quick=True)
        if broken := await _round(url, CONTROL_APPENDS, scratch):
            return broken
    return []


async def _round(url: str, each: int, report: Report) -> list[str]:
    """Let all writers append `each` events; what readers missed, saw twice or in another order."""
    async with opened(url) as reading, AsyncExitStack() as stack:
        after = await reading.log.head()
        stores = [await stack.enter_async_context(opened(url)) for _ in range(WRITERS)]
        with tails(reading, READERS, after) as readers:
            parts = await asyncio.gather(
                *(_write(store, each // IN_FLIGHT) for store in stores for _ in range(IN_FLIGHT))
            )
            seen = [await asyncio.to_thread(reader.finish) for reader in readers]
        log = await whole_log(reading, after)
        batches = sum(store.counters.batches for store in stores)
    written = [stream for part in parts for stream in part]
    report.bit("overlapping appends of several processes", batches)
    report.figures["appended"] = report.figures.get("appended", 0) + len(written)
    stored = [entry.event.execution_id for entry in log]
    broken = [f"{found.invariant} {found.where}: {found.what}" for found in check_order(log)]
    lost = set(written) - set(stored)
    broken += [f"I1 {stream}: was acknowledged and is not stored" for stream in lost]
    for number, reader in enumerate(seen):
        missed = set(stored) - set(reader)
        broken += [f"I10 {stream}: reader {number} passed it" for stream in missed]
        if not missed and reader != stored:
            broken.append(f"I11 reader {number} saw another order than the log's, or one twice")
    return broken


async def _write(store: Store, count: int) -> list[UUID]:
    streams: list[UUID] = []
    while len(streams) < count:
        stream = uuid4()
        try:
            await store.log.append(append(stream))
        except StoreUnavailable:  # the lock was not to be had in time, and nothing was stored
            continue
        streams.append(stream)
    return streams


if __name__ == "__main__":
    main("F6", run)
