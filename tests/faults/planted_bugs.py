"""Bugs for positive controls: loaded into the server as if it were a file of own actions, it takes
one protection away, named by PLANTED_BUG, and declares no action that anybody uses.
"""

import asyncio
import inspect
import os
from contextlib import suppress
from typing import Any
from uuid import uuid4

import msgspec

from application import driver, incoming, ledger, relay, run, steps, worker
from application.messages import NOT_NOW
from application.ports import Appended, VersionConflict
from domain import decisions
from infrastructure import clock
from infrastructure.event_store.queue_writes import from_microseconds
from infrastructure.kafka.partition import Partition
from interfaces.http import errors
from interfaces.kafka.receiving import ConsumedMessages
from interfaces.processes import answering, process


def _replace(owner: object, name: str, value: object) -> None:
    """Something else in the place of what is there. Raises AttributeError when nothing is."""
    getattr(owner, name)
    setattr(owner, name, value)


def _conflicts_ignored() -> None:
    """A command that lost the race is answered as if it had won it."""
    append = ledger.Ledger.append

    async def careless(self: Any, draft: Any, queue: Any) -> Any:
        try:
            return await append(self, draft, queue)
        except VersionConflict:
            if draft.meta.actor == "tester":
                return Appended(1, 1, None)
            raise

    _replace(ledger.Ledger, "append", careless)


def _stale_reads() -> None:
    """A process answers from what it remembers, without a look at the log."""

    load = ledger.Ledger.load

    async def remembered(self: Any, execution_id: Any) -> Any:
        return self.cache.get(execution_id) or await load(self, execution_id)

    _replace(ledger.Ledger, "load", remembered)


def _key_of_a_delivery() -> None:
    """Each delivery of a step gets an idempotency key of its own."""

    class Context(steps.StepContext, frozen=True, kw_only=True, dict=True):
        def __post_init__(self) -> None:
            own = f"{self.idempotency_key}:{self.epoch}"
            msgspec.structs.force_setattr(self, "idempotency_key", own)

    _replace(run, "StepContext", Context)


def _ready_to_the_last() -> None:
    """A process that stops goes on to call itself ready."""
    checks = process.common_checks

    async def cheerful(ping: Any, *, draining: bool) -> Any:
        return await checks(ping, draining=False)

    _replace(answering, "common_checks", cheerful)


def _outages_are_defects() -> None:
    """A database that is away is an unexpected error."""

    def defect(text: str, *_: Any) -> Any:
        raise RuntimeError(text)

    _replace(errors, "_not_ready", defect)


def _one_failure_is_enough() -> None:
    """A worker whose claim failed once does not claim again."""
    _replace(worker, "BACK_OFF_SECONDS", 1e6)


def _clock_of_the_machine() -> None:
    """Time is what this machine says, and not what the database said."""
    _replace(clock.DatabaseClock, "now", lambda _: from_microseconds(clock.system_microseconds()))


def _epochs_ignored() -> None:
    """A worker goes on under any lease it ever had, and a result of an old one counts."""

    async def unconcerned(*_: Any) -> None:
        return None

    _replace(worker.Worker, "_fence", lambda _: None)
    _replace(driver.Driver, "check_lease", unconcerned)
    source = inspect.getsource(decisions.settle)
    right = "or outcome.epoch < step.epoch"
    assert right in source
    exec(source.replace(right, "or False"), vars(decisions))  # noqa: S102 - a line of ours less


def _requests_not_told_apart() -> None:
    """A request that comes again begins another execution."""
    _replace(incoming, "execution_uuid", lambda *_: uuid4())


def _sent_and_forgotten() -> None:
    """What tells others of the log does not wait for a broker that is away."""
    send = relay.Relay._send

    async def careless(self: Any, messages: Any) -> None:
        if self._publisher.health().answers:
            with suppress(TimeoutError):
                await asyncio.wait_for(send(self, messages), 0.5)

    _replace(relay.Relay, "_send", careless)


def _committed_when_read() -> None:
    """A message counts as taken as soon as it is here, a second before it is."""
    take = Partition.take

    def hasty(self: Any, messages: Any) -> None:
        self.read = messages[-1].place.offset + 1
        self._moved()
        asyncio.get_running_loop().call_later(1.0, take, self, messages)

    _replace(Partition, "take", hasty)
    read = property(lambda self: getattr(self, "read", None), lambda *_: None)
    setattr(Partition, "done", read)  # noqa: B010 - an attribute of its instances otherwise


def _dropped_without_a_store() -> None:
    """A message that comes while the database is away counts as taken."""
    handle = ConsumedMessages.__call__

    async def careless(self: Any, message: Any) -> None:
        try:
            await handle(self, message)
        except NOT_NOW:
            return

    _replace(ConsumedMessages, "__call__", careless)


_BUGS = {
    "requests-not-told-apart": _requests_not_told_apart,
    "sent-and-forgotten": _sent_and_forgotten,
    "committed-when-read": _committed_when_read,
    "dropped-without-a-store": _dropped_without_a_store,
    "epochs-ignored": _epochs_ignored,
    "conflicts-ignored": _conflicts_ignored,
    "stale-reads": _stale_reads,
    "key-of-a-delivery": _key_of_a_delivery,
    "one-failure-is-enough": _one_failure_is_enough,
    "clock-of-the-machine": _clock_of_the_machine,
    "outages-are-defects": _outages_are_defects,
    "ready-to-the-last": _ready_to_the_last,
}
_BUGS[os.environ["PLANTED_BUG"]]()


def no_action(config: dict[str, Any], context: Any) -> None:
    """A file of actions has at least one."""
