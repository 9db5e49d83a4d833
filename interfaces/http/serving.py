"""What every route asks the app for."""

from typing import Annotated, Final

from fastapi import Path
from starlette.requests import Request

from interfaces.bootstrap import Process, Services

ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,200}$"
AGENT_PATTERN: Final = r"^[A-Za-z0-9_.-]([A-Za-z0-9_. -]{0,126}[A-Za-z0-9_.-])?$"
ExecutionId = Annotated[
    str,
    Path(
        pattern=ID_PATTERN,
        description="A UUID, `run-{uuid}`, or an id of your own.",
        examples=["0198f3d2-8f3e-7c4d-9f0a-6b8f2f0f8a11"],
    ),
]
WorkflowId = Annotated[
    str,
    Path(
        pattern=ID_PATTERN,
        description="A UUID (of the workflow or one version), `wf-{name}-{n}`, or the name.",
        examples=["etl"],
    ),
]
AgentRef = Annotated[
    str,
    Path(
        pattern=AGENT_PATTERN,
        description="An agent's UUID, or its name.",
        examples=["scorer"],
    ),
]


def services_of(request: Request) -> Services:
    """The services that this app was made with."""
    services: Services = request.app.state.services
    return services


def process_of(request: Request) -> Process:
    """The process that this app speaks for, which may have no services."""
    process: Process = request.app.state.process
    return process
