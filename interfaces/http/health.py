"""What operators and machines ask: is it alive, is it ready, how is it going, which build is it."""

import platform
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from interfaces.http.body import StrictRoute
from interfaces.http.figures import Figures
from interfaces.http.present import json_answer
from interfaces.http.problems import KINDS
from interfaces.http.serving import process_of
from interfaces.http.shapes import AliveShape, KindShape, ReadyShape, VersionShape

router = APIRouter(tags=["operation"], route_class=StrictRoute)

_NO_STORE: Final = {"Cache-Control": "no-store"}


@router.get("/livez", response_model=AliveShape)
async def get_liveness() -> Response:
    """The process answers; nothing else is looked at."""
    return json_answer({"status": "alive"}, headers=_NO_STORE)


@router.get(
    "/readyz",
    response_model=ReadyShape,
    responses={503: {"model": ReadyShape, "description": "A check failed; `checks` says which."}},
)
async def get_readiness(request: Request) -> Response:
    """The store answers, leases are renewed, the process is not about to stop."""
    checks = await process_of(request).checks()
    ready = all(check.ok for check in checks.values())
    status = 200 if ready else 503
    return json_answer({"ready": ready, "checks": checks}, status=status, headers=_NO_STORE)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(request: Request) -> Response:
    """Figures for Prometheus; those of tables are right whatever the number of processes."""
    registry = CollectorRegistry(auto_describe=False)
    observation = await process_of(request).observe()
    registry.register(Figures(observation, open_streams=request.app.state.streams.count))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers=_NO_STORE)


@router.get("/version", response_model=VersionShape)
async def get_build() -> Response:
    """Which build serves."""
    return json_answer(
        {
            "name": "flowledger",
            "version": version("flowledger"),
            "python": platform.python_version(),
        }
    )


@router.get(
    "/problems/{code}",
    response_model=KindShape,
    responses={404: {"description": "There is no such kind of problem.", "model": KindShape}},
)
async def get_problem_kind(code: str) -> Response:
    """What a kind of problem means and what to do about it; `type` of every problem leads here."""
    kind = KINDS.get(code)
    known = kind or KINDS["not_found"]
    body: dict[str, Any] = {  # texts and a number
        "code": code[:100] if kind else "not_found",
        "title": known.title,
        "status": known.status,
        "advice": known.advice,
    }
    return json_answer(body, status=200 if kind else 404)
