"""Commands whose answer the database never gave: done once, found again, never a conflict."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from application.callers import Caller
from application.requests import ExecuteOptions
from domain.errors import NotReady
from tests.engine import CALLER, chain, definition, process, step
from tests.infrastructure.event_store.cutting_proxy import CuttingProxy, Fault, cutting_proxy

pytestmark = pytest.mark.anyio

Proxy = tuple[CuttingProxy, str]
LATER = definition(w={"type": "wait", "duration_ms": 600_000})


@pytest.fixture
def proxy(postgresql_ledger_url: str, tmp_path: Path) -> Iterator[Proxy]:
    """A way to the PostgreSQL database that can be cut, and the URL that leads over it."""
    with cutting_proxy(postgresql_ledger_url, tmp_path) as pair:
        yield pair


async def test_publishing_is_found_again_and_is_no_replay(proxy: Proxy) -> None:
    relay, url = proxy
    async with process(url, working=False) as engine:
        await engine.workflows.publish(CALLER, {**chain(1), "name": "first"})
        for fault in (Fault.ANSWER_LOST, Fault.REQUEST_LOST):
            relay.fault = fault
            published = await engine.workflows.publish(CALLER, {**chain(1), "name": fault.name})
            assert (published.number, published.replayed) == (1, False)
        assert relay.hits == 2


@pytest.mark.parametrize("verb", ["publish", "execute", "cancel", "retry"])
async def test_a_command_that_never_gets_through_is_no_conflict(proxy: Proxy, verb: str) -> None:
    relay, url = proxy
    async with process(url, working=False) as engine:
        cancelled = await engine.run(LATER)
        await engine.control.cancel(CALLER, cancelled.id, None)
        pending = await engine.run(LATER)
        commands: dict[str, Callable[[], Awaitable[object]]] = {
            "publish": lambda: engine.workflows.publish(CALLER, chain(1)),
            "execute": lambda: engine.run(chain(1)),
            "cancel": lambda: engine.control.cancel(CALLER, pending.id, None),
            "retry": lambda: engine.control.retry(CALLER, cancelled.id, None, None),
        }
        relay.fault, relay.lasting = Fault.REQUEST_LOST, True
        with pytest.raises(NotReady, match="same Idempotency-Key"):
            await commands[verb]()
        relay.fault = Fault.NONE
        await commands[verb]()


async def test_a_keyed_command_is_carried_out_once_however_often_its_answer_is_lost(
    proxy: Proxy,
) -> None:
    relay, url = proxy
    keyed = Caller(actor="a", route="execute", idempotency_key="k", fingerprint="f")
    async with process(url) as engine:
        relay.fault = Fault.ANSWER_LOST
        first = await engine.requests.execute_inline(keyed, chain(2), ExecuteOptions())
        again = await engine.requests.execute_inline(keyed, chain(2), ExecuteOptions())
        assert (first.replayed, again.replayed) == (False, True)
        assert first.view.id == again.view.id


async def test_a_retry_without_a_key_is_found_again(proxy: Proxy) -> None:
    relay, url = proxy
    async with process(url, working=False) as engine:
        cancelled = await engine.run(definition(a=step()))
        await engine.control.cancel(CALLER, cancelled.id, None)
        relay.fault = Fault.ANSWER_LOST
        answer = await engine.control.retry(CALLER, cancelled.id, None, None)
        assert (answer.view.status, answer.view.attempt, answer.replayed) == ("PENDING", 2, False)
