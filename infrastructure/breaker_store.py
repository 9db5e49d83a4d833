"""The BreakerStore port: table `agent_breakers`, a row per agent, written by compare-and-swap."""

from typing import Final

import msgspec

from application.breakers import UNKNOWN, BreakerKey, Stored
from domain.breaker import Breaker
from infrastructure.database import Store
from infrastructure.small_tables import SmallTables, open_small_tables

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Breaker)

_LOAD: Final = (
    "SELECT CAST(breaker AS text), version FROM agent_breakers"
    " WHERE workspace_id = ? AND agent_name = ?"
)
_INSERT: Final = (
    "INSERT INTO agent_breakers (workspace_id, agent_name, version, state, breaker)"
    " VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING RETURNING version"
)
_UPDATE: Final = (
    "UPDATE agent_breakers SET version = version + 1, state = ?, breaker = ?"
    " WHERE workspace_id = ? AND agent_name = ? AND version = ? RETURNING version"
)


def open_breaker_store(store: Store) -> "StoredBreakers":
    """The records in the database of an open store."""
    return StoredBreakers(open_small_tables(store, "breakers"))


class StoredBreakers:
    """See `application.breakers.BreakerStore`."""

    def __init__(self, tables: SmallTables) -> None:
        self._tables = tables

    async def load(self, key: BreakerKey) -> Stored:
        """See BreakerStore."""
        rows = await self._tables.run(_LOAD, key)
        return Stored(_DECODER.decode(rows[0][0]), rows[0][1]) if rows else UNKNOWN

    async def save(self, key: BreakerKey, breaker: Breaker, version: int) -> bool:
        """See BreakerStore."""
        text = _ENCODER.encode(breaker).decode()
        if version:
            saved = await self._tables.run(_UPDATE, (breaker.state, text, *key, version))
        else:
            saved = await self._tables.run(_INSERT, (*key, breaker.state, text))
        return bool(saved)

    async def aclose(self) -> None:
        """Let go of what is held; nothing is called afterwards."""
        await self._tables.aclose()
