"""Views and events as the JSON that callers read; what a field means is said at the view."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import msgspec
from starlette.responses import Response

from application.reads import Page, WorkflowView
from application.views import ErrorView, ExecutionView, StepView
from domain.events import Recorded
from domain.mistakes import Mistake
from domain.validation import Verdict
from domain.verbs import COMPLETE, SKIP
from domain.workflow import WorkflowState, version_id

API: Final = "/api/v1"
Body = dict[str, Any]  # what msgspec writes: JSON values, times, ids, dataclasses
_EXECUTION_FIELDS: Final = ExecutionView.__struct_fields__
_STEP_FIELDS: Final = StepView.__struct_fields__


def json_answer(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer; times are written with Z."""
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "private, no-cache"} | dict(headers or {}),
    )


def execution_body(view: ExecutionView) -> Body:
    """The execution, the same object in every answer."""
    body: Body = {name: getattr(view, name) for name in _EXECUTION_FIELDS}
    body["error"] = _error(view.error)
    body["links"] = _links(view)
    return body


def run_body(view: ExecutionView) -> Body:
    """The execution under its older name: `id` is the run's."""
    return execution_body(view) | {"id": view.run_id}


def step_body(view: StepView) -> Body:
    """One try of a step; `id` is that of the try."""
    body: Body = {"id": view.step_execution_id}
    body |= {name: getattr(view, name) for name in _STEP_FIELDS}
    body["error"] = _error(view.error)
    return body


def event_body(recorded: Recorded) -> Body:
    """An event with its envelope. `type` is the topic without family and version."""
    event = recorded.event
    topic = event.data.TOPIC
    data = msgspec.structs.asdict(event.data)
    return {
        "position": recorded.position,
        "version": event.version,
        "stream_id": event.execution_id,
        "topic": topic,
        "type": event_type(topic),
        "recorded_at": event.meta.at,
        "actor": event.meta.actor,
        "command_id": event.meta.cmd,
        "correlation_id": event.meta.corr,
        "causation_id": event.meta.cause,
        "workspace_id": event.meta.ws,
        "reason": data.get("reason"),
        "data": data,
    }


def event_type(topic: str) -> str:
    """`step_completed` for `execution.step_completed.v1`."""
    return topic.split(".")[1]


def page_body(page: Page[Any], items: Iterable[object]) -> Body:
    """A page whose items are presented already."""
    return {
        "items": list(items),
        "total": page.total,
        "page": page.page,
        "page_size": page.page_size,
        "total_pages": page.total_pages,
        "next_cursor": page.next_cursor,
    }


def workflow_view(state: WorkflowState, number: int) -> WorkflowView:
    """One version of a workflow, read from the log."""
    version = state.numbered(number)
    description = version.source.get("description")
    newest = number == len(state.versions)
    return WorkflowView(
        id=str(state.id),
        workflow_id=version_id(state.name, number),
        name=state.name,
        description=description if isinstance(description, str) else None,
        version=number,
        definition_id=str(state.id),
        definition_sha256=version.sha256,
        workflow_data=version.source,
        status=state.status,
        created_at=version.published_at,
        updated_at=state.updated_at if newest else version.published_at,
        created_by=version.published_by,
        updated_by=state.updated_by if newest else version.published_by,
    )


def workflow_body(view: WorkflowView) -> Body:
    """A version of a workflow, for answers that add to it."""
    return {field.name: getattr(view, field.name) for field in fields(view)}


def verdict_body(verdict: Verdict) -> Body:
    """All that is to be said of a definition."""
    return {
        "valid": not verdict.mistakes,
        "errors": remarks(verdict.mistakes),
        "warnings": remarks(verdict.warnings),
        "definition": None if verdict.mistakes else verdict.normalised,
    }


def remarks(mistakes: Iterable[Mistake]) -> list[Body]:
    """Mistakes, or warnings, by the place where they stand."""
    return [
        {"pointer": each.pointer, "code": each.code, "message": each.message} for each in mistakes
    ]


def slice_of(items: Sequence[object], page: int, page_size: int) -> Page[Any]:
    """A page of what is in memory already."""
    start = (page - 1) * page_size
    pages = -(-len(items) // page_size)
    return Page(items[start : start + page_size], len(items), page, page_size, pages, None)


def _error(error: ErrorView | None) -> Body | None:
    if error is None:
        return None
    return {
        "code": error.code,
        "class": error.error_class,
        "message": error.message,
        "path": error.path,
    }


def _links(view: ExecutionView) -> dict[str, str]:
    own = f"{API}/executions/{view.id}"
    links = {
        "self": own,
        "steps": f"{own}/steps",
        "events": f"{own}/events",
        "stream": f"{own}/stream",
        "diagram": f"{own}/diagram",
        "explain": f"{own}/explain",
    }
    for verb in view.allowed_actions:
        links[verb] = f"{own}/steps/{verb}" if verb in (SKIP, COMPLETE) else f"{own}/{verb}"
    return links
