"""What a worker does first of a new execution is stored in the append that stores the execution."""

import asyncio
from typing import Any

import pytest

from application.callers import Caller
from application.ledger import Entry
from application.ports import Append, Appended, Claim, EventLog, UnknownOutcome
from application.requests import ExecuteOptions
from domain.errors import NotReady
from domain.json_values import JsonObject
from tests.engine import Process, definition, process, step, until

pytestmark = pytest.mark.anyio
FLOW = definition(a=step(following="b"), b=step())


class Noted:
    """The real log; `appended` are the topics of each append. `loses` the answer to the first."""

    def __init__(self, log: EventLog, *, loses: bool = False) -> None:
        self._log = log
        self._loses = loses
        self.appended: list[list[str]] = []

    async def append(self, append: Append) -> Appended:
        done = await self._log.append(append)
        self.appended.append([each.data.TOPIC.split(".")[1] for each in append.events])
        if self._loses:
            self._loses = False
            raise UnknownOutcome("the line was lost")
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def appends_of(engine: Process, flow: JsonObject, options: ExecuteOptions) -> list[list[str]]:
    log = Noted(engine.store.log)
    engine.ledger.log = log
    await engine.ended(await engine.run(flow, options))
    return log.appended


async def test_the_first_step_begins_with_the_request(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        appends = await appends_of(engine, FLOW, ExecuteOptions())
        assert appends == [
            ["requested", "started", "step_started"],
            ["step_completed", "step_started"],
            ["step_completed", "completed"],
        ]


@pytest.mark.parametrize(
    ("flow", "options"),
    [
        (FLOW, ExecuteOptions(delay_seconds=0.05)),
        (definition(a={"type": "wait", "duration_ms": 20}), ExecuteOptions()),
        (definition(a=step(conditions=["1 > 2"])), ExecuteOptions()),
    ],
    ids=["later", "waits first", "nothing to do"],
)
async def test_what_a_worker_does_not_perform_at_once_begins_after_the_request(
    ledger_url: str, flow: JsonObject, options: ExecuteOptions
) -> None:
    async with process(ledger_url) as engine:
        appends = await appends_of(engine, flow, options)
        assert appends[0] == ["requested"]


async def test_the_answer_is_that_of_the_request_also_to_a_repeat(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        caller = Caller(actor="a", route="execute", idempotency_key="k", fingerprint="f")
        first = await engine.run(FLOW, caller=caller)
        ended = await engine.ended(first)
        again = await engine.run(FLOW, caller=caller)
        events = await engine.events(ended)

        assert (first.status, first.version, first.position) == ("PENDING", 1, events[0].position)
        assert again == first
        assert engine.deeds.paths() == ["a", "b"]


async def test_an_execution_whose_answer_is_lost_is_taken_up_at_a_renewal(ledger_url: str) -> None:
    async with process(ledger_url, renew_seconds=0.05) as engine:
        engine.ledger.log = Noted(engine.store.log, loses=True)
        ended = await engine.ended(await engine.run(FLOW))

        assert ended.status == "COMPLETED"
        assert engine.deeds.paths() == ["a", "b"]
        assert engine.deeds.done[0].delivery == 2  # nobody knew that it had never begun


async def test_a_worker_that_stops_begins_nothing_that_was_just_stored(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives its leases back, so another may perform that step already."""
    stored, told = asyncio.Event(), asyncio.Event()

    class Held(Noted):
        async def append(self, append: Append) -> Appended:
            done = await super().append(append)
            stored.set()
            await told.wait()
            return done

    async with process(ledger_url) as engine, process(ledger_url, engine.deeds) as other:
        release_all = engine.queue.release_all

        async def release() -> None:
            await release_all()
            if not told.is_set():  # the test's own stop, not that at the end of the process
                told.set()
                await other.ended(await asking)

        monkeypatch.setattr(engine.queue, "release_all", release)
        engine.ledger.log = Held(engine.store.log)
        asking = asyncio.create_task(engine.run(FLOW))
        await stored.wait()
        await engine.worker.stop()
        assert engine.deeds.paths() == ["a", "b"]


async def test_nothing_begins_under_a_lease_that_was_lost_at_once(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process(ledger_url) as engine:
        accept = engine.worker.accept

        def accept_and_lose(entry: Entry, epoch: int) -> None:
            accept(entry, epoch)
            later = Claim(entry.state.id, epoch + 1, entry.state.version)
            engine.worker.take(later, engine.store.clock.now())

        monkeypatch.setattr(engine.worker, "accept", accept_and_lose)
        await engine.run(FLOW)
        await until(lambda: engine.worker.holds() == 0)
        assert engine.deeds.paths() == []


async def test_nothing_is_planned_for_a_request_that_is_refused(ledger_url: str) -> None:
    async with process(ledger_url) as engine:
        engine.store.committer.admission = lambda: "the projections are too far behind"
        planned: list[object] = []
        engine.worker.first_steps = planned.append  # type: ignore[assignment, method-assign]  # not to be called
        with pytest.raises(NotReady, match="too far behind"):
            await engine.run(FLOW)

        assert not planned
        engine.store.committer.admission = None
        assert engine.worker.holds() == 0  # the slot is free again
