"""Runs and workflows that other programs announce as rows, and how an execution takes one over.

A row is taken over as soon as its execution is in the tables; nobody writes into the row for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from application.ledger import execution_uuid
from domain.errors import Invalid
from domain.json_values import JsonObject

RUN_ID_LENGTH_MAX: Final = 200
"""The schema's rule, too."""


@dataclass(frozen=True, slots=True)
class OutsideRun:
    """A row that another program inserted into `workflow_runs`; `run_id` is any text."""

    run_id: str
    workflow_id: str | None
    workflow_name: str
    workflow_definition_id: str | None
    status: str
    input_data: JsonObject
    triggered_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OutsideDefinition:
    """A row that another program inserted into `workflow_definitions`.

    `workflow_data` is what was inserted, unchecked but for being a JSON object; `status` is active,
    inactive or deleted.
    """

    id: str
    name: str
    version: int
    status: str
    workflow_data: JsonObject


class OutsideRows(Protocol):
    """Rows of other programs, whether taken over or not. Raises StoreUnavailable, Overloaded."""

    async def outside_run(self, workspace_id: str, run_id: str) -> OutsideRun | None:
        """The run of exactly this run id."""

    async def outside_definition(
        self, workspace_id: str, references: Sequence[str]
    ) -> OutsideDefinition | None:
        """The first that a reference means: an id, `wf-{name}-{version}`, or a name, which means
        its newest version.
        """

    async def name_execution(self, workspace_id: str, run_id: str, execution_run_id: str) -> None:
        """Remember which execution a run id names that is not the execution's own; once or often
        is the same.
        """


async def outside_run(
    rows: OutsideRows, workspace_id: str, run_id: str
) -> tuple[UUID, OutsideRun | None]:
    """The execution that a request with this run id is about, and the row of it, if there is one.

    To be asked before the execution is requested, so that the row is never shown beside it. Asked
    again it answers the same, also when the row is taken over. Raises Invalid for a run id that no
    row can have.
    """
    if not run_id.strip() or len(run_id) > RUN_ID_LENGTH_MAX or not _storable(run_id):
        raise Invalid(
            f"A run_id is text of 1 to {RUN_ID_LENGTH_MAX} characters without NUL; send one, best "
            "run- and a UUID."
        )
    execution_id = execution_uuid(workspace_id, run_id)
    own = f"run-{execution_id}"
    if run_id != own:
        await rows.name_execution(workspace_id, run_id, own)
    return execution_id, await rows.outside_run(workspace_id, run_id)


async def outside_definition(
    rows: OutsideRows, workspace_id: str, run: OutsideRun
) -> OutsideDefinition | None:
    """The definition for a request that brings none: that which its row names, most exact first."""
    named = (run.workflow_definition_id, run.workflow_id, run.workflow_name)
    return await rows.outside_definition(workspace_id, [each for each in named if each])


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= each <= "\udfff" for each in text)
