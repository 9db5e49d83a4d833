"""Cached states of workflows and agents: looks at the log are shared, and never go back in time."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from application.ports import EventLog
from application.streams import Streams
from domain import workflow
from domain.events import Recorded
from domain.workflow import WorkflowState, workflow_uuid
from tests.engine import CALLER, Process, chain, process

pytestmark = pytest.mark.anyio
STREAM = workflow_uuid("default", "chain")


class HeldLog:
    """The real log, whose reads of streams return when `go_on` is set."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.reads = 0
        self.has_read = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read_stream(self, stream_id: UUID, **where: Any) -> Sequence[Recorded]:
        self.reads += 1
        go_on = self.go_on
        found = await self._log.read_stream(stream_id, **where)
        self.has_read.set()
        await go_on.wait()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def streams_of(engine: Process, log: HeldLog) -> Streams[WorkflowState]:
    clock = engine.ledger.clock
    evolve = workflow.evolve
    return Streams(log, clock, engine.ledger.new_id, kind="workflow", evolve=evolve)


async def test_callers_at_one_time_share_a_look_at_the_log(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as engine:
        await engine.workflows.publish(CALLER, chain(1))
        log = HeldLog(engine.store.log)
        streams = streams_of(engine, log)
        loads = [asyncio.ensure_future(streams.load(STREAM)) for _ in range(20)]
        await asyncio.sleep(0)
        loads[0].cancel()  # whoever asked first may leave
        log.go_on.set()
        found = await asyncio.gather(*loads[1:])
        assert log.reads == 1
        assert {None if each is None else each.version for each in found} == {1}


async def test_a_look_that_began_before_a_change_here_does_not_hide_it(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as engine:
        await engine.workflows.publish(CALLER, chain(1))
        log = HeldLog(engine.store.log)
        streams = streams_of(engine, log)
        early = asyncio.ensure_future(streams.load(STREAM))
        await log.has_read.wait()
        await engine.workflows.publish(CALLER, chain(2))
        held, log.go_on = log.go_on, asyncio.Event()
        log.go_on.set()
        changed = await streams.load(STREAM, trusted=False)
        held.set()
        late, after = await early, await streams.load(STREAM)
        versions = [None if each is None else each.version for each in (changed, late, after)]
        assert versions == [2, 2, 2]
