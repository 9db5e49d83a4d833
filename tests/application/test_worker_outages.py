"""The engine while the database is away, is too slow, loses answers, or holds unreadable events."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from application.callers import Caller
from application.requests import ExecuteOptions
from domain import events as ev
from domain.errors import NotReady
from tests.contracts.conftest import nothing_can_be_stored
from tests.engine import CALLER, chain, definition, process, step, until
from tests.infrastructure.event_store.cutting_proxy import CuttingProxy, Fault, cutting_proxy

pytestmark = pytest.mark.anyio

Proxy = tuple[CuttingProxy, str]


@pytest.fixture
def proxy(postgresql_ledger_url: str, tmp_path: Path) -> Iterator[Proxy]:
    """A way to the PostgreSQL database that can be cut, and the URL that leads over it."""
    with cutting_proxy(postgresql_ledger_url, tmp_path) as pair:
        yield pair


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.REQUEST_LOST])
async def test_a_lost_answer_costs_no_step_and_repeats_none(proxy: Proxy, fault: Fault) -> None:
    relay, url = proxy
    async with process(url) as engine:
        executions = [await engine.run(chain(10)) for _ in range(5)]
        for enough in (8, 16, 24, 32, 40):
            await engine.deeds.count(enough)
            relay.fault = fault
        views = [await engine.ended(execution) for execution in executions]

        assert {view.status for view in views} == {"COMPLETED"}
        assert set(engine.deeds.per_step().values()) == {1}
        assert relay.hits


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.REQUEST_LOST])
async def test_a_request_whose_answer_was_lost_is_there_once_and_runs(
    proxy: Proxy, fault: Fault
) -> None:
    relay, url = proxy
    async with process(url, lease_seconds=0.9, renew_seconds=0.1) as engine:
        await engine.ended(await engine.run(chain(1)))
        relay.fault = fault
        answer = await engine.requests.execute_inline(CALLER, chain(2), ExecuteOptions())

        assert relay.hits == 1
        assert (answer.replayed, answer.view.status) == (False, "PENDING")
        assert (await engine.ended(answer.view)).status == "COMPLETED"
        assert len(engine.deeds.done) == 3


async def test_a_cancel_whose_answer_was_lost_is_found(proxy: Proxy) -> None:
    relay, url = proxy
    async with process(url) as engine:
        execution = await engine.run(definition(w={"type": "wait", "duration_ms": 600_000}))
        await engine.until(execution, lambda view: view.status == "RUNNING")
        relay.fault = Fault.ANSWER_LOST
        answer = await engine.control.cancel(Caller(actor="a"), execution.id, "once")

        assert relay.hits == 1
        assert answer.view.status == "CANCELLED"
        assert [type(each) for each in await engine.facts(execution)].count(ev.Cancelled) == 1


async def test_work_goes_on_after_the_database_was_away(proxy: Proxy) -> None:
    relay, url = proxy
    async with process(url, lease_seconds=600, answer_seconds=0.5) as engine:
        executions = [
            await engine.run(definition(a=step(), b=step("hold"), c=step())) for _ in range(5)
        ]
        await until(lambda: len(engine.deeds.calls("b")) == 5)
        relay.down = True
        relay.cut_all()
        engine.deeds.open("")
        await until(lambda: len(engine.deeds.finished) == 5)
        for command in (
            engine.run(chain(1)),
            engine.control.cancel(CALLER, executions[0].id, None),
            engine.history.view("default", executions[0].id),
            engine.history.view("default", executions[0].id, as_of=1),
            engine.workflows.publish(CALLER, chain(1)),
        ):
            with pytest.raises(NotReady):
                await command
        relay.down = False
        await until(lambda: engine.store.health.cause is None)

        for execution in executions:
            assert (await engine.ended(execution)).status == "COMPLETED"
        assert set(engine.deeds.per_step().values()) == {1}


async def test_work_goes_on_after_nothing_could_be_stored(ledger_url: str) -> None:
    async with process(ledger_url, answer_seconds=0.3) as engine:
        executions = [await engine.run(definition(a=step("hold"), b=step())) for _ in range(3)]
        await until(lambda: len(engine.deeds.done) == 3)
        with nothing_can_be_stored(ledger_url):
            engine.deeds.open("")
            await until(lambda: len(engine.deeds.finished) == 3)
            with pytest.raises(NotReady):
                await engine.run(chain(1))
        for execution in executions:
            assert (await engine.ended(execution)).status == "COMPLETED"
        assert set(engine.deeds.per_step().values()) == {1}


async def test_too_many_requests_are_told_to_come_again(ledger_url: str) -> None:
    async with process(ledger_url, appends_max=10, answer_seconds=5.0) as engine:
        with nothing_can_be_stored(ledger_url):
            asked = [asyncio.create_task(engine.run(chain(1))) for _ in range(40)]
            await until(lambda: sum(each.done() for each in asked) >= 20)
        answers = await asyncio.gather(*asked, return_exceptions=True)

        refused = [each for each in answers if isinstance(each, BaseException)]
        assert all(isinstance(each, NotReady) for each in refused)
        assert all(each.retry_after_seconds >= 1 for each in refused if isinstance(each, NotReady))
        for answer in answers:
            if not isinstance(answer, BaseException):
                assert (await engine.ended(answer)).status == "COMPLETED"
        await until(lambda: engine.worker.holds() == 0)
        assert (await engine.ended(await engine.run(chain(1)))).status == "COMPLETED"


@pytest.mark.parametrize(
    ("version", "topic"), [(2, "execution.of_a_later_release.v1"), (3, "execution.requested.v1")]
)
async def test_an_execution_that_cannot_be_read_blocks_no_other(
    sqlite_ledger_url: str, version: int, topic: str
) -> None:
    async with process(sqlite_ledger_url, working=False) as api:
        execution = await api.run(chain(1))
        with closing(sqlite3.connect(sqlite_ledger_url.removeprefix("sqlite:///"))) as other:
            other.execute(
                "INSERT INTO ledger_events (originator_id, originator_version, topic, state)"
                " SELECT originator_id, ?, ?, state FROM ledger_events WHERE originator_id = ?",
                (version, topic, execution.id.replace("-", "")),
            )
            other.commit()
        async with process(sqlite_ledger_url, slots=1) as engine:
            await until(lambda: engine.reports)
            assert (await engine.ended(await engine.run(chain(2)))).status == "COMPLETED"
            await until(lambda: engine.worker.holds() == 0)
            assert (await engine.store.queue.statistics()).leased == 0
            assert {event for event, _ in engine.reports} == {"execution_set_aside"}
