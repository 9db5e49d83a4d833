"""What several kinds of process open over one store."""

from infrastructure.addresses import PostgresAddress, SQLiteAddress, parse_address
from infrastructure.database import Store, StoreOptions
from infrastructure.dead_letters import DeadLetterTable
from infrastructure.projections.postgres_store import (
    LEADER_LOCK,
    RELAY_LOCK,
    PostgresProjectionStore,
)
from infrastructure.projections.sessions import ProjectionStore
from infrastructure.projections.sqlite_store import SQLiteProjectionStore
from infrastructure.settings import Settings
from infrastructure.store_health import CALLS_WAITING_MAX, StoreHealth, StoreThreads


def projection_store(settings: Settings, store: Store, *, relay: bool = False) -> ProjectionStore:
    """Connections for the tables of an open store; who leads with those of a `relay` is the one
    relay, not the one projector.
    """
    address = parse_address(settings.database_url)
    if isinstance(address, SQLiteAddress) and not isinstance(store.writes, PostgresAddress):
        leader = "relay" if relay else "projector"
        return SQLiteProjectionStore(address.path, store.writes, leader=leader)
    if isinstance(address, PostgresAddress):
        leader_lock = RELAY_LOCK if relay else LEADER_LOCK
        return PostgresProjectionStore(address.dsn, leader_lock=leader_lock)
    raise ValueError(f"{settings.database_url} does not name the open store")


def dead_letter_table(settings: Settings, store: Store) -> DeadLetterTable:
    """The dead letters of an open store."""
    return dead_letters_over(projection_store(settings, store), store.health)


def dead_letters_over(projected: ProjectionStore, health: StoreHealth) -> DeadLetterTable:
    """The dead letters, over connections of their own."""
    threads = StoreThreads("dead letters", 1, health, waiting_max=CALLS_WAITING_MAX)
    return DeadLetterTable(projected, threads)


def store_options(settings: Settings) -> StoreOptions:
    """How the settings want the store to be used."""
    return StoreOptions(lease_seconds=settings.lease_seconds, appends_max=settings.append_queue)
