"""Who asks for something, and the identity of what is asked: the same request twice is one
command.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from application.views import ExecutionView, summarise
from domain.errors import KeyReused, PreconditionFailed
from domain.events import Meta
from domain.execution import Command, ExecutionState
from domain.workflow import NAMESPACE

DEFAULT_WORKSPACE: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A principal and one request of his.

    `route` is a stable name of what is called; with `idempotency_key` it makes the identity of the
    command. `fingerprint` is the SHA-256 of route and body, set when a key came. `if_match` is the
    version the caller believes to be the present one, 0 for something that is no version.
    """

    workspace_id: str = DEFAULT_WORKSPACE
    actor: str = "anonymous"
    route: str = ""
    idempotency_key: str | None = None
    fingerprint: str | None = None
    correlation_id: str | None = None
    if_match: int | None = None

    def identity(self, fresh: UUID) -> UUID:
        """The command's id: computed from workspace, actor, route and key when a key came, else
        `fresh`.
        """
        if self.idempotency_key is None:
            return fresh
        parts = (self.workspace_id, self.actor, self.route, self.idempotency_key)
        return uuid5(NAMESPACE, "command\n" + "\n".join(parts))

    def meta(self, at: datetime, command_id: UUID) -> Meta:
        """The envelope's facts for this command's events."""
        return Meta(
            at=at,
            cmd=str(command_id),
            actor=self.actor,
            ws=self.workspace_id,
            corr=self.correlation_id,
            fingerprint=self.fingerprint if self.idempotency_key is not None else None,
        )

    def repeated(self, state: ExecutionState, command_id: UUID) -> Command | None:
        """The earlier command with this identity, if there is one; raises KeyReused when its
        request was another.
        """
        if self.idempotency_key is None:
            return None
        text = str(command_id)
        found = next((each for each in state.commands if each.id == text), None)
        if found is not None and found.fingerprint != self.fingerprint:
            raise KeyReused(
                "This Idempotency-Key was used before with another request; use a new key."
            )
        return found

    def check_version(self, version: int) -> None:
        """Raises PreconditionFailed when If-Match names another version."""
        if self.if_match is not None and self.if_match != version:
            named = f'not "{self.if_match}"' if self.if_match else "which If-Match does not name"
            raise PreconditionFailed(
                f'The present version is "{version}", {named}; read it again.', version=version
            )


class Answer(NamedTuple):
    """The execution after a command, and the position of its last event then; `replayed` when the
    command had been carried out before.
    """

    state: ExecutionState
    position: int
    replayed: bool

    @property
    def view(self) -> ExecutionView:
        """What the caller reads of it; made anew each time."""
        return summarise(self.state, self.position)
