"""Wiring by hand, once: settings in, services out. The only place that imports infrastructure."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from uuid_utils.compat import uuid7

from application.control import Control
from application.history import History
from application.ledger import Ledger
from application.ports import StoreUnavailable
from application.reads import Reads
from application.requests import Requests
from application.steps import StepHandler
from application.worker import Worker, WorkerOptions
from application.workflows import Workflows
from domain.json_values import Json
from domain.recovery_rules import RecoveryRules
from domain.validation import Verdict as DefinitionVerdict
from domain.validation import validate
from infrastructure.addresses import PostgresAddress, SQLiteAddress, parse_address
from infrastructure.database import Store, StoreOptions, open_store
from infrastructure.effects.blocking_calls import BlockingCalls
from infrastructure.effects.call_api import CallApi
from infrastructure.effects.custom_actions import load_custom_actions
from infrastructure.effects.notification import SendNotification
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.effects.validation import Validate
from infrastructure.effects.variables import SetVariables
from infrastructure.graphviz_svg import GraphvizSvg
from infrastructure.input_schema import JsonSchemas
from infrastructure.migrations import migrate
from infrastructure.projections.catalogue import chosen
from infrastructure.projections.postgres_store import PostgresProjectionStore
from infrastructure.projections.reads import ProjectionReads
from infrastructure.projections.rebuilding import Rebuild
from infrastructure.projections.runner import ProjectionRunner
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.projections.sqlite_store import SQLiteProjectionStore
from infrastructure.projections.verification import Verdict, verify
from infrastructure.settings import Settings, environment
from interfaces.recovery_settings import recovery_rules

__all__ = [
    "CheckResult",
    "Services",
    "Settings",
    "Verdict",
    "definition_check",
    "migrate",
    "open_services",
    "rebuild_projection",
    "tune_process",
    "verify_projections",
]

LOG: Final = logging.getLogger("flowledger")
ReportProgress = Callable[[int, int], None]
"""Called with how far a long work is, and of how much."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One readiness check."""

    ok: bool
    detail: str


class Services:
    """Everything one process serves. Open it with `open_services`, close it in the same event
    loop.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        outbound: Outbound,
        actions: ActionRegistry,
        rules: RecoveryRules,
    ) -> None:
        schemas = JsonSchemas()
        self.settings = settings
        self.store = store
        self.actions = actions
        projected = _projection_store(settings, store)
        self.projections = ProjectionRunner(projected, store.clock.now)
        self._reads = ProjectionReads(
            store.engine,
            _projection_store(settings, store),
            store.clock.now,
            runner=self.projections,
        )
        self.reads: Reads = self._reads
        self.ledger = Ledger(store.log, store.clock, uuid7, settings.cache_bytes)
        self.workflows = Workflows(store.log, store.clock, uuid7, actions, schemas.problem)
        self.worker = Worker(
            self.ledger,
            store.queue,
            store.clock,
            store.feed,
            self.workflows,
            actions,
            WorkerOptions(
                slots=settings.worker_slots,
                renew_seconds=settings.lease_seconds / 3,
                fence_seconds=settings.lease_seconds * 2 / 3,
                grace_seconds=settings.grace_seconds,
            ),
            _report,
            rules,
            schemas=schemas,
        )
        self.requests = Requests(self.ledger, self.workflows, self.worker, schemas, rules)
        self.control = Control(self.ledger, self.workflows, self.worker, rules)
        self.history = History(self.ledger, self.workflows, store.feed)
        self.svg = GraphvizSvg.installed()
        self._outbound = outbound

    async def start(self) -> None:
        """Begin to watch, to project and to work."""
        await self.store.start()
        self.store.feed.subscribe(self.projections.wake)
        self.store.refuse_new_work(self._too_far_behind)
        self.projections.start()
        if self.settings.worker_slots:
            self.worker.start()

    async def close(self) -> None:
        """Let running steps end, hand the rest back, store what is pending, let go of all."""
        await self.worker.stop()
        self.history.close()
        await asyncio.to_thread(self.projections.stop)
        await asyncio.to_thread(self._reads.close)
        await self._outbound.aclose()
        await self.store.close()

    def _too_far_behind(self) -> str | None:
        """Why no new execution is taken now: readers would wait too long for what they wrote."""
        seconds = self.projections.lag().seconds
        if seconds <= self.settings.projection_lag_seconds:
            return None
        return f"The tables are {seconds:.0f} seconds behind the log; try again."

    async def checks(self) -> dict[str, CheckResult]:
        """Readiness: the store answers, the schema is known, leases are renewed."""
        try:
            await asyncio.wait_for(self.store.log.head(), 2.0)
            store = CheckResult(True, "answers")
        except (StoreUnavailable, TimeoutError):
            store = CheckResult(False, "does not answer; look at the database")
        checks = {"store": store}
        if self.settings.worker_slots:
            fresh = self.worker.fresh()
            checks["worker"] = CheckResult(
                fresh, "leases are renewed" if fresh else "leases were not renewed lately"
            )
        return checks


async def open_services(settings: Settings) -> Services:
    """Check the store, migrate an empty one, load the actions, start to work.

    Raises UnsafeStore, BadAddress, StoreUnavailable, ActionsNotLoaded, SecretsUnreadable,
    BadRecoverySettings, ValueError; each says what to do.
    """
    url = settings.database_url
    if await asyncio.to_thread(migrate.current, url) is None:
        await asyncio.to_thread(migrate.upgrade, url)
    outbound = Outbound(settings.allow)
    actions = _actions(settings, outbound)
    rules = recovery_rules(settings.recovery, settings.recovery_rules, actions.names())
    store = _open_store(settings)
    services = Services(settings, store, outbound, actions, rules)
    await services.start()
    return services


def definition_check(settings: Settings) -> Callable[[Json], DefinitionVerdict]:
    """What publishing would say of a definition here, with the actions of this process; no store is
    opened or made.

    Raises ActionsNotLoaded, SecretsUnreadable, ValueError.
    """
    actions = _actions(settings, Outbound(settings.allow))
    return lambda definition: validate(definition, actions, JsonSchemas().problem)


def tune_process() -> None:
    """For a process that only serves: what lives as long as it does is not collected again and
    again, and collections come less often (the values of the hot path hold no cycles)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def verify_projections(
    settings: Settings, name: str, report: ReportProgress
) -> list[Verdict]:
    """Compare the tables of one projection, or of `all`, with the log; beside a running server."""
    projections = chosen(name)
    async with _projections_only(settings) as projected:
        return await asyncio.to_thread(verify, projected, projections, report)


