"""The AgentSecrets port: table `agent_secrets`."""

from collections import OrderedDict
from datetime import datetime
from typing import Final
from uuid import UUID

from application.ports import Clock
from infrastructure.sealing import Keys
from infrastructure.small_tables import SmallTables

_KEPT: Final = 1_000

_PUT: Final = (
    "INSERT INTO agent_secrets (secret_id, agent_id, version, sealed, sealed_at)"
    " VALUES (?, ?, ?, ?, ?)"
)
_GET: Final = "SELECT sealed FROM agent_secrets WHERE secret_id = ? AND agent_id = ?"
_KEEP_ONLY: Final = (
    "DELETE FROM agent_secrets WHERE agent_id = ? AND version <= ? AND secret_id <> ?"
)
_PAGE: Final = (
    "SELECT secret_id, sealed FROM agent_secrets WHERE secret_id > ? ORDER BY secret_id LIMIT 500"
)
_RESEAL: Final = (
    "UPDATE agent_secrets SET sealed = ?, sealed_at = ? WHERE secret_id = ? AND sealed = ?"
)


class SealedSecrets:
    """See `application.agents.AgentSecrets`."""

    def __init__(self, tables: SmallTables, clock: Clock, keys: Keys) -> None:
        self._tables = tables
        self._clock = clock
        self._keys = keys
        # Sealed, by number: what a number stands for never changes but for its seal.
        self._known: OrderedDict[str, str] = OrderedDict()

    async def put(self, agent_id: UUID, version: int, secret_id: str, credential: str) -> None:
        """See AgentSecrets."""
        sealed = self._keys.seal(agent_id, credential)
        values = (secret_id, str(agent_id), version, sealed, _now(self._clock))
        await self._tables.run(_PUT, values)

    async def get(self, agent_id: UUID, secret_id: str) -> str | None:
        """See AgentSecrets."""
        sealed = self._known.get(secret_id)
        if sealed is None:
            rows = await self._tables.run(_GET, (secret_id, str(agent_id)))
            if not rows:
                return None
            sealed = self._known[secret_id] = str(rows[0][0])
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._keys.open(agent_id, sealed)

    async def keep_only(self, agent_id: UUID, version: int, secret_id: str | None) -> None:
        """See AgentSecrets."""
        await self._tables.run(_KEEP_ONLY, (str(agent_id), version, secret_id or ""))

    async def reseal(self) -> tuple[int, int]:
        """Seal everything with the newest key: how many there are, how many were sealed anew.

        Raises NoEncryptionKey at the first that no key opens; those before it are done.
        """
        total = changed = 0
        last = ""
        while rows := await self._tables.run(_PAGE, (last,)):
            for secret_id, sealed in rows:
                total += 1
                anew = self._keys.resealed(sealed)
                if anew is not None:
                    values = (anew, _now(self._clock), secret_id, sealed)
                    await self._tables.run(_RESEAL, values)
                    changed += 1
            last = rows[-1][0]
        return total, changed

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._tables.aclose()


def _now(clock: Clock) -> str:
    at: datetime = clock.now()
    return at.isoformat(timespec="microseconds")
