"""`agents`: a row per agent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from application.agent_views import AgentView, agent_view
from domain.json_values import Json
from infrastructure.projections.folding import AGENTS, Batch
from infrastructure.projections.tables import Index, ProjectedTable


class AgentRow(Struct, frozen=True, gc=False):
    """The row. `auth_config` shows of a credential a reference or a mask."""

    id: str
    name: str
    url: str | None
    description: str | None
    auth_type: str
    auth_config: Json
    timeout_ms: int
    retry_config: Json
    status: str
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str
    transport: str
    protocol: str
    circuit_breaker_config: Json
    recovery: Json
    version: int
    workspace_id: str


_FIELDS: Final = AgentRow.__struct_fields__
_JSON: Final = frozenset({"auth_config", "retry_config", "circuit_breaker_config", "recovery"})

TABLE: Final = ProjectedTable(
    name="agents",
    version=1,
    row=AgentRow,
    key=("id",),
    stream="id",
    json=_JSON,
    public=_FIELDS,
    indexes=(Index("name", "workspace_id, name"),),
)


class AgentList:
    """The projection: the agents that the batch changed."""

    table = TABLE
    streams = AGENTS
    details = False

    def rows(self, batch: Batch) -> list[AgentRow]:
        """See Projection."""
        rows = []
        for change in batch.agents:
            view = agent_view(change.after)
            values = {name: getattr(view, name) for name in AgentView.__slots__}
            documents = {name: msgspec.to_builtins(values[name]) for name in _JSON}
            rows.append(AgentRow(workspace_id=change.after.workspace_id, **(values | documents)))
        return rows


def listed_agent(row: Mapping[str, Any]) -> AgentView:
    """A selected row as callers see it."""
    values = {name: row[name] for name in _FIELDS if name != "workspace_id"}
    return msgspec.convert(values, AgentView)