async def rebuild_projection(settings: Settings, name: str, report: ReportProgress) -> int:
    """Fill the tables of a projection, or of `all`, anew; returns the position they stand at."""
    position = 0
    async with _projections_only(settings) as projected:
        for projection in chosen(name):
            rebuild = Rebuild(projected, projection)
            position = await asyncio.to_thread(rebuild.run, report)
    return position


@asynccontextmanager
async def _projections_only(settings: Settings) -> AsyncIterator[ProjectionStore]:
    store = _open_store(settings)
    projected = _projection_store(settings, store)
    try:
        yield projected
    finally:
        await asyncio.to_thread(projected.close)
        await store.close()


def _open_store(settings: Settings) -> Store:
    options = StoreOptions(lease_seconds=settings.lease_seconds, appends_max=settings.append_queue)
    return open_store(settings.database_url, options)


def _projection_store(settings: Settings, store: Store) -> ProjectionStore:
    address = parse_address(settings.database_url)
    if isinstance(address, SQLiteAddress) and not isinstance(store.writes, PostgresAddress):
        return SQLiteProjectionStore(address.path, store.writes)
    if isinstance(address, PostgresAddress):
        return PostgresProjectionStore(address.dsn)
    raise ValueError(f"{settings.database_url} does not name the open store")


def _actions(settings: Settings, outbound: Outbound) -> ActionRegistry:
    secrets = Secrets.read(environment(), settings.secrets_file)
    return ActionRegistry(_handlers(settings, outbound), secrets)


def _handlers(settings: Settings, outbound: Outbound) -> Sequence[StepHandler]:
    blocking = BlockingCalls(settings.blocking_threads)
    return (
        CallApi(outbound),
        SendNotification(outbound, blocking, settings.mail_server()),
        SetVariables(),
        SetVariables("set_variable"),
        Validate(JsonSchemas()),
        *load_custom_actions(settings.actions.split(","), blocking),
    )


def _report(event: str, facts: dict[str, object]) -> None:
    """One line per thing an operator should know of."""
    error = facts.pop("exception", None)
    LOG.warning(
        event, extra={"facts": facts}, exc_info=error if isinstance(error, BaseException) else None
    )
