"""A workflow: a unique name with immutable, numbered versions.

Publish, activate, deactivate, retire.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct, structs

from domain.errors import StateConflict, VersionNotFound
from domain.events import (
    Event,
    Payload,
    WorkflowActivated,
    WorkflowDeactivated,
    WorkflowPublished,
    WorkflowRetired,
)
from domain.json_values import JsonObject, sha256_of
from domain.log_order import check_follows

NAMESPACE: Final = UUID("7f2f2f0e-3a0a-5d8e-9a54-0d5c1d6f4e11")
"""Root of every computed id of this product (uuid5)."""


@lru_cache(maxsize=4_096)
def workflow_uuid(workspace_id: str, name: str) -> UUID:
    """A workflow's stream: its name is unique within a workspace, so no look-up is needed."""
    return uuid5(NAMESPACE, f"workflow\n{workspace_id}\n{name}")


def version_id(name: str, number: int) -> str:
    """`wf-{name}-{n}`: a version's id in L's spelling."""
    return f"wf-{name}-{number}"


class Version(Struct, frozen=True):
    """One published version; `definition` is normalised, `source` as it was sent."""

    number: int
    sha256: str
    definition: JsonObject
    source: JsonObject
    published_at: datetime
    published_by: str


class WorkflowState(Struct, frozen=True):
    """What the events say. `version` counts events, `versions[-1]` is the newest definition."""

    id: UUID
    workspace_id: str
    version: int
    name: str
    status: str
    versions: tuple[Version, ...]
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str

    def newest(self) -> Version:
        """The version that is executed unless another is asked for."""
        return self.versions[-1]

    def numbered(self, number: int) -> Version:
        """Version `number`; VersionNotFound when there is none."""
        if not 1 <= number <= len(self.versions):
            raise VersionNotFound(
                f"Workflow {self.name!r} has no version {number}; it has 1 to "
                f"{len(self.versions)}.",
                number,
            )
        return self.versions[number - 1]


def evolve(state: WorkflowState | None, event: Event) -> WorkflowState:
    """The state after one more event. Raises LogDamaged."""
    check_follows(0 if state is None else state.version, event)
    data, meta = event.data, event.meta
    if isinstance(data, WorkflowPublished):
        version = Version(
            data.number, data.sha256, data.definition, data.source, meta.at, meta.actor
        )
        if state is None:
            return WorkflowState(
                event.execution_id,
                meta.ws,
                event.version,
                data.name,
                "active",
                (version,),
                meta.at,
                meta.actor,
                meta.at,
                meta.actor,
            )
        changed: dict[str, object] = {"versions": (*state.versions, version), "status": "active"}
    elif isinstance(data, WorkflowActivated):
        changed = {"status": "active"}
    elif isinstance(data, WorkflowDeactivated):
        changed = {"status": "inactive"}
    elif isinstance(data, WorkflowRetired):
        changed = {"status": "deleted"}
    else:
        raise TypeError(f"{type(data).__name__} is not a workflow event")
    if state is None:
        raise TypeError("a workflow's first event is workflow.published")
    return structs.replace(
        state, version=event.version, updated_at=meta.at, updated_by=meta.actor, **changed
    )


def decide_publish(
    state: WorkflowState | None, name: str, normalised: JsonObject, source: JsonObject
) -> Sequence[Payload]:
    """The next version, which also brings an inactive or deleted workflow back."""
    digest = sha256_of(normalised)
    number = 1 if state is None else len(state.versions) + 1
    return (WorkflowPublished(name, number, digest, normalised, source),)


def decide_status(state: WorkflowState, wanted: str) -> Sequence[Payload]:
    """active, inactive or deleted; nothing when it already is."""
    if state.status == wanted:
        return ()
    if state.status == "deleted":
        raise StateConflict(
            f"Workflow {state.name!r} is deleted; publish it again to bring it back.",
            current_status="deleted",
        )
    kinds: dict[str, Payload] = {
        "active": WorkflowActivated(),
        "inactive": WorkflowDeactivated(),
        "deleted": WorkflowRetired(),
    }
    return (kinds[wanted],)
