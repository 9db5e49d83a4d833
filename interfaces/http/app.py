"""The HTTP application: every route, refusal and frame, over one set of services."""

from functools import partial
from typing import Final

from fastapi import APIRouter, FastAPI

from interfaces.bootstrap import Process, Services
from interfaces.http import (
    agent_registry,
    agents,
    dead_letters,
    diagrams,
    events,
    execute,
    executions,
    explanations,
    health,
    human_tasks,
    interventions,
    lineage,
    questions,
    runs,
    signals,
    statistics,
    stream,
    tasks,
    workflows,
)
from interfaces.http.docs_page import add_docs
from interfaces.http.errors import add_handlers
from interfaces.http.frame import Frame
from interfaces.http.openapi import describe
from interfaces.http.stream import OpenStreams

_ROUTERS: Final[tuple[APIRouter, ...]] = (
    execute.router,
    executions.router,
    stream.router,
    events.router,
    explanations.router,
    diagrams.router,
    human_tasks.router,
    tasks.router,
    dead_letters.router,
    interventions.router,
    lineage.router,
    questions.router,
    signals.router,
    workflows.router,
    agents.router,
    agent_registry.router,
    statistics.router,
    runs.router,
    health.router,
)


def create_app(services: Services) -> FastAPI:
    """The application; who opened `services` closes them after it."""
    app = _empty_app(services)
    app.state.services = services
    for router in _ROUTERS:
        # Not include_router: an included router is matched twice for each request.
        app.router.routes.extend(router.routes)
    add_docs(app)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def create_health_app(process: Process) -> FastAPI:
    """What a process without a REST interface tells: health, figures, the build."""
    app = _empty_app(process)
    app.router.routes.extend(health.router.routes)
    return app


def _empty_app(process: Process) -> FastAPI:
    app = FastAPI(
        title="Flowledger",
        openapi_url=None if not isinstance(process, Services) else "/openapi.json",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.process = process
    app.state.streams = OpenStreams()
    add_handlers(app)
    app.add_middleware(Frame)
    return app
