"""Lost answers are no conflicts: whoever cannot be told the outcome is told to ask again."""

from typing import Any

import pytest

from application.callers import Caller
from application.ports import Append, Appended, EventLog, UnknownOutcome
from application.requests import ExecuteOptions
from application.workflows import Workflows
from domain.errors import NotReady
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.input_schema import JsonSchemas
from tests.engine import CALLER, Deeds, chain, handlers, process

pytestmark = pytest.mark.anyio


class BadLine:
    """The real log; of every append either the request or the answer is lost."""

    def __init__(self, log: EventLog, *, stored: bool) -> None:
        self._log = log
        self._stored = stored

    async def append(self, append: Append) -> Appended:
        if self._stored:
            await self._log.append(append)
        raise UnknownOutcome("the line was lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class TwiceLost:
    """The real log; two appends get no answer: the first is stored late, before the second, which
    so is refused, and nobody hears of that.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._lost: list[Append] = []

    async def append(self, append: Append) -> Appended:
        if len(self._lost) == 2:
            return await self._log.append(append)
        if self._lost:
            await self._log.append(self._lost[0])
        self._lost.append(append)
        raise UnknownOutcome("the line was lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def test_a_request_that_never_gets_through_is_to_be_sent_again(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as one:
        one.ledger.log = BadLine(one.store.log, stored=False)
        with pytest.raises(NotReady, match="same Idempotency-Key"):
            await one.requests.execute_inline(CALLER, chain(1), ExecuteOptions())
        assert await one.store.log.head() == 0


async def test_a_request_whose_answers_are_lost_is_found(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as one:
        one.ledger.log = BadLine(one.store.log, stored=True)
        answer = await one.requests.execute_inline(CALLER, chain(1), ExecuteOptions())
        assert (answer.view.version, answer.replayed) == (1, False)
        assert await one.store.log.head() == answer.view.position


async def test_a_command_that_never_gets_through_is_to_be_sent_again(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as one:
        view = await one.run(chain(1))
        log, one.ledger.log = one.ledger.log, BadLine(one.store.log, stored=False)
        with pytest.raises(NotReady, match="same Idempotency-Key"):
            await one.control.cancel(CALLER, view.id, None)
        one.ledger.log = log
        assert (await one.control.cancel(CALLER, view.id, None)).view.status == "CANCELLED"


async def test_a_definition_that_never_gets_through_is_to_be_sent_again(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as one:
        actions = ActionRegistry(handlers(Deeds()), Secrets({}))
        line = BadLine(one.store.log, stored=False)
        problem = JsonSchemas().problem
        cut = Workflows(line, one.store.clock, one.ledger.new_id, actions, problem)
        with pytest.raises(NotReady, match="same Idempotency-Key"):
            await cut.publish(Caller(actor="tester"), chain(1))


async def test_a_signal_whose_answers_are_lost_twice_is_received_once(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as one:
        view = await one.run(chain(1))
        one.ledger.log = TwiceLost(one.store.log)
        await one.control.signal(CALLER, view.id, "paid", 1)
        assert (await one.topics(view)).count("signal_received") == 1


async def test_a_retry_whose_answers_are_lost_twice_is_no_conflict(ledger_url: str) -> None:
    async with process(ledger_url, working=False) as one:
        view = await one.run(chain(1))
        await one.control.cancel(CALLER, view.id, None)
        one.ledger.log = TwiceLost(one.store.log)
        answer = await one.control.retry(CALLER, view.id, None, None)
        assert (answer.view.attempt, answer.replayed) == (2, False)
