"""All projections of this release."""

from typing import Final

from infrastructure.projections.agent_tasks import AgentTasks
from infrastructure.projections.agents import AgentList
from infrastructure.projections.folding import Projection
from infrastructure.projections.human_tasks import HumanTasks
from infrastructure.projections.questions import Questions
from infrastructure.projections.recovery_attempts import RecoveryAttempts
from infrastructure.projections.recovery_metrics import RecoveryMetrics
from infrastructure.projections.state_durations import StateDurations
from infrastructure.projections.step_executions import StepExecutions
from infrastructure.projections.workflow_definitions import WorkflowDefinitions
from infrastructure.projections.workflow_runs import WorkflowRuns
from infrastructure.projections.workflow_statistics import WorkflowStatistics

PROJECTIONS: Final[tuple[Projection, ...]] = (
    WorkflowRuns(),
    StepExecutions(),
    StateDurations(),
    WorkflowDefinitions(),
    WorkflowStatistics(),
    HumanTasks(),
    Questions(),
    RecoveryAttempts(),
    RecoveryMetrics(),
    AgentList(),
    AgentTasks(),
)


class UnknownProjection(Exception):
    """There is no projection of that name."""

    def __init__(self, name: str) -> None:
        known = ", ".join(projection.table.name for projection in PROJECTIONS)
        super().__init__(f"there is no projection {name!r}; there are {known}, and all")


def chosen(name: str) -> tuple[Projection, ...]:
    """The projection called `name`, or every one for `all`. Raises UnknownProjection."""
    found = tuple(each for each in PROJECTIONS if name in (each.table.name, "all"))
    if not found:
        raise UnknownProjection(name)
    return found
