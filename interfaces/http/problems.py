"""Every way a request can be refused: one table from code to status, one body (RFC 9457)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

PROBLEM_TYPE: Final = "application/problem+json"
_MISTAKES_SHOWN: Final = 100


class Kind(NamedTuple):
    """A kind of refusal. `advice` is what the caller can do about it."""

    status: int
    title: str
    advice: str


KINDS: Final[Mapping[str, Kind]] = {
    "invalid_request": Kind(422, "Invalid request", "Correct what `errors` points at."),
    "malformed_body": Kind(422, "Malformed body", "Send one JSON text (RFC 8259) in UTF-8."),
    "malformed_yaml": Kind(422, "Malformed YAML", "Send plain YAML without aliases and tags."),
    "invalid_definition": Kind(
        422, "Invalid definition", "Correct every mistake in `errors`; nothing was stored."
    ),
    "invalid_input": Kind(
        422, "Invalid input", "Send input_data that fits the input_schema of the workflow."
    ),
    "no_encryption_key": Kind(
        422,
        "No encryption key",
        "Write `${secret.NAME}`, or have the server started with FLOWLEDGER_ENCRYPTION_KEY.",
    ),
    "idempotency_key_reused": Kind(
        422, "Idempotency-Key reused", "Use a new key for a new request."
    ),
    "batch_refused": Kind(422, "Batch refused", "Each item says in `items` why it was refused."),
    "bad_cursor": Kind(400, "Bad cursor", "Start again without cursor, with the same filters."),
    "not_found": Kind(404, "Not found", "Check the id; list what there is."),
    "method_not_allowed": Kind(405, "Method not allowed", "Use a method that `Allow` names."),
    "illegal_transition": Kind(
        409, "Illegal in the present state", "Do one of `allowed_actions`, or nothing."
    ),
    "run_illegal": Kind(
        400,
        "Illegal in the present state",
        "The answer of the /runs names; see illegal_transition.",
    ),
    "step_not_reached": Kind(
        409, "Step not reached", "Resume from a step that the execution has reached."
    ),
    "workflow_inactive": Kind(409, "Workflow inactive", "Activate the workflow first."),
    "agent_exists": Kind(
        409, "Agent exists", "Change the agent of this name with PUT, or choose another name."
    ),
    "lease_lost": Kind(
        409,
        "Lease lost",
        "Stop working on the task; ask for the next one with POST /api/v1/tasks/poll.",
    ),
    "task_ended": Kind(409, "Task ended", "Stop working on the task; nobody waits for it."),
    "concurrent_update": Kind(409, "Concurrent update", "Read it again, then repeat."),
    "precondition_failed": Kind(
        412, "Precondition failed", "Read it again; `ETag` is the present version."
    ),
    "too_large": Kind(413, "Too large", "Send less; docs/reference/limits lists the limits."),
    "unsupported_media_type": Kind(
        415,
        "Unsupported media type",
        "Send application/json, or a definition as application/yaml, in UTF-8, not compressed.",
    ),
    "diagram_too_large": Kind(
        422, "Diagram too large", "Ask for format=json and draw a part of it."
    ),
    "too_many_streams": Kind(
        429, "Too many streams", "Close streams, or poll with If-None-Match and Prefer: wait."
    ),
    "too_many_signals": Kind(
        429, "Too many signals", "Wait until its steps have taken some of them."
    ),
    "internal_error": Kind(
        500, "Internal error", "Report the request_id; the log of the server has the cause."
    ),
    "log_damaged": Kind(
        500,
        "Log damaged",
        "Compare the log with a backup; `flowledger projections verify` names what is damaged.",
    ),
    "diagram_not_rendered": Kind(
        503, "Diagram not rendered", "Ask for format=dot or mermaid, or try again."
    ),
    "not_ready": Kind(503, "Not ready", "Repeat after `Retry-After` seconds."),
    "projection_behind": Kind(
        503, "Projection behind", "Repeat after `Retry-After` seconds, or leave min_position out."
    ),
}


class Mistake(NamedTuple):
    """One thing wrong with a request.

    `pointer` is the RFC 6901 pointer of the place: in a body as it was sent, elsewhere with the
    name of the part first (`/query/page`, `/header/If-Match`, `/path/workflow`).
    """

    pointer: str
    code: str
    message: str
    place: str = "body"


class Refused(Exception):
    """A request that the door itself refuses; `code` is one of `KINDS`."""

    def __init__(
        self,
        code: str,
        detail: str,
        mistakes: Sequence[Mistake] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.mistakes = tuple(mistakes)
        self.headers = dict(headers or {})


def refused_part(place: str, name: str, code: str, message: str) -> Refused:
    """A refusal because of one query parameter, header or path part."""
    return Refused(
        "invalid_request",
        f"{place} {name}: {message}",
        [Mistake(f"/{place}/{name}", code, message, place)],
    )


class ProblemError(BaseModel):
    """One mistake."""

    model_config = ConfigDict(populate_by_name=True)

    pointer: str = Field(description="RFC 6901; outside a body it begins with the part's name.")
    message: str
    code: str
    place: str = Field(alias="in", description="body, query, header or path.")


class Problem(BaseModel):
    """RFC 9457 problem details. `detail` is always text; `error`, `status_code`, `timestamp` and
    `path` repeat it for clients of older services."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "/problems/illegal_transition",
                "title": "Illegal in the present state",
                "status": 409,
                "code": "illegal_transition",
                "detail": "A COMPLETED execution cannot be cancelled.",
                "instance": "/api/v1/executions/0198f3d2-8f3e-7c4d-9f0a-6b8f2f0f8a11/cancel",
                "errors": [],
                "request_id": "8b0a3d6f5c6e4a6fb0a1",
                "current_status": "COMPLETED",
                "allowed_actions": [],
                "error": "Illegal in the present state",
                "status_code": 409,
                "timestamp": "2026-11-20T09:30:00.000000Z",
                "path": "/api/v1/executions/0198f3d2-8f3e-7c4d-9f0a-6b8f2f0f8a11/cancel",
            }
        },
    )

    type: str = Field(description="Where the problem is explained; stable.")
    title: str
    status: int
    code: str = Field(description="Stable; programs compare this.")
    detail: str
    instance: str
    errors: list[ProblemError]
    request_id: str
    error: str
    status_code: int
    timestamp: datetime
    path: str


