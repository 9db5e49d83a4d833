"""Wiring by hand, once: settings in, a process of some kind out. With `processes/`, which holds
what is opened here, the only place that imports infrastructure.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from application.steps import StepHandler
from domain.json_values import Json
from domain.recovery_rules import RecoveryRules
from domain.validation import Verdict as DefinitionVerdict
from domain.validation import validate
from infrastructure.addresses import PostgresAddress, parse_address
from infrastructure.agent_secrets import SealedSecrets
from infrastructure.database import Store, open_store
from infrastructure.distribution import Distribution
from infrastructure.effects.blocking_calls import BlockingCalls
from infrastructure.effects.call_api import CallApi
from infrastructure.effects.custom_actions import load_custom_actions
from infrastructure.effects.notification import SendNotification
from infrastructure.effects.outbound import Outbound
from infrastructure.effects.registry import ActionRegistry
from infrastructure.effects.secrets import Secrets
from infrastructure.effects.validation import Validate
from infrastructure.effects.variables import SetVariables
from infrastructure.input_schema import JsonSchemas
from infrastructure.migrations import migrate
from infrastructure.projections.catalogue import chosen
from infrastructure.projections.rebuilding import Rebuild
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.projections.verification import Verdict, verify
from infrastructure.sealing import make_key
from infrastructure.settings import Settings, environment
from infrastructure.small_tables import open_small_tables
from interfaces.processes.answering import Services
from interfaces.processes.bridging import BridgeProcess
from interfaces.processes.consuming import ConsumerProcess
from interfaces.processes.process import CheckResult, Observation, Process
from interfaces.processes.projecting import ProjectorProcess
from interfaces.processes.store_parts import projection_store, store_options
from interfaces.processes.working import WorkerProcess
from interfaces.recovery_settings import recovery_rules

__all__ = [
    "CheckResult",
    "Distribution",
    "Observation",
    "Process",
    "Services",
    "Settings",
    "Verdict",
    "definition_check",
    "make_key",
    "migrate",
    "open_api",
    "open_bridge",
    "open_consumer",
    "open_projector",
    "open_services",
    "open_worker",
    "rebuild_projection",
    "reseal_credentials",
    "verify_projections",
]

ReportProgress = Callable[[int, int], None]
"""Called with how far a long work is, and of how much."""


async def open_services(settings: Settings) -> Services:
    """All in one process: check the store, migrate an empty one, load the actions, start to work.

    Raises UnsafeStore, BadAddress, StoreUnavailable, ActionsNotLoaded, SecretsUnreadable,
    BadRecoverySettings, BadEncryptionKey, ValueError; each says what to do.
    """
    return await _open_answering(settings, alone=True)


async def open_api(settings: Settings) -> Services:
    """A process that answers callers, beside workers and projectors. Raises as `open_services`
    does, and NeedsPostgres.
    """
    _shared_address(settings, "api")
    return await _open_answering(settings, alone=False)


async def open_worker(settings: Settings) -> WorkerProcess:
    """A process that runs executions. Raises as `open_api` does."""
    _shared_address(settings, "worker")
    await _migrate_empty(settings)
    engine = _engine(settings)
    process = WorkerProcess(settings, _open_store(settings), *engine)
    await process.start()
    return process


async def open_consumer(settings: Settings) -> ConsumerProcess:
    """A worker that takes messages. Raises as `open_worker` does, and KafkaMissing,
    BadKafkaSettings.
    """
    _shared_address(settings, "consumer")
    _require_brokers(settings, "consumer")
    await _migrate_empty(settings)
    engine = _engine(settings)
    process = ConsumerProcess(settings, _open_store(settings), *engine)
    await process.start()
    return process


async def open_bridge(settings: Settings) -> BridgeProcess:
    """A process that calls agents for the tasks of a topic. Raises UnsafeStore, BadAddress,
    StoreUnavailable, NeedsPostgres, SecretsUnreadable, KafkaMissing, BadKafkaSettings.
    """
    _shared_address(settings, "bridge")
    _require_brokers(settings, "bridge")
    await _migrate_empty(settings)
    settings.keys  # noqa: B018 - a bad one is told before anything is opened
    outbound, secrets = Outbound(settings.allow), _secrets(settings)
    process = BridgeProcess(settings, _open_store(settings), outbound, secrets)
    await process.start()
    return process


def _require_brokers(settings: Settings, kind: str) -> None:
    if not settings.kafka_brokers:
        raise ValueError(
            f"`flowledger {kind}` receives from Kafka; set FLOWLEDGER_KAFKA_BROKERS=host:port"
        )


async def open_projector(settings: Settings) -> ProjectorProcess:
    """A process that fills the tables. Raises UnsafeStore, BadAddress, StoreUnavailable,
    NeedsPostgres.
    """
    address = _shared_address(settings, "projector")
    await _migrate_empty(settings)
    process = ProjectorProcess(settings, address)
    await process.start()
    return process


class NeedsPostgres(ValueError):
    """A kind of process that shares its database with others was asked to use an SQLite file."""


def _shared_address(settings: Settings, kind: str) -> PostgresAddress:
    address = parse_address(settings.database_url)
    if isinstance(address, PostgresAddress):
        return address
    raise NeedsPostgres(
        f"`flowledger {kind}` shares its database with other processes, and an SQLite file has one "
        "writer. Run `flowledger serve`, which does everything in one process, or give "
        "--database postgresql://..."
    )


async def _open_answering(settings: Settings, *, alone: bool) -> Services:
    await _migrate_empty(settings)
    engine = _engine(settings)
    services = Services(settings, _open_store(settings), *engine, alone=alone)
    await services.start()
    return services


async def _migrate_empty(settings: Settings) -> None:
    url = settings.database_url
    if await asyncio.to_thread(migrate.current, url) is None:
        await asyncio.to_thread(migrate.upgrade, url)


def definition_check(settings: Settings) -> Callable[[Json], DefinitionVerdict]:
    """What publishing would say of a definition here, with the actions of this process; no store is
    opened or made.

    Raises ActionsNotLoaded, SecretsUnreadable, ValueError.
    """
    actions = _actions(settings, Outbound(settings.allow), _secrets(settings))
    return lambda definition: validate(definition, actions, JsonSchemas().problem)


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


async def reseal_credentials(settings: Settings) -> tuple[int, int]:
    """Seal the credentials of agents with the newest key: how many there are, how many were sealed
    anew. Raises NoEncryptionKey, BadEncryptionKey, StoreUnavailable.
    """
    keys = settings.keys
    store = _open_store(settings)
    await store.start()
    secrets = SealedSecrets(open_small_tables(store, "agents"), store.clock, keys)
    try:
        return await secrets.reseal()
    finally:
        await secrets.aclose()
        await store.close()


@asynccontextmanager
async def _projections_only(settings: Settings) -> AsyncIterator[ProjectionStore]:
    store = _open_store(settings)
    projected = projection_store(settings, store)
    try:
        yield projected
    finally:
        await asyncio.to_thread(projected.close)
        await store.close()


def _open_store(settings: Settings) -> Store:
    return open_store(settings.database_url, store_options(settings))


def _secrets(settings: Settings) -> Secrets:
    return Secrets.read(environment(), settings.secrets_file)


class _Engine(NamedTuple):
    """What runs steps, as the kinds of process take it."""

    outbound: Outbound
    actions: ActionRegistry
    rules: RecoveryRules
    secrets: Secrets


def _engine(settings: Settings) -> _Engine:
    """Made before the store is opened: what is wrong with the settings is told first."""
    settings.keys  # noqa: B018 - read for its errors
    outbound, secrets = Outbound(settings.allow), _secrets(settings)
    actions = _actions(settings, outbound, secrets)
    rules = recovery_rules(settings.recovery, settings.recovery_rules, actions.names())
    return _Engine(outbound, actions, rules, secrets)


def _actions(settings: Settings, outbound: Outbound, secrets: Secrets) -> ActionRegistry:
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
