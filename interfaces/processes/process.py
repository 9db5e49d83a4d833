"""What a process of any kind can be asked: is it ready, what can it tell of itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from application.breakers import BreakerKey
from application.ports import Overloaded, QueueStatistics, StoreUnavailable, WorkQueue
from application.reads import ProjectionView
from application.relay import RelayFigures
from application.worker import Worker
from infrastructure.event_store.group_commit import CommitCounters
from infrastructure.projections.runner import ProjectionRunner

CHECK_SECONDS: Final = 1.0
LOG: Final = logging.getLogger("flowledger")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One readiness check."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a process can tell of itself and of the store. None: not its business, or the store
    does not answer now.
    """

    store_answers: bool
    executions: Mapping[str, int] | None = None
    """By status."""
    queue: QueueStatistics | None = None
    projections: Sequence[ProjectionView] | None = None
    commits: CommitCounters | None = None
    append_queue_fill: float | None = None
    worker: Worker | None = None
    projector: ProjectionRunner | None = None
    agent_calls: Mapping[tuple[str, str], int] | None = None
    """By agent and what became of them."""
    agent_breakers: Mapping[BreakerKey, str] | None = None
    """States, as this process last saw them."""
    relay: RelayFigures | None = None
    messages: Mapping[tuple[str, str], int] | None = None
    """Received ones, by topic and what became of them."""
    message_lag: Mapping[str, int] | None = None
    """By topic, those of this process's partitions that are not handled."""


class Process(Protocol):
    """One running process of any kind; made by the `open_...` function of its kind."""

    draining: bool
    """It is about to stop, and says so to those who ask whether it is ready."""

    async def close(self) -> None:
        """Let running steps end, hand the rest back, store what is pending, let go of all."""

    async def checks(self) -> dict[str, CheckResult]:
        """Readiness; answers at once."""

    async def observe(self) -> Observation:
        """For figures; answers also while the store does not."""


async def common_checks(
    ping: Callable[[], Awaitable[None]], *, draining: bool
) -> dict[str, CheckResult]:
    """Those of every process: the store answers, it is not about to stop."""
    try:
        await asyncio.wait_for(ping(), CHECK_SECONDS)
        store = CheckResult(True, "answers")
    except (StoreUnavailable, Overloaded, TimeoutError):
        store = CheckResult(False, "does not answer; look at the database")
    checks = {"store": store}
    if draining:
        checks["process"] = CheckResult(False, "is about to stop")
    return checks


async def known_queue(queue: WorkQueue) -> QueueStatistics | None:
    """None while the store does not answer."""
    with suppress(StoreUnavailable, Overloaded):
        return await queue.statistics()
    return None


def report(event: str, facts: dict[str, object]) -> None:
    """One line per thing an operator should know of."""
    error = facts.pop("exception", None)
    LOG.warning(
        event, extra={"facts": facts}, exc_info=error if isinstance(error, BaseException) else None
    )
