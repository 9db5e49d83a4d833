"""Notes on executions whose request cannot be sent, so that people see why they are PENDING."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from application.ledger import Ledger
from application.messages import NOT_NOW
from application.ports import Touch, VersionConflict
from domain.dispatching import fail_dispatch
from domain.draft import Draft
from domain.events import Meta

ACTOR: Final = "relay"


class DispatchNotes:
    """See application.relay.Notes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def note(self, execution_ids: Sequence[UUID], reason: str) -> None:
        """Record the reason where it is news; what cannot be recorded now is left out."""
        for execution_id in execution_ids:
            with suppress(VersionConflict, *NOT_NOW):
                await self._note(execution_id, reason)

    async def _note(self, execution_id: UUID, reason: str) -> None:
        entry = await self._ledger.load(execution_id)
        if entry is None:
            return
        command = str(self._ledger.new_id())
        meta = Meta(self._ledger.clock.now(), command, ACTOR, entry.state.workspace_id)
        draft = Draft(entry.state, meta)
        fail_dispatch(draft, reason)
        if draft.events:
            await self._ledger.append(draft, Touch(None))
