"""`workflow_definitions`: a row per published version of a workflow."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from application.reads import WorkflowView
from domain.json_values import JsonObject
from domain.workflow import WorkflowState, version_id
from infrastructure.projections.folding import WORKFLOWS, Batch, WorkflowChange
from infrastructure.projections.tables import Index, OutsideRows, ProjectedTable


class WorkflowDefinition(Struct, frozen=True, gc=False):
    """The row. `id` is the workflow's; `newest` marks the version that is executed.

    `status` of the newest version is the workflow's (active, inactive, deleted), that of older ones
    is `superseded`, since `updated_at`. `workflow_data` is the definition as it was sent,
    `definition` the normalised form that executions run.
    """

    id: str
    name: str
    description: str | None
    version: int
    workflow_data: JsonObject
    status: str
    created_at: datetime
    updated_at: datetime
    created_by: str
    updated_by: str
    workflow_id: str
    definition_sha256: str
    definition: JsonObject
    newest: bool
    workspace_id: str


TABLE: Final = ProjectedTable(
    name="workflow_definitions",
    version=1,
    row=WorkflowDefinition,
    key=("id", "version"),
    stream="id",
    json=frozenset({"workflow_data", "definition"}),
    public=WorkflowDefinition.__struct_fields__,
    indexes=(Index("newest", "workspace_id, name", where="newest"),),
    outside=OutsideRows(
        table="outside_definitions",
        given=frozenset((*WorkflowDefinition.__struct_fields__[:10], "workspace_id")),
        computed={
            "workflow_id": "'wf-' || o.name || '-' || o.version",
            "newest": "NOT EXISTS (SELECT 1 FROM outside_definitions n"
            " WHERE n.workspace_id = o.workspace_id AND n.name = o.name AND n.version > o.version)",
        },
        # Until a workflow of that name is published.
        shown="NOT EXISTS (SELECT 1 FROM {stored} r"
        " WHERE r.workspace_id = o.workspace_id AND r.name = o.name AND r.newest)",
    ),
)


class WorkflowDefinitions:
    """The projection.

    The versions published in the batch, and the one that was the newest before.
    """

    table = TABLE
    streams = WORKFLOWS
    details = False

    def rows(self, batch: Batch) -> list[WorkflowDefinition]:
        """See Projection."""
        return [
            _row(change.after, number)
            for change in batch.workflows
            for number in range(_first_changed(change), len(change.after.versions) + 1)
        ]


def _first_changed(change: WorkflowChange) -> int:
    return 1 if change.before is None else len(change.before.versions)


def _row(state: WorkflowState, number: int) -> WorkflowDefinition:
    version = state.numbered(number)
    newest = number == len(state.versions)
    superseded = None if newest else state.numbered(number + 1)
    description = version.source.get("description")
    return WorkflowDefinition(
        id=str(state.id),
        name=state.name,
        description=description if isinstance(description, str) else None,
        version=number,
        workflow_data=version.source,
        status="superseded" if superseded else state.status,
        created_at=version.published_at,
        updated_at=superseded.published_at if superseded else state.updated_at,
        created_by=version.published_by,
        updated_by=superseded.published_by if superseded else state.updated_by,
        workflow_id=version_id(state.name, number),
        definition_sha256=version.sha256,
        definition=version.definition,
        newest=newest,
        workspace_id=state.workspace_id,
    )


def workflow_view(row: Mapping[str, Any]) -> WorkflowView:
    """A selected row as callers see it."""
    names = (name for name in WorkflowView.__slots__ if name != "definition_id")
    return WorkflowView(definition_id=row["id"], **{name: row[name] for name in names})