def problem(
    request: Request,
    code: str,
    detail: str,
    *,
    mistakes: Sequence[Mistake] = (),
    headers: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Response:
    """The answer to a refused request."""
    body = problem_body(request, code, detail, mistakes=mistakes, facts=facts)
    return Response(
        msgspec.json.encode(body),
        status_code=KINDS[code].status,
        media_type=PROBLEM_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def problem_body(
    request: Request,
    code: str,
    detail: str,
    *,
    mistakes: Sequence[Mistake] = (),
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The members of a problem; `facts` are those of its kind alone, as msgspec writes them."""
    kind = KINDS[code]
    path = printable(request.scope.get("path", ""))
    return {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "code": code,
        "detail": printable(detail),
        "instance": path,
        "errors": [_entry(mistake) for mistake in mistakes[:_MISTAKES_SHOWN]],
        "request_id": request.scope.get("flowledger.request_id", ""),
        **(facts or {}),
        "error": kind.title,
        "status_code": kind.status,
        "timestamp": datetime.now(UTC),
        "path": path,
    }


def printable(text: str) -> str:
    """Text that UTF-8 can hold: halves of surrogate pairs become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _entry(mistake: Mistake) -> dict[str, str]:
    return {
        "pointer": printable(mistake.pointer),
        "message": printable(mistake.message),
        "code": mistake.code,
        "in": mistake.place,
    }
